import { BackplaneError, maskSecrets, reasonOf, rootOf } from '#core'
import { JobErrors, type JobError } from '#contracts/jobs'

/** Characters of a message that are kept. */
const LONGEST = 2_000

/** What a job shows of the error that ended its attempt. A message that was not written for callers stays in the log. */
export function failureOf(error: unknown, id: string): JobError {
  const root = rootOf(error) as Partial<BackplaneError> | undefined
  const typed = root instanceof Error && typeof root.code === 'string' && typeof root.fix === 'string'
  if (typed && root.expose) return { code: root.code!, message: maskSecrets(reasonOf(root)).slice(0, LONGEST), retryable: root.retryable === true }
  const hidden = JobErrors.FAILED({ id })
  return {
    code: typed ? root.code! : hidden.code,
    message: hidden.message,
    // An error that nobody described may well be a passing one.
    retryable: typed ? root.retryable === true : (root as { retryable?: unknown } | undefined)?.retryable !== false,
  }
}

/** Milliseconds to wait after so many failed attempts. Up to a fifth more or less, so that what failed together does not come back together. */
export function backoff(attempt: number, { base_ms, max_ms }: { base_ms: number; max_ms: number }, random = Math.random): number {
  const pause = Math.min(max_ms, base_ms * 2 ** Math.max(0, attempt - 1))
  return Math.round(pause * (0.8 + random() * 0.4))
}
