import { BackplaneError, maskSecrets, reasonOf, rootOf, type Clock, type Live, type Logger } from '#core'
import { AccessErrors, type Access, type Caller } from '#contracts/access'
import type { Lease } from '#contracts/cluster'
import type { Database } from '#contracts/database'
import { JobErrors, type JobError, type JobRequest, type Jobs } from '#contracts/jobs'
import { ScheduleErrors } from '#contracts/schedules'
import type { SchedulesConfig } from './config.ts'
import { dueTimes, nextAfter } from './cron.ts'
import { instruments } from './instruments.ts'
import type { ScheduleRow, ScheduleStore } from './store.ts'

/** Schedules that are fired side by side. */
const BATCH = 20
const FINAL: ReadonlySet<string> = new Set(['completed', 'dead', 'cancelled'])

export interface LeaderDeps {
  readonly store: ScheduleStore
  readonly database: Database
  readonly jobs: Jobs
  readonly access: Live<Access>
  readonly clock: Clock
  readonly log: Logger
  readonly config: Pick<SchedulesConfig, 'late_ms' | 'retry_ms' | 'sweep_ms'>
}

/** Which of the times that are due is decided on now, and when the next one is. */
export interface Due { readonly at: number; readonly next_at: number | null; readonly fires: boolean; readonly passed: number }

export function decide(row: ScheduleRow & { readonly next_at: number }, now: number, late_ms: number): Due {
  const times = dueTimes(row, row.next_at, now)
  const latest = times.at(-1)!
  const next_at = nextAfter(row, Math.max(now, latest))
  if (row.missed === 'all') return { at: times[0]!, next_at: times[1] ?? next_at, fires: true, passed: 0 }
  const fires = row.missed === 'once' || now - latest <= late_ms
  return { at: latest, next_at, fires, passed: times.length - (fires ? 1 : 0) }
}

/** What a schedule submits at that time: twice the same, it is one job. */
export function jobRequestOf({ id, name, project_id, request }: ScheduleRow, at: number): JobRequest {
  const scheduled_at = new Date(at).toISOString()
  const asked = JSON.parse(request) as JobRequest
  return { ...asked, project_id, idempotency_key: `schedule:${id}:${scheduled_at}`, metadata: { ...asked.metadata, schedule: name, scheduled_at } }
}

/** Fires what is due, in the one process that holds the lease. */
export class ScheduleLeader {
  #wake = () => {}
  #woken = false

  constructor(readonly deps: LeaderDeps) {}

  /** Something has changed: another one may be the next. */
  wake(): void {
    this.#woken = true
    this.#wake()
  }

