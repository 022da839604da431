import type { Database } from '#contracts/database'
import { dataOf, timeOf, timeOrNull, type JobAttempt, type JobRow, type JobStep } from './record.ts'

export interface Selection {
  readonly projects: readonly string[] | 'all'
  readonly status?: string
  readonly agent?: string
  readonly limit: number
  readonly cursor?: string
}

/** What is asked of the tables of jobs, and changes nothing. */
export class JobQueries {
  constructor(readonly database: Database) {}

  get #jobs() { return this.database.knex()('jobs') }

  async list({ projects, status, agent, limit, cursor }: Selection): Promise<JobRow[]> {
    const query = this.#jobs.orderBy('id', 'desc').limit(limit)
    if (projects !== 'all') query.whereIn('project_id', [...projects])
    if (status !== undefined) query.where({ status })
    if (agent !== undefined) query.where({ agent })
    if (cursor !== undefined) query.where('id', '<', cursor)
    return query
  }

  async history(id: string): Promise<{ attempts: JobAttempt[]; steps: JobStep[] }> {
    const knex = this.database.knex()
    const attempts = await knex('job_attempts').where({ job_id: id }).orderBy('token')
    const steps = await knex('job_steps').where({ job_id: id }).orderBy(['finished_at', 'name'])
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
    const rows: { status: string; count: number; oldest: number }[] = await this.#jobs
      .whereIn('status', ['queued', 'running']).groupBy('status').select('status').count({ count: '*' }).min({ oldest: 'run_at' })
    const [queued, running] = ['queued', 'running'].map(status => rows.find(row => row.status === status))
    return { queued: Number(queued?.count ?? 0), running: Number(running?.count ?? 0), oldest: queued && Number(queued.oldest) }
  }
}
