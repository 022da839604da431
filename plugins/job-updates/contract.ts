import { defineErrors, defineService } from '#core'
import type { Caller } from '#contracts/access'
import type { Job, JobError, JobStatus, ResultRef } from '#contracts/jobs'

/**
 * One thing that happened to a job, or a piece of what it says: what every transport sends on, as it is. Besides `token`, `tool_start`, `tool_end` and
 * `progress` with the fields of JobProgress, `type` is the job's event without its `job.` (`created`, `started`, `completed`…), or `gap`: some updates
 * are gone, and `job` is the current state.
 */
export interface JobUpdate {
  /** Where a reader stands after it: `<seq>`, or `<seq>.<characters>` amid text that is not logged yet. follow() goes on from there. */
  readonly cursor: string
  readonly type: string
  readonly job_id: string
  readonly project_id: string
  readonly status: JobStatus
  /** Nothing follows, unless somebody retries the job. */
  readonly final: boolean
  readonly seq: number
  readonly attempt: number
  /** ISO 8601. */
  readonly timestamp: string
  readonly result?: unknown
  /** Instead of a result that is large. */
  readonly result_ref?: ResultRef
  readonly error?: JobError
  readonly job?: Job
  readonly [field: string]: unknown
}

/** For every transport (SSE, WebSocket, Socket.IO, the CLI). Provided by whoever provides `Jobs`. */
export interface JobUpdates {
  /**
   * Every update of a job after the cursor (`''`: from its beginning), in order, once, from whichever instance runs it. Ends after the final one, or
   * with the signal. Rejects with JOBS_NOT_FOUND, JOB_UPDATES_CURSOR_INVALID, or what `Access` says, before the first update.
   */
  follow(caller: Caller, id: string, options: { readonly after?: string; readonly signal: AbortSignal }): AsyncIterable<JobUpdate>
}
export const JobUpdates = defineService<JobUpdates>('job-updates.updates')

export const JobUpdateErrors = defineErrors('JOB_UPDATES', {
  CURSOR_INVALID: { message: '"{cursor}" is no cursor of a job', fix: 'Send the id of the last update that you got (`Last-Event-ID`), or none.', status: 400, expose: true },
})
