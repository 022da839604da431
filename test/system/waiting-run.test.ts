import assert from 'node:assert/strict'
import { eventually } from '#core/testing'
import type { Job } from '#contracts/jobs'
import { workplace } from '../support/cli.ts'

const files = {
  'config/default.yaml': `runtime: { dataDir: data, graceMs: 6000 }
log: { format: json }
plugins:
  http: { config: { port: 0, streamGraceMs: 0 } }
  access-open: {}
  database: {}
  cluster: {}
  events: {}
  health: {}
  jobs: {}
  queue-embedded: {}
  models: {}
  agents: {}
  work: { use: ../work }
`,
  'work/package.json': '{ "name": "work", "version": "1.0.0", "type": "module", "main": "index.js" }\n',
  'work/index.js': `import { definePlugin } from 'backplane'
import { Agent } from 'backplane/contracts/agents'
export default definePlugin({ name: 'work', contributes: [Agent], setup(ctx) {
  ctx.contribute(Agent, { name: 'slow', summary: 'Takes as long as it is told', run: (_run, input) => new Promise(done => setTimeout(done, Number(input), 'done')) })
} })
`,
}

describe('a run that somebody waits for', function () {
  this.timeout(60_000)

  for (const [what, ms, wanted] of [['is answered by an instance that is told to stop, if it ends in time', 1_000, 200],
    ['is answered 503 with Retry-After otherwise, and goes on where whoever sends it again gets it', 5_000, 503]] as const) {
    it(what, async () => {
      await using place = workplace(files)
      const start = async (roles: string) => {
        const run = place.start(['start', '--no-watch', '--roles', roles])
        return { run, url: await run.started() }
      }
      const [worker, leaving] = [await start('all'), await start('api')]
      const send = async (url: string) => {
        const init = { method: 'POST', headers: { 'content-type': 'application/json', 'idempotency-key': 'once' }, body: JSON.stringify({ input: String(ms) }) }
        const answer = await fetch(`${url}/api/v1/agents/slow/run`, init)
        return { status: answer.status, retry: answer.headers.get('retry-after'), body: await answer.json() as Job & { code?: string } }
      }
      const waited = send(leaving.url)
      const jobs = async () => (await (await fetch(`${worker.url}/api/v1/jobs`)).json() as { items: Job[] }).items
      await eventually('it to run', async () => (await jobs())[0]?.status === 'running', 10_000)
      leaving.run.process.kill('SIGTERM')
      const { status, retry, body } = await waited
      assert.equal(status, wanted, JSON.stringify(body))
      if (status === 503) assert.equal(retry, '1')
      assert.equal(await leaving.run.ended, 0, leaving.run.out)
      const again = await send(worker.url)
      const all = await jobs()
      assert.deepEqual([again.status, again.body.attempt, again.body.id, all.length], [200, 1, all[0]!.id, 1])
      worker.run.process.kill('SIGTERM')
      assert.equal(await worker.run.ended, 0)
    })
  }
})
