import assert from 'node:assert/strict'
import { contribute, createTestRuntime, eventually, type TestRuntime } from '#core/testing'
import { Database } from '#contracts/database'
import { Jobs, JobType, type Job } from '#contracts/jobs'
import { JobQueue } from '#contracts/queue'
import database from '../../../plugins/database/index.ts'
import jobs from '../../../plugins/jobs/index.ts'
import queue from '../../../plugins/queue-bullmq/index.ts'
import redis from '../../../plugins/redis/index.ts'
import { allFinal, jobType, openAccess, operator } from '../jobs/kit.ts'
import { freePort } from '../../support/shared.ts'
import { redisOrSkip, RedisServer } from '../../support/services.ts'

interface Options {
  readonly types: readonly JobType[]; readonly config?: Record<string, unknown>; readonly queueConfig?: Record<string, unknown>
  readonly database?: string; readonly graceMs?: number
}

const open = (url: string, { types, config = {}, queueConfig = {}, database: file, ...options }: Options) => createTestRuntime({
  plugins: [
    { plugin: database, config: file === undefined ? {} : { url: file } }, { plugin: redis, config: { url } }, { plugin: queue, config: queueConfig },
    { plugin: jobs, config: { sweep_ms: 200, ...config } }, contribute(JobType, ...types),
  ],
  services: [openAccess()], ...options,
})
const submit = (t: TestRuntime, count: number, type = 'count') =>
  Promise.all(Array.from({ length: count }, (_, at) => t.get(Jobs).submit(operator, { type, input: at })))
const states = async (t: TestRuntime, submitted: readonly Job[]) => (await Promise.all(submitted.map(({ id }) => t.get(Jobs).get(operator, id)))).map(each => each.status)
async function allDone(t: TestRuntime, submitted: readonly Job[], ms?: number) {
  await allFinal(t, ms)
  assert.deepEqual(new Set(await states(t, submitted)), new Set(['completed']))
}

/** Counts its runs. */
function counting(work: (input: unknown) => Promise<unknown> = async () => {}) {
  const runs: unknown[] = []
  return { runs, type: jobType('count', async ({ input }) => { runs.push(input); await work(input); return null }) }
}

