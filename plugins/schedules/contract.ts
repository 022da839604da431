import { defineErrors, defineService } from '#core'
import type { Caller } from '#contracts/access'
import type { Job, JobError, JobRequest, Page } from '#contracts/jobs'

/** What becomes of times that passed while nobody could fire them: nothing, one job for all of them, or one for each of the last 100. */
export type MissedPolicy = 'skip' | 'once' | 'all'
/** May a job begin while the one before it has not ended? */
export type OverlapPolicy = 'allow' | 'skip'

/** What each firing submits. Its key, project and time are the schedule's to give. */
export type ScheduledRequest = Omit<JobRequest, 'project_id' | 'idempotency_key' | 'delay_ms' | 'run_at'>

export interface ScheduleRequest {
  /** Unique in its project. */
  readonly name: string
  readonly project_id?: string
  /** Five fields: minute, hour, day of month, month, day of week; six begin with seconds. */
  readonly cron: string
  /** IANA, such as `Europe/Berlin`; UTC if not given. */
  readonly time_zone?: string
  readonly request: ScheduledRequest
  /** `once` if not given. */
  readonly missed?: MissedPolicy
  /** `allow` if not given. */
  readonly overlap?: OverlapPolicy
  /** As it was if not given; true for a new one. */
  readonly enabled?: boolean
  /** Not before, and not after, these moments (ISO 8601). */
  readonly starts_at?: string; readonly ends_at?: string
}

/** The record, as every API shows it. Times are ISO 8601. */
export interface Schedule {
  readonly id: string
  readonly name: string
  readonly project_id: string
  readonly created_by: string
  /** With whose rights the jobs are submitted: who wrote the schedule last. Asked again at each firing. */
  readonly principal_id: string
  /** Declared in the config: changed there, and nowhere else. */
  readonly declared: boolean
  readonly cron: string
  readonly time_zone: string
  readonly request: ScheduledRequest
  readonly missed: MissedPolicy
  readonly overlap: OverlapPolicy
  readonly enabled: boolean
  readonly starts_at: string | null; readonly ends_at: string | null
  /** Null when it is paused or over. */
  readonly next_at: string | null
  /** The time that was decided on last: fired, or passed over. */
  readonly last_at: string | null
  readonly last_job_id: string | null
  /** Why the last firing submitted nothing. */
  readonly last_error: JobError | null
  readonly created_at: string; readonly updated_at: string
}

export interface ScheduleRef { readonly name: string; /** The caller's if not given. */ readonly project_id?: string }

/** Jobs at times: each firing submits one, once, whatever is killed in between. */
export interface Schedules {
  /** Makes it, or puts this one in its place. The request is checked as if it were submitted now. */
  put(caller: Caller, request: ScheduleRequest): Promise<Schedule>
  get(caller: Caller, which: ScheduleRef): Promise<Schedule>
  /** By project and name. */
  list(caller: Caller, filter?: { readonly project_id?: string; readonly limit?: number; readonly cursor?: string }): Promise<Page<Schedule>>
  /** Its jobs stay. */
  remove(caller: Caller, which: ScheduleRef): Promise<void>
  pause(caller: Caller, which: ScheduleRef): Promise<Schedule>
  /** Goes on with the next time; those that passed while it was paused are not missed. */
  resume(caller: Caller, which: ScheduleRef): Promise<Schedule>
  /** Submits its job now, as the caller's, whatever its times are. */
  runNow(caller: Caller, which: ScheduleRef): Promise<Job>
}
export const Schedules = defineService<Schedules>('schedules.schedules')

export const ScheduleErrors = defineErrors('SCHEDULES', {
  NOT_FOUND: { message: 'there is no schedule "{name}" in project "{project}"', fix: 'See `GET /api/v1/schedules` for those that you may see.', status: 404, expose: true },
  INVALID: { message: 'the schedule does not fit: {reason}', fix: 'Correct the fields named.', status: 400, expose: true },
  DECLARED: {
    message: 'schedule "{name}" is declared in the config', status: 409, expose: true,
    fix: 'Change it there: plugins.schedules.config.schedules. It can be paused, resumed and run here.',
  },
  TOO_MANY: { message: 'project "{project}" has {limit} schedules, and may have no more', fix: 'Remove some, or raise plugins.schedules.config.max_schedules.', status: 409, expose: true },
  FAILED: { message: 'the firing failed; the server\'s log has the reason', fix: 'Look there for schedule "{name}".', expose: true },
  OVERLAP: { message: 'job {job} of the time before has not ended', fix: 'Nothing to do, or set overlap to allow.', expose: true },
})
