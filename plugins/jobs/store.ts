import type { Clock } from '#core'
import { JobErrors, type JobError } from '#contracts/jobs'
import type { Database, Statement, Tx } from '#contracts/database'
import type { EventLog } from '#contracts/events'
import type { JobQueue } from '#contracts/queue'
import { isFinal, next, type JobEvent } from './machine.ts'
import { dataOf, type JobRow } from './record.ts'

const COLUMNS = [
  'id', 'type', 'agent', 'project_id', 'created_by', 'principal_id', 'traceparent', 'status', 'input', 'result', 'error',
  'priority', 'attempt', 'max_attempts', 'timeout_ms', 'backoff', 'seq', 'idempotency_key', 'substance', 'metadata', 'lease_owner', 'lease_until', 'token',
  'created_at', 'run_at', 'started_at', 'finished_at', 'handed_at',
] as const satisfies readonly (keyof JobRow)[]
const CHANGING = [
  'status', 'attempt', 'token', 'result', 'error', 'run_at', 'started_at', 'finished_at', 'lease_owner', 'lease_until', 'handed_at',
] as const satisfies readonly (keyof JobRow)[]
type Changes = Partial<Pick<JobRow, 'result' | 'run_at' | 'lease_owner' | 'lease_until' | 'handed_at'>> & { readonly error?: JobError | null }

const PAST = {
  claim: 'job.started', complete: 'job.completed', fail: 'job.failed', refuse: 'job.dead', interrupt: 'job.interrupted',
  hand_back: 'job.handed_back', due: 'job.queued', cancel: 'job.cancelled', retry: 'job.retried',
} as const satisfies Record<JobEvent, string>
/** An event holds at most 64 KiB; a result that is larger is read from the job. */
const EVENT_RESULT = 32_768

/** Who holds a job, and under which token. */
export interface Claim { readonly id: string; readonly token: number; readonly owner: string }

export interface StoreDeps {
  readonly database: Database
  readonly queue: JobQueue
  readonly clock: Clock
  readonly events: () => EventLog | undefined
}

/** The tables of jobs: every change of a state is made here, by the machine, with its event in the same transaction. */
export class JobStore {
  readonly #byId: Statement<JobRow>
  readonly #locked: Statement<JobRow>
  readonly #byKey: Statement<JobRow>
  readonly #insert: Statement
  readonly #change: Statement
  readonly #remove: Statement
  readonly #begin: Statement
  readonly #end: Statement
  readonly #renew: Statement
  readonly #steps: Statement<{ name: string; result: string | null }>
  readonly #step: Statement

