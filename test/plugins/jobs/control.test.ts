import assert from 'node:assert/strict'
import { definePlugin, SystemClock } from '#core'
import { eventually, fake, FakeClock, type TestRuntime } from '#core/testing'
import { AccessErrors, type Caller } from '#contracts/access'
import { Broadcast } from '#contracts/cluster'
import { Database } from '#contracts/database'
import { EventLog, type NewEvent } from '#contracts/events'
import { Jobs, JobSettling, type Job, type JobContext } from '#contracts/jobs'
import { ModelErrors } from '#contracts/models'
import { JobQueue } from '#contracts/queue'
import { pauseAfter } from '../../../plugins/jobs/work/failure.ts'
import type { JobService } from '../../../plugins/jobs/intake/jobs.ts'
import { jobType, openAccess, operator, runtime, until } from './kit.ts'

const quick = { lease: { ms: 200, renew_ms: 40 }, sweep_ms: 30, retry: { base_ms: 10, max_ms: 40 } }
const double = jobType('double', async ({ input }) => input * 2)
const hanging = (begun: (ctx: JobContext) => void = () => {}) => jobType('hanging', ctx => { begun(ctx); return new Promise(() => {}) })
/** Fails until `mended`. */
function failing() {
  const state = { mended: false, runs: 0 }
  const type = jobType('failing', async ({ step }) => {
    await step('once', async () => { state.runs++ })
    if (!state.mended) throw Object.assign(new Error('no'), { retryable: false })
    return 'mended'
  })
  return { state, type }
}
const log = () => {
  const events: NewEvent[] = []
  const service = fake(EventLog, {
    append: async (_tx, list) => { events.push(...list) },
    read: async (_topic, after, limit = 100) => ({
      events: events.filter(each => each.seq! > after).slice(0, limit).map((each, at) => ({ ...each, position: at, at: 0 })), next: 0, gap: false,
    }),
  })
  return { events, service, of: (id: string) => events.filter(each => each.job_id === id).map(each => [each.seq, each.type]) }
}
const rows = (t: TestRuntime, table: string, where: object) => t.get(Database).knex()(table).where(where)
const submit = (t: TestRuntime, type: string, more: object = {}) => t.get(Jobs).submit(operator, { type, input: 1, ...more })

describe('delays', () => {
  it('end at the very moment, not with the next sweep', async () => {
    const clock = new FakeClock()
    await using t = await runtime({ types: [double], clock, config: { sweep_ms: 60_000, lease: { ms: 86_400_000, renew_ms: 43_000_000 } } })
    const moment = new Date(clock.now() + 90_000).toISOString()
    const jobs = [await submit(t, 'double', { delay_ms: 7_000 }), await submit(t, 'double', { run_at: moment })]
    assert.deepEqual(jobs.map(job => [job.status, Date.parse(job.run_at) - clock.now()]), [['delayed', 7_000], ['delayed', 90_000]])
    assert.equal(await t.get(JobQueue).depth(), 0)
    await clock.advance(6_999)
    assert.equal((await t.get(Jobs).get(operator, jobs[0]!.id)).status, 'delayed')
    await clock.advance(1)
    await eventually('the first', async () => { await clock.advance(0); return (await t.get(Jobs).get(operator, jobs[0]!.id)).status === 'completed' })
    await clock.advance(82_999)
    assert.equal((await t.get(Jobs).get(operator, jobs[1]!.id)).status, 'delayed')
    await clock.advance(1)
    await eventually('the second', async () => { await clock.advance(0); return (await t.get(Jobs).get(operator, jobs[1]!.id)).status === 'completed' })
  })

  it('that are over already are none, and those that make no sense are refused by name', async () => {
    await using t = await runtime({ types: [double], config: { concurrency: 0 } })
    assert.equal((await submit(t, 'double', { run_at: '2001-01-01T00:00:00Z' })).status, 'queued')
    assert.equal((await submit(t, 'double', { delay_ms: 0 })).status, 'queued')
    const wrong = [
      ['delay_ms', { delay_ms: -1 }], ['delay_ms', { delay_ms: 1.5 }], ['run_at', { run_at: 'tomorrow' }], ['run_at', { run_at: '2999-01-01T00:00:00Z' }],
      ['run_at', { delay_ms: 1, run_at: '2030-01-01T00:00:00Z' }], ['backoff.base_ms', { backoff: { base_ms: 0 } }], ['backoff.max_ms', { backoff: { max_ms: 1e12 } }],
    ] as const
    for (const [path, more] of wrong) {
      await assert.rejects(submit(t, 'double', more), (error: any) => error.code === 'JOBS_INPUT_INVALID' && error.details.errors[0].path === path, path)
    }
  })

  it('are part of what an idempotency key stands for', async () => {
    await using t = await runtime({ types: [double], config: { concurrency: 0 } })
    const first = await submit(t, 'double', { idempotency_key: 'k', delay_ms: 60_000 })
    assert.equal((await submit(t, 'double', { idempotency_key: 'k', delay_ms: 60_000 })).id, first.id)
    await assert.rejects(submit(t, 'double', { idempotency_key: 'k' }), { code: 'JOBS_KEY_REUSED' })
  })
})

