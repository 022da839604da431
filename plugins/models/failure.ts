import { APICallError, InvalidResponseDataError, JSONParseError, TypeValidationError, type LanguageModelV3Prompt } from '@ai-sdk/provider'
import { BackplaneError, maskSecrets, reasonOf, rootOf } from '#core'
import { ModelErrors } from '#contracts/models'
import { textsOf } from './tokens.ts'

const MAX_REASON = 300
const MAX_DEPTH = 5
const MALFORMED = [JSONParseError, TypeValidationError, InvalidResponseDataError]
const providerOf = (model: string): string => model.slice(0, model.indexOf('/'))

/** What a vendor calls what went wrong: the body of an error answer, or an error in the stream. */
interface Word { readonly message?: unknown; readonly type?: unknown; readonly code?: unknown; readonly status?: unknown }

/** Why the call failed, as an error of ours; `begun` says whether the answer had. The texts of the prompt are in none of them. */
export function modelFailed(model: string, error: unknown, prompt: LanguageModelV3Prompt = [], begun = false): BackplaneError {
  const chain = chainOf(error)
  const own = chain.find(each => each instanceof BackplaneError)
  if (own) return own
  const api = chain.find(each => APICallError.isInstance(each))
  const word = wordOf(api ? bodyOf(api) : error)
  const status = api?.statusCode ?? statusOf(word)
  const details = { model, provider: providerOf(model), ...(status !== undefined && { provider_status: status }) }
  const said = unquoted(api?.message ?? (typeof word.message === 'string' ? word.message : reasonOf(error)), prompt)
  const reason = status === undefined || status === 200 ? said : `${status} ${said}`
  // An APICallError holds the whole request, and a parser's error what it parsed: the user's text. Neither goes further.
  const options = { cause: new Error(`${(error as Partial<Error> | null)?.name ?? typeof error}: ${reason}`) }
  const broken = (why: string) => ModelErrors.STREAM_BROKEN({ ...details, reason: why }, options)
  if (chain.some(each => MALFORMED.some(kind => kind.isInstance(each)))) return broken('a part of it is not what the provider documents')
  if (status === 200) return broken('the connection was lost')
  const code = typeof word.code === 'string' ? word.code : ''
  if (status === 401 || status === 402 || status === 403 || code === 'insufficient_quota') return ModelErrors.AUTH_FAILED({ ...details, reason: `status ${status}` }, options)
  if (status === 429) {
    const retryAfter = api && retryAfterOf(api.responseHeaders ?? {})
    return ModelErrors.RATE_LIMITED({ ...details, reason, ...(retryAfter !== undefined && { retry_after: retryAfter }) }, options)
  }
  if (status !== undefined && (status >= 500 || status === 408 || status === 409 || status === 425)) {
    const retryAfter = api && retryAfterOf(api.responseHeaders ?? {})
    return ModelErrors.OVERLOADED({ ...details, reason, ...(retryAfter !== undefined && { retry_after: retryAfter }) }, options)
  }
  if (status !== undefined && status >= 300) return ModelErrors.BAD_REQUEST({ ...details, reason }, options)
  const lost = api?.isRetryable ? api : chain.find(isConnection)
  if (lost && begun) return broken('the connection was lost')
  if (lost) return ModelErrors.UNREACHABLE({ ...details, reason: chain.map(codeOf).find(each => each) ?? said }, options)
  return ModelErrors.FAILED({ ...details, reason }, options)
}

/** An end that no provider gave a reason for: the stream was cut, but politely. */
export const brokenOff = (model: string): BackplaneError => ModelErrors.STREAM_BROKEN({ model, reason: 'its stream ended before it was finished' })

/** Node's and undici's names for a connection that failed or was lost. */
const CONNECTION = /^(?:ECONNRESET|ECONNREFUSED|ENOTFOUND|ETIMEDOUT|EPIPE|EAI_AGAIN|ENETUNREACH|EHOSTUNREACH|UND_ERR_.*)$/
const codeOf = (error: unknown): string | undefined => {
  const code = (error as { code?: unknown } | null)?.code
  return typeof code === 'string' && CONNECTION.test(code) ? code : undefined
}
// undici's word for a connection that ended within the body.
const isConnection = (error: unknown): boolean => codeOf(error) !== undefined || (error instanceof TypeError && error.message === 'terminated')

