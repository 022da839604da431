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

export interface ModelInfo { readonly id: string; readonly provider: string; readonly alias_of?: string; readonly missing: readonly string[] }

/** Language models by name: `provider/model`, or an alias from config such as `default`. */
export interface Models {
  /** Streams one call. The stream errors with a typed error; leaving it, or the abort signal in options, ends the provider's call. */
  stream(context: ModelCallContext, model: string, options: LanguageModelV3CallOptions): Promise<ReadableStream<LanguageModelV3StreamPart>>
  list(): Promise<readonly ModelInfo[]>
}
export const Models = defineService<Models>('models.models')

export const ModelErrors = defineErrors('MODELS', {
  UNKNOWN: { message: 'there is no model "{model}"', fix: 'Known: {known}. Aliases are set under plugins.models.config.aliases.', status: 400, expose: true },
  UNCONFIGURED: { message: 'model provider "{provider}" is not configured: {missing} missing', fix: 'Set {missing}, or use another model.', status: 503, expose: true },
  PROVIDER_AWAY: {
    message: 'model provider "{provider}" is being stopped or swapped', fix: 'Try again in a moment; if it stays away, see `backplane plugins list`.', status: 503,
    retryable: true, expose: true,
  },
  FAILED: { message: 'model "{model}" failed: {reason}', fix: 'See the provider\'s status page and the log.', status: 502, expose: true },
  GUARD_FAILED: { message: 'the call to model "{model}" was not made, because a check before it failed', fix: 'See the log for what it was.', retryable: true, expose: true },
  ABORTED: { message: 'the call to model "{model}" was aborted', fix: 'Nothing to do, if that was wanted.', expose: true },
})
