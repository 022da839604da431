import { defineErrors, defineHook, definePoint, defineService, type Logger, type Schema } from '#core'
import type { Caller, Permission } from '#contracts/access'
import type { Tx } from '#contracts/database'
import type { Ask } from '#contracts/questions'

/** `failed` is between attempts, `waiting` for an answer or for its children; `completed`, `dead` and `cancelled` are final. */
export type JobStatus = 'queued' | 'delayed' | 'running' | 'waiting' | 'completed' | 'failed' | 'dead' | 'cancelled'

export interface JobError { readonly code: string; readonly message: string; /** What the reader should do. */ readonly fix?: string; readonly retryable: boolean }

/** A result that is kept apart: GET it from there. */
export interface ResultRef { readonly bytes: number; readonly url: string }

/** The record, as every API shows it. Times are ISO 8601. */
export interface Job {
  readonly id: string; /** A JobType: `agent`, `notification`. */ readonly type: string; /** The agent that runs it; null for other types. */ readonly agent: string | null
  readonly project_id: string; readonly created_by: string; /** The job that it is a part of. */ readonly parent_id: string | null
  readonly status: JobStatus; readonly input: unknown; readonly error: JobError | null
  /** Null until there is one, and if it is large: then `result_ref` is not. `run()` and `children()` resolve to it in full. */
  readonly result: unknown; readonly result_ref: ResultRef | null
  readonly priority: number; /** Attempts begun, and how many there may be. */ readonly attempt: number; readonly max_attempts: number
  /** Counts the changes of this job; the cursor of its topic. */ readonly seq: number
  readonly created_at: string; readonly run_at: string; readonly started_at: string | null; readonly finished_at: string | null
  readonly metadata: Readonly<Record<string, unknown>>
}

export interface JobRequest {
  readonly type: string; readonly agent?: string; readonly input: unknown; readonly project_id?: string
  /** The unfinished job that it is a part of: its end is then waited for, and it is cancelled with it. In the same project. */
  readonly parent_id?: string
  /** 0 to 9, 5 if not given; the highest goes first. */ readonly priority?: number; readonly max_attempts?: number; /** Of one attempt. */ readonly timeout_ms?: number
  /** Not before so many milliseconds have passed, or not before this moment (ISO 8601). One of the two. */ readonly delay_ms?: number; readonly run_at?: string
  /** The pause after a failed attempt: `base_ms`, doubled with each, at most `max_ms`. What the failure itself asks for (`Retry-After`) is waited for too. */
  readonly backoff?: { readonly base_ms?: number; readonly max_ms?: number }
  /** The same request of the same caller for the same project gets the first job, also if another has replaced it; another one with this key rejects with JOBS_KEY_REUSED. */
  readonly idempotency_key?: string
  readonly dedupe?: Dedupe; readonly metadata?: Readonly<Record<string, unknown>>
}
/**
 * No two unfinished jobs of a project have one key. `keep`, unless said otherwise: submitting resolves to the job that has it, for `ttl_ms` after that was made even if
 * it has ended. `replace`: one that has not begun becomes what is asked for now, and waits anew; one that has goes on, and a new job takes the key.
 */
export interface Dedupe { readonly key: string; readonly mode?: 'keep' | 'replace'; readonly ttl_ms?: number }

/** What happens inside a run, for those who watch it. */
export type JobProgress =
  | { readonly type: 'token'; readonly content: string }
  | { readonly type: 'tool_start'; readonly tool: string; readonly call_id: string; readonly input: unknown }
  | { readonly type: 'tool_end'; readonly tool: string; readonly call_id: string; readonly output: unknown; readonly error?: JobError }
  | { readonly type: 'progress'; readonly percent?: number; readonly message?: string }