describe('the pause after a failure', () => {
  it('is the job\'s own, and no shorter than the failure asks for, up to an hour', () => {
    const retry = { base_ms: 1_000, max_ms: 60_000 }
    const pause = (backoff: object | null, attempt = 1, retry_after?: unknown) =>
      pauseAfter(ModelErrors.RATE_LIMITED({ model: 'm', provider: 'p', retry_after } as never), { attempt, backoff: backoff && JSON.stringify(backoff) }, retry, () => 0.5)
    assert.deepEqual([pause(null), pause({ base_ms: 50 }), pause({ base_ms: 50 }, 3), pause({ base_ms: 50, max_ms: 80 }, 3)], [1_000, 50, 200, 80])
    assert.deepEqual([pause(null, 1, 7), pause(null, 9, 7), pause(null, 1, 90_000), pause(null, 1, 'soon'), pause(null, 1, -5)], [7_000, 60_000, 3_600_000, 1_000, 1_000])
  })

  it('is kept between the attempts', async () => {
    const limited = jobType('limited', async () => { throw ModelErrors.RATE_LIMITED({ model: 'm', provider: 'p', retry_after: 30 } as never) })
    await using t = await runtime({ types: [limited], config: quick })
    const before = Date.now()
    const job = await until(t, (await submit(t, 'limited', { backoff: { base_ms: 1 } })).id, 'failed')
    const waits = Date.parse(job.run_at) - before
    assert.ok(waits >= 30_000 && waits < 35_000, String(waits))
  })
})

