import type { Database } from '#contracts/database'
import { ASIDE, CODE_OF, IDLE } from '../migrations.ts'
import { dataOf, timeOf, timeOrNull, type JobAttempt, type JobRow, type JobStep } from './record.ts'

export interface Selection {
  readonly projects: readonly string[] | 'all'
  readonly status?: string
  readonly agent?: string
  readonly type?: string
  readonly project_id?: string
  readonly parent_id?: string
  /** Of its error. */
  readonly code?: string
  readonly limit: number
  readonly cursor?: string
}

const PARAMETERS = 500
/** Of inputs and results in one page: the event loop stands still while they are read and written. */
const PAGE_BYTES = 4 * 1_048_576

const isAside = (status: string | undefined): boolean => status !== undefined && !['queued', 'running', 'completed'].includes(status)

/** The columns whose index finds the fewest jobs, mostly: few run or wait now, many are completed, and most are of type agent. */
function leadOf({ parent_id, agent, type, status, project_id }: Omit<Selection, 'limit' | 'cursor' | 'projects'>): readonly string[] {
  if (parent_id !== undefined) return ['parent_id']
  if (status === 'queued' || status === 'running') return ['status']
  const whose = agent !== undefined ? 'agent' : type !== undefined && type !== 'agent' ? 'type' : undefined
  if (whose !== undefined) return isAside(status) ? [whose, 'status'] : [whose]
  return isAside(status) ? ['status'] : project_id !== undefined ? ['project_id'] : ['project_id', 'status']
}

/** What is asked of the tables of jobs. */
export class JobQueries {
  constructor(readonly database: Database) {}

  get #jobs() { return this.database.knex()('jobs') }

  /** The newest first; fewer of those that are large. `next`: the cursor of the rest. */
  async list({ limit, cursor, ...filter }: Selection): Promise<{ rows: JobRow[]; next: string | null }> {
    const found: { id: string; bytes: number }[] = await this.page({ limit, ...(cursor !== undefined && { cursor }), ...filter })
    let bytes = 0
    const ids = found.slice(0, limit).filter((each, at) => (bytes += Number(each.bytes)) <= PAGE_BYTES || at === 0).map(each => each.id)
    const rows = ids.length ? await this.#jobs.whereIn('id', ids).orderBy('id', 'desc') : []
    return { rows, next: found.length > ids.length ? ids.at(-1)! : null }
  }

  /** The statement of a page, with one more than that has. */
  page({ limit, cursor, ...filter }: Selection) {
    const query = this.#matching(filter).orderBy('id', 'desc').limit(limit + 1)
      .select('id', this.database.knex().raw('octet_length(input) + octet_length(metadata) + coalesce(octet_length(result), 0) AS bytes'))
    return cursor === undefined ? query : query.where('id', '<', cursor)
  }

  /** Ids after that one, the oldest first. */
  async ids({ limit, cursor, ...filter }: Selection): Promise<string[]> {
    const query = this.#matching(filter).orderBy('id').limit(limit)
    if (cursor !== undefined) query.where('id', '>', cursor)
    return query.pluck('id')
  }

  #matching({ projects, code, ...equal }: Omit<Selection, 'limit' | 'cursor'>) {
    const [query, knex] = [this.#jobs, this.database.knex()]
    const lead = code === undefined ? leadOf(equal) : []
    // The plus keeps SQLite, which has no statistics, from the index of that column.
    const column = (name: string) => (this.database.dialect === 'postgres' || lead.includes(name) ? name : knex.raw('+??', [name])) as string
    if (projects !== 'all') query.whereIn(column('project_id'), [...projects])
    for (const [name, value] of Object.entries(equal)) if (value !== undefined) query.where(column(name), value)
    if (isAside(equal.status)) query.whereRaw(ASIDE)
    if (code !== undefined) query.whereNotNull('error').whereRaw(`${CODE_OF[this.database.dialect]} = ?`, [code])
    return query
  }

  /** When the first of the jobs that wait for their time may run, if that is before `until`. */
  async nextDue(until: number): Promise<number | undefined> {
    const row = await this.#jobs.whereRaw(IDLE).whereIn('status', ['failed', 'delayed']).where('run_at', '<=', until).min({ at: 'run_at' }).first()
    return row?.at === null || row?.at === undefined ? undefined : Number(row.at)
  }

  async byIds(ids: readonly string[]): Promise<JobRow[]> {
    const rows: JobRow[] = []
    for (let from = 0; from < ids.length; from += PARAMETERS) rows.push(...await this.#jobs.whereIn('id', ids.slice(from, from + PARAMETERS)))
    return rows
  }

  async openChildren(parentId: string, limit: number): Promise<string[]> {
    return this.#jobs.where({ parent_id: parentId }).whereNull('finished_at').orderBy('id').limit(limit).pluck('id')
  }
  /** Ids of cancelled jobs whose children are to be cancelled still. */
  async cancelledParents(limit: number): Promise<string[]> {
    return this.#jobs.whereRaw("status = 'cancelled' AND has_children = 1").limit(limit).pluck('id')
  }
  async childrenCancelled(parentId: string): Promise<void> { await this.#jobs.where({ id: parentId, status: 'cancelled' }).update({ has_children: 0 }) }

  /** When the first of the jobs that wait for an answer does so no longer, if that is before `until`. */
  async nextOverdue(until: number): Promise<number | undefined> {
    const row = await this.#jobs.whereRaw("status = 'waiting'").where('wake_at', '<=', until).min({ at: 'wake_at' }).first()
    return row?.at === null || row?.at === undefined ? undefined : Number(row.at)
  }

  /** How many wait to be run; it stops counting there. */
  async waiting(most: number): Promise<number> {
    const knex = this.database.knex()
    const some = knex('jobs').whereRaw(IDLE).whereIn('status', ['queued', 'delayed', 'failed']).select(knex.raw('1')).limit(most).as('some')
    return Number((await knex.count({ count: '*' }).from(some).first())!.count)
  }

  async history(id: string): Promise<{ attempts: JobAttempt[]; steps: JobStep[] }> {
    const knex = this.database.knex()
    const attempts = await knex('job_attempts').where({ job_id: id }).orderBy('token')
    const steps = await knex('job_steps').where({ job_id: id }).orderBy(['finished_at', 'name']).select('name', 'attempt', 'started_at', 'finished_at')
    return {
      attempts: attempts.map(each => ({
        attempt: each.attempt, worker: each.worker, started_at: timeOf(each.started_at), finished_at: timeOrNull(each.finished_at),
        outcome: each.outcome, error: dataOf(each.error),
      })),
      steps: steps.map(each => ({
        name: each.name, attempt: each.attempt, started_at: timeOf(each.started_at), finished_at: timeOf(each.finished_at),
      })),
    }
  }

  /** How many wait, how many run, and since when the oldest could run. */
  async load(): Promise<{ queued: number; running: number; oldest: number | undefined }> {
    const [queued, running] = await Promise.all([
      this.#jobs.whereRaw(`status = 'queued' AND ${IDLE}`).count({ count: '*' }).min({ oldest: 'run_at' }).first(),
      this.#jobs.whereRaw("status = 'running'").count({ count: '*' }).first(),
    ])
    return { queued: Number(queued?.count), running: Number(running?.count), oldest: queued?.oldest ?? undefined }
  }
}
