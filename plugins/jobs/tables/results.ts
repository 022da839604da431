import type { Database, Statement, Tx } from '#contracts/database'
import type { Job } from '#contracts/jobs'
import { dataOf, type JobRow } from './record.ts'

/** Results that are too large for the row of their job: nobody reads them but who asks for them. */
export class ResultStore {
  readonly #put: Statement
  readonly #size: Statement
  readonly #get: Statement<{ result: string }>

  constructor(database: Database) {
    this.#put = database.prepare('INSERT INTO job_results (job_id, result) VALUES (?, ?) ON CONFLICT (job_id) DO UPDATE SET result = excluded.result')
    this.#size = database.prepare('UPDATE jobs SET result_bytes = ? WHERE id = ?')
    this.#get = database.prepare('SELECT result FROM job_results WHERE job_id = ?')
  }

  async write(id: string, text: string, bytes: number, tx: Tx): Promise<void> {
    await this.#put.run([id, text], tx)
    await this.#size.run([bytes, id], tx)
  }

  /** As JSON, wherever it is; nothing if the job has none. */
  async textOf({ id, result, result_bytes }: Pick<JobRow, 'id' | 'result' | 'result_bytes'>): Promise<string | undefined> {
    return result_bytes ? (await this.#get.get([id]))?.result : result ?? undefined
  }

  /** The job with its result in it. */
  async whole(job: Job): Promise<Job> {
    const text = job.result_ref && await this.textOf({ id: job.id, result: null, result_bytes: job.result_ref.bytes })
    return text ? { ...job, result: dataOf(text), result_ref: null } : job
  }
}