describe('cancel', () => {
  it('ends a job that waits, and takes it off the queue', async () => {
    const { service, of } = log()
    await using t = await runtime({ types: [double], config: { concurrency: 0 }, services: [openAccess(), service] })
    for (const more of [{}, { delay_ms: 60_000 }]) {
      const { id } = await submit(t, 'double', more)
      const job = await t.get(Jobs).cancel(operator, id)
      assert.deepEqual([job.status, job.error!.code, job.attempt, job.finished_at !== null], ['cancelled', 'JOBS_CANCELLED', 0, true])
      assert.deepEqual(of(id), [[1, 'job.created'], [2, 'job.cancelled']])
      assert.deepEqual(await t.get(Jobs).cancel(operator, id), job, 'once more')
      assert.equal(of(id).length, 2)
    }
    assert.equal(await t.get(JobQueue).depth(), 0)
  })

  it('stops what runs at once, and drops what it still says', async () => {
    const seen: unknown[] = []
    const stubborn = jobType('stubborn', async ({ signal, step }) => {
      seen.push('runs')
      await new Promise<void>(resolve => signal.addEventListener('abort', () => { seen.push(signal.reason.code); resolve() }))
      seen.push(await step('late', async () => 1).catch(error => error.code))
      return 'a result'
    })
    const settled: string[] = []
    const costs = definePlugin({ name: 'costs', guards: [JobSettling], setup: ctx => { ctx.hook(JobSettling, ({ job }) => { settled.push(job.status) }) } })
    await using t = await runtime({ types: [stubborn], plugins: [costs] })
    const { id } = await submit(t, 'stubborn')
    await eventually('it to run', () => seen.length === 1)
    const job = await t.get(Jobs).cancel(operator, id)
    assert.equal(job.status, 'cancelled')
    await eventually('it to hear', () => seen.length === 3)
    assert.deepEqual(seen, ['runs', 'JOBS_CANCELLED', 'JOBS_CANCELLED'])
    const now = await (t.get(Jobs) as unknown as JobService).detail(operator, id)
    assert.deepEqual([now.status, now.result, now.seq, now.attempts.map(each => each.outcome), now.steps], ['cancelled', null, 3, ['cancelled'], []])
    assert.deepEqual(settled, ['cancelled'])
    assert.deepEqual(t.lines.filter(line => line.level === 'warn' || line.level === 'error'), [])
  })

  it('lets run() resolve with the cancelled job', async () => {
    let id = ''
    await using t = await runtime({ types: [hanging(ctx => { id = ctx.job.id })] })
    const running = t.get(Jobs).run(operator, { type: 'hanging', input: 1 })
    await eventually('it to run', () => id !== '')
    await t.get(Jobs).cancel(operator, id)
    assert.equal((await running).status, 'cancelled')
  })

  it('reaches the process that runs the job by a broadcast, and stops that attempt alone', async () => {
    let tell: (message: unknown) => void = () => {}
    const told: unknown[] = []
    const broadcast = fake(Broadcast, {
      publish: async (_channel, message) => { told.push(message) },
      subscribe: async (_channel, handle) => { tell = handle; return { [Symbol.asyncDispose]: async () => {} } },
    })
    let begun: JobContext | undefined
    await using t = await runtime({ types: [hanging(ctx => { begun = ctx })], config: quick, services: [openAccess(), broadcast], graceMs: 400 })
    const { id } = await submit(t, 'hanging')
    await eventually('it to run', () => begun !== undefined)
    for (const message of [null, 7, {}, { id, token: 2 }, { id: 'other', token: 1 }, { id }]) tell(message)
    assert.equal(begun!.signal.aborted, false)
    // As another process does.
    await rows(t, 'jobs', { id }).update({ status: 'cancelled', lease_owner: null, lease_until: null, seq: 3 })
    tell({ id, token: 1 })
    assert.equal(begun!.signal.reason.code, 'JOBS_CANCELLED')
    // And of one that runs elsewhere, all are told.
    const other = await submit(t, 'hanging', { delay_ms: 60_000 })
    await rows(t, 'jobs', { id: other.id }).update({ status: 'running', token: 4, lease_owner: 'elsewhere', lease_until: Date.now() + 60_000 })
    await t.get(Jobs).cancel(operator, other.id)
    assert.deepEqual(told, [{ id: other.id, token: 4 }])
  })

  it('is seen at the next renewal by a process that no broadcast reached', async () => {
    let begun: JobContext | undefined
    await using t = await runtime({ types: [hanging(ctx => { begun = ctx })], config: quick })
    const { id } = await submit(t, 'hanging')
    await eventually('it to run', () => begun !== undefined)
    await rows(t, 'jobs', { id }).update({ status: 'cancelled', lease_owner: null, lease_until: null, seq: 3 })
    await eventually('the abort', () => begun!.signal.aborted)
  })

  it('comes too late for a job that has ended', async () => {
    await using t = await runtime({ types: [double] })
    const { id } = await t.get(Jobs).run(operator, { type: 'double', input: 1 })
    await assert.rejects(t.get(Jobs).cancel(operator, id), { code: 'JOBS_FINAL', status: 409, message: /is completed already/ })
    await assert.rejects(t.get(Jobs).cancel(operator, '0'.repeat(26)), { code: 'JOBS_NOT_FOUND' })
  })

  it('is vetoed by who settles, and changes nothing then', async () => {
    const veto = definePlugin({ name: 'veto', guards: [JobSettling], setup: ctx => { ctx.hook(JobSettling, () => { throw new Error('no') }) } })
    await using t = await runtime({ types: [double], plugins: [veto], config: { concurrency: 0 } })
    const { id } = await submit(t, 'double')
    await assert.rejects(t.get(Jobs).cancel(operator, id))
    assert.deepEqual([(await t.get(Jobs).get(operator, id)).status, await t.get(JobQueue).depth()], ['queued', 1])
  })
})

