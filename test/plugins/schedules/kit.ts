import { contribute, createTestRuntime, fake, type TestPlugin, type TestRuntime, type TestRuntimeOptions } from '#core/testing'
import { Access, type Caller } from '#contracts/access'
import { Broadcast, Leases } from '#contracts/cluster'
import { Jobs, JobType, type Job } from '#contracts/jobs'
import type { Schema } from '#core'
import database from '../../../plugins/database/index.ts'
import jobs from '../../../plugins/jobs/index.ts'
import queue from '../../../plugins/queue-embedded/index.ts'
import schedules from '../../../plugins/schedules/index.ts'

const ANYTHING: Schema = { '~standard': { version: 1, vendor: 'test', validate: value => ({ value }) } }
export const operator: Caller = { id: 'op', kind: 'operator', name: 'Op', project_id: 'default' }

export const openAccess = (parts: Partial<Access> = {}) => fake(Access, {
  check: async () => {}, projects: async () => 'all', restore: async (id, project_id) => ({ ...operator, id, project_id }), ...parts,
})

/** The lease is held from the start, and a word reaches whoever listens here. */
export function lone() {
  const heard = new Set<(message: unknown) => void>()
  return [
    fake(Leases, {
      async lead(name, work) {
        const end = new AbortController()
        const working = work({ name, token: 1, signal: end.signal, [Symbol.asyncDispose]: async () => {} })
        return { async [Symbol.asyncDispose]() { end.abort(); await working } }
      },
    }),
    fake(Broadcast, {
      async publish(_channel, message) { for (const each of heard) each(message) },
      async subscribe(_channel, handle) { heard.add(handle); return { async [Symbol.asyncDispose]() { heard.delete(handle) } } },
    }),
  ] as const
}

export const note: JobType = { type: 'note', summary: 'note', input: ANYTHING, permission: 'jobs:submit', run: async ({ input }) => input }
export const slow: JobType = { ...note, type: 'slow', run: ({ signal }) => new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))) }

export interface KitOptions extends Partial<TestRuntimeOptions> {
  readonly config?: Record<string, unknown>
  /** Of jobs; 0 takes none. */
  readonly concurrency?: number
  readonly access?: Partial<Access>
  /** The database, if it is not one of its own. */
  readonly base?: TestPlugin
}

// What sweeps by the clock would do so for each second of the days that tests pass.
const DAY = 86_400_000
/** Database, queue, jobs and schedules as they are, in one process. */
export const runtime = ({ config = {}, concurrency = 0, access = {}, plugins = [], base = database, ...options }: KitOptions = {}): Promise<TestRuntime> => createTestRuntime({
  plugins: [base, queue, { plugin: jobs, config: { concurrency, sweep_ms: DAY } }, contribute(JobType, note, slow), { plugin: schedules, config: { sweep_ms: DAY, ...config } }, ...plugins],
  services: [openAccess(access), ...lone()], ...options,
})

/** The oldest first. */
export async function jobsOf(t: TestRuntime): Promise<readonly Job[]> { return (await t.get(Jobs).list(operator, { limit: 100 })).items.toReversed() }
export const timesOf = async (t: TestRuntime) => (await jobsOf(t)).map(job => String(job.metadata['scheduled_at'])).toSorted()
