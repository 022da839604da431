import type { Job, JobError, JobStatus, ResultRef } from '#contracts/jobs'
import type { Question } from '#contracts/questions'
import type { Holdup } from '../watch/holdup.ts'

/** A job as its table has it: times in milliseconds, data as JSON text. */
export interface JobRow {
  readonly id: string
  readonly type: string
  readonly agent: string | null
  readonly project_id: string
  readonly parent_id: string | null
  /** Of a job without a parent 0. */
  readonly depth: number
  readonly created_by: string
  readonly principal_id: string
  readonly traceparent: string | null
  readonly status: JobStatus
  readonly input: string
  readonly result: string | null
  /** Of one that is kept in `job_results`. */
  readonly result_bytes?: number | null
  readonly error: string | null
  readonly priority: number
  readonly attempt: number
  readonly max_attempts: number
  readonly timeout_ms: number
  /** Its own pauses between attempts, as JSON; null: those of the config. */
  readonly backoff: string | null
  readonly seq: number
  readonly idempotency_key: string | null
  /** No other job of the project has it. */
  readonly dedupe_key: string | null
  /** So long it keeps the key even if it ends. */
  readonly dedupe_until?: number | null
  /** Of a request, and no column: it takes the place of the job with its key, if that is its own or this one. */
  readonly replaces?: string | null
  /** A hash of what was asked for with the key; null without one. */
  readonly substance: string | null
  readonly metadata: string
  readonly lease_owner: string | null
  readonly lease_until: number | null
  /** Grows with each claim: what was begun under an older one may write nothing. */
  readonly token: number
  readonly created_at: number
  readonly run_at: number
  readonly started_at: number | null
  readonly finished_at: number | null
  /** When it was last given to the queue; 0 if that is still to be done. */
  readonly handed_at: number
  /** While it waits: when it does so no longer, and whether it waits for its children. */
  readonly wake_at?: number | null
  readonly for_children?: number
  /** 1: a limit keeps it from the queue; which one did, the last time. */
  readonly held?: number
  readonly held_by?: string | null
  /** Some job names it as its parent. */
  readonly has_children?: number
}

export interface JobAttempt {
  readonly attempt: number
  readonly worker: string
  readonly started_at: string
  readonly finished_at: string | null
  readonly outcome: string | null
  readonly error: JobError | null
}
export interface JobStep { readonly name: string; readonly attempt: number; readonly started_at: string; readonly finished_at: string }
export interface JobHappening { readonly seq: number; readonly type: string; readonly at: string; readonly data: unknown }
export interface JobDetail extends Job {
  readonly questions: readonly Question[]
  readonly attempts: readonly JobAttempt[]
  readonly steps: readonly JobStep[]
  readonly events: readonly JobHappening[]
  /** Why it has not begun though it could, if that is known. */
  readonly held_up: Holdup | null
}

let last = { ms: 0, text: new Date(0).toISOString() }
/** Mostly asked for the same moment several times. */
export const timeOf = (ms: number): string => (last.ms === ms ? last : last = { ms, text: new Date(Number(ms)).toISOString() }).text
export const timeOrNull = (ms: number | null): string | null => (ms === null ? null : timeOf(ms))
export const dataOf = (text: string | null): any => (text === null ? null : JSON.parse(text))

export const refOf = ({ id, result_bytes }: JobRow): ResultRef | null => (result_bytes ? { bytes: result_bytes, url: `/api/v1/jobs/${id}/result` } : null)

export const toJob = (row: JobRow): Job => ({
  id: row.id, type: row.type, agent: row.agent, project_id: row.project_id, created_by: row.created_by,
  parent_id: row.parent_id, status: row.status,
  input: dataOf(row.input), result: dataOf(row.result), result_ref: refOf(row), error: dataOf(row.error),
  priority: row.priority, attempt: row.attempt, max_attempts: row.max_attempts, seq: row.seq,
  created_at: timeOf(row.created_at), run_at: timeOf(row.run_at), started_at: timeOrNull(row.started_at), finished_at: timeOrNull(row.finished_at),
  metadata: dataOf(row.metadata),
})
