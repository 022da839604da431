import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { definePlugin, scope, SystemClock, type ScopeFields } from '#core'
import { eventually, fake, FakeClock, recordHook } from '#core/testing'
import { AccessErrors, type Caller } from '#contracts/access'
import { Database } from '#contracts/database'
import { EventLog, type NewEvent } from '#contracts/events'
import { HealthCheck } from '#contracts/health'
import { AgentErrors } from '#contracts/agents'
import { JobErrors, Jobs, JobSettled, JobSettling, JobType, type Job, type JobContext, type JobProgress } from '#contracts/jobs'
import { Metric } from '#contracts/metrics'
import { JobQueue } from '#contracts/queue'
import { config as configSchema } from '../../../plugins/jobs/config.ts'
import { backoff } from '../../../plugins/jobs/work/failure.ts'
import jobsPlugin from '../../../plugins/jobs/index.ts'
import type { JobService } from '../../../plugins/jobs/intake/jobs.ts'
import { JobQueries } from '../../../plugins/jobs/tables/queries.ts'
import { JobStore } from '../../../plugins/jobs/tables/store.ts'
import { Waiting } from '../../../plugins/jobs/work/waiting.ts'
import { gate, jobType, openAccess, operator, runtime, until } from './kit.ts'

const double = jobType('double', async ({ input }) => input * 2)
const hanging = (begun: (ctx: JobContext) => void = () => {}) => jobType('hanging', ctx => { begun(ctx); return new Promise(() => {}) })
const quick = { lease: { ms: 200, renew_ms: 40 }, sweep_ms: 30, retry: { base_ms: 10, max_ms: 40 } }

