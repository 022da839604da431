import assert from 'node:assert/strict'
import { AsyncResource } from 'node:async_hooks'
import { defineErrors, SystemClock } from '#core'
import { eventually, fake, type TestRuntime } from '#core/testing'
import { Database } from '#contracts/database'
import { EventLog } from '#contracts/events'
import { Jobs } from '#contracts/jobs'
import { JobQueue } from '#contracts/queue'
import cluster from '../../../plugins/cluster/index.ts'
import { postgresOrSkip, PostgresServer, type TestDatabase } from '../../support/services.ts'
import { JobStore } from '../../../plugins/jobs/tables/store.ts'
import { gate, jobType, openAccess, operator, runtime, until } from './kit.ts'

describe('jobs through an outage of PostgreSQL', () => {
  it('that is longer than a lease go on in the same attempt', async function () {
    this.timeout(30_000)
    const server = await postgresOrSkip(this, () => PostgresServer.start())
    await using _stopped = { [Symbol.asyncDispose]: () => server.stop() }
    await using place = await server.newDatabase()
    const { open, closed } = gate()
    const held = jobType('held', async () => { await closed; return 'kept' })
    const config = { lease: { ms: 1_000, renew_ms: 200 }, sweep_ms: 100 }
    await using one = await runtime({ url: place.url, types: [held], config })
    await using two = await runtime({ url: place.url, types: [held], config: { ...config, concurrency: 0 } })
    const { id } = await one.get(Jobs).submit(operator, { type: 'held', input: null })
    await until(one, id, 'running')
    await server.crash()
    // The lease is over, and a while more.
    await new Promise(resolve => setTimeout(resolve, 2_000))
    await server.restart()
    await eventually('the lease to be renewed', async () => (await server.query(`SELECT 1 FROM jobs WHERE id = '${id}' AND lease_until > ${Date.now()}`, place.name)).length > 0)
    open()
    assert.deepEqual([(await until(two, id, 'completed')).attempt, (await one.get(Jobs).get(operator, id)).result], [1, 'kept'])
    // Each looks for what is left open in the process, and the other one is in it.
    await Promise.all([one, two].map(each => each.runtime.stop()))
  })
})