describe('retry', () => {
  it('runs a job again that is dead, with all its attempts and its finished steps', async () => {
    const { state, type } = failing()
    const { service, of } = log()
    await using t = await runtime({ types: [type], config: quick, services: [openAccess(), service] })
    const { id } = await submit(t, 'failing')
    const dead = await until(t, id, 'dead')
    state.mended = true
    const queued = await t.get(Jobs).retry(operator, id)
    assert.deepEqual([queued.status, queued.attempt, queued.error, queued.result, queued.started_at, queued.finished_at], ['queued', 0, null, null, null, null])
    assert.ok(dead.finished_at)
    const done = await until(t, id, 'completed')
    assert.deepEqual([done.result, done.attempt, state.runs], ['mended', 1, 1])
    const { attempts, events } = await (t.get(Jobs) as unknown as JobService).detail(operator, id)
    assert.deepEqual(attempts.map(each => [each.attempt, each.outcome]), [[1, 'dead'], [1, 'completed']])
    assert.deepEqual(of(id).map(each => each[1]), ['job.created', 'job.started', 'job.dead', 'job.retried', 'job.started', 'job.completed'])
    assert.deepEqual(events.map(each => each.seq), [1, 2, 3, 4, 5, 6])
  })

  it('does not wait for the time of a job that waits', async () => {
    const flaky = jobType('flaky', async ({ job }) => { if (job.attempt < 2) throw new Error('x'); return job.attempt })
    await using t = await runtime({ types: [double, flaky] })
    const delayed = await submit(t, 'double', { delay_ms: 3_600_000 })
    assert.equal((await t.get(Jobs).retry(operator, delayed.id)).status, 'queued')
    assert.equal((await until(t, delayed.id, 'completed')).result, 2)
    const failed = await until(t, (await submit(t, 'flaky', { backoff: { base_ms: 3_600_000, max_ms: 3_600_000 } })).id, 'failed')
    assert.equal((await t.get(Jobs).retry(operator, failed.id)).attempt, 1)
    assert.equal((await until(t, failed.id, 'completed')).result, 2)
  })

  it('of a cancelled job is not harmed by the attempt that was cancelled', async () => {
    const doors: (() => void)[] = []
    const slow = jobType('slow', () => new Promise(resolve => doors.push(() => resolve(doors.length))))
    await using t = await runtime({ types: [slow] })
    const { id } = await submit(t, 'slow')
    await eventually('the first', () => doors.length === 1)
    await t.get(Jobs).cancel(operator, id)
    await t.get(Jobs).retry(operator, id)
    await eventually('the second', () => doors.length === 2)
    doors[0]!()
    doors[1]!()
    const done = await until(t, id, 'completed')
    assert.deepEqual([done.result, done.attempt], [2, 1])
  })

  it('is refused for a job that waits in the queue, runs, or has its result', async () => {
    await using t = await runtime({ types: [double, hanging()], config: { concurrency: 1 }, graceMs: 400 })
    const completed = await t.get(Jobs).run(operator, { type: 'double', input: 1 })
    const running = await submit(t, 'hanging')
    await until(t, running.id, 'running')
    const queued = await submit(t, 'double')
    for (const [{ id }, status] of [[completed, 'completed'], [running, 'running'], [queued, 'queued']] as const) {
      await assert.rejects(t.get(Jobs).retry(operator, id), { code: 'JOBS_NOT_RETRYABLE', status: 409, message: new RegExp(`is ${status}`) })
      await assert.rejects(t.get(Jobs).replay(operator, { id }), { code: 'JOBS_NOT_DEAD' })
      await assert.rejects(t.get(Jobs).discard(operator, id), { code: 'JOBS_NOT_DEAD' })
    }
  })
})

