import assert from 'node:assert/strict'
import { AsyncResource } from 'node:async_hooks'
import fc from 'fast-check'
import { FakeClock, eventually, type TestRuntime } from '#core/testing'
import { AccessErrors } from '#contracts/access'
import { Database } from '#contracts/database'
import { EventLog } from '#contracts/events'
import { Jobs, type Job, type JobRequest } from '#contracts/jobs'
import { ModelErrors } from '#contracts/models'
import cluster from '../../../plugins/cluster/index.ts'
import log from '../../../plugins/events/index.ts'
import { postgresOrSkip } from '../../support/services.ts'
import { gate, jobType, type KitOptions, openAccess, operator, runtime, until } from './kit.ts'

const quick = jobType('quick', async ({ input }) => { if (input === 'fail') throw Object.assign(new Error('no'), { retryable: false }); return input })
const start = (options: KitOptions = {}) => runtime({ types: [quick], config: { sweep_ms: 20 }, ...options })
const submit = (t: TestRuntime, input: unknown, more: object = {}, caller = operator) => t.get(Jobs).submit(caller, { type: 'quick', input, dedupe: { key: 'k' }, ...more })
const count = async (t: TestRuntime) => (await t.get(Jobs).list(operator, { limit: 100 })).items.length
const other = { ...operator, id: 'other' }
const untilEnded = (t: TestRuntime, clock: FakeClock, id: string) =>
  eventually('its end', async () => { await clock.advance(20); return (await t.get(Jobs).get(operator, id)).status === 'completed' })

async function walkThrough(t: TestRuntime): Promise<void> {
  const first = await submit(t, 1, { delay_ms: 3_600_000 })
  assert.equal((await submit(t, 2)).id, first.id)
  assert.notEqual((await submit(t, 2, { project_id: 'p2' })).id, first.id)
  assert.notEqual((await submit(t, 2, { dedupe: { key: 'l' } })).id, first.id)
  const [a, b, c] = await t.get(Jobs).submitMany(operator, [1, 2, 3].map(input => ({ type: 'quick', input, delay_ms: 60_000, dedupe: { key: input === 3 ? 'k' : 'batch' } })))
  assert.equal(a!.id, b!.id)
  assert.equal(c!.id, first.id)
  await t.get(Jobs).retry(operator, first.id)
  await until(t, first.id, 'completed')
  const second = await submit(t, 'fail')
  assert.notEqual(second.id, first.id)
  await until(t, second.id, 'dead')
  const many = await Promise.all(Array.from({ length: 20 }, () => submit(t, 3, { delay_ms: 60_000 })))
  assert.equal(new Set(many.map(each => each.id)).size, 1)
  // What has ended can be run again although there is a newer one.
  assert.equal((await t.get(Jobs).retry(operator, second.id)).status, 'queued')
  await until(t, second.id, 'dead')
  assert.deepEqual(await t.get(Database).knex()('jobs').where({ dedupe_key: 'k', project_id: 'default' }).pluck('id'), [many[0]!.id])
}

