import { APICallError } from '@ai-sdk/provider'
import { BackplaneError, maskSecrets, reasonOf, rootOf } from '#core'
import { ModelErrors } from '#contracts/models'

/** Node's and undici's names for a connection that failed or was lost. */
const CONNECTION = /^(?:ECONNRESET|ECONNREFUSED|ETIMEDOUT|EPIPE|EAI_AGAIN|ENETUNREACH|EHOSTUNREACH|UND_ERR_.*)$/
const MAX_REASON = 500

function retryable(error: unknown): boolean {
  if (APICallError.isInstance(error)) return error.isRetryable
  for (let at = error, depth = 0; at instanceof Error && depth < 5; at = at.cause, depth++) {
    const { code } = at as { code?: unknown }
    if (typeof code === 'string' && CONNECTION.test(code)) return true
  }
  return false
}

/** What a provider threw, as MODELS_FAILED; `retryable` is the provider's word, or true if the connection failed. */
export function modelFailed(model: string, error: unknown, known?: { readonly retryable: boolean }): BackplaneError {
  if (error instanceof BackplaneError) return error
  const reason = maskSecrets(reasonOf(error)).slice(0, MAX_REASON)
  const status = APICallError.isInstance(error) ? error.statusCode : undefined
  // An APICallError holds the whole request, which is the user's text, so it goes no further.
  const cause = APICallError.isInstance(error) ? new Error(`${error.name}${status ? ` ${status}` : ''}: ${reason}`) : error
  const shape = { ...ModelErrors.FAILED.shape, retryable: known?.retryable ?? retryable(error) }
  return new BackplaneError(ModelErrors.FAILED.code, shape, { model, reason, ...(status !== undefined && { provider_status: status }) }, { cause })
}

/** What a guard of the call threw: its own typed error as it is; of any other only that there was one. */
export function refusalOf(model: string, error: unknown): BackplaneError {
  const root = rootOf(error)
  return root instanceof BackplaneError ? root : ModelErrors.GUARD_FAILED({ model }, { cause: error })
}

/** An error's message as records of the call may show it. */
export const shownOf = (error: BackplaneError): string => (error.expose ? maskSecrets(error.message) : `${error.code}, see the log`)