  constructor(readonly deps: StoreDeps) {
    const { database } = deps
    this.#byId = database.prepare('SELECT * FROM jobs WHERE id = ?')
    // Progress moves seq on while the job runs: what is read to be changed must stay as it was read.
    this.#locked = database.dialect === 'postgres' ? database.prepare('SELECT * FROM jobs WHERE id = ? FOR UPDATE') : this.#byId
    this.#byKey = database.prepare('SELECT * FROM jobs WHERE project_id = ? AND created_by = ? AND idempotency_key = ?')
    this.#insert = database.prepare(
      `INSERT INTO jobs (${COLUMNS.join(', ')}) VALUES (${COLUMNS.map(() => '?').join(', ')})
       ON CONFLICT (project_id, created_by, idempotency_key) DO NOTHING`)
    this.#change = database.prepare(`UPDATE jobs SET ${CHANGING.map(each => `${each} = ?`).join(', ')}, seq = seq + 1 WHERE id = ? AND seq = ?`)
    this.#remove = database.prepare('DELETE FROM jobs WHERE id = ? AND seq = ?')
    this.#begin = database.prepare('INSERT INTO job_attempts (job_id, token, attempt, worker, started_at) VALUES (?, ?, ?, ?, ?)')
    this.#end = database.prepare('UPDATE job_attempts SET finished_at = ?, outcome = ?, error = ? WHERE job_id = ? AND token = ?')
    this.#renew = database.prepare(`UPDATE jobs SET lease_until = ? WHERE id = ? AND token = ? AND lease_owner = ? AND status = 'running'`)
    this.#steps = database.prepare('SELECT name, result FROM job_steps WHERE job_id = ?')
    this.#step = database.prepare(
      `INSERT INTO job_steps (job_id, name, result, attempt, started_at, finished_at)
       SELECT id, ?, ?, attempt, ?, ? FROM jobs WHERE id = ? AND token = ? AND lease_owner = ? AND status = 'running'`)
  }

  get now(): number { return this.deps.clock.now() }
  read(id: string, tx?: Tx): Promise<JobRow | undefined> { return (tx ? this.#locked : this.#byId).get([id], tx) }

  /**
   * The row, or the one that has its idempotency key already: of the same principal, or somebody would be shown the job of another.
   * Rejects with JOBS_KEY_REUSED if that was made for something else. A queued one is in the queue with it; a running one is claimed.
   */
  async insert(row: JobRow, tx: Tx): Promise<{ readonly row: JobRow; readonly created: boolean }> {
    if (!await this.#insert.run(COLUMNS.map(column => row[column]), tx)) {
      const first = (await this.#byKey.get([row.project_id, row.created_by, row.idempotency_key], tx))!
      if (first.substance !== row.substance) throw JobErrors.KEY_REUSED({ key: row.idempotency_key! })
      return { row: first, created: false }
    }
    await this.#tell(row, 'job.created', tx)
    if (row.status === 'running') await this.#begin.run([row.id, row.token, row.attempt, row.lease_owner, row.started_at], tx)
    if (row.status === 'queued') await this.handOver([row], tx, true)
    return { row, created: true }
  }

  /** One step of the machine. Rejects with JOBS_LEASE_LOST if it has no such step, or the row has changed since it was read. */
  async change(row: JobRow, event: JobEvent, changes: Changes, tx: Tx): Promise<JobRow> {
    const standing = next(row, event)
    if (!standing) throw JobErrors.LEASE_LOST({ id: row.id })
    const { now } = this
    const claims = event === 'claim'
    const released = claims ? {} : { lease_owner: null, lease_until: null }
    // Nothing stays of an end that is taken back.
    const reopened = isFinal(row.status) ? { result: null, error: null, started_at: null } : {}
    const error = changes.error === undefined ? row.error : changes.error && JSON.stringify(changes.error)
    const after: JobRow = {
      ...row, ...released, ...changes, ...standing, error, seq: row.seq + 1,
      token: claims ? row.token + 1 : row.token,
      started_at: claims ? row.started_at ?? now : row.started_at,
      ...reopened,
      finished_at: isFinal(standing.status) ? now : null,
      handed_at: standing.status === 'queued' && row.status !== 'queued' ? 0 : changes.handed_at ?? row.handed_at,
    }
    if (!await this.#change.run([...CHANGING.map(column => after[column]), row.id, row.seq], tx)) throw JobErrors.LEASE_LOST({ id: row.id })
    if (claims) await this.#begin.run([row.id, after.token, after.attempt, after.lease_owner, now], tx)
    else if (row.status === 'running') {
      const outcome = event === 'interrupt' ? 'interrupted' : event === 'hand_back' ? 'handed_back' : standing.status
      await this.#end.run([now, outcome, error, row.id, row.token], tx)
    }
    await this.#tell(after, standing.status === 'dead' ? 'job.dead' : PAST[event], tx)
    return after
  }

  /** change() of one job of many, or nothing if somebody else was quicker: that must not undo the others. */
  async tryChange(row: JobRow, event: JobEvent, changes: Changes, tx: Tx): Promise<JobRow | undefined> {
    try { return await this.change(row, event, changes, tx) } catch (error) {
      if (JobErrors.LEASE_LOST.is(error)) return undefined
      throw error
    }
  }

  /** Deletes a job with its attempts and steps; the log keeps what happened to it. Rejects with JOBS_LEASE_LOST if the row has changed. */
  async remove(row: JobRow, tx: Tx): Promise<void> {
    if (!await this.#remove.run([row.id, row.seq], tx)) throw JobErrors.LEASE_LOST({ id: row.id })
    await this.#tell({ ...row, seq: row.seq + 1 }, 'job.discarded', tx)
  }

  /** Gives queued jobs to the queue: in `tx` if it can, else after commit, and what is lost then the sweep finds by `handed_at`. */
  async handOver(rows: readonly JobRow[], tx: Tx, fresh = false): Promise<void> {
    const { database, queue } = this.deps
    if (!rows.length) return
    const entries = rows.map(({ id, priority }) => ({ id, priority }))
    const ids = rows.map(row => row.id)
    const handed = (at?: Tx) => database.knex(at)('jobs').whereIn('id', ids).where('status', 'queued').update({ handed_at: this.now })
    if (queue.can.transactional) {
      await queue.enqueue(entries, tx)
      if (!fresh) await handed(tx)
    } else tx.afterCommit(() => queue.enqueue(entries).then(() => handed()))
  }

  /** True while this claim stands; its lease is longer then. */
  async renew({ id, token, owner }: Claim, until: number): Promise<boolean> { return await this.#renew.run([until, id, token, owner]) > 0 }

  /** What earlier attempts left, by the name of the step. */
  async steps(id: string): Promise<Map<string, string | null>> {
    return new Map((await this.#steps.all([id])).map(({ name, result }) => [name, result]))
  }

  /** Rejects with JOBS_LEASE_LOST if the claim no longer stands. */
  async saveStep({ id, token, owner }: Claim, name: string, result: string | null, startedAt: number): Promise<void> {
    if (!await this.#step.run([name, result, startedAt, this.now, id, token, owner])) throw JobErrors.LEASE_LOST({ id })
  }

  get #jobs() { return this.deps.database.knex()('jobs') }

  /** Ids of running jobs whose lease is over. */
  async expired(limit: number): Promise<string[]> {
    return this.#jobs.where('status', 'running').where('lease_until', '<=', this.now).orderBy('lease_until').limit(limit).pluck('id')
  }
  /** Ids of jobs whose time has come. */
  async due(limit: number): Promise<string[]> {
    return this.#jobs.whereIn('status', ['failed', 'delayed']).where('run_at', '<=', this.now).orderBy('run_at').limit(limit).pluck('id')
  }
  /** Queued jobs that were last given to the queue before that moment, and may be lost to it. */
  async unhanded(before: number, types: readonly string[], limit: number, tx?: Tx): Promise<JobRow[]> {
    return this.deps.database.knex(tx)('jobs')
      .where('status', 'queued').where('handed_at', '<', before).whereIn('type', [...types]).orderBy('run_at').limit(limit)
  }
  /** Nothing here can run it now: the sweep looks at it again. */
  async setAside(id: string, tx: Tx): Promise<void> {
    await this.deps.database.knex(tx)('jobs').where({ id, status: 'queued' }).update({ handed_at: 0 })
  }

  async #tell(row: JobRow, type: string, tx: Tx): Promise<void> {
    const log = this.deps.events()
    if (!log) return
    const { id, agent, status, attempt, seq, project_id, created_by } = row
    const result = status === 'completed' ? row.result : null
    const fits = result === null || Buffer.byteLength(result) <= EVENT_RESULT
    await log.append(tx, [{
      type, project_id, created_by, job_id: id, seq,
      topics: [`job:${id}`, `project:${project_id}`, ...(agent === null ? [] : [`agent:${agent}`])],
      data: {
        id, type: row.type, agent, status, attempt, error: dataOf(row.error),
        ...(fits ? { result: dataOf(result) } : { result_bytes: Buffer.byteLength(result) }),
      },
    }])
  }
}
