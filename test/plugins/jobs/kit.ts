import type { Schema } from '#core'
import { contribute, createTestRuntime, fake, type TestRuntime, type TestRuntimeOptions } from '#core/testing'
import { Access, type Caller } from '#contracts/access'
import { Database } from '#contracts/database'
import { Jobs, JobType, type Job } from '#contracts/jobs'
import { eventually } from '#core/testing'
import database from '../../../plugins/database/index.ts'
import jobs from '../../../plugins/jobs/index.ts'
import queue from '../../../plugins/queue-embedded/index.ts'

export const ANYTHING: Schema = { '~standard': { version: 1, vendor: 'test', validate: value => ({ value }) } }
export const operator: Caller = { id: 'op', kind: 'operator', name: 'Op', project_id: 'default' }

/** Lets the operator do all. */
export const openAccess = (parts: Partial<Access> = {}) => fake(Access, {
  check: async () => {}, projects: async () => 'all', restore: async (id, project_id) => ({ ...operator, id, project_id }), ...parts,
})

export const jobType = (type: string, run: JobType['run'], more: Partial<JobType> = {}): JobType =>
  ({ type, summary: type, input: ANYTHING, permission: 'jobs:submit', run, ...more })

export interface KitOptions extends Partial<TestRuntimeOptions> {
  readonly types?: readonly JobType[]
  readonly config?: Record<string, unknown>
  /** Of the database; a file of its own, if none is given. */
  readonly url?: string
}

/** Database, queue and jobs as they are, with these types. */
export const runtime = ({ types = [], config = {}, url, plugins = [], services = [openAccess()], ...options }: KitOptions = {}): Promise<TestRuntime> =>
  createTestRuntime({
    plugins: [
      { plugin: database, config: url === undefined ? {} : { url } }, queue, { plugin: jobs, config },
      ...(types.length ? [contribute(JobType, ...types)] : []), ...plugins,
    ],
    services, ...options,
  })

/** What waits for `closed` goes on at `open()`. */
export const gate = () => { let open!: () => void; const closed = new Promise<void>(resolve => { open = resolve }); return { open, closed } }

export const until = (t: TestRuntime, id: string, status: Job['status'], ms?: number): Promise<Job> =>
  eventually(`job ${id} to be ${status}`, async () => {
    const job = await t.get(Jobs).get(operator, id)
    return job.status === status && job
  }, ms)

/** How many jobs of the database are not final: one cheap statement, as there may be thousands. */
export const unfinished = async (t: TestRuntime): Promise<number> =>
  Number((await t.get(Database).knex()('jobs').whereNull('finished_at').count({ count: '*' }).first())!.count)
/** Fails when none of them ended for so long. */
export function allFinal(t: TestRuntime, ms = 20_000): Promise<true> {
  let open = Infinity
  return eventually('all jobs to be final', async () => (open = await unfinished(t)) === 0, ms, () => open)
}