describe('the dead-letter queue', () => {
  async function dead(t: TestRuntime, count: number, more: object = {}): Promise<string[]> {
    const jobs = await t.get(Jobs).submitMany(operator, Array.from({ length: count }, () => ({ type: 'failing', input: 1, ...more })))
    const ids = jobs.map(job => job.id)
    await eventually('all to be dead', async () => (await rows(t, 'jobs', { status: 'dead' }).whereIn('id', ids)).length === count)
    return ids
  }

  it('is replayed whole, however large, each job once though it is asked for twice', async () => {
    const { state, type } = failing()
    await using t = await runtime({ types: [type] })
    const ids = await dead(t, 250)
    state.mended = true
    const counts = await Promise.all([t.get(Jobs).replay(operator, {}), t.get(Jobs).replay(operator, {})])
    assert.equal(counts[0]! + counts[1]!, 250)
    await eventually('all to run', async () => (await rows(t, 'jobs', { status: 'completed' })).length === 250)
    const attempts = await rows(t, 'job_attempts', {}).whereIn('job_id', ids).groupBy('job_id').count({ count: '*' })
    assert.deepEqual([...new Set(attempts.map(each => Number(each['count'])))], [2])
    assert.equal(await t.get(Jobs).replay(operator, {}), 0)
  }).timeout(20_000)

  it('is replayed by agent, type, project and code, and only where the caller may', async () => {
    const { state, type } = failing()
    const coded = jobType('coded', async () => { throw AccessErrors.FORBIDDEN({ permission: 'x:y', reason: 'no' }) })
    const projects = async (caller: Caller) => (caller.id === 'guest' ? ['mine'] : 'all' as const)
    await using t = await runtime({ types: [type, coded], services: [openAccess({ projects })] })
    const jobs = t.get(Jobs)
    await dead(t, 2, { agent: 'math' })
    const [mine] = await dead(t, 1, { project_id: 'mine' })
    const other = await submit(t, 'coded')
    await until(t, other.id, 'dead')
    const listed = async (filter: object) => (await jobs.list(operator, { status: 'dead', ...filter })).items.length
    assert.deepEqual(await Promise.all([{}, { agent: 'math' }, { type: 'coded' }, { project_id: 'mine' }, { code: 'ACCESS_FORBIDDEN' }, { code: 'JOBS_FAILED' }, { code: 'x' }].map(listed)), [4, 2, 1, 1, 1, 3, 0])
    state.mended = true
    const guest = { ...operator, id: 'guest' }
    assert.equal(await jobs.replay(guest, { agent: 'math' }), 0)
    assert.equal(await jobs.replay(guest, { project_id: 'default' }), 0)
    assert.equal(await jobs.replay(operator, { code: 'x' }), 0)
    assert.equal(await jobs.replay(operator, { agent: 'math', code: 'JOBS_FAILED' }), 2)
    assert.equal(await jobs.replay(guest, {}), 1)
    await until(t, mine!, 'completed')
    assert.equal(await jobs.replay(operator, { id: other.id }), 1)
  })

  it('forgets what is discarded, all of it but the events', async () => {
    const { type } = failing()
    const { service, of } = log()
    await using t = await runtime({ types: [type], services: [openAccess(), service] })
    const { id } = await submit(t, 'failing', { idempotency_key: 'k' })
    await until(t, id, 'dead')
    await t.get(Jobs).discard(operator, id)
    await assert.rejects(t.get(Jobs).get(operator, id), { code: 'JOBS_NOT_FOUND' })
    for (const table of ['job_attempts', 'job_steps']) assert.deepEqual(await rows(t, table, { job_id: id }), [])
    assert.deepEqual(of(id).at(-1), [4, 'job.discarded'])
    await assert.rejects(t.get(Jobs).discard(operator, id), { code: 'JOBS_NOT_FOUND' })
    assert.notEqual((await submit(t, 'failing', { idempotency_key: 'k' })).id, id)
  })

  it('asks for a permission of its own for each thing that is done', async () => {
    const { type } = failing()
    const asked: unknown[] = []
    const check = async (caller: Caller, permission: string, resource?: unknown) => {
      asked.push([permission, resource])
      if (caller.id === 'guest') throw AccessErrors.FORBIDDEN({ permission, reason: 'a guest' })
    }
    await using t = await runtime({ types: [type], services: [openAccess({ check, projects: async () => [] })] })
    const { id } = await submit(t, 'failing')
    await eventually('it to be dead', async () => (await rows(t, 'jobs', { status: 'dead' })).length === 1)
    const guest = { ...operator, id: 'guest' }
    const jobs = t.get(Jobs)
    const resource = { kind: 'job', id, project_id: 'default' }
    for (const [permission, ask] of [
      ['jobs:cancel', () => jobs.cancel(guest, id)], ['jobs:retry', () => jobs.retry(guest, id)],
      ['jobs:retry', () => jobs.replay(guest, { id })], ['jobs:discard', () => jobs.discard(guest, id)],
    ] as const) {
      await assert.rejects(ask, { code: 'ACCESS_FORBIDDEN' })
      assert.deepEqual(asked.at(-1), [permission, resource])
    }
    await assert.rejects(jobs.cancel(guest, 'none'), { code: 'ACCESS_FORBIDDEN' })
    assert.equal(await jobs.replay(guest, {}), 0)
  })
})

