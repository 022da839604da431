import assert from 'node:assert/strict'
import { join } from 'node:path'
import Sqlite from 'better-sqlite3'
import { eventually } from '#core/testing'
import type { Job } from '#contracts/jobs'
import { workplace, type Run } from '../support/cli.ts'
import { startModelServer, type ServedCall } from '../support/model-server.ts'

const ROUNDS = process.env['BACKPLANE_CHAOS'] ? 100 : 4
const SEED = Number(process.env['BACKPLANE_SEED'] ?? Math.floor(Math.random() * 2 ** 31))
const FINAL = ['completed', 'dead', 'cancelled']
const pause = (ms: number) => new Promise(resolve => setTimeout(resolve, ms))

/** Numbers that a run with the same seed gets again (mulberry32). */
function randoms(seed: number): () => number {
  let at = seed
  return () => {
    at = (at + 0x6d2b79f5) | 0
    let mixed = Math.imul(at ^ (at >>> 15), 1 | at)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

const files = (base: string) => ({
  'config/default.yaml': `
plugins:
  http: { config: { port: 0 } }
  access-open: {}
  database: {}
  cluster: {}
  events: {}
  jobs: { config: { max_attempts: 20, lease: { ms: 3000, renew_ms: 1000 } } }
  queue-embedded: {}
  models: { config: { providers: { local: { type: openai-compatible, base_url: ${base} } }, aliases: { default: local/counted } } }
  agents: { config: { agents: { adder: { summary: Adds, tools: [calculator] } } } }
  agent-pack-core: {}
  health: {}
`,
})
/** `job 17` and whether the model is asked before (`model#1`) or after (`model#2`) the tool. */
const stepOf = ({ body: { messages } }: ServedCall) =>
  `${messages.find((each: { role: string }) => each.role === 'user').content} ${messages.at(-1).role === 'user' ? 'model#1' : 'model#2'}`

describe(`kill -9 of the whole product ${ROUNDS} times while jobs are submitted and run (BACKPLANE_SEED=${SEED})`, function () {
  this.timeout(600_000)

  it('ends every job that it acknowledged, asks the model for no finished step again, and leaves nothing running', async () => {
    const random = randoms(SEED)
    const stored = new Set<string>()
    const repeated: string[] = []
    await using models = await startModelServer(call => {
      const step = stepOf(call)
      if (stored.has(step)) repeated.push(step)
      return step.endsWith('#1') ? { tools: [{ name: 'calculator', arguments: { expressions: ['2+40'] } }], first: random() * 60 } : { text: ['The ', 'sum ', 'is ', '42.'], first: random() * 60, between: random() * 20 }
    })
    await using place = workplace(files(models.base('openai')))
    const acknowledged: string[] = []
    let asked = 0
    const submit = async (url: string) => {
      const input = `job ${asked++}`
      try {
        const answer = await fetch(`${url}/api/v1/jobs`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ agent: 'adder', input }) })
        if (answer.status === 202) acknowledged.push(((await answer.json()) as Job).id)
      } catch { /* it was killed before it answered: nothing was promised */ }
    }
    /** Whatever the dead process has stored may never be asked for again. */
    const look = () => {
      const database = new Sqlite(join(place.folder, 'data/backplane.db'))
      const rows = database.prepare('SELECT j.input, s.name FROM job_steps s JOIN jobs j ON j.id = s.job_id WHERE s.name LIKE \'model%\'').all() as { input: string; name: string }[]
      for (const { input, name } of rows) stored.add(`${(JSON.parse(input) as { input: string }).input} ${name}`)
      assert.equal(database.pragma('integrity_check', { simple: true }), 'ok')
      database.close()
    }
    const begin = async () => {
      const server = place.start(['start', '--no-watch'])
      return { server, url: await server.started() }
    }
    for (let round = 0; round < ROUNDS; round++) {
      const { server, url } = await begin()
      const load = Array.from({ length: 4 }, async () => { for (let n = 0; n < 3; n++) await submit(url) })
      await eventually('jobs to be taken in', () => acknowledged.length >= 2 * round, 10_000, () => acknowledged.length)
      await pause(50 + random() * 400)
      server.process.kill('SIGKILL')
      await Promise.all([server.ended, ...load])
      look()
    }
    const started = Date.now()
    const { server, url } = await begin()
    const get = async (id: string) => (await fetch(`${url}/api/v1/jobs/${id}`)).json() as Promise<Job>
    // At the latest when the leases of the dead are over: whatever runs then was begun by the living.
    await eventually('nothing to be left running by a dead process', async () => (await running(url)).every(each => Date.parse(each.attempts.at(-1)!.started_at) >= started), 10_000)
    const jobs = await eventually('every acknowledged job to end', async () => {
      const all = await Promise.all(acknowledged.map(get))
      return all.every(each => FINAL.includes(each.status)) && all
    }, 60_000)
    assert.ok(acknowledged.length >= 2 * (ROUNDS - 1), `only ${acknowledged.length} were submitted`)
    assert.deepEqual(jobs.filter(each => each.status !== 'completed').map(each => [each.id, each.status, each.error]), [])
    assert.deepEqual(new Set(jobs.map(each => (each.result as { text: string }).text)), new Set(['The sum is 42.']))
    assert.deepEqual(repeated, [], 'steps that were stored were asked for again')
    await stop(server)
    if (process.env['BACKPLANE_CHAOS']) console.log(`      ${ROUNDS} kills, ${acknowledged.length} jobs, ${models.calls.length} model calls for ${stored.size} stored steps`)
  })
})

async function running(url: string): Promise<{ attempts: { started_at: string }[] }[]> {
  const { items } = await (await fetch(`${url}/api/v1/jobs?status=running&limit=100`)).json() as { items: Job[] }
  return Promise.all(items.map(async ({ id }) => (await fetch(`${url}/api/v1/jobs/${id}`)).json() as Promise<{ attempts: { started_at: string }[] }>))
}

async function stop(server: Run): Promise<void> {
  server.process.kill('SIGTERM')
  assert.equal(await server.ended, 0)
}
