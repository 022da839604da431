import { STATUS_CODES } from 'node:http'
import { BackplaneError, maskSecrets, rootOf } from '#core'
import { HttpErrors, type Problem } from '#contracts/http'

export const PROBLEM_TYPE = 'application/problem+json; charset=utf-8'
const RETRY_SECONDS = 1

export interface ProblemAnswer {
  readonly problem: Problem
  readonly headers: Readonly<Record<string, string>>
  /** Not made for callers' eyes: to be logged in full, since the answer tells nothing. */
  readonly hidden: boolean
}

type FieldProblem = NonNullable<Problem['errors']>[number]
const isFieldProblem = (each: unknown): each is FieldProblem =>
  typeof (each as FieldProblem)?.path === 'string' && typeof (each as FieldProblem).message === 'string'

/** What a caller may hear of a failure. Only errors that say `expose` speak for themselves. */
export function problemAnswer(error: unknown, requestId: string): ProblemAnswer {
  const root = rootOf(error)
  const shown = root instanceof BackplaneError && root.expose ? root : hiding(root, requestId)
  const { status, code, details } = shown
  const named = Array.isArray(details['errors']) ? details['errors'].filter(isFieldProblem) : []
  const errors = named.map(({ path, message }) => ({ path, message: maskSecrets(message) }))
  const problem: Problem = {
    type: `urn:backplane:error:${code}`, title: STATUS_CODES[status] ?? 'Error', status, code, detail: maskSecrets(shown.message),
    fix: maskSecrets(shown.fix), request_id: requestId,
    ...(errors.length > 0 && { errors }),
  }
  const headers: Record<string, string> = {}
  if (shown.retryable && (status === 503 || status === 429)) headers['Retry-After'] = String(retryAfter(details))
  if (status === 401) headers['WWW-Authenticate'] = 'Bearer'
  if (status === 405) headers['Allow'] = String(details['allowed'])
  return { problem, headers, hidden: shown !== root }
}

/** Callers hear no more of it than whether it is worth to try again. */
function hiding(error: unknown, request_id: string): BackplaneError {
  const passes = error instanceof BackplaneError && error.retryable && error.status === 503
  return passes ? HttpErrors.UNAVAILABLE({ request_id }) : HttpErrors.INTERNAL({ request_id })
}

const retryAfter = ({ retry_after }: Readonly<Record<string, unknown>>): number =>
  (typeof retry_after === 'number' && Number.isFinite(retry_after) ? Math.max(1, Math.ceil(retry_after)) : RETRY_SECONDS)