describe('a batch', () => {
  it('is taken in as a whole, in its order', async () => {
    await using t = await runtime({ types: [double] })
    const requests = Array.from({ length: 300 }, (_, input) => ({ type: 'double', input }))
    const jobs = await t.get(Jobs).submitMany(operator, requests)
    assert.deepEqual(jobs.map(job => job.input), requests.map(each => each.input))
    await eventually('all', async () => (await rows(t, 'jobs', { status: 'completed' })).length === 300)
    assert.deepEqual(await t.get(Jobs).submitMany(operator, []), [])
  })

  it('with a job that can\'t be is refused as a whole, and says which', async () => {
    const picky = jobType('picky', async () => 1, {
      input: { '~standard': { version: 1, vendor: 'test', validate: value => (value === 1 ? { value } : { issues: [{ message: 'not 1', path: ['a'] }] }) } },
    })
    await using t = await runtime({ types: [double, picky], config: { concurrency: 0, max_batch: 5, max_input_bytes: 100 } })
    const good = { type: 'picky', input: 1 }
    const ask = (...requests: object[]) => t.get(Jobs).submitMany(operator, requests as never)
    const named = (code: string, path: string) => (error: any) => error.code === code && error.details.errors[0].path === path && error.message.startsWith(`jobs.${error.details.at}: `)
    await assert.rejects(ask(good, good, good, { ...good, input: 2 }), named('JOBS_INPUT_INVALID', 'jobs.3.input.a'))
    await assert.rejects(ask(good, { ...good, delay_ms: -1 }), named('JOBS_INPUT_INVALID', 'jobs.1.delay_ms'))
    await assert.rejects(ask(good, { type: '{known}', input: 1 }), named('JOBS_TYPE_UNKNOWN', 'jobs.1'))
    await assert.rejects(ask({ type: 'double', input: 'x'.repeat(200) }), named('JOBS_TOO_LARGE', 'jobs.0'))
    await assert.rejects(ask({ ...good, idempotency_key: 'k' }, good, { type: 'double', input: 1, idempotency_key: 'k' }), named('JOBS_KEY_REUSED', 'jobs.2'))
    await assert.rejects(ask({ type: 'none', input: 1 }, good, { ...good, input: 2 }, { ...good, delay_ms: -1 }, { type: 'none', input: 1 }), (error: any) => {
      assert.deepEqual(error.details.errors.map((each: { path: string }) => each.path), ['jobs.0', 'jobs.2.input.a', 'jobs.3.delay_ms', 'jobs.4'])
      assert.match(error.message, /^jobs\.0: nothing here runs .*; jobs\.2: .*not 1; jobs\.3: .*delay_ms.*; and 1 more$/)
      return error.code === 'JOBS_TYPE_UNKNOWN' && /none was taken in/.test(error.fix)
    })
    await assert.rejects(ask(good, good, good, good, good, good), { code: 'JOBS_BATCH_TOO_LARGE', status: 413 })
    assert.deepEqual([(await t.get(Jobs).list(operator)).items, await t.get(JobQueue).depth()], [[], 0])
    const keys = (key: string) => [{ ...good, idempotency_key: key }, { type: 'double', input: 1, idempotency_key: key }]
    await assert.rejects(ask(...keys('a'), ...keys('b')), (error: any) => error.details.errors.map((each: { path: string }) => each.path).join() === 'jobs.1,jobs.3')
    const [one, two] = await ask({ ...good, idempotency_key: 'k' }, { ...good, idempotency_key: 'k' }) as Job[]
    assert.equal(one!.id, two!.id)
  })
})

