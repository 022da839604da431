import assert from 'node:assert/strict'
import type { Clock } from '#core'
import { recordLog, type FakeClock } from '#core/testing'
import type { Access } from '#contracts/access'
import { DatabaseErrors, type Database, type Tx } from '#contracts/database'
import type { EventLog } from '#contracts/events'
import type { Job, JobContext } from '#contracts/jobs'
import type { Consumer, Deliver, JobQueue, QueueEntry } from '#contracts/queue'
import { JobQuestions } from '../../../plugins/jobs/intake/answers.ts'
import { Backlog } from '../../../plugins/jobs/intake/backlog.ts'
import { Cancellations } from '../../../plugins/jobs/work/cancellation.ts'
import { config as schema, type JobsConfig } from '../../../plugins/jobs/config.ts'
import { JobControl } from '../../../plugins/jobs/intake/control.ts'
import { DueJobs } from '../../../plugins/jobs/work/due.ts'
import type { JobFollower } from '../../../plugins/jobs/watch/follow.ts'
import { Family } from '../../../plugins/jobs/intake/family.ts'
import { JobService } from '../../../plugins/jobs/intake/jobs.ts'
import { JobQueries } from '../../../plugins/jobs/tables/queries.ts'
import { JobRuns } from '../../../plugins/jobs/watch/run.ts'
import { JobStore } from '../../../plugins/jobs/tables/store.ts'
import { Limits } from '../../../plugins/jobs/work/limits.ts'
import { Waiting } from '../../../plugins/jobs/work/waiting.ts'
import { Worker } from '../../../plugins/jobs/work/worker.ts'
import { ScheduleLeader } from '../../../plugins/schedules/leader.ts'
import { ScheduleStore } from '../../../plugins/schedules/store.ts'
import { jobType, operator } from './kit.ts'

export class Killed extends Error { override readonly message = 'the process was killed' }
export const VETO = 'vetoed'

/** What goes wrong at the next statements: `after` so many of them, the process is killed, or one fails and may be tried again. */
export interface Fault { after: number; readonly kind: 'kill' | 'fail' }
/** What both ends of a walk share. */
export interface World {
  readonly database: Database
  readonly clock: FakeClock
  /** What is under way in the database. */
  readonly flying: Set<Promise<unknown>>
  /** In place of a table of the database. */
  readonly engine?: Engine | undefined
  readonly limits?: JobsConfig['limits'] | undefined
  /** Looks at what was committed. */
  readonly committed?: (() => Promise<void>) | undefined
}

interface Entry { readonly priority: number; readonly position: number; readonly taken: Process | undefined }
/** Ids outside the database, as Redis has them: an id is there until its delivery was acknowledged. It may lose them all, or be away. */
export class Engine {
  readonly entries = new Map<string, Entry>()
  /** What only the sweep can give it again. */
  readonly lost = new Set<string>()
  readonly #late: (() => void)[] = []
  away = false
  #position = 0

