import type { LanguageModelV3, LanguageModelV3CallOptions, LanguageModelV3StreamPart, LanguageModelV3Usage } from '@ai-sdk/provider'
import { defineErrors, defineHook, definePoint, defineService } from '#core'
import type { Caller } from '#contracts/access'

export type { LanguageModelV3, LanguageModelV3CallOptions, LanguageModelV3StreamPart, LanguageModelV3Usage }

/** Makes models of one vendor. `create` is called once for each model id in use. */
export interface ModelProvider {
  readonly name: string
  /** Missing settings, named; it is then passed over in lists and refused with them when it is asked for. */
  readonly missing: readonly string[]
  readonly models?: readonly string[]
  create(model: string): Promise<LanguageModelV3>
}
export const ModelProvider = definePoint<ModelProvider>('models.provider', { key: provider => provider.name })

/** Whom a call is for: the attributes under which it is counted and paid. */
export interface ModelCallContext {
  readonly caller: Caller
  readonly project_id: string
  readonly agent?: string
  readonly job_id?: string
  readonly step?: string
}

/** One call, when it is over, however it ended. */
export interface ModelCall extends ModelCallContext {
  readonly id: string
  readonly provider: string
  readonly model: string
  /** What the provider said that it used, if it said so: `gpt-5-mini` may be answered by `gpt-5-mini-2025-08-07`. */
  readonly response_model?: string
  readonly status: 'completed' | 'aborted' | 'failed'
  /** As the provider told it; of an aborted call, what was counted until then. */
  readonly usage: LanguageModelV3Usage
  /** True if the figures are our own count. */
  readonly estimated: boolean
  readonly duration_ms: number
  readonly first_token_ms: number | undefined
  readonly error?: { readonly code: string; readonly message: string }
}

/** Before any money is spent: throw to refuse, and the caller gets that error. */
export const BeforeModelCall = defineHook.series<
  ModelCallContext & { readonly id: string; readonly provider: string; readonly model: string; readonly options: LanguageModelV3CallOptions }
>('models.before-call')
/** Once for each call, on every path. Told when the call ends, and not waited for. */
export const ModelCalled = defineHook.notify<ModelCall>('models.called')

export interface ModelInfo {
  /** `provider/model`, an alias, or `provider/*` of a provider whose config lists no models. */
  readonly id: string
  readonly provider: string
  readonly alias_of?: string
  readonly missing: readonly string[]
  /** Asked in this order when it fails before it said anything. */
  readonly fallbacks?: readonly string[]
  /** Of the provider's circuit breaker. While it is open no call is made. */
  readonly circuit: 'closed' | 'open' | 'half-open'
}

/** Language models by name: `provider/model`, or an alias from config such as `default`. */
export interface Models {
  /**
   * Resolves when the first content is there; until then failures are tried again, and then the model's fallbacks. Rejects, or errors the stream,
   * with a typed error. Leaving the stream, or the abort signal in options, ends the provider's call. The part `response-metadata` comes once
   * before any content; its `modelId` is the `provider/model` that really answers.
   */
  stream(context: ModelCallContext, model: string, options: LanguageModelV3CallOptions): Promise<ReadableStream<LanguageModelV3StreamPart>>
  list(): Promise<readonly ModelInfo[]>
}
export const Models = defineService<Models>('models.models')

export const ModelErrors = defineErrors('MODELS', {
  UNKNOWN: { message: 'there is no model "{model}"', fix: 'Known: {known}. Aliases are set under plugins.models.config.aliases.', status: 400, expose: true },
  UNCONFIGURED: { message: 'model provider "{provider}" is not configured: {missing} missing', fix: 'Set {missing}, or use another model.', status: 503, expose: true },
  PROVIDER_AWAY: {
    message: 'model provider "{provider}" is being stopped or swapped', fix: 'Try again in a moment; if it stays away, see `backplane plugins list`.', status: 503,
    retryable: true, away: true, expose: true,
  },
  AUTH_FAILED: {
    message: 'the provider of model "{model}" does not accept the key, or not for this: {reason}', status: 502, expose: true,
    fix: 'Set plugins.models.config.providers.{provider}.api_key to a key that may call this model, and see to the account\'s credit.',
  },
  RATE_LIMITED: {
    message: 'the provider of model "{model}" takes no more calls for now: {reason}', status: 503, retryable: true, expose: true,
    fix: 'Try again after `retry_after` seconds, lower plugins.models.config.providers.{provider}.limits, or have the provider raise its own.',
  },
  OVERLOADED: { message: 'the provider of model "{model}" can\'t answer now: {reason}', fix: 'Try again; see the provider\'s status page, or name a fallback for the model.', status: 503, retryable: true, expose: true },
  UNREACHABLE: { message: 'the provider of model "{model}" can\'t be reached: {reason}', fix: 'See to the network, and to base_url in plugins.models.config.providers.{provider}.', status: 503, retryable: true, expose: true },
  TIMEOUT: { message: 'model "{model}" gave no {what} within {ms} ms', fix: 'Try again, or raise {setting} under plugins.models.config.timeouts.', status: 504, retryable: true, expose: true },
  BAD_REQUEST: { message: 'the provider of model "{model}" refused the request: {reason}', fix: 'Correct what it names: the model\'s name, the length of the prompt, or a tool\'s schema.', status: 400, expose: true },
  STREAM_BROKEN: { message: 'the answer of model "{model}" broke off: {reason}', fix: 'Try again.', status: 502, retryable: true, expose: true },
  CIRCUIT_OPEN: {
    message: 'model provider "{provider}" failed {failures} times in a row, and is left alone for a while', status: 503, retryable: true, away: true, expose: true,
    fix: 'Try again after `retry_after` seconds, or name a fallback for the model.',
  },
  BUSY: {
    message: 'model provider "{provider}" has as many calls under way and waiting as may be', status: 503, retryable: true, away: true, expose: true,
    fix: 'Try again after `retry_after` seconds, or raise plugins.models.config.providers.{provider}.limits.',
  },
  FAILED: { message: 'model "{model}" failed: {reason}', fix: 'See the provider\'s status page and the log.', status: 502, expose: true },
  GUARD_FAILED: { message: 'the call to model "{model}" was not made, because a check before it failed', fix: 'See the log for what it was.', retryable: true, expose: true },
  ABORTED: { message: 'the call to model "{model}" was aborted', fix: 'Nothing to do, if that was wanted.', expose: true },
})
