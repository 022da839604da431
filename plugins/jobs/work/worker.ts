import { AsyncResource } from 'node:async_hooks'
import { BackplaneError, CoreErrors, reasonOf, rootOf, scope, type Clock, type Contributions, type Live, type Logger, type ScopeFields } from '#core'
import type { Access } from '#contracts/access'
import type { Database, Tx } from '#contracts/database'
import { JobErrors, type Job, type JobProgress, type JobType } from '#contracts/jobs'
import type { Consumer, JobQueue } from '#contracts/queue'
import { Batch } from '../batch.ts'
import type { JobsConfig } from '../config.ts'
import type { DueJobs } from './due.ts'
import { Execution } from './execution.ts'
import { awayFor, failureOf, isSuspect, pauseAfter } from './failure.ts'
import type { Family } from '../intake/family.ts'
import { checkInput } from '../intake/input.ts'
import { instruments } from '../instruments.ts'
import { jsonOf } from '../tables/json.ts'
import { isFinal, type JobEvent } from '../tables/machine.ts'
import type { Limits } from './limits.ts'
import { checkRun } from '../intake/permission.ts'
import { ProgressStore } from '../watch/progress.ts'
import { toJob, type JobRow } from '../tables/record.ts'
import type { JobStore, Step } from '../tables/store.ts'
import { Sweeper } from './sweeper.ts'
import { told, type Waiting } from './waiting.ts'

const SETTLE_TRIES = 10
/** Attempts that end in one transaction. */
const MOST_AT_ONCE = 64

export interface WorkerDeps {
  readonly store: JobStore
  readonly database: Database
  readonly queue: JobQueue
  readonly due: DueJobs
  readonly waiting: Waiting
  readonly limits: Limits
  readonly family: () => Family
  readonly clock: Clock
  readonly log: Logger
  readonly config: JobsConfig
  readonly owner: string
  readonly types: Contributions<JobType>
  readonly access: Live<Access>
  /** The guards of JobSettling are there. */
  ready(): void | Promise<void>
  settling(job: Job, tx: Tx): void | Promise<void>
  settled(job: Job): void
}

type Outcome =
  | { readonly is: 'completed'; readonly result: string }
  | { readonly is: 'failed' | 'cancelled'; readonly error: unknown }
  /** What it needs asks to be left alone for so long. */
  | { readonly is: 'put_off'; readonly error: unknown; readonly ms: number }
  /** `stopped`: this process ends, others may go on at once. `away`: what it needs is away, so it waits for the sweep. */
  | { readonly is: 'stopped' | 'away' | 'lost' | 'waiting' }

/** How an attempt is to end. */
interface Ending { readonly execution: Execution; readonly event: JobEvent; readonly changes: Step['changes'] }

const frameOf = ({ id, project_id, traceparent }: JobRow): ScopeFields => ({ job_id: id, project_id, ...(traceparent !== null && { traceparent }) })

/** What was written for callers and has no cause says all; of anything else the stack is wanted. */
const whyOf = (error: unknown) =>
  (error instanceof BackplaneError && error.expose && error.cause === undefined ? { reason: error.message, fix: error.fix } : { err: error })

/** Its attempt has come to an end of its own. */
const isOver = ({ status }: JobRow): boolean => !['queued', 'delayed', 'waiting'].includes(status)

/** Claims, runs and settles jobs in this process. */
export class Worker {
  /** Every attempt that is not written down yet; of one job there may be two for a moment. */
  readonly #running = new Set<Execution>()
  /** The latest attempt of each job. */
  readonly #latest = new Map<string, Execution>()
  #state: 'new' | 'running' | 'draining' | 'stopped' = 'new'
  #consumer: Consumer | undefined
  #renewing: (() => void) | undefined
  #cancelLoss: (() => void) | undefined
  #renewal: Promise<void> | undefined
  /** The one whose claim is not committed yet. */
  #suspect: { readonly id: string; readonly until: number } | undefined
  /** Claims whose COMMIT was not answered yet, as they were written. */
  readonly claims = new Map<string, JobRow>()
  #idle: (() => void)[] = []
  // The queue is woken by whoever submits: what it brings must not run in the scope of that request.
  readonly #outside = new AsyncResource('BackplaneJob', { requireManualDestroy: true })