/** What run() gets. */
export interface JobContext<I = any> {
  readonly job: Job; readonly input: I; /** Whose job it is, as it stands today. */ readonly caller: Caller
  /** Aborts on cancellation, time-out, a lost lease, or when the process stops. */ readonly signal: AbortSignal; readonly log: Logger
  /** Records the result under the name (the nth use of one is `name#n`); after a crash or retry it is read instead of run again. */
  step<T>(name: string, run: () => Promise<T>, options?: StepOptions<T>): Promise<T>
  /**
   * A step whose result a person gives. Until then the job is `waiting`, no worker is held, and this attempt, which does not count, ends here:
   * its signal aborts, steps under way are finished, nothing after this line runs. Another one goes on with the answer.
   */
  ask<T = any>(ask: Ask): Promise<T>
  /** A step of other jobs: submits them for the same caller and project, waits as `ask` does until all are final, and resolves to them as they are then. */
  children(requests: readonly ChildRequest[]): Promise<readonly Job[]>
  emit(progress: JobProgress): void
}
export type ChildRequest = Omit<JobRequest, 'project_id' | 'parent_id' | 'idempotency_key' | 'dedupe'>
/** `last`: nothing but the end of the run comes after a step with this result, so that both are written at once. */
export interface StepOptions<T> { last?(result: T): boolean }

/** Something that can run. Contributed by whoever knows how; `jobs` knows only when. */
export interface JobType<I = any, O = any> {
  readonly type: string; readonly summary: string
  /** Checked when the job is submitted, so that nothing waits in vain. */ readonly input: Schema<unknown, I>
  readonly permission: Permission
  /** Refuses what no schema can know, such as an agent that does not exist. */
  admit?(caller: Caller, request: JobRequest): Promise<void>
  run(ctx: JobContext<I>): Promise<O>
}
export const JobType = definePoint<JobType>('jobs.type', { key: each => each.type })

/** A request that was let in, good for one job. Opaque: hand it to `enter`. Local. */
export interface AdmittedJob { readonly id: string }
export interface Page<T> { readonly items: readonly T[]; readonly next: string | null }
/** `code`: of its error. */
export interface JobFilter { readonly agent?: string; readonly type?: string; readonly project_id?: string; readonly parent_id?: string; readonly code?: string }

/** The system of record of all work. Who watches jobs uses `JobUpdates`. */
export interface Jobs {
  /** The job exists and will run, whatever happens after this resolves. */
  submit(caller: Caller, request: JobRequest): Promise<Job>
  /** Asks and checks all that submit() does, and writes nothing. For jobs that belong to a transaction: call it before that is opened. */
  admit(caller: Caller, request: JobRequest): Promise<AdmittedJob>
  /** Writes what admit() let in: the job exists if `tx` commits. Asks nobody, so that no transaction waits for an answer. */
  enter(admitted: AdmittedJob, tx: Tx): Promise<Job>
  /** All or none, in one transaction; at most `jobs.max_batch`. */
  submitMany(caller: Caller, requests: readonly JobRequest[]): Promise<readonly Job[]>
  /**
   * Submits it and resolves when it is final. Where this process runs jobs it begins at once, already claimed, and `onProgress` hears of it directly;
   * elsewhere it is followed on the event log. The signal cancels it. `onBegin` hears of the job as soon as it exists.
   */
  run(caller: Caller, request: JobRequest, options?: { readonly signal?: AbortSignal; onBegin?(job: Job): void; onProgress?(progress: JobProgress): void }): Promise<Job>
  get(caller: Caller, id: string): Promise<Job>
  /** The result, however large. Rejects with JOBS_NO_RESULT if it has none. */
  result(caller: Caller, id: string): Promise<unknown>
  list(caller: Caller, filter?: JobFilter & { readonly status?: JobStatus; readonly limit?: number; readonly cursor?: string }): Promise<Page<Job>>
  /** Final when this resolves; what runs is told to stop, wherever it is. One that is cancelled already stays so; rejects with JOBS_FINAL if it has ended otherwise. */
  cancel(caller: Caller, id: string): Promise<Job>
  /** Runs it again: one that waits for its time or its next attempt at once, one that is dead or cancelled with all its attempts. Finished steps are kept. */
  retry(caller: Caller, id: string): Promise<Job>
  /** retry() for what is in the dead-letter queue, and nothing else: one job, or all that the filter fits. Resolves to how many there were. */
  replay(caller: Caller, which: { readonly id: string } | JobFilter): Promise<number>
  /** Deletes a dead job with all that belongs to it; not while its parent is unfinished (JOBS_AWAITED). */
  discard(caller: Caller, id: string): Promise<void>
}
export const Jobs = defineService<Jobs>('jobs.jobs')

/**
 * In the transaction that ends an attempt with `completed`, `failed` (another one follows), `dead` or `cancelled`: write your own tables with
 * `tx`, do nothing else, throw to veto: a result becomes a failure, and this is called again. Not for an attempt after which the job is queued or waiting.
 */