describe('a full queue', () => {
  const tries = (t: TestRuntime, count: number) => Promise.all(Array.from({ length: count }, () => submit(t, 'double').then(() => 'in', (error: { code: string }) => error.code)))

  it('takes in exactly as many as it may, and says when to try again', async () => {
    await using t = await runtime({ types: [double], setupOnly: true, config: { max_queued: 20 } })
    const answers = [...await tries(t, 7), ...await tries(t, 30)]
    assert.deepEqual([answers.filter(each => each === 'in').length, [...new Set(answers)]], [20, ['in', 'JOBS_QUEUE_FULL']])
    assert.equal((await rows(t, 'jobs', {})).length, 20)
    await assert.rejects(submit(t, 'double', { delay_ms: 1_000 }), (error: any) => error.status === 429 && error.retryable && error.details.retry_after > 0)
    await assert.rejects(t.get(Jobs).admit(operator, { type: 'double', input: 1 }), { code: 'JOBS_QUEUE_FULL' })
    assert.equal((await t.get(Jobs).run(operator, { type: 'double', input: 2 })).result, 4, 'what does not wait needs no room')
  })

  it('takes in no more, however many come at the same moment', async () => {
    for (const limit of [1, 3, 9]) {
      await using t = await runtime({ types: [double], setupOnly: true, config: { max_queued: limit } })
      const answers = await tries(t, limit + 4)
      assert.deepEqual([answers.filter(each => each === 'in').length, (await rows(t, 'jobs', {})).length], [limit, limit])
    }
  })

  it('counts what is delayed and what waits for another attempt, and takes a batch whole or not at all', async () => {
    const bad = jobType('bad', async () => { throw new Error('x') })
    await using t = await runtime({ types: [double, bad], config: { max_queued: 5, retry: { base_ms: 3_600_000, max_ms: 3_600_000 } } })
    await until(t, (await submit(t, 'bad')).id, 'failed')
    await submit(t, 'double', { delay_ms: 3_600_000 })
    const batch = (count: number) => t.get(Jobs).submitMany(operator, Array.from({ length: count }, () => ({ type: 'double', input: 1, delay_ms: 3_600_000 })))
    await assert.rejects(batch(4), { code: 'JOBS_QUEUE_FULL' })
    assert.equal((await batch(3)).length, 3)
    await assert.rejects(batch(1), { code: 'JOBS_QUEUE_FULL' })
  })

  it('counts again, whatever was counted last by a clock that was ahead', async () => {
    const clock = new SystemClock()
    let ahead = 3_600_000
    clock.now = () => Date.now() + ahead
    await using t = await runtime({ types: [double], clock, config: { concurrency: 0, max_queued: 3 } })
    assert.deepEqual(await tries(t, 4), ['in', 'in', 'in', 'JOBS_QUEUE_FULL'])
    ahead = 0
    await rows(t, 'jobs', {}).update({ status: 'cancelled' })
    assert.deepEqual(await tries(t, 2), ['in', 'in'])
  })

  it('takes in again what there is room for', async () => {
    const clock = new FakeClock()
    await using t = await runtime({ types: [double], clock, config: { concurrency: 0, max_queued: 3 } })
    await tries(t, 3)
    assert.deepEqual(await tries(t, 1), ['JOBS_QUEUE_FULL'])
    await rows(t, 'jobs', {}).update({ status: 'cancelled' })
    await clock.advance(100)
    assert.deepEqual(await tries(t, 2), ['in', 'in'])
  })
})
