import assert from 'node:assert/strict'
import type { Job } from '#contracts/jobs'
import { eventually } from '#core/testing'
import { workplace } from '../support/cli.ts'
import { postgresOrSkip, type PostgresServer } from '../support/services.ts'

const AHEAD_MS = 90_000
const FAST = { NODE_OPTIONS: `--import=data:text/javascript,const%20now=Date.now;Date.now=()=>now()+${AHEAD_MS}` }
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
  schedules: {}
  work: { use: ../work }
`,
  'work/package.json': '{ "name": "work", "version": "1.0.0", "type": "module", "main": "index.js" }\n',
  'work/index.js': `import { definePlugin } from 'backplane'
import { JobType } from 'backplane/contracts/jobs'
export default definePlugin({ name: 'work', contributes: [JobType], setup(ctx) {
  const input = { '~standard': { version: 1, vendor: 'test', validate: value => ({ value }) } }
  ctx.contribute(JobType, { type: 'slow', summary: 'Takes its time', input, permission: 'work:do', run: () => new Promise(done => setTimeout(done, 3000, 'done')) })
  ctx.contribute(JobType, { type: 'quick', summary: 'Takes none', input, permission: 'work:do', run: async () => 'done' })
} })
`,
}

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
      return { run, url: await run.started() }
    }
    const worker = await start('all')
    const body = JSON.stringify({ type: 'slow', input: null })
    const submitted = await fetch(`${worker.url}/api/v1/jobs`, { method: 'POST', headers: { 'content-type': 'application/json' }, body })
    assert.equal(submitted.status, 202, await submitted.clone().text())
    const { id } = await submitted.json() as Job
    const fast = await start('api', FAST)
    const jobOf = async () => (await fetch(`${fast.url}/api/v1/jobs/${id}`)).json() as Promise<Job>
    const job = await eventually('the job to end', async () => { const found = await jobOf(); return found.status === 'completed' && found }, 15_000)
    assert.equal(job.attempt, 1)
    assert.equal(fast.run.lines.some(line => String(line['msg']).includes('was taken back')), false)
    assert.match((await fast.run.line('the warning', line => line['skew_ms'] !== undefined))['msg'] as string, /ahead of that of the database/)
    for (const { run } of [worker, fast]) { run.process.kill('SIGTERM'); assert.equal(await run.ended, 0, run.out + run.err) }
  })

  it('fires schedules neither early nor a day late, and dates what happens as all others do', async () => {
    await using database = await server.newDatabase()
    await using place = workplace(files)
    const start = async (roles: string, more: Record<string, string> = {}) => {
      const run = place.start(['start', '--no-watch', '--roles', roles], { DATABASE_URL: database.url, ...more })
      return { run, url: await run.started() }
    }
    const [right, fast] = [await start('api'), await start('all', FAST)]
    const headers = { 'content-type': 'application/json' }
    const get = async (url: string, path: string) => (await fetch(`${url}/api/v1/${path}`)).json() as Promise<any>
    /** A schedule for a few seconds from now, made there; and the job that comes of it. */
    const firing = async (name: string, { url }: { readonly url: string }) => {
      const at = Math.ceil(Date.now() / 1_000) * 1_000 + 4_000
      const time = new Date(at)
      const body = JSON.stringify({ cron: `${time.getUTCSeconds()} ${time.getUTCMinutes()} ${time.getUTCHours()} * * *`, type: 'quick', input: null })
      const made = await (await fetch(`${url}/api/v1/schedules/${name}`, { method: 'PUT', headers, body })).json() as { next_at: string; created_at: string }
      assert.equal(made.next_at, time.toISOString())
      const id = await eventually('the firing', async () => ((await get(right.url, `schedules/${name}`)).last_job_id ?? undefined) as string | undefined, 15_000)
      assert.ok(Date.now() > at - 100, `${at - Date.now()} ms early`)
      const job = await eventually('its end', async () => { const found = await get(right.url, `jobs/${id}`); return found.status === 'completed' && found })
      const happened = job.events.map((each: { at: string }) => each.at) as string[]
      const times = [made.created_at, job.created_at, job.started_at, job.finished_at, ...happened].map(Date.parse)
      assert.ok(times.every(each => Math.abs(each - at) < 15_000), JSON.stringify(times.map(each => each - at)))
      assert.ok(happened.length >= 3)
    }
    await firing('made-here', right)
    await firing('made-there', fast)
    const answer = await fetch(`${right.url}/api/v1/jobs`, { method: 'POST', headers, body: JSON.stringify({ type: 'quick', input: null, delay_ms: 2_000 }) })
    const { id, run_at } = await answer.json() as Job
    const job = await eventually('the delayed job', async () => { const found = await get(fast.url, `jobs/${id}`); return found.status === 'completed' && found as Job }, 15_000)
    assert.ok(Date.parse(job.started_at!) >= Date.parse(run_at) && Date.now() >= Date.parse(run_at) - 100)
    for (const { run } of [right, fast]) { run.process.kill('SIGTERM'); assert.equal(await run.ended, 0, run.out + run.err) }
  })
})
