import type { Tx } from '#contracts/database'
import { JobErrors, type Job } from '#contracts/jobs'
import type { Cancellations } from '../work/cancellation.ts'
import { failureOf } from '../work/failure.ts'
import { isFinal, next } from '../tables/machine.ts'
import type { JobQueries, Selection } from '../tables/queries.ts'
import { toJob, type JobRow } from '../tables/record.ts'
import type { Worker } from '../work/worker.ts'

const BATCH = 100

/** What people do to a job that is there. Whoever else changes it at the same moment is waited for: the last word is the machine's. */
export class JobControl {
  constructor(readonly worker: Worker, readonly queries: JobQueries, readonly cancellations: Cancellations) {}

  async cancel(id: string): Promise<Job> {
    const { worker } = this
    const error = failureOf(JobErrors.CANCELLED(), id)
    return this.#persist(async () => {
      const seen = await this.#read(id)
      if (seen.status === 'cancelled') return toJob(seen)
      if (isFinal(seen.status)) throw JobErrors.FINAL({ id, status: seen.status })
      let before = seen
      const job = await worker.end('cancel', { error }, async tx => {
        // First, as a worker does that takes it: the other way round the two would wait for each other.
        if (seen.status === 'queued') await worker.deps.store.takeOut(id, tx)
        return (before = await this.#read(id, tx))
      })
      if (before.status === 'running') this.cancellations.tell(before)
      if (before.has_children && worker.deps.config.cancel_children) await worker.deps.family().cancelChildren(id)
      return job
    })
  }

  /** Jobs that wait run at once, those that ended without a result have all their attempts again. */
  retry(id: string): Promise<Job> {
    return this.#again(id, row => next(row, 'retry') !== undefined, ({ status }) => JobErrors.NOT_RETRYABLE({ id, status }))
  }

  /** retry() of a dead job. */
  replay(id: string): Promise<Job> { return this.#again(id, row => row.status === 'dead', ({ status }) => JobErrors.NOT_DEAD({ id, status })) }

  /** Every dead job that there is now, the oldest first; one that dies again meanwhile is not taken again. */
  async replayAll(filter: Omit<Selection, 'limit' | 'cursor' | 'status'>): Promise<number> {
    const { database } = this.worker.deps
    let replayed = 0
    for (let cursor: string | undefined; ;) {
      const ids = await this.queries.ids({ ...filter, status: 'dead', limit: BATCH, ...(cursor !== undefined && { cursor }) })
      if (ids.length) replayed += await database.transaction(tx => this.#replaySome(ids, tx))
      if (ids.length < BATCH) return replayed
      cursor = ids.at(-1)
    }
  }

  async discard(id: string): Promise<void> {
    const { store, database } = this.worker.deps
    await this.#persist(() => database.transaction(async tx => {
      const row = await this.#read(id, tx)
      if (row.status !== 'dead') throw JobErrors.NOT_DEAD({ id, status: row.status })
      const { parent_id } = row
      // Not locked: parents are locked before their children.
      if (parent_id !== null && await database.knex(tx)('jobs').where({ id: parent_id }).whereNull('finished_at').first('id')) throw JobErrors.AWAITED({ id, parent_id })
      await store.remove(row, tx)
    }))
  }

  async #again(id: string, may: (row: JobRow) => boolean, refusal: (row: JobRow) => Error): Promise<Job> {
    const { store, database } = this.worker.deps
    return this.#persist(() => database.transaction(async tx => {
      const row = await this.#read(id, tx)
      if (!may(row)) throw refusal(row)
      const queued = await store.change(row, 'retry', { run_at: store.now }, tx)
      await store.handOver([queued], tx)
      return toJob(queued)
    }))
  }

  async #replaySome(ids: readonly string[], tx: Tx): Promise<number> {
    const { store } = this.worker.deps
    const rows = await store.readAll(ids, tx)
    const dead = ids.flatMap(id => rows.get(id) ?? []).filter(row => row.status === 'dead')
    const queued = (await store.changeAll(dead.map(row => ({ row, event: 'retry', changes: { run_at: store.now } })), tx)).filter(row => row !== undefined)
    await store.handOver(queued, tx)
    return queued.length
  }

  async #read(id: string, tx?: Tx): Promise<JobRow> {
    const row = await this.worker.deps.store.read(id, tx)
    if (!row) throw JobErrors.NOT_FOUND({ id })
    return row
  }

  /** Once more when somebody else has changed the row since it was read. */
  async #persist<T>(work: () => Promise<T>): Promise<T> {
    for (;;) {
      try { return await work() } catch (error) { if (!JobErrors.LEASE_LOST.is(error)) throw error }
    }
  }
}
