import type { Access, Caller, PermissionInfo } from '#contracts/access'
import type { JobType } from '#contracts/jobs'

export const permissions: readonly PermissionInfo[] = [
  { name: 'jobs:submit', summary: 'Submit jobs' },
  { name: 'jobs:read', summary: 'See jobs and their results' },
  { name: 'jobs:cancel', summary: 'Cancel jobs' },
  { name: 'jobs:answer', summary: 'Answer what jobs ask' },
  { name: 'jobs:retry', summary: 'Run jobs again that failed or were cancelled, and replay the dead-letter queue' },
  { name: 'jobs:discard', summary: 'Delete jobs from the dead-letter queue' },
]

/** What is run, and for which project. */
export interface Errand { readonly agent: string | null; readonly project_id: string }

/** May the caller take jobs in for the project? */
export const checkSubmit = (access: Access, caller: Caller, project_id: string): Promise<void> =>
  access.check(caller, 'jobs:submit', { kind: 'project', id: project_id, project_id })

/** May the caller have a job of this type run? Asked when it is taken in, and again before each attempt. */
export const checkRun = (access: Access, caller: Caller, { type, permission }: JobType, { agent, project_id }: Errand): Promise<void> => {
  if (permission === 'jobs:submit') return checkSubmit(access, caller, project_id)
  return access.check(caller, permission, agent === null ? { kind: 'job-type', id: type, project_id } : { kind: 'agent', id: agent, project_id })
}
