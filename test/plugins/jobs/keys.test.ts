import assert from 'node:assert/strict'
import fc from 'fast-check'
import { eventually, FakeClock, type TestRuntime } from '#core/testing'
import { Database, type Tx } from '#contracts/database'
import { Jobs, JobErrors, type Dedupe, type JobRequest } from '#contracts/jobs'
import { JobQueue } from '#contracts/queue'
import type { JobEvent } from '../../../plugins/jobs/tables/machine.ts'
import { JobStore } from '../../../plugins/jobs/tables/store.ts'
import { postgresOrSkip } from '../../support/services.ts'
import { jobType, operator, runtime } from './kit.ts'

/** The rest is for `npm run chaos -- test/plugins/jobs/keys.test.ts`. */
const RUNS = process.env['BACKPLANE_CHAOS'] ? { sqlite: 2_000, postgres: 500 } : { sqlite: 40, postgres: 8 }
const LONGEST_MS = process.env['BACKPLANE_CHAOS'] ? 3_600_000 : 60_000
const MINUTE = 60_000
const DAY = 86_400_000
const SWEEP = 30_000
const FINAL = ['completed', 'dead', 'cancelled']

interface Ask { readonly by: string; readonly input: number; readonly delay: number; readonly priority: number; readonly key: string | null; readonly dedupe: Dedupe | null }
type Does =
  | { readonly does: 'submit'; readonly asks: readonly Ask[] }
  | { readonly does: (typeof STEPS)[number]; readonly which: number }
  | { readonly does: 'wait'; readonly ms: number }

/** One job, as it should be. `awaiting`: queued or delayed. */
interface Known { id: string; is: string; begun: boolean; by: string; input: number; priority: number; due: number; until: number }

const STEPS = ['begin', 'complete', 'fail', 'refuse', 'hand_back', 'cancel', 'retry', 'discard'] as const
const one = <T>(...values: T[]) => fc.constantFrom(...values)
const dedupes = fc.oneof<fc.Arbitrary<Dedupe | null>[]>(fc.constant(null), fc.record({ key: one('a', 'b') }), fc.record({ key: one('a', 'b'), mode: fc.constant('replace' as const) }),
  fc.record({ key: one('a', 'b'), ttl_ms: one(1_000, MINUTE) }))
const asks: fc.Arbitrary<Ask> = fc.record({ by: one('op', 'other'), input: one(1, 2), delay: one(0, 0, MINUTE), priority: one(1, 5), key: one(null, 'i', 'j', 'k'), dedupe: dedupes })
const commands: fc.Arbitrary<Does> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ does: one('submit' as const), asks: fc.array(asks, { minLength: 1, maxLength: 1 }) }) },
  { weight: 1, arbitrary: fc.record({ does: one('submit' as const), asks: fc.array(asks, { minLength: 2, maxLength: 4 }) }) },
  { weight: 5, arbitrary: fc.record({ does: one(...STEPS), which: fc.nat(5) }) },
  { weight: 1, arbitrary: fc.record({ does: one('wait' as const), ms: one(1_000, MINUTE) }) },
)

/** What should become of requests: a page of rules, without tables. */
class Model {
  jobs: Known[] = []
  /** By whom and idempotency key. */
  asked = new Map<string, { job: Known; what: string }>()
  dedupe = new Map<string, Known>()

  copy(): Model { return Object.assign(new Model(), { jobs: structuredClone(this.jobs) }).linked(this) }
  linked(from: Model): this {
    const mine = (job: Known) => this.jobs[from.jobs.indexOf(job)]!
    for (const [key, { job, what }] of from.asked) this.asked.set(key, { job: mine(job), what })
    for (const [key, job] of from.dedupe) this.dedupe.set(key, mine(job))
    return this
  }

  /** The job that the request gets, or `reused`. A new one has no id yet. */
  submit({ by, input, delay, priority, key, dedupe }: Ask, now: number): Known | 'reused' {
    const what = JSON.stringify([input, delay, priority, dedupe])
    const asked = key === null ? undefined : this.asked.get(`${by} ${key}`)
    if (asked) return asked.what === what ? asked.job : 'reused'
    const note = (job: Known) => { if (key !== null) this.asked.set(`${by} ${key}`, { job, what }); return job }
    const fresh = { is: 'awaiting', begun: false, by, input, priority, due: now + delay, until: dedupe?.ttl_ms === undefined ? 0 : now + dedupe.ttl_ms }
    const holder = dedupe ? this.holder(dedupe.key, now) : undefined
    if (holder && dedupe!.mode !== 'replace') return note(holder)
    if (holder?.is === 'awaiting' && !holder.begun) return note(Object.assign(holder, fresh))
    const made = { id: '', ...fresh }
    this.jobs.push(made)
    if (dedupe) this.dedupe.set(dedupe.key, made)
    return note(made)
  }

