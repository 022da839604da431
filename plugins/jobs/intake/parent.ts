import type { Access, Caller } from '#contracts/access'
import { JobErrors, type JobRequest } from '#contracts/jobs'
import { ID_PATTERN } from '../tables/id.ts'
import { isFinal } from '../tables/machine.ts'
import type { JobRow } from '../tables/record.ts'
import type { WorkerDeps } from '../work/worker.ts'

/** Children of children of …: whoever goes deeper goes in a circle. */
const DEEPEST = 10

type Deps = Pick<WorkerDeps, 'store' | 'config'>

/** The job that a request names as its parent, if the caller may see it and it can have another child. */
export async function parentOf({ parent_id, project_id }: JobRequest, caller: Caller, access: Access, deps: Deps): Promise<JobRow | undefined> {
  if (parent_id === undefined) return undefined
  const row = ID_PATTERN.test(parent_id) ? await deps.store.read(parent_id) : undefined
  await access.check(caller, 'jobs:read', ...(row ? [{ kind: 'job', id: row.id, project_id: row.project_id }] : []))
  if (!row) throw JobErrors.PARENT({ parent_id: String(parent_id).slice(0, 40), reason: 'there is no such job' })
  if (project_id !== undefined && project_id !== row.project_id) throw JobErrors.PARENT({ parent_id, reason: 'it belongs to another project' })
  await checkParent(row, 1, deps)
  return row
}

/** Can it have so many more? */
export async function checkParent({ id: parent_id, status, depth }: JobRow, more: number, { store, config }: Deps): Promise<void> {
  const most = config.max_children
  if (isFinal(status)) throw JobErrors.PARENT({ parent_id, reason: `it is ${status}` })
  if (depth >= DEEPEST) throw JobErrors.PARENT({ parent_id, reason: `jobs are nested at most ${DEEPEST} deep` })
  if (await store.countChildren(parent_id, most + 1) + more > most) throw JobErrors.PARENT({ parent_id, reason: `a job has at most ${most} children (jobs.max_children)` })
}
