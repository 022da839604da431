import assert from 'node:assert/strict'
import type { Job } from '#contracts/jobs'
import { eventually } from '#core/testing'
import { workplace } from '../support/cli.ts'
import { postgresOrSkip, type PostgresServer } from '../support/services.ts'

const AHEAD_MS = 30_000
const files = {
  'config/default.yaml': `runtime: { dataDir: data }
log: { format: json }
plugins:
  http: { config: { port: 0 } }
  access-open: {}
  database: { config: { url: "\${env:DATABASE_URL}" } }
  cluster: {}
  events: {}
  health: {}
  jobs: { config: { lease: { ms: 2000, renew_ms: 300 }, sweep_ms: 50 } }
  queue-embedded: {}
  work: { use: ../work }
`,
  'work/package.json': '{ "name": "work", "version": "1.0.0", "type": "module", "main": "index.js" }\n',
  'work/index.js': `import { definePlugin } from 'backplane'
import { JobType } from 'backplane/contracts/jobs'
export default definePlugin({ name: 'work', contributes: [JobType], setup(ctx) {
  const input = { '~standard': { version: 1, vendor: 'test', validate: value => ({ value }) } }
  ctx.contribute(JobType, { type: 'slow', summary: 'Takes its time', input, permission: 'work:do', run: () => new Promise(done => setTimeout(done, 3000, 'done')) })
} })
`,
}
const message = (text: string) => (line: Record<string, any>) => line['msg'] === text

describe('a machine whose clock is fast', function () {
  this.timeout(60_000)
  let server: PostgresServer
  before(async function () { server = await postgresOrSkip(this) })

  it('takes no job from a worker that lives, and says that its clock is wrong', async () => {
    await using database = await server.newDatabase()
    await using place = workplace(files)
    const env = { DATABASE_URL: database.url }
    const start = async (roles: string, more: Record<string, string> = {}) => {
      const run = place.start(['start', '--no-watch', '--roles', roles], { ...env, ...more })
      return { run, url: (await run.line('the start', message('started')))['url'] as string }
    }
    const worker = await start('all')
    const body = JSON.stringify({ type: 'slow', input: null })
    const submitted = await fetch(`${worker.url}/api/v1/jobs`, { method: 'POST', headers: { 'content-type': 'application/json' }, body })
    assert.equal(submitted.status, 202, await submitted.clone().text())
    const { id } = await submitted.json() as Job
    const fast = await start('api', { NODE_OPTIONS: `--import=data:text/javascript,const%20now=Date.now;Date.now=()=>now()+${AHEAD_MS}` })
    const jobOf = async () => (await fetch(`${fast.url}/api/v1/jobs/${id}`)).json() as Promise<Job>
    const job = await eventually('the job to end', async () => { const found = await jobOf(); return found.status === 'completed' && found }, 15_000)
    assert.equal(job.attempt, 1)
    assert.equal(fast.run.lines.some(line => String(line['msg']).includes('was taken back')), false)
    assert.match((await fast.run.line('the warning', line => line['skew_ms'] !== undefined))['msg'] as string, /ahead of that of the database/)
    for (const { run } of [worker, fast]) { run.process.kill('SIGTERM'); assert.equal(await run.ended, 0, run.out + run.err) }
  })
})