  /** As in BullMQ an id that is being delivered is there already, though it may be about to leave. */
  add(entries: readonly QueueEntry[]): void {
    if (this.away) throw DatabaseErrors.UNAVAILABLE({ reason: 'the engine is away' })
    for (const { id, priority } of entries) {
      const found = this.entries.get(id)
      if (found?.taken) this.lost.add(id)
      else this.lost.delete(id)
      this.entries.set(id, found ? { ...found, priority: Math.max(found.priority, priority) } : { priority, position: ++this.#position, taken: undefined })
    }
  }

  take(count: number, taken: Process): string[] {
    const waiting = this.away ? [] : [...this.entries].filter(([, entry]) => !entry.taken).sort(([, one], [, two]) => two.priority - one.priority || one.position - two.position)
    const some = waiting.slice(0, count)
    for (const [id, entry] of some) this.entries.set(id, { ...entry, taken })
    return some.map(([id]) => id)
  }
  acknowledge(ids: readonly string[], by: Process): void { for (const id of ids) if (this.entries.get(id)?.taken === by) this.entries.delete(id) }
  putBack(which: (taken: Process) => boolean): void {
    for (const [id, entry] of this.entries) if (entry.taken && which(entry.taken)) this.entries.set(id, { ...entry, taken: undefined })
  }
  /** Whoever asked for it may have died since, and somebody else queued the job again. */
  remove(ids: readonly string[]): void { for (const id of ids) if (!this.entries.get(id)?.taken && this.entries.delete(id)) this.lost.add(id) }
  lose(): void {
    for (const id of this.entries.keys()) this.lost.add(id)
    this.entries.clear()
  }

  /** What is asked of it now, it does later. */
  later(work: () => void): Promise<void> { return new Promise(resolve => this.#late.push(() => { work(); resolve() })) }
  catchUp(): void { for (const work of this.#late.splice(0)) work() }
}
export function fly<T>(flying: Set<Promise<unknown>>, flight: Promise<T>): Promise<T> {
  flying.add(flight)
  const landed = () => void flying.delete(flight)
  flight.then(landed, landed)
  return flight
}

/** An attempt that waits for the walk to say how it goes on. */
export interface Attempt {
  readonly id: string
  readonly token: number
  readonly ctx: JobContext
  readonly done: Promise<Job>
  readonly resolve: (value: unknown) => void
  readonly reject: (error: Error) => void
}

const live = <T>(current: T) => ({ current, watch() {} })
const access: Partial<Access> = { check: async () => {}, projects: async () => 'all', restore: async () => operator }
/** Who waits for a job that does not run here waits on. */
const nobody = { watch: () => ({ [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => {}) }) }) } as unknown as JobFollower
const NOT_MINE = new Set(['dialect', 'then'])

/** One process with everything that `jobs` is made of, on the shared database; it can be killed between any two statements, or stand still. */
export class Process {
  fault: Fault | undefined
  dead = false
  /** So often the next end of an attempt is vetoed. */
  vetoes = 0
  readonly attempts: Attempt[] = []
  readonly log = recordLog()
  /** What runs jobs is being restarted here. */
  without = false
  /** Ids that were taken and are not delivered yet. */
  readonly #carried: string[][] = []
  readonly config: JobsConfig
  readonly worker: Worker
  readonly service: JobService
  readonly questions: JobQuestions
  readonly due: DueJobs
  readonly #leader: ScheduleLeader
  readonly #leading = new AbortController()
  #deliver: Deliver | undefined
  #paused: Set<() => void> | undefined
  readonly #timers = new Set<() => void>()
  readonly #database: Database

  constructor(readonly name: string, readonly world: World) {
    const config = this.config = schema.parse({
      concurrency: 1_000, sweep_ms: 3_600_000, retry: { base_ms: 2_000, max_ms: 20_000 }, aging_ms: 5_000, ...(world.limits && { limits: world.limits }),
    })
    const { log } = this
    const clock = this.#clock()
    const database = this.#database = this.#wrap(world.database)
    const queue = this.#queue()
    const events = { append: (tx: Tx, list: Parameters<EventLog['append']>[1]) => this.#append(tx, list) } as EventLog
    const store = new JobStore({ database, queue, clock, events: () => events, agingMs: config.aging_ms })
    const queries = new JobQueries(database)
    const waiting = new Waiting(store)
    const limits = new Limits({ database, store, clock, config })
    this.due = new DueJobs({ store, queries, waiting, database, clock, log, sweepMs: config.sweep_ms })
    const work = jobType('work', ctx => new Promise((resolve, reject) => {
      const { token, done } = this.worker.find(ctx.job.id)!
      this.attempts.push({ id: ctx.job.id, token, ctx, done, resolve, reject })
    }))
    const types = () => (this.without ? [] : [{ plugin: 'walk', value: work }])
    this.worker = new Worker({
      store, database, queue, due: this.due, waiting, limits, family: () => family, clock, log, config, owner: name, access: live(access as Access),
      types: { get all() { return types() }, away: [], watch() {}, [Symbol.iterator]: () => types().map(each => each.value)[Symbol.iterator]() },
      ready: async () => {}, settled() {},
      settling: async () => { if (this.vetoes > 0) { this.vetoes--; throw new Error(VETO) } },
    })
    const control = new JobControl(this.worker, queries, new Cancellations(this.worker, live(undefined), log))
    const backlog = new Backlog(queries, clock, config.max_queued)
    this.service = new JobService({ worker: this.worker, queries, control, backlog, runs: new JobRuns(this.worker, control, nobody, queries), events: () => events })
    const family = new Family({ worker: this.worker, queries, control, backlog, log, insert: (rows, tx) => this.service.insertAll(rows, tx) })
    this.questions = new JobQuestions(this.worker)
    this.#leader = new ScheduleLeader({
      store: new ScheduleStore(database), database, jobs: this.service, access: live(access as Access), clock, log,
      config: { late_ms: 60_000, retry_ms: 1_000, sweep_ms: 3_600_000 },
    })
  }

  /** Takes up to `count` jobs off the queue, as the engine does. */
  async claim(count: number): Promise<void> {
    assert.ok(this.#deliver, 'nobody consumes')
    const { engine } = this.world
    if (engine) return this.deliver(engine.take(count, this))
    await this.#database.transaction(async tx => {
      const ids = await this.#take(count, tx)
      if (ids.length) await this.#deliver!(ids, tx)
    })
  }
  async #take(count: number, tx: Tx): Promise<string[]> {
    const knex = this.#database.knex(tx)
    const ids = (await knex('queue_entries').orderBy([{ column: 'priority', order: 'desc' }, { column: 'position' }]).limit(count)).map(entry => entry.id as string)
    if (ids.length) await knex('queue_entries').whereIn('id', ids).delete()
    return ids
  }

  /** Takes them, and delivers them when it is told to. */
  carry(count: number): void { this.#carried.push(this.world.engine!.take(count, this)) }
  async deliverCarried(): Promise<void> { for (const ids of this.#carried.splice(0)) await this.deliver(ids) }
  /** Acknowledged when it was delivered, if the process lives so long; whether they are its own or have been put back. */
  async deliver(ids: readonly string[]): Promise<void> {
    if (!ids.length) return
    const engine = this.world.engine!
    try { await this.#fly(async () => this.#deliver!(ids)) } catch (error) {
      if (!this.dead) engine.putBack(taken => taken === this)
      throw error
    }
    this.#point()
    engine.acknowledge(ids, this)
  }

  /** Its timers stand still, so that it loses its leases without knowing. */
  get paused(): boolean { return this.#paused !== undefined }
  pause(): void { this.#paused ??= new Set() }
  resume(): void {
    const missed = this.#paused
    this.#paused = undefined
    for (const run of missed ?? []) run()
  }

  /** Fires schedules from now on, whoever else does so still. */
  lead(token: number): void { void this.#leader.lead({ name: 'schedules', token, signal: this.#leading.signal, [Symbol.asyncDispose]: async () => {} }) }
  leadNoMore(): void { this.#leading.abort() }

  kill(): void {
    this.dead = true
    this.#leading.abort()
    for (const cancel of this.#timers) cancel()
  }

  #point(): void {
    if (this.dead) throw new Killed()
    if (!this.fault || this.fault.after-- > 0) return
    const { kind } = this.fault
    this.fault = undefined
    if (kind === 'fail') throw DatabaseErrors.UNAVAILABLE({ reason: 'of the walk' })
    this.kill()
    throw new Killed()
  }

  #clock(): Clock {
    const { clock } = this.world
    const guarded = (run: () => void) => () => {
      if (this.dead) return
      if (this.#paused) this.#paused.add(run)
      else run()
    }
    const keep = (cancel: () => void) => { this.#timers.add(cancel); return cancel }
    return {
      deadlines: clock.deadlines, now: () => clock.now(),
      after: (ms, run) => keep(clock.after(ms, guarded(run))), every: (ms, run) => keep(clock.every(ms, guarded(run))),
    }
  }

  /** The database as this process has it: each call is a moment at which it may end. */
  #wrap(database: Database): Database {
    const counted = <T extends object>(target: T): T => new Proxy(target, {
      get: (_target, key) => {
        const value = Reflect.get(target, key, target) as unknown
        if (typeof value !== 'function' || NOT_MINE.has(String(key))) return value
        return (...args: unknown[]) => this.#fly(async () => { this.#point(); return (value as (...all: unknown[]) => unknown).apply(target, args) })
      },
    })
    return {
      dialect: database.dialect, migrate: database.migrate.bind(database),
      knex: tx => { this.#point(); return database.knex(tx) },
      prepare: sql => counted(database.prepare(sql)), prepareMany: (sql, types) => counted(database.prepareMany(sql, types)),
      transaction: work => this.#fly(async () => {
        this.#point()
        let told: (() => unknown)[] = []
        const value = await database.transaction(async tx => {
          const after: (() => unknown)[] = told = []
          tx.afterCommit = run => void after.push(run)
          const made = await work(tx)
          this.#point()
          return made
        })
        await this.world.committed?.()
        // Committed, and nobody was told.
        this.#point()
        for (const run of told) void (async () => run())().catch(() => {})
        return value
      }),
    }
  }

  #fly<T>(work: () => Promise<T>): Promise<T> { return fly(this.world.flying, work()) }

  async #append(tx: Tx, list: Parameters<EventLog['append']>[1]): Promise<void> {
    const rows = list.map(({ job_id, seq, type, data }) => ({ job_id, seq, type, data: JSON.stringify(data) }))
    await this.#database.knex(tx)('walk_events').insert(rows)
  }

  /** Every other process lets new attempts begin where others end. */
  get #takes(): boolean { return Number(this.name.slice(1)) % 2 === 0 }

  /** What it delivers, and when, the walk says. */
  #queue(): JobQueue {
    const { engine } = this.world
    return engine ? this.#outside(engine) : this.#table()
  }

  #outside(engine: Engine): JobQueue {
    return {
      can: { transactional: false, distributed: true },
      consume: async deliver => {
        this.#deliver = deliver
        const take = async (count: number, tx: Tx) => {
          const ids = this.#takes ? engine.take(count, this) : []
          tx.afterCommit(() => { this.#point(); engine.acknowledge(ids, this) })
          return ids
        }
        return { want() {}, take, [Symbol.asyncDispose]: async () => {} }
      },
      enqueue: (entries, tx) => this.#fly(async () => {
        assert.equal(tx, undefined)
        this.#point()
        engine.add(entries)
        this.#point()
      }),
      remove: ids => engine.later(() => engine.remove(ids)),
      depth: async () => engine.entries.size,
    }
  }

  /** A table of the database. */
  #table(): JobQueue {
    const table = (tx?: Tx) => this.#database.knex(tx)('queue_entries')
    const consume = async (deliver: Deliver): Promise<Consumer> => {
      this.#deliver = deliver
      return { want() {}, take: async (count, tx) => (this.#takes ? this.#take(count, tx) : []), [Symbol.asyncDispose]: async () => {} }
    }
    return {
      can: { transactional: true, distributed: false }, consume,
      async enqueue(entries: readonly QueueEntry[], tx) { if (entries.length) await table(tx).insert(entries.map(({ id, priority }) => ({ id, priority }))).onConflict('id').ignore() },
      async remove(ids, tx) { await table(tx).whereIn('id', [...ids]).delete() },
      async depth() { return Number((await table().count({ count: '*' }).first())!['count']) },
    }
  }
}
