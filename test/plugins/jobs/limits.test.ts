import assert from 'node:assert/strict'
import { contribute, createTestRuntime, eventually, fake, FakeClock, type TestRuntime } from '#core/testing'
import { Database } from '#contracts/database'
import { Jobs, JobType, type Job } from '#contracts/jobs'
import { JobQueue, type Deliver } from '#contracts/queue'
import database from '../../../plugins/database/index.ts'
import jobs from '../../../plugins/jobs/index.ts'
import { postgresOrSkip } from '../../support/services.ts'
import { allFinal as done, jobType, openAccess, operator, runtime, unfinished, until, type KitOptions } from './kit.ts'

/** Ends jobs when it is told to, and knows how many of a project or an agent run at once. */
function gauge() {
  const running = new Map<string, number>()
  const most = new Map<string, number>()
  const order: unknown[] = []
  const ends: (() => void)[] = []
  let held = false
  const type = jobType('agent', async ({ job, input }) => {
    const names = [`project:${job.project_id}`, `agent:${job.agent}`]
    order.push(input.n ?? job.project_id)
    for (const name of names) {
      running.set(name, (running.get(name) ?? 0) + 1)
      most.set(name, Math.max(most.get(name) ?? 0, running.get(name)!))
    }
    await (held ? new Promise<void>(resolve => ends.push(resolve)) : new Promise(resolve => setTimeout(resolve, 2)))
    for (const name of names) running.set(name, running.get(name)! - 1)
    return null
  })
  return { type, running, most, order, ends, hold() { held = true }, go() { held = false; for (const end of ends.splice(0)) end() } }
}
type Gauge = ReturnType<typeof gauge>
const start = (it: Gauge, limits: object, { config = {}, ...more }: KitOptions = {}) => runtime({ types: [it.type], config: { sweep_ms: 20, concurrency: 20, limits, ...config }, ...more })
const request = (project_id: string, agent = 'a', more: object = {}) => ({ type: 'agent', agent, project_id, input: { agent, ...more }, ...('priority' in more && { priority: more.priority as number }) })
const submit = (t: TestRuntime, count: number, project: string, agent?: string) => t.get(Jobs).submitMany(operator, Array.from({ length: count }, () => request(project, agent)))

async function fair(url?: string) {
  const it = gauge()
  const limits = { per_project: { concurrency: 3 }, projects: { vip: { concurrency: 6 } }, agents: { slow: { concurrency: 1 } } }
  const place = url === undefined ? {} : { url }
  await using t = await start(it, limits, place)
  for (const [project, agent] of [['p1', 'a'], ['p2', 'b'], ['vip', 'a'], ['p3', 'slow'], ['vip', 'slow']] as const) await submit(t, 20, project, agent)
  const ran = await t.get(Jobs).run(operator, request('p1'))
  assert.equal(ran.status, 'completed')
  await done(t)
  assert.deepEqual(Object.fromEntries(it.most), { 'project:p1': 3, 'project:p2': 3, 'project:vip': 6, 'project:p3': 1, 'agent:a': it.most.get('agent:a'), 'agent:b': 3, 'agent:slow': 1 })
}