describe('jobs: dedupe', () => {
  it('resolves to the unfinished job of the project that has the key; once that has ended, to a new one', async () => {
    await using t = await start()
    await walkThrough(t)
  })

  it('does so on PostgreSQL', async function () {
    const server = await postgresOrSkip(this)
    await using place = await server.newDatabase()
    await using t = await start({ url: place.url })
    await walkThrough(t)
    const ids = await Promise.all(Array.from({ length: 200 }, async () => (await submit(t, 1, { dedupe: { key: 'race' } })).id))
    assert.ok(ids.length === 200)
  })

  it('shows another\'s job only to those who may see it', async () => {
    const check = async (caller: { id: string }, permission: string) => { if (permission === 'jobs:read' && caller.id === 'other') throw AccessErrors.FORBIDDEN({ permission, reason: 'no' }) }
    await using t = await start({ services: [openAccess({ check })] })
    await submit(t, 1, { delay_ms: 60_000 })
    await assert.rejects(submit(t, 1, {}, other), { code: 'ACCESS_FORBIDDEN' })
    assert.equal(await count(t), 1)
  })

  it('keeps the key for a while after the job has ended, if that is asked for', async () => {
    const clock = new FakeClock()
    await using t = await start({ clock, config: { sweep_ms: 10_000 } })
    const throttled = (input: unknown) => submit(t, input, { dedupe: { key: 'k', ttl_ms: 60_000 } })
    const first = await throttled(1)
    await untilEnded(t, clock, first.id)
    assert.deepEqual([(await throttled(2)).id, (await submit(t, 3)).id], [first.id, first.id])
    await clock.advance(60_000)
    const second = await throttled(4)
    assert.notEqual(second.id, first.id)
    assert.equal((await throttled(5)).id, second.id)
    assert.deepEqual(await t.get(Database).knex()('jobs').where({ dedupe_key: 'k' }).pluck('id'), [second.id])
  })

  it('replaces a job whose idempotency key was noted for another one, as a process of the release before may leave it', async () => {
    await using t = await start()
    const [noted, kept] = [await submit(t, 1, { dedupe: { key: 'noted' } }), await submit(t, 1, { delay_ms: 60_000, idempotency_key: 'i' })]
    await t.get(Database).knex()('job_keys').insert({ project_id: 'default', created_by: 'op', idempotency_key: 'i', substance: 'x', job_id: noted.id })
    const by = await submit(t, 2, { delay_ms: 60_000, idempotency_key: 'j', dedupe: { key: 'k', mode: 'replace' } })
    assert.deepEqual([by.id, by.input], [kept.id, 2])
    assert.deepEqual(await t.get(Database).knex()('job_keys').pluck('job_id'), [noted.id])
  })

  it('goes together with an idempotency key, and refuses what is no key', async () => {
    await using t = await start()
    const keyed = await submit(t, 1, { delay_ms: 60_000, idempotency_key: 'i' })
    assert.equal((await submit(t, 1, { delay_ms: 60_000, idempotency_key: 'i' })).id, keyed.id)
    await assert.rejects(submit(t, 2, { idempotency_key: 'i' }), { code: 'JOBS_KEY_REUSED' })
    assert.equal((await submit(t, 2, { idempotency_key: 'j' })).id, keyed.id)
    for (const dedupe of [{ key: '' }, { key: 'k', mode: 'other' }, { key: 'k', ttl_ms: 0 }, { key: 'k', ttl_ms: 1.5 }, { key: 'k', mode: 'replace', ttl_ms: 5 }]) {
      await assert.rejects(submit(t, 2, { dedupe }), { code: 'JOBS_INPUT_INVALID' }, JSON.stringify(dedupe))
    }
  })

  it('gives who sends the same request again the job that it got, once that has ended too', async () => {
    await using t = await start({ config: { concurrency: 0 } })
    const first = await submit(t, 1)
    const keyed = () => submit(t, 2, { idempotency_key: 'i' })
    assert.equal((await keyed()).id, first.id)
    const ended = await t.get(Jobs).cancel(operator, first.id)
    assert.deepEqual(await keyed(), ended)
    await assert.rejects(submit(t, 3, { idempotency_key: 'i' }), { code: 'JOBS_KEY_REUSED' })
    assert.notEqual((await submit(t, 2)).id, first.id)
  })

  it('lets run() wait for the job that is there', async () => {
    await using t = await start()
    const first = await submit(t, 1, { delay_ms: 300 })
    const ran = await t.get(Jobs).run(operator, { type: 'quick', input: 2, dedupe: { key: 'k' } })
    assert.deepEqual([ran.id, ran.result], [first.id, 1])
  })
})