  async lead(lease: Lease): Promise<void> {
    const { config, log } = this.deps
    while (!lease.signal.aborted) {
      this.#woken = false
      let pause = config.sweep_ms
      try { pause = await this.#look(lease) } catch (error) {
        log.warn('schedules wait, and are looked at again', { reason: reasonOf(error) })
      }
      if (!this.#woken) await this.#pause(pause, lease.signal)
    }
  }

  /** Milliseconds until there is something to do. */
  async #look(lease: Lease): Promise<number> {
    const { store, clock, config: { sweep_ms } } = this.deps
    while (!lease.signal.aborted) {
      const rows = await store.due(clock.now(), BATCH)
      const moved = await Promise.all(rows.map(row => this.#fire(row, lease)))
      // Somebody else fires them, or they were changed meanwhile.
      if (rows.length && !moved.includes(true)) return sweep_ms
      if (!rows.length) break
    }
    const nearest = await store.nearest()
    return nearest === undefined ? sweep_ms : Math.max(1, Math.min(nearest - clock.now(), sweep_ms))
  }

  /** True if the schedule goes on with another time. */
  async #fire(row: ScheduleRow, lease: Lease): Promise<boolean> {
    const { store, clock, config, log } = this.deps
    if (row.next_at === null || lease.signal.aborted) return false
    let due: Due
    try { due = decide({ ...row, next_at: row.next_at }, clock.now(), config.late_ms) } catch (error) {
      // A time zone that this machine does not know, say: the others must not wait for it.
      log.error('the times of a schedule can\'t be read, and are tried again', { schedule: row.name, project: row.project_id, err: error })
      return store.postpone(row, lease.token, clock.now() + config.retry_ms, failureOf(error, row.name))
    }
    const fields = { schedule: row.name, project: row.project_id, at: new Date(due.at).toISOString() }
    const pass = async (error: JobError | null, reason: string) => {
      const moved = await store.advance(row, lease.token, { last_at: due.at, next_at: due.next_at, job_id: null, error })
      if (moved) instruments.missed.add(due.passed + (due.fires ? 1 : 0), { reason })
      return moved
    }
    if (!due.fires) return pass(null, 'late')
    try {
      const job = await this.#submit(row, due, lease)
      if (job === undefined) return false
      instruments.fired.inc({ project: row.project_id })
      instruments.lag.observe(Math.max(0, clock.now() - due.at) / 1_000)
      if (due.passed) instruments.missed.add(due.passed, { reason: 'late' })
      log.info('a schedule fired', { ...fields, job_id: job })
      return true
    } catch (error) {
      const failure = failureOf(error, row.name)
      if (failure.retryable) {
        log.warn('a schedule could not fire for now, and is tried again', { ...fields, reason: reasonOf(error) })
        return store.postpone(row, lease.token, clock.now() + config.retry_ms, failure)
      }
      const overlap = ScheduleErrors.OVERLAP.is(error)
      if (overlap) log.debug('a time of a schedule is passed over', { ...fields, reason: reasonOf(error) })
      else log.error('a time of a schedule brought no job', { ...fields, code: failure.code, err: error })
      return pass(failure, overlap ? 'overlap' : 'refused')
    }
  }

  /** The job and the next time, in one transaction: whatever is killed, both are there or neither. Nothing if it was not ours to fire. */
  async #submit(row: ScheduleRow, due: Due, lease: Lease): Promise<string | undefined> {
    const { store, database, jobs, access } = this.deps
    if (!access.current) throw AccessErrors.UNAVAILABLE()
    const caller = await access.current.restore(row.principal_id, row.project_id)
    if (row.overlap === 'skip' && row.last_job_id !== null) await this.#expectEnded(caller, row.last_job_id)
    const admitted = await jobs.admit(caller, jobRequestOf(row, due.at))
    return database.transaction(async tx => {
      // First: it locks the row, so that a second leader waits here and then finds another time.
      if (!await store.advance(row, lease.token, { last_at: due.at, next_at: due.next_at, job_id: admitted.id, error: null }, tx)) return undefined
      const { id } = await jobs.enter(admitted, tx)
      if (id !== admitted.id) await store.began(row.id, id, tx)
      return id
    })
  }

  async #expectEnded(caller: Caller, id: string): Promise<void> {
    const job = await this.deps.jobs.get(caller, id).catch((error: unknown) => { if (!JobErrors.NOT_FOUND.is(error)) throw error; return undefined })
    if (job && !FINAL.has(job.status)) throw ScheduleErrors.OVERLAP({ job: id })
  }

  #pause(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise(resolve => {
      const end = () => {
        cancel()
        signal.removeEventListener('abort', end)
        this.#wake = () => {}
        resolve()
      }
      const cancel = this.deps.clock.after(ms, end)
      this.#wake = end
      signal.addEventListener('abort', end)
      if (signal.aborted) end()
    })
  }
}

/** What is shown of a firing that brought no job. One that may pass is tried again. */
function failureOf(error: unknown, name: string): JobError {
  const root = rootOf(error)
  const typed = root instanceof BackplaneError ? root : undefined
  const hidden = ScheduleErrors.FAILED({ name })
  const retryable = typed?.retryable === true || AccessErrors.UNAVAILABLE.is(error)
  const message = typed?.expose ? maskSecrets(reasonOf(typed)).slice(0, 1_000) : hidden.message
  return { code: typed?.code ?? hidden.code, message, retryable }
}