describe('jobs: limits', () => {
  it('keep back again what an engine outside the database delivers before it is noted that it was let go', async () => {
    const it = gauge()
    it.hold()
    let deliver: Deliver = async () => assert.fail('nobody takes any')
    let first = async () => {}
    const engine = fake(JobQueue, {
      can: { transactional: false, distributed: true },
      onLoss: () => () => {},
      async enqueue(entries) { await first(); await deliver(entries.map(({ id }) => id)) },
      async consume(taking) { deliver = taking; return { empty: false, want() {}, take: async () => [], async [Symbol.asyncDispose]() {} } },
      async remove() {},
      async depth() { return 0 },
    })
    await using t = await createTestRuntime({
      plugins: [{ plugin: database, config: {} }, { plugin: jobs, config: { sweep_ms: 20, limits: { per_project: { concurrency: 1 } } } }, contribute(JobType, it.type)],
      services: [openAccess(), engine],
    })
    await submit(t, 2, 'p')
    await eventually('the first to run', () => it.ends.length === 1)
    // Another one comes between, and takes the place that the second was let go for.
    first = async () => { first = async () => {}; await submit(t, 1, 'p') }
    it.ends.shift()!()
    await eventually('the other to run', () => it.ends.length === 1)
    it.go()
    await done(t, 5_000)
  })

  it('run no more of a project, or of an agent, at once than may, and all of them in the end', () => fair()).timeout(30_000)

  it('do so on PostgreSQL', async function () {
    const server = await postgresOrSkip(this)
    this.timeout(40_000)
    await using place = await server.newDatabase()
    await fair(place.url)
  })

  it('hold over several workers at every sample', async function () {
    const server = await postgresOrSkip(this)
    this.timeout(40_000)
    await using place = await server.newDatabase()
    const its = [gauge(), gauge(), gauge()]
    const limits = { per_project: { concurrency: 4 } }
    await using one = await start(its[0]!, limits, { url: place.url })
    await using two = await start(its[1]!, limits, { url: place.url })
    await using three = await start(its[2]!, limits, { url: place.url })
    for (const t of [one, two, three]) await submit(t, 60, 'p')
    let [most, samples] = [0, 0]
    while (await unfinished(one)) {
      const row = await one.get(Database).knex()('jobs').where({ status: 'running' }).count({ count: '*' }).first()
      most = Math.max(most, Number(row!.count))
      samples++
    }
    assert.ok(most <= 4 && most >= 2 && samples > 20, `${most} at once, of ${samples} samples`)
    // Each looks for what is left open in the process, and the others are in it.
    await Promise.all([one, two, three].map(each => each.runtime.stop()))
  })

  it('take thousands of jobs of a blocked project once, and let those of others pass', async function () {
    this.timeout(60_000)
    const it = gauge()
    it.hold()
    await using t = await start(it, { projects: { blocked: { concurrency: 1 } } }, { config: { concurrency: 5, sweep_ms: 20, max_batch: 10_000 } })
    await submit(t, 2_000, 'blocked')
    await eventually('the queue to be empty', async () => await t.get(JobQueue).depth() === 0, 30_000)
    assert.equal(it.order.length, 1)
    const knex = t.get(Database).knex()
    assert.equal(Number((await knex('jobs').where({ held: 1 }).count({ count: '*' }).first())!.count), 1_999)
    const from = performance.now()
    await submit(t, 1, 'free')
    await eventually('the other', () => it.order.includes('free'))
    assert.ok(performance.now() - from < 1_000)
    // Some sweeps later nothing was taken again.
    await new Promise(resolve => setTimeout(resolve, 100))
    assert.equal(Number((await knex('jobs').where({ held: 1 }).count({ count: '*' }).first())!.count), 1_999)
    it.ends.shift()!()
    await eventually('the next of them', () => it.order.length === 3)
    await t.get(Jobs).list(operator, { status: 'queued', limit: 1 })
    it.go()
    await knex('jobs').where({ held: 1 }).delete()
  })

  it('let the highest priority go first among those kept back, and the oldest within it', async () => {
    const it = gauge()
    it.hold()
    await using t = await start(it, { per_project: { concurrency: 1 } })
    await t.get(Jobs).submit(operator, request('p', 'a', { n: 'first' }))
    await eventually('the first', () => it.order.length === 1)
    for (const [n, priority] of [['a', 1], ['b', 5], ['c', 9], ['d', 5]] as const) await t.get(Jobs).submit(operator, request('p', 'a', { n, priority }))
    await eventually('all to be kept back', async () => await t.get(JobQueue).depth() === 0)
    for (let ran = 2; ran <= 5; ran++) { it.ends.shift()!(); await eventually('the next', () => it.order.length === ran) }
    assert.deepEqual(it.order, ['first', 'c', 'b', 'd', 'a'])
    it.go()
    await done(t)
  })

  for (const empty of [true, false]) it(`give the place of a job that ends to one that was kept back, ${empty ? 'past the queue, where nobody waits' : 'behind those in the queue'}`, async () => {
    const it = gauge()
    it.hold()
    let deliver: Deliver = async () => assert.fail('nobody takes any')
    const handed: string[] = []
    const engine = fake(JobQueue, {
      can: { transactional: false, distributed: true },
      onLoss: () => () => {},
      async enqueue(entries) { for (const { id } of entries) { handed.push(id); await deliver([id]) } },
      async consume(taking) { deliver = taking; return { empty, want() {}, take: async () => [], async [Symbol.asyncDispose]() {} } },
      async remove() {},
      async depth() { return 0 },
    })
    await using t = await createTestRuntime({
      plugins: [{ plugin: database, config: {} }, { plugin: jobs, config: { limits: { per_project: { concurrency: 1 } } } }, contribute(JobType, it.type)],
      services: [openAccess(), engine],
    })
    await submit(t, 3, 'p')
    for (let ran = 1; ran <= 3; ran++) { await eventually('the next', () => it.order.length === ran && it.ends.length === 1); it.ends.shift()!() }
    await done(t)
    assert.deepEqual([it.most.get('project:p'), handed.length], [1, empty ? 3 : 5])
  })

  it('let those go first who wait in the queue for the place', async () => {
    const it = gauge()
    it.hold()
    await using t = await start(it, { projects: { p: { concurrency: 1 } } }, { config: { concurrency: 3 } })
    const begin = async (project: string, n: string, begun: number) => {
      await t.get(Jobs).submit(operator, request(project, 'a', { n }))
      await eventually(n, () => it.order.length === begun)
    }
    await begin('p', 'p1', 1)
    await begin('q', 'q1', 2)
    await begin('p', 'p2', 2)
    await eventually('it to be kept back', async () => await t.get(JobQueue).depth() === 0)
    await begin('q', 'q2', 3)
    for (const n of ['q3', 'q4']) await begin('q', n, 3)
    for (let begun = 4; begun <= 6; begun++) { it.ends.shift()!(); await eventually('the next', () => it.order.length === begun) }
    assert.deepEqual(it.order, ['p1', 'q1', 'q2', 'q3', 'q4', 'p2'])
    it.go()
    await done(t)
  })

  it('give no place away for long while jobs that another process put into the queue wait for one', async function () {
    this.timeout(60_000)
    const it = gauge()
    const server = await postgresOrSkip(this)
    await using place = await server.newDatabase()
    const limits = { per_project: { concurrency: 2 } }
    await using worker = await start(it, limits, { url: place.url, config: { concurrency: 4 } })
    await using api = await start(it, limits, { url: place.url, config: { concurrency: 0 } })
    // Two projects that fill the worker, and keep it so.
    for (const project of ['p', 'q']) await submit(worker, 500, project)
    await eventually('all but those that run to be kept back', async () => it.order.length > 10 && await worker.get(JobQueue).depth() === 0, 20_000)
    const { id } = await api.get(Jobs).submit(operator, request('other'))
    await until(worker, id, 'completed', 40_000)
    const after = await unfinished(worker)
    assert.ok(after > 200, `it began when ${after} of those that were kept back were left`)
    await done(worker)
    await Promise.all([worker, api].map(each => each.runtime.stop()))
  })

  it('begin no more in a minute than may, and the others when the next one opens', async () => {
    const it = gauge()
    const clock = new FakeClock()
    await clock.advance(60_000 - (clock.now() % 60_000))
    await using t = await start(it, { per_agent: { per_minute: 3 } }, { clock, config: { sweep_ms: 1_000 } })
    const jobs = await submit(t, 8, 'p')
    const over = async () => (await Promise.all(jobs.map(({ id }) => t.get(Jobs).get(operator, id)))).filter(({ status }) => status === 'completed').length
    await eventually('three', async () => await over() === 3)
    await clock.advance(58_000)
    assert.equal(await over(), 3)
    await clock.advance(3_000)
    await eventually('six', async () => await over() === 6)
    await clock.advance(60_000)
    await eventually('all', async () => await over() === 8)
  })

  it('let all go that were kept back, once nobody limits them any more', async () => {
    const { mkdtempSync, rmSync } = await import('node:fs')
    const dataDir = mkdtempSync('/tmp/backplane-limits-')
    const it = gauge()
    try {
      {
        it.hold()
        await using t = await start(it, { per_project: { concurrency: 1 } }, { host: { dataDir } })
        await submit(t, 10, 'p')
        await eventually('all to be kept back', async () => await t.get(JobQueue).depth() === 0)
        it.go()
      }
      await using t = await start(it, {}, { host: { dataDir } })
      await done(t)
    } finally { rmSync(dataDir, { recursive: true }) }
  })
})