  holder(key: string, now: number): Known | undefined {
    const found = this.dedupe.get(key)
    // Whose time is over keeps it until somebody else wants it: run again, it has it still.
    return !found || !FINAL.includes(found.is) || found.until > now ? found : undefined
  }

  end(job: Known, is: string, now: number): void {
    Object.assign(job, { is })
    for (const [key, holder] of this.dedupe) if (holder === job && job.until <= now) this.dedupe.delete(key)
  }

  forget(job: Known): void {
    this.jobs = this.jobs.filter(each => each !== job)
    for (const [key, { job: each }] of this.asked) if (each === job) this.asked.delete(key)
    for (const [key, each] of this.dedupe) if (each === job) this.dedupe.delete(key)
  }
}

/** The model beside the real thing. */
class Pair {
  model = new Model()
  readonly jobs: Jobs
  readonly database: Database
  readonly store: JobStore
  constructor(readonly t: TestRuntime, readonly clock: FakeClock, readonly project: string) {
    this.jobs = t.get(Jobs)
    this.database = t.get(Database)
    this.store = new JobStore({ database: this.database, queue: t.get(JobQueue), clock, events: () => undefined })
  }

  async do(what: Does): Promise<void> {
    if (what.does === 'wait') {
      await this.clock.advance(what.ms)
      const owed = async () => [...(await this.#rows()).rows.values()].some(row => row.status === 'delayed' && row.run_at <= this.clock.now())
      // A query of PostgreSQL that was under way may have been given up, since a minute passed; then the next sweep finds what is due.
      await eventually('what is due', async () => !await owed() || (await this.clock.advance(SWEEP), false))
    } else if (what.does === 'submit') await this.#submit(what.asks)
    else await this.#step(what.does, this.model.jobs[what.which % this.model.jobs.length])
    await this.#compare()
  }

  async #submit(requests: readonly Ask[]): Promise<void> {
    const after = this.model.copy()
    const expected = requests.map(each => after.submit(each, this.clock.now()))
    const asked = requests.map(({ input, delay, priority, key, dedupe }): JobRequest => ({
      type: 'work', project_id: this.project, input, priority, max_attempts: 100, ...(delay && { delay_ms: delay }), ...(key !== null && { idempotency_key: key }), ...(dedupe && { dedupe }),
    }))
    const [{ by }] = requests as [Ask]
    const caller = { ...operator, id: by }
    // A batch is of one caller.
    if (requests.some(each => each.by !== by)) return
    const got = await (asked.length === 1 ? this.jobs.submit(caller, asked[0]!).then(job => [job]) : this.jobs.submitMany(caller, asked)).catch((error: unknown) => error)
    if (expected.includes('reused')) return assert.ok(JobErrors.KEY_REUSED.is(got), `refused was expected, and not ${JSON.stringify(got)}`)
    if (!Array.isArray(got)) throw got
    for (const [at, job] of (expected as Known[]).entries()) {
      if (job.id === '') job.id = got[at].id
      assert.equal(got[at].id, job.id, `of request ${at}`)
    }
    assert.equal(new Set(after.jobs.map(each => each.id)).size, after.jobs.length, 'a job that is there is none that is new')
    this.model = after
  }

  async #step(does: Exclude<Does['does'], 'submit' | 'wait'>, job: Known | undefined): Promise<void> {
    const { model, jobs, clock } = this
    if (!job) return
    const final = FINAL.includes(job.is)
    switch (does) {
      case 'cancel':
        if (final && job.is !== 'cancelled') return assert.rejects(jobs.cancel(operator, job.id), { code: 'JOBS_FINAL' })
        await jobs.cancel(operator, job.id)
        if (!final) model.end(job, 'cancelled', clock.now())
        return
      case 'retry':
        if (job.is === 'running' || job.is === 'completed' || (job.is === 'awaiting' && job.due <= clock.now())) return assert.rejects(jobs.retry(operator, job.id), { code: 'JOBS_NOT_RETRYABLE' })
        await jobs.retry(operator, job.id)
        Object.assign(job, { is: 'awaiting', due: clock.now() })
        return
      case 'discard':
        if (job.is !== 'dead') return assert.rejects(jobs.discard(operator, job.id), { code: 'JOBS_NOT_DEAD' })
        await jobs.discard(operator, job.id)
        return model.forget(job)
    }
    if (job.is === 'awaiting' || job.is === 'failed') {
      await this.#change(job.id, ['due', 'claim'])
      Object.assign(job, { is: 'running', begun: true })
    }
    if (does === 'begin' || job.is !== 'running') return
    await this.#change(job.id, [does])
    if (does === 'complete') model.end(job, 'completed', clock.now())
    else if (does === 'refuse') model.end(job, 'dead', clock.now())
    else Object.assign(job, { is: does === 'fail' ? 'failed' : 'awaiting', due: clock.now() })
  }

