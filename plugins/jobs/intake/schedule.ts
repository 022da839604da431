import { JobErrors, type JobRequest } from '#contracts/jobs'
import type { JobRow } from '../tables/record.ts'

const DAY = 86_400_000
export const LONGEST_DELAY_MS = 365 * DAY
export const LONGEST_PAUSE_MS = DAY

/** When a job may first run, and how long it pauses between attempts; rejects with JOBS_INPUT_INVALID, which names the field. */
export function scheduleOf(request: JobRequest, now: number): Pick<JobRow, 'status' | 'run_at' | 'backoff'> {
  const { type, delay_ms, run_at, backoff } = request
  const check = (path: string, fits: boolean, message: string) => {
    if (!fits) throw JobErrors.INPUT_INVALID({ type, reason: `${path}: ${message}`, errors: [{ path, message }] })
  }
  const within = (path: string, value: number | undefined, least: number, most: number) =>
    check(path, value === undefined || (Number.isInteger(value) && value >= least && value <= most), `not a whole number from ${least} to ${most}`)
  within('delay_ms', delay_ms, 0, LONGEST_DELAY_MS)
  check('run_at', delay_ms === undefined || run_at === undefined, 'give either "delay_ms" or "run_at"')
  const at = run_at === undefined ? now + (delay_ms ?? 0) : Date.parse(run_at)
  check('run_at', Number.isFinite(at), 'not a time such as 2030-01-31T12:00:00Z')
  check('run_at', at <= now + LONGEST_DELAY_MS, 'more than a year from now')
  within('backoff.base_ms', backoff?.base_ms, 1, LONGEST_PAUSE_MS)
  within('backoff.max_ms', backoff?.max_ms, 1, LONGEST_PAUSE_MS)
  const own = backoff ? JSON.stringify({ base_ms: backoff.base_ms, max_ms: backoff.max_ms }) : null
  return { status: at > now ? 'delayed' : 'queued', run_at: Math.max(at, now), backoff: own }
}