describe('queue-bullmq under jobs', () => {
  before(async function () { await redisOrSkip(this) })
  const own: RedisServer[] = []
  const start = async (options: Parameters<typeof RedisServer.start>[0] = {}) => { const made = await RedisServer.start(options); own.push(made); return made }
  afterEach(async () => { for (const each of own.splice(0)) await each.stop() })

  it('runs each of 300 jobs once', async function () {
    this.timeout(20_000)
    const server = await start()
    const { runs, type } = counting()
    await using t = await open(server.url, { types: [type] })
    await allDone(t, await submit(t, 300), 15_000)
    assert.equal(runs.length, 300)
    await eventually('an empty queue', async () => await t.get(JobQueue).depth() === 0)
  })

  it('never runs more at once than it may', async () => {
    const server = await start()
    let [now, most] = [0, 0]
    const { runs, type } = counting(async () => {
      most = Math.max(most, ++now)
      await new Promise(resolve => setTimeout(resolve, 5))
      now--
    })
    await using t = await open(server.url, { types: [type], config: { concurrency: 3 } })
    await allDone(t, await submit(t, 60), 9_000)
    assert.deepEqual([runs.length, most], [60, 3])
  })

  it('tries a job again that failed, by its own count', async () => {
    const server = await start()
    let failures = 2
    const { runs, type } = counting(async () => { if (failures-- > 0) throw new Error('not now') })
    await using t = await open(server.url, { types: [type], config: { retry: { base_ms: 10 } } })
    const [job] = await submit(t, 1)
    await allDone(t, [job!])
    assert.deepEqual([runs.length, (await t.get(Jobs).get(operator, job!.id)).attempt], [3, 3])
  })

  it('gives a job that was replaced the priority and the place of what is asked for now, and none to one that is for later', async () => {
    const server = await start()
    await using t = await open(server.url, { types: [counting().type], config: { concurrency: 0, sweep_ms: 3_600_000 } })
    const put = (key: string, priority: number, more: object = {}) =>
      t.get(Jobs).submit(operator, { type: 'count', input: key, priority, dedupe: { key, mode: 'replace' }, ...more })
    const settled = async (depth: number) => {
      await eventually('the hand-overs', async () => await t.get(JobQueue).depth() === depth)
      await eventually('the notes', async () => !(await t.get(Database).knex()('jobs').where({ status: 'queued' }).where('handed_at', '<=', 0)).length)
    }
    const names = new Map<string, string>()
    for (const [key, priority] of [['lowered', 9], ['again', 5], ['other', 5], ['raised', 1], ['later', 5]] as const) names.set((await put(key, priority)).id, key)
    await settled(5)
    await put('lowered', 1)
    await put('again', 5)
    await put('raised', 9)
    await put('later', 5, { delay_ms: 3_600_000 })
    await settled(4)
    const got: string[] = []
    await using consumer = await t.get(JobQueue).consume(async ids => { got.push(...ids.map(id => names.get(id)!)) })
    consumer.want(10)
    await eventually('all', () => got.length === 4)
    assert.deepEqual(got, ['raised', 'other', 'again', 'lowered'])
  })

  it('runs a job that is replaced again and again while it is delivered once, at once, as it was asked for last', async function () {
    this.timeout(40_000)
    const server = await start()
    const ran = new Map<string, unknown[]>()
    const type = jobType('count', async ({ job, input }) => { ran.set(job.id, [...ran.get(job.id) ?? [], input]) })
    await using t = await open(server.url, { types: [type], config: { sweep_ms: 1_000 } })
    const made = new Map<string, Job>()
    const put = async (key: string, input: number, more: object) => {
      const job = await t.get(Jobs).submit(operator, { type: 'count', input, priority: input % 10, dedupe: { key, mode: 'replace' }, ...more })
      const before = made.get(job.id)
      if (!before || before.seq < job.seq) made.set(job.id, job)
    }
    for (let round = 0; round < 15; round++) {
      await Promise.all(Array.from({ length: 25 }, (_, at) => put(`k${at % 8}`, round * 25 + at, at % 5 ? {} : { delay_ms: 5 })))
      if (round % 3) await new Promise(resolve => setTimeout(resolve, round % 7))
    }
    const from = performance.now()
    await allDone(t, [...made.values()], 15_000)
    assert.ok(performance.now() - from < 5_000, `${Math.round(performance.now() - from)} ms: something waited to be handed over again`)
    for (const { id, input } of made.values()) assert.deepEqual(ran.get(id), [input])
    await eventually('an empty queue', async () => await t.get(JobQueue).depth() === 0)
    assert.ok(made.size > 8, `${made.size} jobs`)
  })

  it('takes jobs while Redis is away, at once and without an outcry, and runs them within 5 s of it', async function () {
    this.timeout(30_000)
    const port = await freePort()
    const { runs, type } = counting()
    await using t = await open(`redis://:not-a-secret-of-anybody@127.0.0.1:${port}`, { types: [type] })
    const from = performance.now()
    await assert.rejects(t.get(JobQueue).depth(), /not connected yet|ECONNREFUSED/)
    const submitted = await submit(t, 50)
    assert.ok(performance.now() - from < 1_000, 'submitting waited')
    await new Promise(resolve => setTimeout(resolve, 500))
    assert.ok((await states(t, submitted)).every(status => status === 'queued'))
    assert.deepEqual(t.lines.filter(({ level }) => level === 'error'), [])
    await start({ port })
    const there = performance.now()
    await allDone(t, submitted)
    assert.ok(performance.now() - there < 5_000)
    assert.equal(runs.length, 50)
  })

  it('loses no job though Redis is killed and restarted under load', async function () {
    this.timeout(180_000)
    const server = await start()
    const { runs, type } = counting(() => new Promise(resolve => setTimeout(resolve, 2)))
    await using t = await open(server.url, { types: [type], config: { rehand_ms: 1_000 }, queueConfig: { lock_ms: 1_000 } })
    const submitted: Job[] = []
    for (let at = 0; at < 20; at++) {
      submitted.push(...await submit(t, 25))
      if (at === 5 || at === 12) await server.crash()
      if (at === 8 || at === 15) await server.restart()
    }
    await allDone(t, submitted, 25_000)
    assert.deepEqual([submitted.length, runs.length], [500, 500])
  })

  for (const [what, lose] of [
    ['FLUSHALL took away', (server: RedisServer) => server.flushAll()],
    ['was gone after a restart', async (server: RedisServer) => { await server.crash(); await server.restart() }],
  ] as const) it(`hands over again what ${what}, once that is seen, and not once it is missed`, async function () {
    this.timeout(30_000)
    const server = await start({ settings: ['--save', '', '--appendonly', 'no'] })
    let release!: () => void
    const door = new Promise<void>(resolve => { release = resolve })
    const { runs, type } = counting(() => door)
    await using t = await open(server.url, { types: [type], config: { concurrency: 1 }, queueConfig: { unfit: 'warn' } })
    const submitted = await submit(t, 20)
    await eventually('19 in the queue', async () => await t.get(JobQueue).depth() === 19)
    await lose(server)
    release()
    await allDone(t, submitted, 15_000)
    assert.equal(runs.length, 20)
  })

  it('hands back what runs when it stops, and another process goes on at once', async function () {
    this.timeout(20_000)
    const server = await start()
    await using one = await open(server.url, { types: [counting(() => new Promise(() => {})).type], config: { concurrency: 5 }, graceMs: 6_000 })
    const file = `sqlite:${one.dataDir}/backplane.db`
    const submitted = await submit(one, 10)
    await eventually('five to run', async () => (await states(one, submitted)).filter(each => each === 'running').length === 5)
    const { runs, type } = counting()
    await using two = await open(server.url, { types: [type], database: file, config: { concurrency: 0 } })
    await one.runtime.stop()
    await using three = await open(server.url, { types: [type], database: file })
    await allDone(three, submitted)
    assert.equal(runs.length, 10)
    assert.ok((await two.get(Jobs).get(operator, submitted[0]!.id)).attempt <= 1, 'the attempt that was handed back counts')
  })
})