describe('jobs: dedupe that replaces', () => {
  const replace = (t: TestRuntime, input: unknown, more: object = {}, caller = operator) => submit(t, input, { dedupe: { key: 'k', mode: 'replace' }, ...more }, caller)
  const events = async (t: TestRuntime, id: string) => (await t.get(EventLog).read(`job:${id}`, 0, 100)).events.map(each => each.type)
  const LATER = { delay_ms: 3_600_000 }
  const still = (options: KitOptions = {}) => start({ config: { concurrency: 0 }, plugins: [cluster, log], ...options })
  const entries = (t: TestRuntime) => t.get(Database).knex()('queue_entries').select('id', 'priority')

  it('makes of a job that has not begun what is asked for now, with the same id', async () => {
    const clock = new FakeClock()
    await using t = await still({ types: [quick, jobType('loud', async () => 1)], clock })
    const first = await replace(t, 1, { delay_ms: 5_000, metadata: { from: 1 } })
    await clock.advance(4_000)
    const second = await replace(t, 2, { delay_ms: 5_000, priority: 9, max_attempts: 7, metadata: { from: 2 } })
    assert.deepEqual([second.id, second.status, second.input, second.priority, second.max_attempts, second.metadata, second.seq], [first.id, 'delayed', 2, 9, 7, { from: 2 }, 2])
    assert.equal(Date.parse(second.run_at), Date.parse(first.run_at) + 4_000)
    assert.deepEqual(await t.get(Jobs).get(operator, first.id), second)
    const now = await replace(t, 3, { type: 'loud', priority: 2 })
    assert.deepEqual([now.id, now.status, now.type, (await entries(t)).map(each => [each.id, each.priority])], [first.id, 'queued', 'loud', [[first.id, 2]]])
    const raised = await replace(t, 4, { priority: 1 })
    assert.deepEqual([raised.type, (await entries(t)).map(each => each.priority)], ['quick', [1]])
    assert.deepEqual([(await replace(t, 5, LATER)).status, await entries(t)], ['delayed', []])
    assert.deepEqual(await events(t, first.id), ['job.created', ...Array.from({ length: 4 }, () => 'job.replaced')])
    assert.equal(await count(t), 1)
  })

  it('leaves one that has begun as it is, and a new job takes the key', async () => {
    const door = gate()
    const inputs: unknown[] = []
    const slow = jobType('quick', async ({ input }) => { inputs.push(input); if (input === 1) await door.closed; if (input === 'twice') throw new Error('x') })
    await using t = await start({ types: [slow], config: { sweep_ms: 20, retry: { base_ms: 3_600_000, max_ms: 3_600_000 } } })
    const first = await replace(t, 1)
    await until(t, first.id, 'running')
    const second = await replace(t, 2, LATER)
    const third = await replace(t, 3, LATER)
    assert.deepEqual([third.id, third.id === first.id], [second.id, false])
    door.open()
    await until(t, first.id, 'completed')
    await t.get(Jobs).cancel(operator, third.id)
    const failed = await replace(t, 'twice')
    await until(t, failed.id, 'failed')
    const after = await replace(t, 4)
    assert.notEqual(after.id, failed.id)
    assert.equal((await t.get(Jobs).get(operator, failed.id)).input, 'twice', 'what one attempt began is not taken over by another input')
    await until(t, after.id, 'completed')
    assert.deepEqual(inputs, [1, 'twice', 4])
  })

  it('leaves one that was handed back, and the queue keeps it', async () => {
    const door = gate()
    const busy = jobType('busy', () => door.closed)
    const calling = jobType('quick', async ({ input }) => { if (input === 1) throw ModelErrors.CIRCUIT_OPEN({ provider: 'p', failures: 5, retry_after: 3_600 }); return input })
    await using t = await start({ types: [busy, calling], config: { concurrency: 1, sweep_ms: 3_600_000 } })
    const first = await replace(t, 1)
    await eventually('to be put off', async () => (await t.get(Jobs).get(operator, first.id)).error !== null)
    const second = await replace(t, 2, LATER)
    assert.notEqual(second.id, first.id)
    await t.get(Jobs).submit(operator, { type: 'busy', input: null })
    await eventually('it to run', async () => (await t.get(Jobs).list(operator, { status: 'running' })).items.length === 1)
    await t.get(Database).knex()('jobs').where({ id: second.id }).update({ dedupe_key: null })
    await t.get(Database).knex()('jobs').where({ id: first.id }).update({ dedupe_key: 'k' })
    await t.get(Jobs).retry(operator, first.id)
    assert.deepEqual((await entries(t)).map(each => each.id), [first.id])
    assert.notEqual((await replace(t, 3, LATER)).id, first.id)
    assert.deepEqual((await entries(t)).map(each => each.id), [first.id])
    door.open()
  })

  it('belongs to who asked last, and needs jobs:cancel for the job of another', async () => {
    let refused = false
    let meanwhile: (() => Promise<unknown>) | undefined
    const check = async (caller: { id: string }, permission: string) => {
      if (permission !== 'jobs:cancel' || caller.id !== 'other') return
      if (refused) throw AccessErrors.FORBIDDEN({ permission, reason: 'no' })
      await meanwhile?.()
    }
    await using t = await still({ services: [openAccess({ check })] })
    const first = await replace(t, 1, { ...LATER, idempotency_key: 'mine' })
    refused = true
    await assert.rejects(replace(t, 2, LATER, other), { code: 'ACCESS_FORBIDDEN' })
    refused = false
    const theirs = await replace(t, 2, LATER, other)
    const [row] = await t.get(Database).knex()('jobs')
    assert.deepEqual([theirs.id, theirs.created_by, row.principal_id, row.idempotency_key], [first.id, 'other', 'other', null])
    const mine = await replace(t, 3, LATER)
    let newer = mine
    meanwhile = async () => {
      meanwhile = undefined
      await t.get(Jobs).cancel(operator, mine.id)
      newer = await replace(t, 4, LATER)
    }
    assert.notEqual((await replace(t, 5, LATER, other)).id, newer.id, 'it was asked for another job')
    assert.deepEqual(await t.get(Jobs).get(operator, newer.id), newer)
  })

  it('goes together with idempotency keys: the same request again changes nothing', async () => {
    await using t = await still()
    const first = await replace(t, 1, { ...LATER, idempotency_key: 'one' })
    const second = await replace(t, 2, { ...LATER, idempotency_key: 'two' })
    assert.deepEqual([second.id, await replace(t, 2, { ...LATER, idempotency_key: 'two' })], [first.id, second])
    await assert.rejects(replace(t, 3, { ...LATER, idempotency_key: 'two' }), { code: 'JOBS_KEY_REUSED' })
    const again = await Promise.all(Array.from({ length: 10 }, () => replace(t, 4, { ...LATER, idempotency_key: 'four' })))
    assert.deepEqual([...new Set(again.map(each => `${each.id} ${each.seq}`))], [`${first.id} 3`])
    const parent = await submit(t, 0, { ...LATER, dedupe: undefined })
    assert.notEqual((await replace(t, 5, { parent_id: parent.id })).id, first.id, 'a child of somebody is no other job')
  })

  it('gives who sends an older request again the job that it became, whatever has replaced it and however that has ended', async () => {
    await using t = await still({ config: { concurrency: 0, max_queued: 2 } })
    const one = { ...LATER, idempotency_key: 'one' }
    const first = await replace(t, 1, one)
    await replace(t, 2, { ...LATER, idempotency_key: 'two' })
    const third = await replace(t, 3, LATER, other)
    const again = () => Promise.all([replace(t, 1, one), t.get(Jobs).submitMany(operator, [{ type: 'quick', input: 1, ...one, dedupe: { key: 'k', mode: 'replace' } }]).then(made => made[0]!)])
    assert.deepEqual([third.id, third.created_by, await again()], [first.id, 'other', [third, third]])
    assert.deepEqual(await replace(t, 2, { ...LATER, idempotency_key: 'two' }), third)
    for (const reused of [{ ...one, dedupe: undefined }, { ...one, priority: 9 }]) await assert.rejects(replace(t, 1, reused), { code: 'JOBS_KEY_REUSED' })
    const theirs = await replace(t, 1, one, other)
    assert.deepEqual([theirs.id, theirs.seq], [first.id, 4], 'the key of somebody else is another key')
    const ended = await t.get(Jobs).cancel(operator, first.id)
    assert.deepEqual(await again(), [ended, ended])
    const next = await replace(t, 4, LATER)
    await submit(t, 5, { dedupe: undefined })
    assert.deepEqual([await again(), next.id === first.id], [[ended, ended], false], 'a full queue, too')
    await t.get(Database).knex()('jobs').where({ id: first.id }).delete()
    assert.equal((await t.get(Database).knex()('job_keys')).length, 0)
  })

  it('lets run() wait for the job that it replaced, and cancel it', async () => {
    await using t = await start()
    const first = await submit(t, 1, LATER)
    const ran = await t.get(Jobs).run(operator, { type: 'quick', input: 2, dedupe: { key: 'k', mode: 'replace' } })
    assert.deepEqual([ran.id, ran.result], [first.id, 2])
    const gone = new AbortController()
    const later = await submit(t, 3, LATER)
    const waiting = t.get(Jobs).run(operator, { type: 'quick', input: 4, ...LATER, dedupe: { key: 'k', mode: 'replace' } }, { signal: gone.signal })
    await eventually('the job', async () => (await t.get(Jobs).get(operator, later.id)).input === 4)
    gone.abort()
    assert.deepEqual([(await waiting).id, (await waiting).status], [later.id, 'cancelled'])
  })

  it('leaves a job to who replaced it, when the caller of run() has gone who asked for it before', async () => {
    await using t = await still()
    const gone = new AbortController()
    const waiting = t.get(Jobs).run(operator, { type: 'quick', input: 1, ...LATER, dedupe: { key: 'k', mode: 'replace' } }, { signal: gone.signal })
    const left = assert.rejects(waiting, { name: 'AbortError' })
    await eventually('the job', async () => await count(t) === 1)
    const newer = await replace(t, 2, LATER)
    gone.abort()
    await left
    assert.deepEqual(await t.get(Jobs).get(operator, newer.id), newer)
  })

  /** Whoever was told of a job sees it run with what was asked for, or with something newer, and what was asked for last is run. */
  async function race(t: TestRuntime, ran: Map<string, number[]>): Promise<void> {
    await fc.assert(fc.asyncProperty(fc.array(fc.record({ wait: fc.nat(3), delay: fc.constantFrom(0, 0, 5) }), { minLength: 20, maxLength: 60 }), fc.uuid(), async (requests, key) => {
      const told: { id: string; input: number }[] = []
      const flying: Promise<unknown>[] = []
      for (const [input, { wait, delay }] of requests.entries()) {
        flying.push(replace(t, input, { dedupe: { key, mode: 'replace' }, ...(delay && { delay_ms: delay }) }).then(job => told.push({ id: job.id, input: job.input as number })))
        for (let at = 0; at < wait; at++) await new Promise(resolve => setTimeout(resolve, 1))
      }
      await Promise.all(flying)
      const ids = [...new Set(told.map(each => each.id))]
      for (const id of ids) await until(t, id, 'completed')
      for (const id of ids) {
        const job = await t.get(Jobs).get(operator, id)
        const runs = ran.get(id)!
        assert.deepEqual([runs.length, runs[0]], [1, job.input], 'run once, with what the record says')
        assert.ok(told.some(each => each.id === id && each.input === job.input), 'what is run was asked for')
      }
    }), { numRuns: 8 })
  }
  const counting = () => {
    const ran = new Map<string, number[]>()
    return { ran, types: [jobType('quick', async ({ input, job }) => { ran.set(job.id, [...ran.get(job.id) ?? [], input]) })] }
  }

  it('races with those who take the jobs, and nothing is lost or run twice', async () => {
    const { ran, types } = counting()
    await using t = await start({ types })
    await race(t, ran)
  }).timeout(60_000)

  it('does so on PostgreSQL', async function () {
    this.timeout(60_000)
    const server = await postgresOrSkip(this)
    await using place = await server.newDatabase()
    const { ran, types } = counting()
    await using t = await start({ types, url: place.url })
    await race(t, ran)
    const ids = new Set<string>()
    for (let at = 0; at < 40; at++) {
      const same = { type: 'quick', input: at, ...LATER, idempotency_key: `same ${at}`, dedupe: { key: 'k', mode: 'replace' } } as const
      // Each in a transaction of its own.
      for (const made of await Promise.all([1, 2, 3, 4].map(() => t.get(Jobs).submitMany(operator, [same])))) ids.add(made[0]!.id)
    }
    assert.equal(ids.size, 1, 'who was quicker leaves the key where it is')
    const gone = new AbortController()
    const waiting = t.get(Jobs).run(operator, { type: 'quick', input: 1, ...LATER, dedupe: { key: 'left', mode: 'replace' } }, { signal: gone.signal, onBegin: () => gone.abort() })
    assert.equal((await waiting).status, 'cancelled')
  })

  it('lets one idempotency key replace one job, and refuses it for another, at the same time too', async function () {
    const server = await postgresOrSkip(this)
    await using place = await server.newDatabase()
    await using t = await still({ url: place.url })
    const [database, jobs, outside] = [t.get(Database), t.get(Jobs), new AsyncResource('Outside')]
    const requestOf = (key: string, more: object = {}): JobRequest => ({ type: 'quick', input: 1, ...LATER, idempotency_key: 'same', dedupe: { key, mode: 'replace' }, ...more })
    const made: Record<string, string> = {}
    for (const key of ['a', 'b', 'c']) made[key] = (await jobs.submit(operator, requestOf(key, { idempotency_key: `first ${key}` }))).id
    const waits = (statement = '') => eventually('somebody to wait', async () =>
      (await server.query(`SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = '${place.name}' AND query ILIKE '${statement}%'`)).length > 0)
    /** What becomes of the one that comes while the other is not committed. */
    const beside = async (held: JobRequest, waiting: JobRequest) => {
      const admitted = await jobs.admit(operator, held)
      let other!: Promise<string>
      await database.transaction(async tx => {
        await jobs.enter(admitted, tx)
        other = outside.runInAsyncScope(() => jobs.submit(operator, waiting)).then(job => job.id, error => error.code)
        await waits()
      })
      return other
    }
    /** The late one has looked whose its key is, and found nobody, before the other takes it. */
    const within = async (late: JobRequest, id: string, ...early: JobRequest[]) => {
      const admitted = await Promise.all(early.map(each => jobs.admit(operator, each)))
      const [locked, entered] = [gate(), gate()]
      let answer!: Promise<string>
      const locking = database.transaction(async tx => {
        await database.knex(tx)('jobs').where({ id }).forUpdate().first()
        answer = outside.runInAsyncScope(() => jobs.submit(operator, late)).then(job => job.id, error => error.code)
        await waits()
        locked.open()
        await entered.closed
      })
      await locked.closed
      await database.transaction(async tx => {
        for (const each of admitted) await jobs.enter(each, tx)
        entered.open()
        await locking
        await waits('update')
      })
      return answer
    }
    assert.equal(await beside(requestOf('a'), requestOf('b')), 'JOBS_KEY_REUSED')
    assert.equal(await beside(requestOf('a', { idempotency_key: 'newer' }), requestOf('b')), 'JOBS_KEY_REUSED', 'a key that is being replaced')
    assert.equal(await beside(requestOf('a', { idempotency_key: 'newest' }), requestOf('x', { idempotency_key: 'newer' })), 'JOBS_KEY_REUSED')
    assert.equal(await beside(requestOf('c', { idempotency_key: 'c2' }), requestOf('c', { idempotency_key: 'c2' })), made['c'])
    const keyed = (key: string, idempotency_key: string) => requestOf(key, { idempotency_key })
    assert.equal(await within(keyed('b', 'late'), made['b']!, keyed('a', 'late')), 'JOBS_KEY_REUSED')
    assert.equal(await within(keyed('b', 'past'), made['b']!, keyed('a', 'past'), keyed('a', 'last')), 'JOBS_KEY_REUSED', 'one that came and went')
    assert.deepEqual((await jobs.list(operator, { limit: 100 })).items.map(each => each.id).toSorted(), Object.values(made).toSorted())
  })

  it('gives one idempotency key one job, though the one with the dedupe key ends while it is being found', async function () {
    const server = await postgresOrSkip(this)
    await using place = await server.newDatabase()
    await using t = await still({ url: place.url })
    const [database, jobs, outside] = [t.get(Database), t.get(Jobs), new AsyncResource('Outside')]
    const holder = await submit(t, 1, LATER)
    const same = { type: 'quick', input: 1, ...LATER, idempotency_key: 'same', dedupe: { key: 'k' } } as const
    const admitted = await jobs.admit(operator, same)
    const waits = () => eventually('somebody to wait', async () =>
      (await server.query(`SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = '${place.name}'`)).length > 0)
    let noting!: Promise<{ readonly one: Job; readonly other: Promise<Job> }>
    await database.transaction(async tx => {
      const ending = database.knex(tx)('jobs').where({ id: holder.id })
      await ending.clone().forUpdate().first()
      noting = outside.runInAsyncScope(() => database.transaction(async own => {
        const one = await jobs.enter(admitted, own)
        const other = outside.runInAsyncScope(() => jobs.submit(operator, same))
        await waits()
        return { one, other }
      }))
      await waits()
      await ending.update({ status: 'cancelled', finished_at: Date.now(), dedupe_key: null, seq: 9 })
    })
    const { one, other } = await noting
    assert.deepEqual([one.id, (await other).id, await count(t)], [holder.id, holder.id, 1])
  })
})

