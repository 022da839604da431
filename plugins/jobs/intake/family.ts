import { reasonOf, type Logger } from '#core'
import type { Caller } from '#contracts/access'
import type { Tx } from '#contracts/database'
import { JobErrors, type ChildRequest, type Job, type JobRequest } from '#contracts/jobs'
import { Admission } from './admission.ts'
import type { Backlog } from './backlog.ts'
import type { JobControl } from './control.ts'
import { checkParent } from './parent.ts'
import type { JobQueries } from '../tables/queries.ts'
import { toJob, type JobRow } from '../tables/record.ts'
import type { Inserted } from '../tables/store.ts'
import type { Worker } from '../work/worker.ts'

const BATCH = 100

export interface FamilyDeps {
  readonly worker: Worker
  readonly queries: JobQueries
  readonly control: JobControl
  readonly backlog: Backlog
  readonly log: Logger
  insert(rows: readonly JobRow[], tx: Tx): Promise<Inserted[]>
}

/** Keeps what was submitted. */
type Keep = (ids: readonly string[], tx: Tx) => Promise<void>

/** Parents and children. */
export class Family {
  readonly #admission: Admission
  constructor(readonly deps: FamilyDeps) { this.#admission = new Admission(deps.worker) }

  /** Submits what a run asks for; `record` keeps their ids in the same transaction. */
  async submit(parent: JobRow, caller: Caller, requests: readonly ChildRequest[], record: Keep): Promise<void> {
    const { worker, backlog } = this.deps
    const children = requests.map((request): JobRequest => ({ ...withoutKeys(request), project_id: parent.project_id, parent_id: parent.id }))
    await checkParent(parent, children.length, worker.deps)
    const rows = await this.#admission.admitMany(caller, children, parent)
    await backlog.add(rows.length, () => worker.deps.database.transaction(async tx => {
      await record(rows.map(row => row.id), tx)
      for (const each of await this.deps.insert(rows, tx)) if (each instanceof Error) throw each
    }))
  }

  /** In the order of the ids. */
  async read(ids: readonly string[]): Promise<Job[]> {
    const rows = new Map((await this.deps.queries.byIds(ids)).map(row => [row.id, row]))
    return ids.map(id => {
      const row = rows.get(id)
      if (!row) throw JobErrors.NOT_FOUND({ id })
      return toJob(row)
    })
  }

  /** Cancels the children of jobs that were cancelled, and wakes parents that nobody woke. */
  async sweep(): Promise<void> {
    const { worker, queries } = this.deps
    if (worker.deps.config.cancel_children) for (const id of await queries.cancelledParents(BATCH)) await this.cancelChildren(id)
    const { waiting, database, store } = worker.deps
    const forgotten = await waiting.forgotten(BATCH)
    if (forgotten.length) await database.transaction(async tx => store.handOver(await waiting.childrenMayHaveEnded(forgotten, tx), tx))
  }

  /** Of a cancelled job. What this misses, since the process dies of something, the sweep does. */
  async cancelChildren(parentId: string): Promise<void> {
    const { queries, control, log } = this.deps
    try {
      for (let ids = await queries.openChildren(parentId, BATCH); ids.length; ids = await queries.openChildren(parentId, BATCH)) {
        await Promise.all(ids.map(id => control.cancel(id).catch(error => {
          if (!JobErrors.FINAL.is(error) && !JobErrors.NOT_FOUND.is(error)) throw error
        })))
      }
      await queries.childrenCancelled(parentId)
    } catch (error) { log.warn('the children of a cancelled job are cancelled with the next sweep', { job_id: parentId, reason: reasonOf(error) }) }
  }
}

/** A child belongs to its step: it can't be the job of an earlier request. */
function withoutKeys(request: ChildRequest): ChildRequest {
  const { idempotency_key, dedupe, ...rest } = request as JobRequest
  if (idempotency_key !== undefined || dedupe !== undefined) throw new TypeError('children: a child has no idempotency_key and no dedupe')
  return rest
}