export const JobSettling = defineHook.series<{ readonly job: Job; readonly tx: Tx }>('jobs.settling', { tx: true })
/** After the commit of what JobSettling saw, between attempts too: in this process, at most once. What must not be missed reads the event log. */
export const JobSettled = defineHook.notify<{ readonly job: Job }>('jobs.settled')

export const JobErrors = defineErrors('JOBS', {
  NOT_FOUND: { message: 'there is no job "{id}"', fix: 'See `GET /api/v1/jobs` for those that you may see.', status: 404, expose: true },
  NO_RESULT: { message: 'job "{id}" is {status} and has no result', fix: 'See the job itself; one that is unfinished may have it later.', status: 404, expose: true },
  TYPE_UNKNOWN: { message: 'nothing here runs jobs of type "{type}"', fix: '{meant}Known types: {known}. To run an agent, name it as `agent` instead of a type.', status: 400, expose: true },
  INPUT_INVALID: { message: 'the input of a "{type}" job does not fit: {reason}', fix: 'Correct the fields named.', status: 400, expose: true },
  TYPE_AWAY: { message: 'what runs jobs of type "{type}" is being restarted', fix: 'Try again in a moment.', status: 503, retryable: true, expose: true },
  TOO_LARGE: { message: 'the {what} has {bytes} bytes, more than {limit}', fix: 'Keep it elsewhere and put a reference into the job.', status: 413, expose: true },
  NOT_JSON: { message: 'the {what} cannot be written as JSON: {reason}', fix: 'Use plain data: no functions, circles or BigInt.', status: 400, expose: true },
  FAILED: { message: 'the run failed; the server\'s log has the reason', fix: 'Look there for job {id}.', retryable: true, expose: true },
  TIMEOUT: { message: 'the job took longer than {ms} ms', fix: 'Give it a larger timeout_ms, or less to do.', status: 504, retryable: true, expose: true },
  LEASE_LOST: { message: 'another worker has job "{id}" now', fix: 'Nothing to do: the result of this attempt is dropped.', retryable: true },
  INTERRUPTED: { message: 'the process that ran this attempt ended, or could not renew its lease', fix: 'Nothing to do: another attempt follows while there are any left.', status: 503, retryable: true, expose: true },
  NOT_ADMITTED: { message: 'this is no request that admit() let in', fix: 'Hand enter() what admit() of the same life of the plugin jobs resolved to.' },
  KEY_REUSED: { message: 'the idempotency key "{key}" was used for another request', fix: 'Send the same request again, or take a new key.', status: 409, expose: true },
  FINAL: { message: 'job "{id}" is {status} already', fix: 'Nothing to do; submit it again if it is to run again.', status: 409, expose: true },
  NOT_RETRYABLE: { message: 'job "{id}" is {status}, so it can\'t be run again', fix: 'Jobs that are dead, cancelled, failed or delayed can be; cancel one that runs first.', status: 409, expose: true },
  NOT_DEAD: { message: 'job "{id}" is {status}, so it is not in the dead-letter queue', fix: 'See `GET /api/v1/dlq`; `POST /api/v1/jobs/{id}/retry` runs others again.', status: 409, expose: true },
  QUEUE_FULL: { message: 'there are {queued} jobs waiting, and {limit} may', fix: 'Try again after the time in Retry-After, or raise plugins.jobs.config.max_queued.', status: 429, retryable: true, expose: true },
  BATCH_TOO_LARGE: { message: 'the batch has {count} jobs, more than {limit}', fix: 'Send several batches.', status: 413, expose: true },
  WAITING: { message: 'the job waits, so this attempt ends', fix: 'Nothing to do: another one follows.', retryable: true },
  ASK_TIMEOUT: { message: 'nobody answered "{question}" in time', fix: 'Catch this in the run to go on without an answer, or give it a larger timeout_ms.', expose: true },
  AWAITED: { message: 'job "{parent_id}" waits for job "{id}", and will ask what became of it', fix: 'Discard it once that has ended.', status: 409, expose: true },
  PARENT: { message: 'job "{parent_id}" can have no such child: {reason}', fix: 'Name an unfinished job of the same project, or none.', status: 409, expose: true },
  CANCELLED: { message: 'the job was cancelled', fix: 'Submit it again.', status: 409, expose: true },
})