describe('jobs on PostgreSQL', () => {
  let server: PostgresServer
  before(async function () { server = await postgresOrSkip(this) })

  const double = jobType('double', async ({ input }) => input * 2)
  const failures = (t: TestRuntime) => t.lines.filter(line => line.level === 'warn' || line.level === 'error').map(line => line.message)

  /** Not in the transaction that is open here. */
  const outside = new AsyncResource('Outside')

  /** Changes the job as another process does, and holds on to it until `work` waits for it. */
  async function overtake(t: TestRuntime, place: TestDatabase, id: string, work: () => Promise<unknown>) {
    let working: Promise<unknown> | undefined
    await t.get(Database).transaction(async tx => {
      const knex = t.get(Database).knex(tx)
      await knex('jobs').where({ id }).update({ status: 'cancelled', finished_at: Date.now(), seq: knex.raw('seq + 1') })
      working = work()
      await eventually('somebody to wait for the row', async () =>
        (await server.query(`SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = '${place.name}'`)).length > 0)
    })
    await working
  }

  it('runs what was submitted, keeps the result, and knows a request again', async () => {
    await using place = await server.newDatabase()
    await using t = await runtime({ url: place.url, types: [double] })
    const month = 2_592_000_000
    const ask = () => t.get(Jobs).submit(operator, { type: 'double', input: 21, idempotency_key: 'k', timeout_ms: month })
    const ids = new Set((await Promise.all(Array.from({ length: 20 }, ask))).map(job => job.id))
    assert.equal(ids.size, 1)
    assert.equal((await until(t, [...ids][0]!, 'completed')).result, 42)
    await assert.rejects(t.get(Jobs).submit(operator, { type: 'double', input: 1, idempotency_key: 'k' }), { code: 'JOBS_KEY_REUSED' })
  })

  it('runs one suspect at a time, though another could begin with the end of a job before the claim of the first is kept', async () => {
    await using place = await server.newDatabase()
    let [now, most, ran] = [0, 0, 0]
    const [first, claim] = [gate(), gate()]
    let claimed = ''
    const type = jobType('some', async ({ input }) => {
      if (input === 'first') return first.closed
      most = Math.max(most, ++now)
      await new Promise(resolve => setTimeout(resolve, 50))
      now--
      ran++
    })
    const log = fake(EventLog, {
      append: async (_tx, events) => {
        if (claimed || !events.some(each => each.type === 'job.started' && ids.includes(each.job_id!))) return
        claimed = events[0]!.job_id!
        await claim.closed
      },
    })
    let ids: string[] = []
    await using t = await runtime({ url: place.url, types: [type], config: { concurrency: 2, sweep_ms: 30 }, services: [openAccess(), log] })
    const one = await t.get(Jobs).submit(operator, { type: 'some', input: 'first' })
    await until(t, one.id, 'running')
    const later = await t.get(Jobs).submitMany(operator, [1, 2].map(input => ({ type: 'some', input, delay_ms: 60_000 })))
    ids = later.map(job => job.id)
    const interrupted = JSON.stringify({ code: 'JOBS_INTERRUPTED', message: 'x', fix: 'y', retryable: true })
    await t.get(Database).knex()('jobs').whereIn('id', ids).update({ status: 'queued', attempt: 2, max_attempts: 3, error: interrupted, run_at: 0, handed_at: Date.now() })
    await outside.runInAsyncScope(() => t.get(JobQueue).enqueue(ids.map(id => ({ id, priority: 5 }))))
    await eventually('the claim of one', () => claimed !== '')
    first.open()
    await until(t, one.id, 'completed')
    claim.open()
    await eventually('both', () => ran === 2)
    assert.equal(most, 1)
  })

  it('claims the rest of a batch of which somebody else took one', async () => {
    await using place = await server.newDatabase()
    await using t = await runtime({ url: place.url, types: [double] })
    const ids: string[] = []
    for (const input of [1, 2, 3]) ids.push((await t.get(Jobs).run(operator, { type: 'double', input })).id)
    await t.get(Database).knex()('jobs').update({ status: 'queued', finished_at: null, result: null, handed_at: Date.now() })
    await overtake(t, place, ids[1]!, () => outside.runInAsyncScope(() => t.get(JobQueue).enqueue(ids.map(id => ({ id, priority: 5 })))))
    for (const at of [0, 2]) assert.equal((await until(t, ids[at]!, 'completed')).attempt, 2)
    assert.equal((await t.get(Jobs).get(operator, ids[1]!)).status, 'cancelled')
    assert.deepEqual(failures(t), [])
  })

  it('replays dead jobs by what they died of, though somebody else was quicker with one', async () => {
    await using place = await server.newDatabase()
    await using t = await runtime({ url: place.url, types: [double], config: { concurrency: 0 } })
    const jobs = await t.get(Jobs).submitMany(operator, [1, 2, 3, 4].map(input => ({ type: 'double', input })))
    const ids = jobs.map(job => job.id)
    const died = (code: string) => ({ status: 'dead', attempt: 3, finished_at: Date.now(), error: JSON.stringify({ code, message: 'x', retryable: true }) })
    await t.get(Database).knex()('jobs').update(died('MODELS_TIMEOUT'))
    await t.get(Database).knex()('jobs').where({ id: ids[3] }).update(died('OTHER'))
    assert.deepEqual((await t.get(Jobs).list(operator, { status: 'dead', code: 'OTHER' })).items.map(job => job.id), [ids[3]])
    let replayed = 0
    await overtake(t, place, ids[1]!, () => outside.runInAsyncScope(async () => { replayed = await t.get(Jobs).replay(operator, { code: 'MODELS_TIMEOUT' }) }))
    assert.equal(replayed, 2)
    assert.deepEqual(await Promise.all(ids.map(async id => (await t.get(Jobs).get(operator, id)).status)), ['queued', 'cancelled', 'queued', 'dead'])
    assert.deepEqual(failures(t), [])
  })

  it('cancels what another process runs, long before that renews its lease', async () => {
    await using place = await server.newDatabase()
    let signal: AbortSignal | undefined
    const hanging = jobType('hanging', ctx => { signal = ctx.signal; return new Promise(() => {}) })
    const config = { lease: { ms: 120_000, renew_ms: 60_000 } }
    const process = (name: string, concurrency: number) =>
      runtime({ url: place.url, types: [hanging], plugins: [cluster], config: { ...config, concurrency }, host: { instanceId: name } })
    await using worker = await process('worker', 1)
    await using front = await process('front', 0)
    const { id } = await front.get(Jobs).submit(operator, { type: 'hanging', input: 1 })
    await until(front, id, 'running')
    await eventually('it to run', () => signal !== undefined)
    assert.equal((await front.get(Jobs).cancel(operator, id)).status, 'cancelled')
    await eventually('the signal', () => signal!.aborted, 1_000)
    assert.equal((signal!.reason as { code: string }).code, 'JOBS_CANCELLED')
    assert.deepEqual([...failures(worker), ...failures(front)], [])
  })

  it('wakes the rest of those whose time has come when somebody else was quicker with one', async () => {
    await using place = await server.newDatabase()
    const clock = new SystemClock()
    let ahead = 0
    clock.now = () => Date.now() + ahead
    await using t = await runtime({ url: place.url, types: [double], config: { concurrency: 0, sweep_ms: 30 }, clock })
    const ids: string[] = []
    for (const input of [1, 2, 3]) ids.push((await t.get(Jobs).submit(operator, { type: 'double', input })).id)
    await t.get(Database).knex()('jobs').update({ status: 'failed', attempt: 1, run_at: Date.now() + 3_600_000 })
    await overtake(t, place, ids[1]!, async () => { ahead = 7_200_000 })
    for (const at of [0, 2]) await until(t, ids[at]!, 'queued')
    assert.deepEqual(failures(t), [])
  })

  it('writes the end of a job whose error tells what PostgreSQL can\'t read', async () => {
    await using place = await server.newDatabase()
    const Errors = defineErrors('ODD', { INPUT: { message: 'not understood: {text}', fix: 'Say it otherwise.', status: 400, expose: true } })
    await using t = await runtime({ url: place.url, types: [jobType('odd', async () => { throw Errors.INPUT({ text: `a\u0000b\ud83d${'😀'.repeat(2_000)}` }) })] })
    const { id } = await t.get(Jobs).submit(operator, { type: 'odd', input: 1 })
    const { error, attempt } = await until(t, id, 'dead')
    assert.deepEqual([error!.code, error!.message.slice(0, 22), attempt], ['ODD_INPUT', 'not understood: a\ufffdb\ufffd😀', 1])
  })

  it('cancels while a worker takes the job, and neither waits for the other', async () => {
    await using place = await server.newDatabase()
    await using t = await runtime({ url: place.url, types: [double], config: { concurrency: 0 } })
    const { id } = await t.get(Jobs).submit(operator, { type: 'double', input: 1 })
    const [database, knex] = [t.get(Database), t.get(Database).knex()]
    let cancelling: Promise<unknown> | undefined
    await database.transaction(async tx => {
      await database.knex(tx)('queue_entries').where({ id }).delete()
      cancelling = outside.runInAsyncScope(() => t.get(Jobs).cancel(operator, id))
      await eventually('it to wait', async () =>
        (await server.query(`SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = '${place.name}'`)).length > 0)
      await database.knex(tx).raw('SELECT id FROM jobs WHERE id = ? FOR UPDATE NOWAIT', [id])
    })
    await cancelling
    assert.equal((await knex('jobs').where({ id }).first('status')).status, 'cancelled')
  })

  it('takes no job back while a step of it is being written: the next attempt would do it again, and find it there', async () => {
    await using place = await server.newDatabase()
    await using t = await runtime({ url: place.url, types: [jobType('hanging', () => new Promise(() => {}))] })
    const { id } = await t.get(Jobs).submit(operator, { type: 'hanging', input: 1 })
    await until(t, id, 'running')
    const database = t.get(Database)
    const { token, lease_owner } = await database.knex()('jobs').where({ id }).first()
    const store = new JobStore({ database, queue: t.get(JobQueue), clock: new SystemClock(), events: () => undefined })
    let cancelling: Promise<unknown> | undefined
    await database.transaction(async tx => {
      await store.saveStep({ id, token, owner: lease_owner }, 'children#1', '[]', Date.now(), tx)
      cancelling = outside.runInAsyncScope(() => t.get(Jobs).cancel(operator, id))
      await eventually('it to wait', async () =>
        (await server.query(`SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = '${place.name}'`)).length > 0)
    })
    await cancelling
    await assert.rejects(store.saveStep({ id, token, owner: lease_owner }, 'children#2', '[]', Date.now()), { code: 'JOBS_LEASE_LOST' })
  })
  it('keeps nothing of a change of a row that was not as it was read, though the rest was sent before the answer', async () => {
    await using place = await server.newDatabase()
    await using t = await runtime({ url: place.url, types: [double], config: { concurrency: 0 } })
    const [database, jobs] = [t.get(Database), t.get(Jobs)]
    const { id } = await jobs.submit(operator, { type: 'double', input: 1 })
    const other = await jobs.submit(operator, { type: 'double', input: 2 })
    const store = new JobStore({ database, queue: t.get(JobQueue), clock: new SystemClock(), events: () => undefined })
    const lease = { lease_owner: 'somebody', lease_until: Date.now() + 60_000 }
    await assert.rejects(database.transaction(async tx => {
      const [row, late] = [await store.read(other.id, tx), await store.read(id, tx)]
      await store.changeAll([{ row: row!, event: 'claim', changes: lease }, { row: { ...late!, seq: late!.seq - 1 }, event: 'claim', changes: lease }], tx)
    }), { code: 'JOBS_LEASE_LOST' })
    const knex = database.knex()
    assert.deepEqual([await knex('jobs').whereNot({ status: 'queued' }), await knex('job_attempts')], [[], []])
  })
})
