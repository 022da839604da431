import type { Database, Statement, Tx } from '#contracts/database'
import type { JobError } from '#contracts/jobs'
import type { MissedPolicy, OverlapPolicy, Schedule } from '#contracts/schedules'
import type { Timing } from './cron.ts'

/** A schedule as its table has it: times in milliseconds, data as JSON text. */
export interface ScheduleRow extends Timing {
  readonly id: string
  readonly name: string
  readonly project_id: string
  readonly created_by: string
  readonly principal_id: string
  readonly declared: number
  readonly request: string
  readonly missed: MissedPolicy
  readonly overlap: OverlapPolicy
  readonly enabled: number
  readonly next_at: number | null
  /** When the leader is to look at it: `next_at`, or later after a firing that could not be done. */
  readonly look_at: number | null
  readonly last_at: number | null
  readonly last_job_id: string | null
  readonly last_error: string | null
  /** Of the lease under which it was fired last: an older one may write nothing. */
  readonly token: number
  /** Counts the changes that people make. */
  readonly version: number
  readonly created_at: number
  readonly updated_at: number
}

export interface Selection {
  readonly projects: readonly string[] | 'all'
  readonly project_id?: string
  readonly after?: readonly [project: string, name: string]
  readonly limit: number
}

/** What became of a time. */
export interface Decision {
  readonly last_at: number
  readonly next_at: number | null
  readonly job_id: string | null
  readonly error: JobError | null
}

export class ScheduleStore {
  readonly #advance: Statement
  readonly #postpone: Statement
  readonly #nearest: Statement<{ at: number | null }>
  readonly #began: Statement

  constructor(readonly database: Database) {
    // What was read, and under a lease that is no older than the last: whoever was paused in between changes nothing.
    const asRead = 'id = ? AND version = ? AND next_at = ? AND token <= ?'
    this.#advance = database.prepare(
      `UPDATE schedules SET last_at = ?, next_at = ?, look_at = ?, last_job_id = coalesce(?, last_job_id), last_error = ?, token = ? WHERE ${asRead}`)
    this.#postpone = database.prepare(`UPDATE schedules SET look_at = ?, last_error = ?, token = ? WHERE ${asRead}`)
    this.#nearest = database.prepare('SELECT min(look_at) AS at FROM schedules')
    this.#began = database.prepare('UPDATE schedules SET last_job_id = ?, last_error = NULL WHERE id = ?')
  }

  #table(tx?: Tx) { return this.database.knex(tx)<ScheduleRow>('schedules') }

  /** With `tx` it is locked, to be changed. */
  async find(project_id: string, name: string, tx?: Tx): Promise<ScheduleRow | undefined> {
    const query = this.#table(tx).where({ project_id, name }).first()
    return (await (tx && this.database.dialect === 'postgres' ? query.forUpdate() : query)) as ScheduleRow | undefined
  }

  async list({ projects, project_id, after, limit }: Selection): Promise<ScheduleRow[]> {
    const query = this.#table().orderBy(['project_id', 'name']).limit(limit)
    if (projects !== 'all') query.whereIn('project_id', [...projects])
    if (project_id !== undefined) query.where({ project_id })
    if (after) query.whereRaw('(project_id, name) > (?, ?)', [...after])
    return query as unknown as Promise<ScheduleRow[]>
  }

  async count(project_id: string, tx: Tx): Promise<number> {
    return Number((await this.#table(tx).where({ project_id }).count({ count: '*' }).first())!['count'])
  }

  async save(row: ScheduleRow, tx: Tx): Promise<void> { await this.#table(tx).insert(row).onConflict(['project_id', 'name']).merge() }

  async remove(id: string): Promise<void> { await this.#table().where({ id }).delete() }

  /** Those that the config declared once. */
  async declared(): Promise<ScheduleRow[]> { return this.#table().where({ declared: 1 }) as unknown as Promise<ScheduleRow[]> }

  async due(now: number, limit: number): Promise<ScheduleRow[]> {
    return this.#table().where('look_at', '<=', now).orderBy(['look_at', 'id']).limit(limit) as unknown as Promise<ScheduleRow[]>
  }

  /** When the next one is due. */
  async nearest(): Promise<number | undefined> { return (await this.#nearest.get([]))?.at ?? undefined }

  /** Those that were told why they brought no job. */
  async failing(): Promise<number> { return Number((await this.#table().whereNotNull('last_error').count({ count: '*' }).first())!['count']) }

  /** False if the schedule is not as it was read, or another one leads. */
  async advance(row: ScheduleRow, token: number, { last_at, next_at, job_id, error }: Decision, tx?: Tx): Promise<boolean> {
    return await this.#advance.run([last_at, next_at, next_at, job_id, textOf(error), token, row.id, row.version, row.next_at, token], tx) > 0
  }

  async postpone(row: ScheduleRow, token: number, until: number, error: JobError): Promise<boolean> {
    return await this.#postpone.run([until, textOf(error), token, row.id, row.version, row.next_at, token]) > 0
  }

  async began(id: string, job_id: string, tx: Tx): Promise<void> { await this.#began.run([job_id, id], tx) }
}

const textOf = (error: JobError | null) => error && JSON.stringify(error)
const timeOf = (ms: number | null) => (ms === null ? null : new Date(Number(ms)).toISOString())

export const toSchedule = (row: ScheduleRow): Schedule => ({
  id: row.id, name: row.name, project_id: row.project_id, created_by: row.created_by, principal_id: row.principal_id, declared: row.declared === 1,
  cron: row.cron, time_zone: row.time_zone, request: JSON.parse(row.request), missed: row.missed, overlap: row.overlap, enabled: row.enabled === 1,
  starts_at: timeOf(row.starts_at), ends_at: timeOf(row.ends_at), next_at: timeOf(row.next_at), last_at: timeOf(row.last_at),
  last_job_id: row.last_job_id, last_error: row.last_error === null ? null : JSON.parse(row.last_error),
  created_at: timeOf(row.created_at)!, updated_at: timeOf(row.updated_at)!,
})