  readonly #progress: ProgressStore
  readonly #endings: Batch<Ending, Job>
  readonly sweeper = new Sweeper(this)

  constructor(readonly deps: WorkerDeps) {
    this.#progress = new ProgressStore(deps.database, deps.store.deps.events)
    this.#endings = new Batch({ database: deps.database, most: MOST_AT_ONCE, write: (endings, tx) => this.#endAll(endings, tx) })
  }

  /** What is submitted to be run at once runs here. */
  get takes(): boolean { return (this.#state === 'new' || this.#state === 'running') && this.deps.config.concurrency > 0 }
  /** It looks for work. */
  get looks(): boolean { return this.#state === 'running' }
  /** It was set up and not started, as for a command: nobody here looks for work. */
  get idle(): boolean { return this.#state === 'new' && this.takes }
  find(id: string): Execution | undefined { return this.#latest.get(id) }
  typeOf(type: string): JobType | undefined {
    const same = (each: { value: JobType }) => each.value.type === type
    return this.deps.types.away.some(same) ? undefined : this.deps.types.all.find(same)?.value
  }

  #ownerOf(type: JobType): string { return this.deps.types.all.find(each => each.value === type)?.plugin ?? 'jobs' }

  async start(): Promise<void> {
    const { clock, config, queue, types } = this.deps
    this.#state = 'running'
    // Not waited for: with much that is queued it takes longer than a start may.
    if (config.concurrency) void this.sweeper.sweep(true)
    this.#cancelLoss = queue.onLoss?.(() => void this.sweeper.sweep(true))
    clock.every(config.sweep_ms, () => this.sweeper.sweep())
    types.watch(() => this.#typesChanged())
    if (!config.concurrency) return
    this.#consumer = await queue.consume((ids, tx) => (tx ? this.#claim(ids, tx) : this.deps.database.transaction(own => this.#claim(ids, own))))
    this.#report()
  }

  /** Takes nothing more, and resolves when what runs has ended. */
  async drain(): Promise<void> {
    this.#state = 'draining'
    this.#deafen()
    await this.#consumer?.[Symbol.asyncDispose]()
    this.#consumer = undefined
    if (this.#running.size) await new Promise<void>(resolve => this.#idle.push(resolve))
  }

  /** A loss is told once, to who hands over again what was lost. */
  #deafen(): void {
    this.#cancelLoss?.()
    this.#cancelLoss = undefined
  }

  /** Aborts what runs and hands it back with its finished steps; the attempt does not count. */
  async stop(): Promise<void> {
    this.#state = 'stopped'
    this.#deafen()
    await this.#consumer?.[Symbol.asyncDispose]()
    // Again: with the end of one that was being written others may have begun.
    while (this.#running.size) {
      for (const execution of this.#running) execution.abort(JobErrors.INTERRUPTED())
      await Promise.allSettled([...this.#running].map(execution => execution.done))
    }
    await this.#renewal
    await this.sweeper.idle()
    await this.deps.due.close()
  }

  /** Runs a claimed job. Resolves when the attempt is over and written down. */
  begin(row: JobRow, onProgress?: (progress: JobProgress) => void): Promise<Job> {
    const { config, store, log, clock } = this.deps
    const execution = new Execution(row, {
      store, log, family: this.deps.family, maxResultBytes: config.max_result_bytes, progress: { store: this.#progress, clock },
    })
    execution.onProgress = onProgress
    // Its lease ran out before it noticed, and the job came back here: the two must not go on side by side.
    this.#latest.get(row.id)?.abort(JobErrors.LEASE_LOST({ id: row.id }))
    this.#latest.set(row.id, execution)
    this.#running.add(execution)
    this.#renewing ??= clock.every(config.lease.renew_ms, () => this.#renew())
    if (this.#state === 'stopped') execution.abort(JobErrors.INTERRUPTED())
    instruments.wait.observe(Math.max(0, store.now - row.run_at) / 1_000, { type: row.type })
    execution.done = scope.run(frameOf(row), () => this.#work(execution)).finally(() => {
      this.#running.delete(execution)
      if (this.#latest.get(row.id) === execution) this.#latest.delete(row.id)
      this.#report()
      if (this.#running.size) return
      this.#renewing?.()
      this.#renewing = undefined
      for (const wake of this.#idle.splice(0)) wake()
    })
    execution.done.catch(error => {
      log.error('the end of an attempt could not be written; it is taken back when its lease is over', { job_id: row.id, err: error })
    })
    return execution.done
  }

  #report(): void { this.#consumer?.want(Math.max(0, this.deps.config.concurrency - this.#running.size)) }

  async #claim(ids: readonly string[], tx: Tx): Promise<void> {
    // The consumer was closed while this delivery was on its way: it must come again, elsewhere.
    if (this.#state !== 'running') throw JobErrors.INTERRUPTED()
    const { store } = this.deps
    const rows = await store.readAll(ids, tx)
    this.#beginAll(await store.changeAll(await this.#claimable(ids.flatMap(id => rows.get(id) ?? []), tx), tx), tx)
  }

  /** The claims that may be made of what was delivered, or kept back until now. */
  async #claimable(rows: readonly JobRow[], tx: Tx): Promise<readonly Step[]> {
    const { store, access, log } = this.deps
    const queued = rows.filter(row => row.status === 'queued')
    const runnable = (row: JobRow) => access.current !== undefined && this.typeOf(row.type) !== undefined
    for (const { id, type } of queued.filter(row => !runnable(row))) {
      log.debug('a job waits for a plugin', { job_id: id, type })
      await store.setAside(id, tx)
    }
    const changes = this.lease()
    const { limits } = this.deps
    const admitted = await limits.admit(await this.#apart(queued.filter(runnable), tx), tx)
    tx.afterCommit(() => limits.freed(queued.filter(row => row.held_by && !runnable(row))))
    return admitted.map(row => ({ row, event: 'claim', changes }))
  }

  #beginAll(changed: readonly (JobRow | undefined)[], tx: Tx): void {
    const claimed = changed.filter(row => row !== undefined)
    for (const row of claimed) this.claims.set(row.id, row)
    tx.afterCommit(() => {
      for (const row of claimed) {
        // Else the sweep gave up waiting for this, and hands it back.
        if (this.claims.get(row.id) !== row) continue
        this.claims.delete(row.id)
        this.#outside.runInAsyncScope(() => void this.begin(row).catch(() => {}))
      }
      this.#report()
    })
  }

  /** One suspect at a time: those that died with a job that kills its process would lose their last attempts beside it, too. */
  async #apart(rows: readonly JobRow[], tx: Tx): Promise<readonly JobRow[]> {
    const { now } = this.deps.store
    const busy = [...this.#running].some(({ row }) => isSuspect(row))
    const free = (id: string) => !busy && (!this.#suspect || this.#suspect.id === id || this.#suspect.until <= now)
    const suspects = rows.filter(isSuspect)
    const one = suspects.find(({ id }) => free(id))
    if (one) this.#expectSuspect(one.id, tx)
    const later = suspects.filter(row => row !== one)
    for (const { id } of later) await this.deps.store.setAside(id, tx)
    return rows.filter(row => !later.includes(row))
  }

  /** Of a roll-back nobody tells: then it is forgotten in time. */
  #expectSuspect(id: string, tx: Tx): void {
    this.#suspect = { id, until: this.lease().lease_until }
    tx.afterCommit(() => { this.#suspect = undefined })
  }

  /** The columns that say who has a job from now on. */
  lease(): { lease_owner: string; lease_until: number } {
    const { owner, store, config } = this.deps
    return { lease_owner: owner, lease_until: store.now + config.lease.ms }
  }

  async #work(execution: Execution): Promise<Job> {
    const { row } = execution
    const { clock } = this.deps
    const cancel = clock.after(row.timeout_ms, () => execution.abort(JobErrors.TIMEOUT({ ms: row.timeout_ms })))
    let outcome: Outcome
    try { outcome = await this.#outcome(execution) } finally { cancel() }
    await execution.closeProgress()
    switch (outcome.is) {
      case 'completed': return this.#settle(execution, 'complete', { result: outcome.result, error: null })
      case 'cancelled': return this.#settle(execution, 'cancel', { error: failureOf(outcome.error, row.id) })
      case 'failed': return this.#fail(execution, outcome.error)
      case 'put_off': return this.#putOff(execution, outcome)
      case 'lost': return this.#dropped(execution)
      case 'waiting': return this.#settle(execution, 'park', {})
      default: return this.#handBack(execution, outcome.is === 'stopped')
    }
  }

  async #outcome(execution: Execution): Promise<Outcome> {
    const { row, signal } = execution
    const { access, config } = this.deps
    const type = this.typeOf(row.type)
    const asked = access.current
    execution.type = type
    if (!type || !asked) return { is: 'away' }
    try {
      const value = await execution.race(async () => {
        const caller = await asked.restore(row.principal_id, row.project_id)
        await checkRun(asked, caller, type, row)
        const input = await checkInput(row.type, type.input, JSON.parse(row.input))
        return scope.run({ plugin: this.#ownerOf(type) }, () => execution.run(type, caller, input))
      })
      return { is: 'completed', result: jsonOf('result', value, config.max_result_bytes) }
    } catch (error) {
      const { reason } = signal
      if (signal.aborted && JobErrors.LEASE_LOST.is(reason)) return { is: 'lost' }
      if (signal.aborted && JobErrors.INTERRUPTED.is(reason)) return { is: 'stopped' }
      if (signal.aborted && JobErrors.WAITING.is(reason)) return { is: 'waiting' }
      if (signal.aborted && JobErrors.CANCELLED.is(reason)) return { is: 'cancelled', error: reason }
      // A plugin that is going takes its runs down with it; that is not the job's fault.
      if (this.typeOf(row.type) !== type) return { is: 'away' }
      const failure: unknown = signal.aborted ? reason : error
      const waited = this.deps.store.now - Number(row.started_at)
      return failure instanceof BackplaneError && failure.away ? awayFor(failure, waited) : { is: 'failed', error: failure }
    }
  }

  /** The job as it stands without what this attempt made of it. */
  async #dropped({ id, row, token }: Execution): Promise<Job> {
    const now = await this.deps.store.read(id) ?? row
    // Its end may have been kept, too, without the database saying so.
    const kept = now.status === 'completed' && now.token === token
    if (now.status !== 'cancelled' && !kept) this.deps.log.warn('the result of an attempt is dropped: another worker has the job', { job_id: id })
    return toJob(now)
  }

  #fail(execution: Execution, error: unknown): Promise<Job> {
    const { row } = execution
    const { config, log, store } = this.deps
    const failure = failureOf(error, row.id)
    log.error('an attempt failed', { job_id: row.id, type: row.type, attempt: row.attempt, code: failure.code, ...whyOf(error) })
    instruments.attemptsFailed.inc({ type: row.type })
    return this.#settle(execution, failure.retryable ? 'fail' : 'refuse', { error: failure, run_at: store.now + pauseAfter(error, row, config.retry) })
  }

  #putOff(execution: Execution, { error, ms }: { readonly error: unknown; readonly ms: number }): Promise<Job> {
    const { log, store } = this.deps
    const failure = failureOf(error, execution.id)
    log.info('a job is put off', { job_id: execution.id, code: failure.code, ms })
    return this.#settle(execution, 'put_off', { error: failure, run_at: store.now + ms })
  }

  /** State, result, event and what the handlers of JobSettling write, in one transaction. Their veto makes a result a failure. */
  async #settle(execution: Execution, event: JobEvent, changes: Step['changes']): Promise<Job> {
    const { clock, log } = this.deps
    for (let tries = 1; ; tries++) {
      try {
        await this.deps.ready()
        return await this.#endings.add({ execution, event, changes })
      } catch (error) {
        const root = rootOf(error) as { retryable?: boolean } | undefined
        if (JobErrors.LEASE_LOST.is(error)) {
          return this.#dropped(execution)
        }
        if (execution.accompanied && tries === 1) continue
        if (root?.retryable !== true || tries === SETTLE_TRIES) {
          if ((event !== 'complete' && event !== 'park') || root?.retryable === true) throw error
          return this.#fail(execution, root)
        }
        log.warn('an attempt could not be settled, trying again', { job_id: execution.id, reason: reasonOf(error) })
        await new Promise<void>(resolve => clock.after(Math.min(50 * 2 ** tries, 2_000), resolve))
      }
    }
  }

  /** A job that waits here for its time. */
  expect(at: number): void { if (this.#state === 'running') this.deps.due.expect(at) }

  /** Attempts that end at the same moment; and others, which take their places, begin. */
  async #endAll(endings: readonly Ending[], tx: Tx): Promise<(Job | Error)[]> {
    const { store, waiting, limits } = this.deps
    for (const { execution } of endings) await execution.writeRest(tx)
    const room = this.#roomAfter(endings)
    const taken = await this.#takeFor(endings, room, tx)
    // Their parents too, which may be woken: whoever locked them later would wait for others in a circle.
    const rows = await store.readAll([...endings.flatMap(({ execution: { id, row } }) => [id, row.parent_id ?? []].flat()), ...taken], tx)
    const held = endings.filter(({ execution: { id, token, owner } }) => rows.get(id)?.token === token && rows.get(id)?.lease_owner === owner)
    const ends = held.map(({ execution, event, changes }) =>
      ({ row: rows.get(execution.id)!, event, changes, ...(event === 'park' && { data: told(execution.waits) }) }))
    // A limit counts what is written.
    const apart = limits.any ? await store.changeAll(ends, tx) : undefined
    const next = [...taken.flatMap(id => rows.get(id) ?? []), ...apart ? await this.#heirsOf(endings, apart, room - taken.length, tx) : []]
    const claims = next.length ? await this.#claimable(next, tx) : []
    const together = await store.changeAll(apart ? claims : [...ends, ...claims], tx)
    const changed = apart ?? together.slice(0, ends.length)
    const begun = apart ? together : together.slice(ends.length)
    if (next.length) this.#beginAll(begun, tx)
    for (const [at, row] of changed.entries()) if (row?.status === 'waiting') changed[at] = await waiting.begin(row, held[at]!.execution.waits, tx)
    const jobs = await this.#ended(changed.filter(row => row !== undefined), tx, begun.filter(row => row !== undefined))
    const of = new Map(jobs.map(job => [job.id, job]))
    return endings.map(ending => (held.includes(ending) && of.get(ending.execution.id)) || JobErrors.LEASE_LOST({ id: ending.execution.id }))
  }

  /** Places that these leave to others. */
  #roomAfter(endings: readonly Ending[]): number {
    if (this.#state !== 'running' || endings.some(({ execution }) => execution.accompanied)) return 0
    return Math.max(0, Math.min(endings.length, this.deps.config.concurrency - this.#running.size + endings.length))
  }

  /** Ids for the places of those that end; but what keeps those from beginning must not keep these from ending. */
  async #takeFor(endings: readonly Ending[], room: number, tx: Tx): Promise<readonly string[]> {
    if (!room) return []
    const note = (accompanied: boolean) => { for (const { execution } of endings) execution.accompanied = accompanied }
    // Before it is known: to take them may fail, too.
    note(true)
    const ids = await this.#consumer?.take(room, tx) ?? []
    note(ids.length > 0)
    return ids
  }

  /** Whom the limits kept back for these, and who need not go through the queue, since nobody there waits for the place. */
  async #heirsOf(endings: readonly Ending[], ended: readonly (JobRow | undefined)[], room: number, tx: Tx): Promise<readonly JobRow[]> {
    if (room < 1 || !this.#consumer?.empty) return []
    for (const { execution } of endings) execution.accompanied = true
    return this.deps.limits.heirs(ended.filter(row => row !== undefined), room, tx)
  }

  /** Makes a step that ends a run, with hooks, metrics and what follows. */
  async end(event: JobEvent, changes: Step['changes'], take: (tx: Tx) => Promise<JobRow>): Promise<Job> {
    const { store, database } = this.deps
    await this.deps.ready()
    return database.transaction(async tx => (await this.#ended([await store.change(await take(tx), event, changes, tx)], tx))[0]!)
  }

  /** `begun`: others, in their places. */
  async #ended(rows: readonly JobRow[], tx: Tx, begun: readonly JobRow[] = []): Promise<Job[]> {
    const { store, waiting, limits } = this.deps
    await store.handOver([...rows.filter(row => row.status === 'queued'), ...await waiting.childrenEnded(rows, tx)], tx)
    tx.afterCommit(() => limits.freed(rows, begun))
    const jobs: Job[] = []
    for (const row of rows) {
      const job = toJob(row)
      jobs.push(job)
      if (isOver(row)) await scope.run(frameOf(row), () => this.deps.settling(job, tx))
      tx.afterCommit(() => scope.run(frameOf(row), () => this.#tell(row, job)))
    }
    return jobs
  }

  #tell(row: JobRow, job: Job): void {
    if (row.status === 'failed' || row.status === 'delayed') this.expect(row.run_at)
    if (row.status === 'waiting' && row.wake_at) this.expect(row.wake_at)
    if (row.status === 'completed') instruments.completed.inc({ type: row.type })
    else if (isFinal(row.status)) instruments.failed.inc({ reason: job.error?.code ?? row.status })
    if (isFinal(row.status)) {
      const duration_ms = row.finished_at! - (row.started_at ?? row.finished_at!)
      instruments.duration.observe(duration_ms / 1_000, { type: row.type })
      this.deps.log.info(`job ${row.status}`, { job_id: row.id, type: row.type, attempt: row.attempt, duration_ms })
    }
    if (isOver(row)) this.deps.settled(job)
  }

  async #handBack(execution: Execution, now: boolean): Promise<Job> {
    const { store, database, log } = this.deps
    log.info('a job is handed back', { job_id: execution.id })
    return database.transaction(async tx => {
      await execution.writeRest(tx)
      const row = await store.read(execution.id, tx)
      if (row?.token !== execution.token || row.status !== 'running') return toJob(row ?? execution.row)
      const after = await store.change(row, 'hand_back', { run_at: store.now }, tx)
      if (now) await store.handOver([after], tx)
      return toJob(after)
    })
  }

  #renew(): void {
    const { store, log } = this.deps
    const until = this.lease().lease_until
    // One that is slow must not be overtaken by the next.
    this.#renewal ??= Promise.allSettled([...this.#running].map(async execution => {
      try {
        if (!await store.renew(execution, until)) execution.abort(JobErrors.LEASE_LOST({ id: execution.id }))
      } catch (error) { log.warn('a lease could not be renewed', { job_id: execution.id, reason: reasonOf(error) }) }
    })).then(() => { this.#renewal = undefined })
  }

  #typesChanged(): void {
    for (const execution of this.#running) {
      const { type } = execution
      if (!type || this.deps.types.all.some(each => each.value === type)) continue
      execution.abort(CoreErrors.Service.UNAVAILABLE({ service: `job type ${type.type}` }))
    }
    void this.sweeper.sweep()
  }
}