describe('jobs: limits hold up nobody', () => {
  const settled = (t: TestRuntime) => eventually('the queue to be empty', async () => await t.get(JobQueue).depth() === 0)
  const held = async (t: TestRuntime) => (await t.get(Database).knex()('jobs').where({ held: 1, status: 'queued' }).orderBy('id')) as { id: string }[]
  const one = (t: TestRuntime, project: string, n: string, agent = 'a') => t.get(Jobs).submit(operator, request(project, agent, { n }))

  it('because of a job that was let go while its type is away', async () => {
    const it = gauge()
    it.hold()
    await using t = await start(it, { per_project: { concurrency: 1 } })
    for (const n of ['first', 'gone', 'next']) await one(t, 'p', n)
    await eventually('two to be kept back', async () => (await held(t)).length === 2)
    const gone = (await held(t))[0]!.id
    await t.get(Database).knex()('jobs').where({ id: gone }).update({ type: 'away', held: 0, handed_at: -1 })
    it.ends.shift()!()
    await eventually('the next', () => it.order.includes('next'))
    it.go()
    await t.get(Jobs).cancel(operator, gone)
    await done(t)
  })

  it('who was kept back: those that came later go behind him, though they are in the queue already', async () => {
    const it = gauge()
    it.hold()
    await using t = await start(it, { projects: { p: { concurrency: 1 } } }, { config: { concurrency: 2 } })
    await one(t, 'p', 'first')
    await eventually('the first', () => it.order.length === 1)
    await one(t, 'p', 'kept back')
    await eventually('one to be kept back', async () => (await held(t)).length === 1)
    await one(t, 'q', 'other')
    await eventually('the other', () => it.order.length === 2)
    for (const n of ['later', 'last']) await one(t, 'p', n)
    assert.equal(await t.get(JobQueue).depth(), 2)
    for (let ran = 3; ran <= 5; ran++) { it.ends.splice(ran === 3 ? 0 : 1, 1)[0]!(); await eventually('the next', () => it.order.length === ran) }
    assert.deepEqual(it.order, ['first', 'other', 'kept back', 'later', 'last'])
    it.go()
    await done(t)
  })

  it('with room that nobody uses, since another limit keeps back whom it was promised to', async () => {
    const it = gauge()
    it.hold()
    await using t = await start(it, { projects: { p: { concurrency: 1 } }, agents: { slow: { concurrency: 1 } } }, { config: { sweep_ms: 3_600_000 } })
    await one(t, 'q', 'slow', 'slow')
    await one(t, 'p', 'first')
    await eventually('both', () => it.order.length === 2)
    for (const n of ['s1', 's2', 's3']) await one(t, 'p', n, 'slow')
    await one(t, 'p', 'next')
    await eventually('all to be kept back', async () => (await held(t)).length === 4)
    it.ends.pop()!()
    await eventually('the next', () => it.order.includes('next'))
    await settled(t)
    it.go()
    await done(t)
  })

  it('behind thousands that are kept back: those leave the line many at once, not one by one', async function () {
    this.timeout(30_000)
    const it = gauge()
    it.hold()
    const line: string[] = []
    let deliver: Deliver | undefined
    const engine = fake(JobQueue, {
      can: { transactional: false, distributed: true },
      onLoss: () => () => {},
      async enqueue(entries) { for (const { id } of entries) if (!line.includes(id)) line.push(id) },
      async consume(taking) { deliver = taking; return { empty: false, want() {}, take: async () => [], async [Symbol.asyncDispose]() {} } },
      async remove(ids) { const gone = new Set(ids); line.splice(0, Infinity, ...line.filter(id => !gone.has(id))) },
      async depth() { return line.length },
    })
    const config = { sweep_ms: 3_600_000, max_batch: 5_000, limits: { projects: { blocked: { concurrency: 1 } } } }
    await using t = await createTestRuntime({
      plugins: [{ plugin: database, config: {} }, { plugin: jobs, config }, contribute(JobType, it.type)], services: [openAccess(), engine],
    })
    await submit(t, 3_000, 'blocked')
    await submit(t, 1, 'free')
    await eventually('all to be in line', async () => line.length === 3_001 && Number((await t.get(Database).knex()('jobs').where({ handed_at: 0 }).count({ count: '*' }).first())!.count) === 0)
    let delivered = 0
    for (; !it.order.includes('free') && line.length; delivered += 10) await deliver!(line.splice(0, 10))
    await eventually('the other', () => it.order.includes('free'))
    assert.ok(delivered < 1_500, `${delivered} were delivered before it`)
    await eventually('all to be kept back', async () => Number((await t.get(Database).knex()('jobs').where({ held: 1 }).count({ count: '*' }).first())!.count) === 2_999)
    await t.get(Database).knex()('jobs').where({ held: 1 }).delete()
    it.go()
    await done(t)
  })

  it('with a minute that was counted by a clock far ahead', async () => {
    const it = gauge()
    await using t = await start(it, { per_project: { per_minute: 5 } })
    await t.get(Database).knex()('job_limits').insert({ scope: 'project:p', minute: Math.floor(Date.now() / 60_000) + 100_000, started: 5 })
    await one(t, 'p', 'a')
    await done(t)
  })
})

describe('jobs: aging', () => {
  it('lets a job that waits long enough go before those that came later with a higher priority', async () => {
    const it = gauge()
    it.hold()
    const clock = new FakeClock()
    await using t = await start(it, {}, { clock, config: { concurrency: 1, aging_ms: 10_000, rehand_ms: 5_000, sweep_ms: 1_000 } })
    await t.get(Jobs).submit(operator, request('p', 'a', { n: 'first' }))
    await eventually('the first', () => it.order.length === 1)
    const low = await t.get(Jobs).submit(operator, request('p', 'a', { n: 'low', priority: 0 })) as Job
    for (let at = 0; at < 12; at++) await clock.advance(10_000)
    await t.get(Jobs).submit(operator, request('p', 'a', { n: 'high', priority: 8 }))
    await eventually('a high place', async () => (await t.get(Database).knex()('queue_entries').where({ id: low.id }).first())?.priority === 9)
    it.ends.shift()!()
    await eventually('the next', () => it.order.length === 2)
    assert.deepEqual(it.order, ['first', 'low'])
    it.go()
    await until(t, low.id, 'completed')
    await done(t)
  })
})