describe('a full queue, asked again', () => {
  it('gives who sends the same request again, or one with the same dedupe key, the job that is there', async () => {
    await using t = await start({ setupOnly: true, config: { max_queued: 3 } })
    const keyed = await submit(t, 1, { dedupe: undefined, idempotency_key: 'i' })
    const first = await submit(t, 2)
    const last = await submit(t, 3, { dedupe: { key: 'l' } })
    const full = { code: 'JOBS_QUEUE_FULL' }
    await assert.rejects(submit(t, 4, { dedupe: undefined }), full)
    await assert.rejects(submit(t, 4, { dedupe: undefined, idempotency_key: 'j' }), full)
    await assert.rejects(submit(t, 4, { dedupe: { key: 'm' } }), full)
    for (let at = 0; at < 2; at++) {
      assert.equal((await submit(t, 1, { dedupe: undefined, idempotency_key: 'i' })).id, keyed.id)
      assert.equal((await submit(t, 4)).id, first.id)
      assert.deepEqual([(await submit(t, at, { dedupe: { key: 'k', mode: 'replace' } })).id, (await t.get(Jobs).get(operator, first.id)).input], [first.id, at])
    }
    await assert.rejects(submit(t, 5, { dedupe: undefined, idempotency_key: 'i' }), { code: 'JOBS_KEY_REUSED' })
    const one = { type: 'quick', input: 1, idempotency_key: 'i' }
    const many = (...more: object[]) => t.get(Jobs).submitMany(operator, [one, { type: 'quick', input: 2, dedupe: { key: 'k' } }, ...more] as JobRequest[])
    assert.deepEqual((await many()).map(each => each.id), [keyed.id, first.id])
    await assert.rejects(many({ type: 'quick', input: 1 }), full)
    assert.equal((await t.get(Jobs).admit(operator, one)).id.length, keyed.id.length)
    await assert.rejects(t.get(Jobs).admit(operator, { type: 'quick', input: 1 }), full)
    for (const { id } of [first, last]) await t.get(Jobs).cancel(operator, id)
    await eventually('room', async () => (await many({ type: 'quick', input: 1, idempotency_key: 'z' }).catch(() => [])).length === 3 || undefined)
    assert.equal(await count(t), 5)
  })
})