describe('jobs', () => {
  it('runs what was submitted and keeps the result', async () => {
    await using t = await runtime({ types: [double] })
    const job = await t.get(Jobs).submit(operator, { type: 'double', input: 21, metadata: { from: 'test' }, priority: 7 })
    assert.deepEqual([job.status, job.attempt, job.seq, job.agent, job.project_id, job.created_by], ['queued', 0, 1, null, 'default', 'op'])
    const done = await until(t, job.id, 'completed')
    assert.deepEqual([done.result, done.attempt, done.seq, done.metadata, done.priority, done.error], [42, 1, 3, { from: 'test' }, 7, null])
    assert.ok(done.started_at! >= done.created_at && done.finished_at! >= done.started_at!)
    assert.equal(await t.get(JobQueue).depth(), 0)
  })

  it('runs here and now when it is asked to, and tells how it goes on', async () => {
    const talk = jobType('talk', async ({ input, emit }) => { emit({ type: 'token', content: 'a' }); emit({ type: 'progress', percent: 50 }); return input })
    await using t = await runtime({ types: [talk] })
    const seen: JobProgress[] = []
    const job = await t.get(Jobs).run(operator, { type: 'talk', input: 'x' }, { onProgress: progress => seen.push(progress) })
    assert.deepEqual([job.status, job.result, job.seq], ['completed', 'x', 2])
    assert.deepEqual(seen.map(each => each.type), ['token', 'progress'])
  })

  it('runs before start(), for commands that only set up', async () => {
    await using t = await runtime({ types: [double], setupOnly: true })
    assert.equal((await t.get(Jobs).run(operator, { type: 'double', input: 2 })).result, 4)
  })

  it('takes the highest priority first and never more at once than it may', async () => {
    const order: number[] = []
    let [now, most] = [0, 0]
    const counting = jobType('counting', async ({ input }) => {
      most = Math.max(most, ++now)
      order.push(input)
      await new Promise(resolve => setTimeout(resolve, 5))
      now--
    })
    await using t = await runtime({ types: [counting], config: { concurrency: 2 }, manual: true })
    await t.runtime.start()
    const jobs = t.get(Jobs)
    const admitted = await Promise.all([0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(priority => jobs.admit(operator, { type: 'counting', input: priority, priority })))
    await t.get(Database).transaction(async tx => { for (const each of admitted) await jobs.enter(each, tx) })
    await eventually('all', () => order.length === 10 && now === 0)
    assert.deepEqual(order, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    assert.equal(most, 2)
  })

  it('runs in the scope of the job and of the plugin that knows how, and of the request only when that waits for it', async () => {
    const seen: (ScopeFields | undefined)[] = []
    const look = jobType('look', async () => { seen.push(scope.current) })
    const looking = definePlugin({ name: 'looking', contributes: [JobType], setup: ctx => { ctx.contribute(JobType, look) } })
    await using t = await runtime({ plugins: [looking] })
    const request = { type: 'look', input: null }
    const trace = { request_id: 'r', traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' }
    const queued = await scope.run(trace, () => t.get(Jobs).submit(operator, request))
    await until(t, queued.id, 'completed')
    const waited = await scope.run(trace, () => t.get(Jobs).run(operator, request))
    const both = { plugin: 'looking', project_id: 'default', traceparent: trace.traceparent }
    assert.deepEqual(seen, [{ ...both, job_id: queued.id }, { ...both, job_id: waited.id, request_id: 'r' }])
  })

  it('refuses settings that no clock should be set to', () => {
    const day = 86_400_000
    const wrong = (value: object) => [...new Set(configSchema.safeParse(value).error?.issues.map(issue => issue.path.join('.')))]
    assert.deepEqual(wrong({ lease: { ms: day }, sweep_ms: day, rehand_ms: day, retry: { base_ms: day, max_ms: day }, timeout_ms: 30 * day }), [])
    const over = { lease: { ms: day + 1, renew_ms: day + 1 }, sweep_ms: day + 1, rehand_ms: day + 1, retry: { base_ms: day + 1, max_ms: day + 1 }, timeout_ms: 30 * day + 1 }
    assert.deepEqual(wrong(over), ['lease.ms', 'lease.renew_ms', 'sweep_ms', 'rehand_ms', 'timeout_ms', 'retry.base_ms', 'retry.max_ms'])
  })

  describe('taking in', () => {
    it('gives fifty that ask at once with one idempotency key the same job', async () => {
      let runs = 0
      await using t = await runtime({ types: [jobType('once', async () => { runs++ })] })
      const ask = () => t.get(Jobs).submit(operator, { type: 'once', input: null, idempotency_key: 'k' })
      const ids = new Set((await Promise.all(Array.from({ length: 50 }, ask))).map(job => job.id))
      assert.equal(ids.size, 1)
      await until(t, [...ids][0]!, 'completed')
      assert.equal((await ask()).status, 'completed')
      assert.notEqual((await t.get(Jobs).submit(operator, { type: 'once', input: null, idempotency_key: 'k', project_id: 'other' })).id, [...ids][0])
      await eventually('the other', () => runs === 2)
      assert.equal((await t.get(Jobs).run(operator, { type: 'once', input: null, idempotency_key: 'k' })).id, [...ids][0])
    })

    it('gives nobody the job of another who used the same key, nor one that was asked for otherwise', async () => {
      const check = async ({ id }: Caller, permission: string) => {
        if (id === 'bob' && permission === 'jobs:read') throw AccessErrors.FORBIDDEN({ permission, reason: 'no' })
      }
      await using t = await runtime({ types: [double, jobType('say', async ({ input }) => input)], services: [openAccess({ check })] })
      const jobs = t.get(Jobs)
      const request = { type: 'say', input: { a: 1, b: [{ c: 2, d: null }] }, metadata: { x: 1, y: 2 }, idempotency_key: 'daily' }
      const first = await jobs.submit(operator, request)
      const ofBob = await jobs.submit({ ...operator, id: 'bob' }, { ...request, input: 'of bob' })
      assert.notEqual(ofBob.id, first.id)
      assert.deepEqual([ofBob.created_by, ofBob.input], ['bob', 'of bob'])
      const inAnotherOrder = { ...request, input: { b: [{ d: null, c: 2 }], a: 1 }, metadata: { y: 2, x: 1 } }
      assert.equal((await jobs.submit(operator, inAnotherOrder)).id, first.id)
      const others = [{ type: 'double' }, { input: { a: 1, b: [] } }, { agent: 'math' }, { metadata: {} }, { priority: 9 }, { max_attempts: 1 }, { timeout_ms: 9 }]
      for (const other of others) {
        const reused = { code: 'JOBS_KEY_REUSED', status: 409, message: /"daily"/ }
        await assert.rejects(jobs.submit(operator, { ...request, ...other }), reused, JSON.stringify(other))
        await assert.rejects(jobs.run(operator, { ...request, ...other }), reused)
      }
      assert.equal((await jobs.list(operator)).items.length, 2)
    })

    it('lets a second run() with the key wait for the first', async () => {
      const door = gate()
      await using t = await runtime({ types: [jobType('slow', async () => { await door.closed; return 1 })] })
      const ask = () => t.get(Jobs).run(operator, { type: 'slow', input: null, idempotency_key: 'k' })
      const both = Promise.all([ask(), ask()])
      await eventually('it to run', async () => (await t.get(Jobs).list(operator, { status: 'running' })).items.length === 1)
      door.open()
      const [one, two] = await both
      assert.deepEqual([one.status, two.status, one.id === two.id], ['completed', 'completed', true])
    })

    it('refuses what it can\'t run, with what would help', async () => {
      const picky = jobType('picky', async () => 1, {
        input: { '~standard': { version: 1, vendor: 'test', validate: value => (typeof value === 'string' ? { value } : { issues: [{ message: 'not a string', path: ['a', { key: 'b' }] }] }) } },
        admit: async (_caller, { input }) => { if (input === 'nobody') throw AgentErrors.UNKNOWN({ agent: 'nobody', meant: '', known: 'math' }) },
      })
      await using t = await runtime({ types: [double, picky], config: { max_input_bytes: 100 } })
      const { submit } = { submit: (request: object) => t.get(Jobs).submit(operator, { type: 'picky', input: 'x', ...request }) }
      await assert.rejects(submit({ type: 'nothing' }), { code: 'JOBS_TYPE_UNKNOWN', fix: 'Known types: double, picky. To run an agent, name it as `agent` instead of a type.' })
      await assert.rejects(submit({ type: 'duoble' }), { code: 'JOBS_TYPE_UNKNOWN', fix: 'Did you mean "double"? Known types: double, picky. To run an agent, name it as `agent` instead of a type.' })
      await assert.rejects(submit({ input: 1 }), { code: 'JOBS_INPUT_INVALID', message: /input\.a\.b: not a string/ })
      await assert.rejects(submit({ input: 'é'.repeat(60) }), { code: 'JOBS_TOO_LARGE', status: 413, message: /122 bytes, more than 100/ })
      await assert.rejects(submit({ input: 1n }), { code: 'JOBS_NOT_JSON' })
      await assert.rejects(submit({ input: 'nobody' }), { code: 'AGENTS_UNKNOWN' })
      assert.deepEqual((await t.get(Jobs).list(operator)).items, [])
    })

    it('refuses a request for one agent whose input names another, however it hides that', async () => {
      const check = async (_caller: Caller, permission: string, resource?: { id: string }) => {
        if (resource?.id === 'payroll') throw AccessErrors.FORBIDDEN({ permission, reason: 'not this agent' })
      }
      const ran: unknown[] = []
      const agent = jobType('agent', async ({ job, input }) => { ran.push([job.agent, input.agent]) }, { permission: 'agents:run' })
      await using t = await runtime({ types: [agent], services: [openAccess({ check })] })
      const jobs = t.get(Jobs)
      const submit = (request: object) => jobs.submit(operator, { type: 'agent', input: null, ...request })
      await assert.rejects(submit({ agent: 'math', input: { agent: 'payroll' } }), { code: 'JOBS_INPUT_INVALID', message: /input\.agent: it is not "math"/ })
      await assert.rejects(jobs.run(operator, { type: 'agent', agent: 'math', input: { agent: ['math'] } }), { code: 'JOBS_INPUT_INVALID' })
      await assert.rejects(submit({ input: { agent: 'payroll' } }), { code: 'ACCESS_FORBIDDEN' })
      let looks = 0
      await assert.rejects(submit({ input: { get agent() { return looks++ ? 'math' : 'payroll' } } }), { code: 'ACCESS_FORBIDDEN' })
      await assert.rejects(submit({ agent: 'math', input: { agent: 'math', toJSON: () => ({ agent: 'payroll' }) } }), { code: 'JOBS_INPUT_INVALID' })
      await until(t, (await submit({ agent: 'math', input: { agent: 'math' } })).id, 'completed')
      await until(t, (await submit({ input: { agent: 'math' } })).id, 'completed')
      assert.deepEqual(ran, [['math', 'math'], ['math', 'math']])
    })

    it('asks before a transaction is opened, and leaves nothing when that fails', async () => {
      let asks = 0
      // As an access plugin does that keeps its roles in the database: within a transaction it is refused.
      const check = async () => { asks++; await t.get(Database).knex()('jobs').first() }
      await using t = await runtime({ types: [double], services: [openAccess({ check })], config: { concurrency: 0 } })
      const jobs = t.get(Jobs)
      const database = t.get(Database)
      const admitted = await jobs.admit(operator, { type: 'double', input: 1, idempotency_key: 'k' })
      assert.equal(asks, 1)
      await assert.rejects(database.transaction(async tx => { await jobs.enter(admitted, tx); throw new Error('no') }), /^Error: no$/)
      assert.deepEqual([(await jobs.list(operator)).items, await t.get(JobQueue).depth()], [[], 0])
      const job = await database.transaction(tx => jobs.enter(admitted, tx))
      const again = await jobs.admit(operator, { type: 'double', input: 1, idempotency_key: 'k' })
      assert.equal((await database.transaction(tx => jobs.enter(again, tx))).id, job.id)
      assert.deepEqual([job.id, job.status, asks, await t.get(JobQueue).depth()], [admitted.id, 'queued', 2, 1])
      await assert.rejects(database.transaction(tx => jobs.enter({ id: admitted.id }, tx)), { code: 'JOBS_NOT_ADMITTED' })
      await assert.rejects(jobs.admit(operator, { type: 'nothing', input: 1 }), { code: 'JOBS_TYPE_UNKNOWN' })
    })

    it('asks who may', async () => {
      const asked: unknown[] = []
      const check = async (caller: Caller, permission: string, resource: unknown) => {
        asked.push([permission, resource])
        if (caller.id === 'guest') throw AccessErrors.FORBIDDEN({ permission, reason: 'a guest' })
      }
      const projects = async (caller: Caller) => (caller.id === 'guest' ? [] : ['default'])
      await using t = await runtime({ types: [{ ...double, permission: 'agents:run' }], services: [openAccess({ check, projects })], config: { concurrency: 0 } })
      const jobs = t.get(Jobs)
      const job = await jobs.submit(operator, { type: 'double', agent: 'math', input: 1 })
      assert.deepEqual(asked, [['jobs:submit', { kind: 'project', id: 'default', project_id: 'default' }], ['agents:run', { kind: 'agent', id: 'math', project_id: 'default' }]])
      await jobs.get(operator, job.id)
      assert.deepEqual(asked.at(-1), ['jobs:read', { kind: 'job', id: job.id, project_id: 'default' }])
      await jobs.submit(operator, { type: 'double', input: 1, project_id: 'elsewhere' })
      assert.deepEqual((await jobs.list(operator)).items.map(each => each.id), [job.id])
      const guest = { ...operator, id: 'guest' }
      const request = { type: 'double', input: 1 }
      for (const refused of [
        () => jobs.submit(guest, request), () => jobs.run(guest, request), () => jobs.get(guest, job.id), () => jobs.get(guest, 'none'),
      ]) {
        await assert.rejects(refused, { code: 'ACCESS_FORBIDDEN' })
      }
      assert.deepEqual((await jobs.list(guest)).items, [])
      await assert.rejects(jobs.get(operator, '0'.repeat(26)), { code: 'JOBS_NOT_FOUND' })
    })

    it('lets nobody in without an access plugin', async () => {
      await using t = await runtime({ types: [double], services: [] })
      const jobs = t.get(Jobs)
      const request = { type: 'double', input: 1 }
      for (const refused of [
        () => jobs.submit(operator, request), () => jobs.run(operator, request), () => jobs.get(operator, 'x'), () => jobs.list(operator),
      ]) {
        await assert.rejects(refused, { code: 'ACCESS_UNAVAILABLE' })
      }
    })
  })

  describe('failing', () => {
    it('tries again after a growing pause, and keeps every attempt', async () => {
      const flaky = jobType('flaky', async ({ job }) => { if (job.attempt < 3) throw new Error('password hunter22'); return job.attempt })
      await using t = await runtime({ types: [flaky], config: quick })
      const job = await t.get(Jobs).submit(operator, { type: 'flaky', input: null })
      const done = await until(t, job.id, 'completed')
      assert.deepEqual([done.result, done.attempt, done.error], [3, 3, null])
      const detail = await (t.get(Jobs) as JobService).detail(operator, job.id)
      assert.deepEqual(detail.attempts.map(each => each.outcome), ['failed', 'failed', 'completed'])
      assert.doesNotMatch(JSON.stringify(detail), /hunter22/)
    })

    it('waits as long as it says between attempts', async () => {
      const clock = new FakeClock()
      const bad = jobType('bad', async () => { throw new Error('x') })
      await using t = await runtime({ types: [bad], clock, config: { retry: { base_ms: 10_000, max_ms: 15_000 } } })
      const parked = await until(t, (await t.get(Jobs).submit(operator, { type: 'bad', input: null })).id, 'failed')
      const pause = Date.parse(parked.run_at) - clock.now()
      assert.ok(pause >= 8_000 && pause <= 12_000, String(pause))
      assert.deepEqual([parked.status, parked.error!.code], ['failed', 'JOBS_FAILED'])
      await clock.advance(pause - 100)
      assert.equal((await t.get(Jobs).get(operator, parked.id)).status, 'failed')
      await clock.advance(200)
      const again = await eventually('a second attempt', async () => {
        await clock.advance(1)
        const job = await t.get(Jobs).get(operator, parked.id)
        return job.attempt === 2 && job.status === 'failed' && job
      })
      assert.ok(Date.parse(again.run_at) - clock.now() > 11_000)
    })

    it('waits twice as long each time, up to a limit, and up to a fifth more or less', () => {
      const retry = { base_ms: 1_000, max_ms: 5_000 }
      const pauses = (random: number) => [1, 2, 3, 4, 100, 2_000].map(attempt => backoff(attempt, retry, () => random))
      assert.deepEqual(pauses(0.5), [1_000, 2_000, 4_000, 5_000, 5_000, 5_000])
      assert.deepEqual(pauses(0), [800, 1_600, 3_200, 4_000, 4_000, 4_000])
      assert.deepEqual(pauses(0.999_999), [1_200, 2_400, 4_800, 6_000, 6_000, 6_000])
      assert.ok(new Set(Array.from({ length: 50 }, () => backoff(7, { base_ms: 1_000, max_ms: 60_000 }))).size > 20)
    })

    it('ends at once what no attempt can mend, and shows only messages that are meant for callers', async () => {
      const types = [
        jobType('typed', async () => { throw JobErrors.INPUT_INVALID({ type: 'x', reason: 'shown' }) }),
        jobType('hidden', async () => { throw AccessErrors.BIND_REFUSED({ host: 'h', reason: 'hunter22' }) }),
        jobType('marked', async () => { throw Object.assign(new Error('hunter22'), { retryable: false }) }),
        jobType('spent', () => Promise.reject('hunter22')),
        jobType('huge', async () => 'x'.repeat(2_000_000)),
        jobType('circle', async () => { const a: { a?: unknown } = {}; a.a = a; return a }),
      ]
      await using t = await runtime({ types, config: { ...quick, max_result_bytes: 1_048_576 } })
      const ends: Record<string, [string, number, string]> = {}
      for (const { type } of types) {
        const job = await until(t, (await t.get(Jobs).submit(operator, { type, input: null, max_attempts: 2 })).id, 'dead')
        ends[type] = [job.error!.code, job.attempt, job.error!.message]
        assert.doesNotMatch(JSON.stringify(job), /hunter22/)
      }
      assert.deepEqual(Object.entries(ends).map(([type, [code, attempt]]) => [type, code, attempt]), [
        ['typed', 'JOBS_INPUT_INVALID', 1], ['hidden', 'ACCESS_BIND_REFUSED', 1], ['marked', 'JOBS_FAILED', 1], ['spent', 'JOBS_FAILED', 2],
        ['huge', 'JOBS_TOO_LARGE', 1], ['circle', 'JOBS_NOT_JSON', 1],
      ])
      assert.match(ends['typed']![2], /shown/)
      assert.ok(t.lines.some(line => line.message === 'an attempt failed' && String(line.fields['err']).includes('hunter22')))
      const typed = t.lines.find(line => line.message === 'an attempt failed' && line.fields['type'] === 'typed')!.fields
      assert.deepEqual([typed['err'], typed['fix']], [undefined, 'Correct the fields named.'], 'what says all needs no stack')
    })

    it('ends a run that takes too long, whether it listens or not', async () => {
      let signal: AbortSignal | undefined
      await using t = await runtime({ types: [hanging(ctx => { signal = ctx.signal })], config: quick })
      const job = await t.get(Jobs).run(operator, { type: 'hanging', input: null, timeout_ms: 30, max_attempts: 1 })
      assert.deepEqual([job.status, job.error!.code, job.error!.retryable], ['dead', 'JOBS_TIMEOUT', true])
      assert.equal(signal!.aborted, true)
    })

    it('cancels a run whose caller goes away', async () => {
      const gone = new AbortController()
      await using t = await runtime({ types: [hanging(() => setImmediate(() => gone.abort()))] })
      const job = await t.get(Jobs).run(operator, { type: 'hanging', input: null }, { signal: gone.signal })
      assert.deepEqual([job.status, job.error!.code], ['cancelled', 'JOBS_CANCELLED'])
      await assert.rejects(t.get(Jobs).run(operator, { type: 'hanging', input: null }, { signal: gone.signal }), { code: 'JOBS_CANCELLED' })
    })

    it('asks again who it is for, and runs nothing for someone who is gone', async () => {
      const restore = async () => { throw AccessErrors.FORBIDDEN({ permission: 'jobs:submit', reason: 'the account was closed' }) }
      await using t = await runtime({ types: [jobType('never', async () => assert.fail())], services: [openAccess({ restore })] })
      const job = await until(t, (await t.get(Jobs).submit(operator, { type: 'never', input: null })).id, 'dead')
      assert.equal(job.error!.code, 'ACCESS_FORBIDDEN')
    })

    it('asks again before each attempt whether it may be run, and ends a job whose owner may no longer have it run', async () => {
      for (const permission of ['payroll:run', 'jobs:submit'] as const) {
        let attempts = 0
        let allowed = true
        const asked: unknown[] = []
        const check = async (_caller: Caller, wanted: string, resource: unknown) => {
          if (wanted !== permission) return
          asked.push(resource)
          if (!allowed) throw AccessErrors.FORBIDDEN({ permission: wanted, reason: 'the role was taken away' })
        }
        const pay = jobType('pay', async () => { attempts++; allowed = false; throw new Error('a passing one') }, { permission })
        await using t = await runtime({ types: [pay], config: quick, services: [openAccess({ check })] })
        const { id } = await t.get(Jobs).submit(operator, { type: 'pay', agent: 'clerk', input: null })
        const job = await until(t, id, 'dead')
        assert.deepEqual([job.error!.code, attempts, job.attempt], ['ACCESS_FORBIDDEN', 1, 2])
        const resource = permission === 'jobs:submit' ? { kind: 'project', id: 'default', project_id: 'default' } : { kind: 'agent', id: 'clerk', project_id: 'default' }
        assert.deepEqual(asked.slice(0, 3), [resource, resource, resource])
      }
    })
  })

  describe('steps', () => {
    it('are read instead of run again, each use of a name for itself', async () => {
      const ran: string[] = []
      const stepping = jobType('stepping', async ({ job, step }) => {
        const got = []
        for (const value of ['a', undefined, { n: [1] }]) got.push(await step('same', async () => { ran.push(`same ${String(value)}`); return value }))
        got.push(await step('other', async () => { ran.push('other'); return new Date(0) }))
        if (job.attempt === 1) throw new Error('once')
        return got
      })
      await using t = await runtime({ types: [stepping], config: quick })
      const job = await until(t, (await t.get(Jobs).submit(operator, { type: 'stepping', input: null })).id, 'completed')
      assert.deepEqual(ran, ['same a', 'same undefined', 'same [object Object]', 'other'])
      assert.deepEqual(job.result, ['a', null, { n: [1] }, '1970-01-01T00:00:00.000Z'])
    })

    it('that throw are not kept', async () => {
      let tries = 0
      const flaky = jobType('flaky', async ({ step }) => step('s', async () => { if (++tries < 2) throw new Error('x'); return tries }))
      await using t = await runtime({ types: [flaky], config: quick })
      assert.equal((await until(t, (await t.get(Jobs).submit(operator, { type: 'flaky', input: null })).id, 'completed')).result, 2)
    })

    it('and the result of a worker that lost its job are refused', async () => {
      const door = gate()
      const outcomes: unknown[] = []
      const late = jobType('late', async ({ job, step }) => {
        if (job.attempt > 1) return 'second'
        await door.closed
        outcomes.push(await step('s', async () => 1).catch(error => error.code))
        return 'first'
      })
      const slow = { ...quick, lease: { ms: 60_000, renew_ms: 30_000 } }
      await using t = await runtime({ types: [late], config: slow })
      const job = await t.get(Jobs).submit(operator, { type: 'late', input: null })
      await until(t, job.id, 'running')
      // As another worker does that finds the lease over.
      await t.get(Database).knex()('jobs').where({ id: job.id }).update({ token: 9, lease_owner: 'another', seq: 9 })
      door.open()
      await eventually('the refusal', () => outcomes.length === 1)
      assert.deepEqual(outcomes, ['JOBS_LEASE_LOST'])
      const now = await t.get(Jobs).get(operator, job.id)
      assert.deepEqual([now.status, now.result], ['running', null])
    })
  })

  describe('leases', () => {
    it('are renewed while a run goes on', async () => {
      const door = gate()
      await using t = await runtime({ types: [jobType('long', async () => { await door.closed; return 1 })], config: quick })
      const { id } = await t.get(Jobs).submit(operator, { type: 'long', input: null })
      await until(t, id, 'running')
      const lease = async () => Number((await t.get(Database).knex()('jobs').where({ id }).first('lease_until')).lease_until)
      const first = await lease()
      await eventually('two renewals past the lease', async () => await lease() > first + 200)
      door.open()
      assert.equal((await until(t, id, 'completed')).attempt, 1)
    })

    it('abort a run that lost its own', async () => {
      let aborted: unknown
      const listening = hanging(({ signal }) => signal.addEventListener('abort', () => { aborted = signal.reason.code }))
      await using t = await runtime({ types: [listening], config: quick })
      const { id } = await t.get(Jobs).submit(operator, { type: 'hanging', input: null })
      await until(t, id, 'running')
      await t.get(Database).knex()('jobs').where({ id }).update({ token: 9, lease_owner: 'another' })
      await eventually('the abort', () => aborted === 'JOBS_LEASE_LOST')
    })

    it('that were lost and come back here end the older attempt, and leave the new one its own', async () => {
      const doors = [gate(), gate(), gate()]
      const begun: JobContext[] = []
      const held = jobType('held', async ctx => { begun.push(ctx); await doors[begun.length - 1]!.closed; return ctx.job.attempt })
      const t = await runtime({ types: [held], config: { ...quick, lease: { ms: 600, renew_ms: 200 } }, graceMs: 10_000 })
      try {
        const { id } = await t.get(Jobs).submit(operator, { type: 'held', input: null })
        await eventually('the first attempt', () => begun.length === 1)
        // As the sweep of another process does when this one stood still for longer than the lease.
        await t.get(Database).transaction(async tx => {
          const knex = t.get(Database).knex(tx)
          await knex('jobs').where({ id }).update({ status: 'queued', lease_owner: null, lease_until: null, seq: knex.raw('seq + 1') })
          await t.get(JobQueue).enqueue([{ id, priority: 5 }], tx)
        })
        await eventually('the second attempt', () => begun.length === 2)
        assert.deepEqual([begun[0]!.signal.reason?.code, begun[1]!.signal.aborted], ['JOBS_LEASE_LOST', false])
        doors[0]!.open()
        const renewed = async () => Number((await t.get(Database).knex()('jobs').where({ id }).first('lease_until')).lease_until)
        const first = await renewed()
        await eventually('renewals past the lease', async () => await renewed() > first + 600)
        assert.equal(begun.length, 2)
        // And draining waits for it.
        const stopped = t.runtime.stop()
        setTimeout(() => doors[1]!.open(), 50)
        await stopped
        assert.equal(begun[1]!.signal.aborted, false, 'it was not waited for')
      } finally { for (const { open } of doors) open(); await t[Symbol.asyncDispose]() }
    })

    it('that are over let another attempt begin, or end the job after the last', async () => {
      await using t = await runtime({ types: [double], config: quick })
      const made = async (max_attempts: number) => {
        const { id } = await t.get(Jobs).run(operator, { type: 'double', input: 4, max_attempts })
        await t.get(Database).knex()('jobs').where({ id }).update({ status: 'running', lease_owner: 'dead', lease_until: 1, finished_at: null, result: null })
        return id
      }
      assert.deepEqual((await until(t, await made(2), 'completed')).attempt, 2)
      const { fix } = JobErrors.INTERRUPTED()
      assert.deepEqual((await until(t, await made(1), 'dead')).error, { code: 'JOBS_INTERRUPTED', message: 'the process that ran this attempt ended, or could not renew its lease', fix, retryable: true })
    })
  })

  it('hands a queued job to the queue again that the queue has lost', async () => {
    const clock = new SystemClock()
    let ahead = 0
    clock.now = () => Date.now() + ahead
    await using t = await runtime({ types: [double, hanging()], config: { ...quick, concurrency: 1 }, clock, graceMs: 400 })
    await until(t, (await t.get(Jobs).submit(operator, { type: 'hanging', input: null })).id, 'running')
    const { id } = await t.get(Jobs).submit(operator, { type: 'double', input: 1 })
    await t.get(JobQueue).remove([id])
    assert.equal(await t.get(JobQueue).depth(), 0)
    ahead = 61_000
    await eventually('the entry to be back', async () => await t.get(JobQueue).depth() === 1)
  })

  it('looks for what a sweep may have to do without reading all that waits, or ever ended', async () => {
    await using t = await runtime({ types: [double], config: { concurrency: 0, sweep_ms: 3_600_000 } })
    const [database, first] = [t.get(Database), await t.get(Jobs).submit(operator, { type: 'double', input: 'x'.repeat(2_000) })]
    const rows = await database.knex()('jobs').where({ id: first.id })
    const many = 20_000
    for (let from = 0; from < many; from += 500) {
      await database.transaction(tx => database.knex(tx)('jobs').insert(Array.from({ length: 500 }, (_, at) => ({ ...rows[0], id: `${from + at}` }))))
    }
    const store = new JobStore({ database, queue: t.get(JobQueue), clock: new SystemClock(), events: () => undefined })
    const took = async (work: () => Promise<unknown>) => {
      const times: number[] = []
      for (let at = 0; at < 5; at++) { const from = performance.now(); await work(); times.push(performance.now() - from) }
      return Math.min(...times)
    }
    const queries = new JobQueries(database)
    const all = await took(() => database.knex()('jobs').where('status', 'queued').where('priority', '>', 9))
    const isQuick = async (work: () => Promise<unknown>) => { const ms = await took(work); assert.ok(ms < all / 5, `${ms} ms, and ${all} ms to read all: ${work}`) }
    await isQuick(() => store.unhanded(rows[0].handed_at, ['double'], 200))
    await database.knex()('jobs').update({ status: 'waiting' })
    await isQuick(() => store.overdue(200))
    await isQuick(() => queries.nextOverdue(Date.now()))
    await isQuick(() => new Waiting(store).forgotten(100))
    await database.knex()('jobs').update({ status: 'cancelled' })
    await isQuick(() => queries.cancelledParents(100))
    await database.knex()('jobs').update({ status: 'running', lease_until: Date.now() + 60_000 })
    await isQuick(() => store.expired(200))
    await database.knex()('jobs').update({ status: 'queued' })
    await database.knex()('jobs').where('id', 'like', '7%').update({ handed_at: 0 })
    assert.equal((await store.unhanded(rows[0].handed_at, ['double'], 200)).length, 200)
    assert.deepEqual(await store.unhanded(rows[0].handed_at, ['other'], 200), [])
    await database.knex()('jobs').where('id', 'like', '8%').update({ type: 'other', handed_at: -1 })
    assert.ok((await store.unhanded(rows[0].handed_at, ['double', 'other'], 10)).every(each => each.handed_at === -1), 'a type of which many wait hides another')
    await database.knex()('jobs').update({ held: 1, held_by: 'project:default', handed_at: 0 })
    await isQuick(() => store.handOverAgain(rows[0].handed_at, ['double', 'other'], 200))
    await isQuick(() => store.held.scopes())
  }).timeout(60_000)

  it('hands everything that is queued over at start', async () => {
    await using t = await runtime({ types: [double], config: { concurrency: 0 } })
    const { id } = await t.get(Jobs).submit(operator, { type: 'double', input: 1 })
    await t.get(JobQueue).remove([id])
    await t.runtime.swap('jobs', jobsPlugin, { concurrency: 1 })
    await until(t, id, 'completed')
  })

  describe('going away', () => {
    it('lets what runs finish', async () => {
      const door = gate()
      const t = await runtime({ types: [jobType('slow', async () => { await door.closed; return 1 })] })
      const seen: string[] = []
      const running = t.get(Jobs).run(operator, { type: 'slow', input: null }).then(job => seen.push(job.status))
      await eventually('it to run', async () => (await t.get(Jobs).list(operator, { status: 'running' })).items.length === 1)
      const stopped = t[Symbol.asyncDispose]()
      setImmediate(() => door.open())
      await Promise.all([stopped, running])
      assert.deepEqual(seen, ['completed'])
    })

    it('hands back what does not, without counting the attempt', async () => {
      const dir = mkdtempSync(join(tmpdir(), 'backplane-jobs-'))
      try {
        const t = await runtime({ types: [hanging()], graceMs: 400, host: { dataDir: dir } })
        let id = ''
        const running = assert.rejects(t.get(Jobs).run(operator, { type: 'hanging', input: null }, { onBegin: job => { id = job.id } }), { code: 'JOBS_INTERRUPTED' })
        await eventually('it to run', async () => (await t.get(Jobs).list(operator, { status: 'running' })).items.length === 1)
        await t[Symbol.asyncDispose]()
        await running
        await using other = await runtime({ host: { dataDir: dir }, config: { concurrency: 0 } })
        const job = await other.get(Jobs).get(operator, id)
        assert.deepEqual([job.status, job.attempt], ['queued', 0])
      } finally { rmSync(dir, { recursive: true }) }
    })

    it('hands back what begins with an end that is written while it stops', async () => {
      const dir = mkdtempSync(join(tmpdir(), 'backplane-jobs-'))
      try {
        const door = gate()
        let held = false
        const guard = definePlugin({
          name: 'guard', guards: [JobSettling],
          setup(ctx) { ctx.hook(JobSettling, async () => { held = true; await door.closed }) },
        })
        const type = jobType('some', ({ input }) => (input === 'short' ? Promise.resolve() : new Promise(() => {})))
        const t = await runtime({ types: [type], plugins: [guard], config: { concurrency: 1 }, graceMs: 400, host: { dataDir: dir } })
        const [, next] = await t.get(Jobs).submitMany(operator, ['short', 'long'].map(input => ({ type: 'some', input })))
        await eventually('the end of the first', () => held)
        const stopped = t[Symbol.asyncDispose]()
        await eventually('it to stop', () => t.lines.find(line => line.message.startsWith('drain:')))
        door.open()
        await stopped
        await using other = await runtime({ host: { dataDir: dir }, config: { concurrency: 0 } })
        const job = await other.get(Jobs).get(operator, next!.id)
        assert.deepEqual([job.status, job.attempt], ['queued', 0])
      } finally { rmSync(dir, { recursive: true }) }
    })

    it('hands a job back whose type is swapped, and runs it when the type is back', async () => {
      let life = 0
      const owner = definePlugin({
        name: 'owner', contributes: [JobType],
        setup(ctx) {
          const mine = ++life
          ctx.contribute(JobType, jobType('owned', ({ job, signal }) => (mine > 1
            ? Promise.resolve([mine, job.attempt])
            : new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('gone')))))))
        },
      })
      await using t = await runtime({ plugins: [owner], config: { sweep_ms: 30 } })
      const { id } = await t.get(Jobs).submit(operator, { type: 'owned', input: null })
      await until(t, id, 'running')
      await t.runtime.host.reload('owner')
      assert.deepEqual((await until(t, id, 'completed')).result, [2, 1])
      await t.runtime.change(new Map([['owner', undefined]]))
      await assert.rejects(t.get(Jobs).submit(operator, { type: 'owned', input: null }), { code: 'JOBS_TYPE_UNKNOWN' })
    })

    it('goes on with what another life of it left queued', async () => {
      await using t = await runtime({ types: [double], config: { concurrency: 2 } })
      const jobs = await Promise.all(Array.from({ length: 50 }, (_, at) => t.get(Jobs).submit(operator, { type: 'double', input: at })))
      await t.runtime.host.reload('jobs')
      for (const { id } of jobs) assert.equal((await until(t, id, 'completed')).attempt, 1)
    })
  })

  describe('settling', () => {
    const guard = (handle: (job: Job, tx: any) => unknown) => definePlugin({
      name: 'guard', guards: [JobSettling], uses: { database: Database },
      setup(ctx, { database }) { ctx.hook(JobSettling, async ({ job, tx }) => handle(job, { knex: database.knex(tx), tx })) },
    })

    it('lets others write in its transaction, and tells everybody after it', async () => {
      const settled = recordHook(JobSettled)
      const costs = guard((job, { knex }) => knex('costs').insert({ job: job.id, status: job.status }))
      await using t = await runtime({ types: [double], plugins: [settled.plugin, costs] })
      await t.get(Database).knex().schema.createTable('costs', k => { k.text('job'); k.text('status') })
      const job = await t.get(Jobs).run(operator, { type: 'double', input: 1 })
      assert.deepEqual(await t.get(Database).knex()('costs'), [{ job: job.id, status: 'completed' }])
      assert.deepEqual(settled.calls.map(call => [call.job.id, call.job.result]), [[job.id, 2]])
    })

    it('makes a result that is vetoed a failure', async () => {
      await using t = await runtime({ types: [double], plugins: [guard(job => { if (job.status === 'completed') throw JobErrors.CANCELLED() })] })
      const job = await t.get(Jobs).run(operator, { type: 'double', input: 1 })
      assert.deepEqual([job.status, job.result, job.error!.code], ['dead', null, 'JOBS_CANCELLED'])
    })

    it('waits for a guard that is being swapped', async () => {
      const door = gate()
      let handled = 0
      await using t = await runtime({ types: [jobType('slow', async () => door.closed)], plugins: [guard(() => { handled++ })] })
      const running = t.get(Jobs).run(operator, { type: 'slow', input: null })
      await eventually('it to run', async () => (await t.get(Jobs).list(operator, { status: 'running' })).items.length === 1)
      const swapped = t.runtime.host.reload('guard')
      door.open()
      await swapped
      assert.equal((await running).status, 'completed')
      assert.equal(handled, 1)
    })

    it('appends every change to the event log, counted without a gap', async () => {
      const events: NewEvent[] = []
      const log = fake(EventLog, { append: async (_tx, list) => { events.push(...list) } })
      const flaky = jobType('flaky', async ({ job }) => { if (job.attempt < 2) throw new Error('x'); return 'y'.repeat(40_000) })
      await using t = await runtime({ types: [flaky], config: quick, services: [openAccess(), log] })
      const { id } = await t.get(Jobs).submit(operator, { type: 'flaky', agent: 'math', input: null })
      const done = await until(t, id, 'completed')
      assert.deepEqual(events.map(each => [each.seq, each.type]), [
        [1, 'job.created'], [2, 'job.started'], [3, 'job.failed'], [4, 'job.queued'], [5, 'job.started'], [6, 'job.completed'],
      ])
      assert.equal(done.seq, 6)
      assert.deepEqual(events[0]!.topics, [`job:${id}`, 'project:default', 'agent:math'])
      assert.deepEqual((events[5]!.data as Pick<Job, 'result_ref'>).result_ref, { bytes: 40_002, url: `/api/v1/jobs/${id}/result` })
      assert.ok(JSON.stringify(events[5]!.data).length < 65_536)
    })
  })

  describe('showing', () => {
    it('gives fewer of those that are large in one page, and all of them in the end', async () => {
      await using t = await runtime({ types: [double], config: { concurrency: 0 } })
      const ids: string[] = []
      for (let at = 0; at < 9; at++) ids.unshift((await t.get(Jobs).submit(operator, { type: 'double', input: 'x'.repeat(at % 3 ? 1_000_000 : 1) })).id)
      const [found, sizes]: [string[], number[]] = [[], []]
      for (let cursor: string | null | undefined; cursor !== null;) {
        const { items, next }: Awaited<ReturnType<Jobs['list']>> = await t.get(Jobs).list(operator, { limit: 100, ...(cursor && { cursor }) })
        found.push(...items.map(job => job.id))
        sizes.push(JSON.stringify(items).length)
        cursor = next
      }
      assert.deepEqual([...found].sort(), [...ids].sort())
      assert.ok(sizes.length === 2 && Math.max(...sizes) < 4_300_000, String(sizes))
    })

    it('pages from the newest, by status and agent', async () => {
      await using t = await runtime({ types: [double], config: { concurrency: 0 } })
      const jobs = t.get(Jobs)
      const ids: string[] = []
      for (let at = 0; at < 5; at++) {
        ids.unshift((await jobs.submit(operator, { type: 'double', agent: at % 2 ? 'odd' : 'even', input: at })).id)
        const { now } = Date
        for (const from = now(); now() === from;) await new Promise(resolve => setImmediate(resolve))
      }
      const one = await jobs.list(operator, { limit: 2 })
      const two = await jobs.list(operator, { limit: 2, cursor: one.next! })
      const three = await jobs.list(operator, { limit: 2, cursor: two.next! })
      assert.deepEqual([...one.items, ...two.items, ...three.items].map(job => job.id), ids)
      assert.equal(three.next, null)
      assert.deepEqual((await jobs.list(operator, { agent: 'odd' })).items.map(job => job.input), [3, 1])
      assert.deepEqual((await jobs.list(operator, { status: 'completed' })).items, [])
    })

    it('tells how the queue is, and counts', async () => {
      await using t = await runtime({ types: [double], setupOnly: true })
      const counted = (name: string, labels: object) => {
        const samples = t.runtime.collect(Metric).find(each => each.name === name)!.samples()
        return samples.find(each => JSON.stringify(each.labels) === JSON.stringify(labels))?.value ?? 0
      }
      const before = counted('jobs_total', { type: 'double', project: 'metrics' })
      await t.get(Jobs).run(operator, { type: 'double', input: 1, project_id: 'metrics' })
      await t.get(Jobs).submit(operator, { type: 'double', input: 1, project_id: 'metrics' })
      assert.equal(counted('jobs_total', { type: 'double', project: 'metrics' }) - before, 2)
      assert.ok(counted('jobs_completed_total', { type: 'double' }) >= 1)
      const check = t.runtime.collect(HealthCheck).find(each => each.name === 'queue')!
      const { status, details } = await check.check(new AbortController().signal)
      assert.deepEqual([status, details!['depth'], details!['queued'], details!['running']], ['healthy', 1, 1, 0])
      await t.get(Database).knex()('jobs').where('status', 'queued').update({ run_at: 1 })
      assert.equal((await check.check(new AbortController().signal)).status, 'degraded')
    })
  })
})
