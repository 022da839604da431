import type { Clock } from '#core'
import { recordLog, type FakeClock } from '#core/testing'
import type { Access } from '#contracts/access'
import { DatabaseErrors, type Database, type Tx } from '#contracts/database'
import type { EventLog } from '#contracts/events'
import type { Job, JobContext } from '#contracts/jobs'
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
import { openTable, type Host, type Lane, type Outside } from './walk-queues.ts'

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
  readonly outside?: Outside | undefined
  readonly limits?: JobsConfig['limits'] | undefined
  /** Looks at what was committed. */
  readonly committed?: (() => Promise<void>) | undefined
}

export function fly<T>(flying: Set<Promise<unknown>>, flight: Promise<T>): Promise<T> {
  flying.add(flight)
  const landed = () => void flying.delete(flight)
  flight.then(landed, landed)
  return flight
}

/** Lets everything go on that can without the time going on. */
export async function idle(flying: ReadonlySet<Promise<unknown>>): Promise<void> {
  for (let quiet = 0; quiet < 3;) {
    await Promise.allSettled([...flying])
    await new Promise(resolve => setImmediate(resolve))
    quiet = flying.size ? 0 : quiet + 1
  }
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
export class Process implements Host {
  fault: Fault | undefined
  dead = false
  /** So often the next end of an attempt is vetoed. */
  vetoes = 0
  readonly attempts: Attempt[] = []
  readonly log = recordLog()
  /** What runs jobs is being restarted here. */
  without = false
  readonly clock: Clock
  readonly database: Database
  readonly lane: Lane
  /** Every other one lets new attempts begin where others end. */
  readonly takes: boolean
  readonly config: JobsConfig
  readonly worker: Worker
  readonly service: JobService
  readonly questions: JobQuestions
  readonly due: DueJobs
  readonly #leader: ScheduleLeader
  readonly #leading = new AbortController()
  #paused: Set<() => void> | undefined
  readonly #timers = new Set<() => void>()

  constructor(readonly name: string, readonly world: World) {
    const config = this.config = schema.parse({
      concurrency: 1_000, sweep_ms: 3_600_000, retry: { base_ms: 2_000, max_ms: 20_000 }, aging_ms: 5_000, ...(world.limits && { limits: world.limits }),
    })
    const { log } = this
    const clock = this.clock = this.#clock()
    const database = this.database = this.#wrap(world.database)
    this.takes = Number(name.slice(1)) % 2 === 0
    const { queue } = this.lane = world.outside?.open(this) ?? openTable(this)
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

  point(): void {
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
        return (...args: unknown[]) => this.fly(async () => { this.point(); return (value as (...all: unknown[]) => unknown).apply(target, args) })
      },
    })
    return {
      dialect: database.dialect, migrate: database.migrate.bind(database),
      knex: tx => { this.point(); return database.knex(tx) },
      prepare: sql => counted(database.prepare(sql)), prepareMany: (sql, types) => counted(database.prepareMany(sql, types)),
      transaction: work => this.fly(async () => {
        this.point()
        let told: (() => unknown)[] = []
        const value = await database.transaction(async tx => {
          const after: (() => unknown)[] = told = []
          tx.afterCommit = run => void after.push(run)
          const made = await work(tx)
          this.point()
          return made
        })
        await this.world.committed?.()
        // Committed, and nobody was told.
        this.point()
        for (const run of told) void (async () => run())().catch(() => {})
        return value
      }),
    }
  }

  fly<T>(work: () => Promise<T>): Promise<T> { return fly(this.world.flying, work()) }
  idle(): Promise<void> { return idle(this.world.flying) }

  async #append(tx: Tx, list: Parameters<EventLog['append']>[1]): Promise<void> {
    const rows = list.map(({ job_id, seq, type, data }) => ({ job_id, seq, type, data: JSON.stringify(data) }))
    await this.database.knex(tx)('walk_events').insert(rows)
  }
}
