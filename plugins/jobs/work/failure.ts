import { BackplaneError, maskSecrets, reasonOf, rootOf } from '#core'
import { JobErrors, type JobError } from '#contracts/jobs'
import type { JobRow } from '../tables/record.ts'

export interface Retry { readonly base_ms: number; readonly max_ms: number }

/** Characters of a message that are kept. */
const LONGEST = 2_000

/** What a job shows of the error that ended its attempt. A message that was not written for callers stays in the log. */
export function failureOf(error: unknown, id: string): JobError {
  const root = rootOf(error) as Partial<BackplaneError> | undefined
  const typed = root instanceof Error && typeof root.code === 'string' && typeof root.fix === 'string'
  if (typed && root.expose) {
    return { code: root.code!, message: shown(reasonOf(root)), fix: shown(root.fix!), retryable: root.retryable === true }
  }
  const hidden = JobErrors.FAILED({ id })
  return {
    code: typed ? root.code! : hidden.code,
    message: hidden.message,
    fix: hidden.fix,
    // An error that nobody described may well be a passing one.
    retryable: typed ? root.retryable === true : (root as { retryable?: unknown } | undefined)?.retryable !== false,
  }
}

const shown = (text: string): string => storable(maskSecrets(text).slice(0, LONGEST))

/** PostgreSQL reads nothing out of JSON that holds NUL or half a character: the end of the attempt could not be written. */
const storable = (text: string): string => text.replace(/\u0000|\p{Surrogate}/gu, '\ufffd')

/** What a failure may ask for at most. */
const LONGEST_PAUSE_MS = 3_600_000

/** Milliseconds until the next attempt: as the job or the config says, and no sooner than the failure itself asks for (`retry_after`, in seconds). */
export function pauseAfter(error: unknown, { attempt, backoff: own }: Pick<JobRow, 'attempt' | 'backoff'>, retry: Retry, random = Math.random): number {
  const asked = askedBy(error)
  const pause = backoff(attempt, { ...retry, ...(own === null ? {} : JSON.parse(own)) }, random)
  return asked === undefined ? pause : Math.max(pause, asked)
}

/** What `retry_after` asks for, in milliseconds. */
function askedBy(error: unknown): number | undefined {
  const asked = Number((rootOf(error) as { details?: { retry_after?: unknown } } | undefined)?.details?.retry_after)
  return Number.isFinite(asked) ? Math.min(Math.max(0, asked) * 1_000, LONGEST_PAUSE_MS) : undefined
}

/** A job that began so long ago is put off no more: then it costs an attempt, or it would never end. */
const PUT_OFF_FOR_MS = 86_400_000

/**
 * How an attempt ends that met something `away`: put off for the time it asks for, up to a fifth longer; handed back if it asks for none; as a
 * failure after a day.
 */
export function awayFor(error: unknown, sinceMs: number, random = Math.random) {
  const asked = askedBy(error)
  if (asked === undefined) return { is: 'away' } as const
  return sinceMs < PUT_OFF_FOR_MS ? { is: 'put_off', error, ms: Math.round(asked * (1 + random() * 0.2)) } as const : { is: 'failed', error } as const
}

/** Milliseconds to wait after so many failed attempts. Up to a fifth more or less, so that what failed together does not come back together. */
export function backoff(attempt: number, { base_ms, max_ms }: Retry, random = Math.random): number {
  const pause = Math.min(max_ms, base_ms * 2 ** Math.max(0, attempt - 1))
  return Math.round(pause * (0.8 + random() * 0.4))
}

/** Its workers died under it until one attempt was left: it may be what killed them. */
export const isSuspect = ({ attempt, max_attempts, error }: Pick<JobRow, 'attempt' | 'max_attempts' | 'error'>): boolean =>
  attempt > 0 && attempt >= max_attempts - 1 && error !== null && (JSON.parse(error) as { code?: unknown }).code === 'JOBS_INTERRUPTED'