function chainOf(error: unknown): unknown[] {
  const chain = [error]
  for (let at = error; at instanceof Error && at.cause !== undefined && chain.length < MAX_DEPTH; at = at.cause) chain.push(at.cause)
  return chain
}

function bodyOf(error: APICallError): unknown {
  try { return JSON.parse(error.responseBody ?? '') } catch { return undefined }
}

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null
/** Vendors wrap it in `error`, once or twice. */
function wordOf(value: unknown): Word {
  let at = value
  for (let depth = 0; isObject(at) && isObject(at['error']) && depth < 2; depth++) at = at['error']
  return isObject(at) ? at : { message: at }
}

/** The status that an error within a stream stands for, by its vendor's name for it. */
function statusOf({ type, code, status }: Word): number | undefined {
  const names = [type, code, status].filter(each => typeof each === 'string').join(' ').toLowerCase()
  if (/rate_limit|resource_exhausted|insufficient_quota/.test(names)) return 429
  if (/overloaded|unavailable|server_error|api_error|internal|timeout/.test(names)) return 503
  if (/authentication|permission|invalid_api_key/.test(names)) return 401
  return /invalid|not_found|too_large|context_length/.test(names) ? 400 : undefined
}

/** Seconds, of `retry-after-ms`, or of `Retry-After` as seconds or a date. */
export function retryAfterOf(headers: Readonly<Record<string, string>>, now = Date.now()): number | undefined {
  const ms = Number.parseFloat(headers['retry-after-ms'] ?? '')
  if (ms >= 0) return ms / 1000
  const text = headers['retry-after']
  if (text === undefined) return undefined
  if (/^\s*\d+(\.\d+)?\s*$/.test(text)) return Number(text)
  const at = Date.parse(text)
  return Number.isNaN(at) ? undefined : Math.max(0, (at - now) / 1000)
}

const RUN = 12
/** A vendor's words, unless they repeat the request's. */
function unquoted(text: string, prompt: LanguageModelV3Prompt): string {
  const shown = maskSecrets(text).slice(0, MAX_REASON)
  const runs = Array.from({ length: Math.floor(shown.length / RUN) }, (_, nth) => shown.slice(nth * RUN, (nth + 1) * RUN))
  for (const asked of textsOf(prompt)) {
    const whole = asked.trim()
    if ((whole.length >= 4 && shown.includes(whole)) || runs.some(run => asked.includes(run))) return 'its words are left out, since they repeat the request'
  }
  return shown
}

/** What a guard of the call threw: its own typed error as it is; of any other only that there was one. */
export function refusalOf(model: string, error: unknown): BackplaneError {
  const root = rootOf(error)
  return root instanceof BackplaneError ? root : ModelErrors.GUARD_FAILED({ model }, { cause: error })
}

/** An error's message as records of the call may show it. */
export const shownOf = (error: BackplaneError): string => (error.expose ? maskSecrets(error.message) : `${error.code}, see the log`)

const { ABORTED, BAD_REQUEST, GUARD_FAILED, OVERLOADED, RATE_LIMITED, STREAM_BROKEN, TIMEOUT, UNKNOWN, UNREACHABLE } = ModelErrors
const anyOf = (...kinds: { is(error: unknown): boolean }[]) => (error: BackplaneError): boolean => kinds.some(each => each.is(error))
/** Is it the provider's own trouble, which its circuit breaker counts? */
export const isOutage = anyOf(OVERLOADED, UNREACHABLE, TIMEOUT, STREAM_BROKEN)
/** May the same call be made again at once? What the breaker, the limits or a guard refused is for others to repeat. */
export const isPassing = anyOf(OVERLOADED, UNREACHABLE, TIMEOUT, STREAM_BROKEN, RATE_LIMITED)
const isFinal = anyOf(ABORTED, BAD_REQUEST, GUARD_FAILED, UNKNOWN)
/** Could another model answer? Not what is wrong itself, was aborted, or was refused by a guard. */
export const mayFallBack = (error: BackplaneError): boolean => error.code.startsWith('MODELS_') && !isFinal(error)