  /** As a worker does; what it takes leaves the queue. */
  #change(id: string, events: readonly JobEvent[]): Promise<void> {
    const { store, database } = this
    return database.transaction(async (tx: Tx) => {
      await this.t.get(JobQueue).remove([id], tx)
      let row = (await store.read(id, tx))!
      for (const event of events) {
        if (event === 'due' && row.status === 'queued') continue
        const error = { code: 'X', message: 'x', retryable: true }
        row = await store.change(row, event, event === 'claim' ? { lease_owner: 'test', lease_until: store.now + 100 * MINUTE } : event === 'fail' ? { error, run_at: store.now + 100 * MINUTE } : {}, tx)
      }
      if (row.status === 'queued') await store.handOver([row], tx)
    })
  }

  async #rows() {
    const knex = this.database.knex()
    const rows = new Map((await knex('jobs').where({ project_id: this.project })).map(row => [row.id as string, row]))
    return { rows, queued: new Map((await knex('queue_entries')).map(each => [each.id as string, Number(each.priority)])) }
  }

  async #compare(): Promise<void> {
    const { rows, queued } = await this.#rows()
    const now = this.clock.now()
    const shown = (status: string) => (['queued', 'delayed'].includes(status) ? 'awaiting' : status)
    assert.deepEqual(
      [...rows.values()].map(({ id, status, input, priority, created_by }) => [id, shown(status), JSON.parse(input), priority, created_by]).toSorted(),
      this.model.jobs.map(({ id, is, input, priority, by }) => [id, is, input, priority, by]).toSorted())
    for (const key of ['a', 'b']) {
      const found = [...rows.values()].find(row => row.dedupe_key === key && (!FINAL.includes(row.status) || Number(row.dedupe_until ?? 0) > now))
      assert.equal(found?.id, this.model.holder(key, now)?.id, `who has the key ${key}`)
    }
    for (const job of this.model.jobs) {
      assert.equal(rows.get(job.id)!.status === 'delayed', job.is === 'awaiting' && job.due > now, 'it waits for its time')
      assert.equal(queued.get(job.id), job.is === 'awaiting' && job.due <= now ? job.priority : undefined, 'its place in the queue')
    }
  }
}

describe('jobs: the keys of requests', () => {
  const walk = async (numRuns: number, url?: string) => {
    const clock = new FakeClock()
    const types = [jobType('work', async () => null)]
    await using t = await runtime({ types, config: { concurrency: 0, sweep_ms: SWEEP, rehand_ms: DAY, aging_ms: DAY }, clock, ...(url !== undefined && { url }) })
    let project = 0
    await fc.assert(fc.asyncProperty(fc.array(commands, { minLength: 5, maxLength: 40, size: 'max' }), async all => {
      const pair = new Pair(t, clock, `p${project++}`)
      for (const each of all) await pair.do(each)
    }), { numRuns })
  }

  it('say which job stands for each, whatever is asked for, replaced, ended, run again or deleted in between', () => walk(RUNS.sqlite)).timeout(LONGEST_MS)

  it('do so on PostgreSQL', async function () {
    this.timeout(LONGEST_MS)
    const server = await postgresOrSkip(this)
    await using place = await server.newDatabase()
    await walk(RUNS.postgres, place.url)
  })
})
