import { BackplaneError, type Contributions } from '#core'
import {
  ModelErrors, type LanguageModelV3, type LanguageModelV3CallOptions, type LanguageModelV3StreamPart, type ModelCallContext, type ModelInfo,
  type ModelProvider, type Models,
} from '#contracts/models'
import { Call, type CallHooks, type Timeouts } from './call.ts'
import { resolveAlias, withDefault, type Config } from './config.ts'
import { isPassing, mayFallBack } from './failure.ts'
import { Gate } from './gate.ts'
import { fallbacksTotal, retriesTotal } from './metrics.ts'
import { backoff, pause } from './pause.ts'

type Stream = ReadableStream<LanguageModelV3StreamPart>
interface Request { readonly context: ModelCallContext; readonly options: LanguageModelV3CallOptions; readonly signal: AbortSignal }
/** What of the config concerns calls. */
export type CallSettings = Pick<Config, 'aliases' | 'fallbacks' | 'providers' | 'retries' | 'timeouts' | 'limits' | 'circuit'>

/** Finds models by name and calls them: again if that may help, and others in their place. */
export class ModelRegistry implements Models, AsyncDisposable {
  readonly #created = new WeakMap<ModelProvider, Map<string, Promise<LanguageModelV3>>>()
  readonly #gates = new Map<string, Gate>()
  readonly #running = new Set<Call>()
  /** Of what has not begun to answer: a pause or a place in line must end with the plugin too. */
  readonly #waiting = new Set<AbortController>()
  #settings!: CallSettings
  constructor(readonly providers: Contributions<ModelProvider>, settings: CallSettings, readonly hooks: CallHooks) {
    this.apply(settings)
    providers.watch(all => this.#endOrphans(all.map(each => each.value)))
  }

  /** Other settings, for the calls to come. */
  apply(settings: CallSettings): void {
    this.#settings = { ...settings, aliases: withDefault(settings.aliases) }
    for (const gate of this.#gates.values()) {
      gate.circuit.options = settings.circuit
      gate.limiter.limits = this.#limits(gate.provider)
    }
  }
  get aliases(): Readonly<Record<string, string>> { return this.#settings.aliases }

  async stream(context: ModelCallContext, model: string, options: LanguageModelV3CallOptions): Promise<Stream> {
    const stop = new AbortController()
    const { abortSignal } = options
    const abort = () => stop.abort(ModelErrors.ABORTED({ model }))
    abortSignal?.addEventListener('abort', abort, { once: true })
    this.#waiting.add(stop)
    try { return await this.#withFallbacks(model, { context, options, signal: stop.signal }) } finally {
      this.#waiting.delete(stop)
      abortSignal?.removeEventListener('abort', abort)
    }
  }

  async #withFallbacks(model: string, request: Request): Promise<Stream> {
    const errors: BackplaneError[] = []
    const candidates = [model, ...this.fallbacksOf(model)]
    for (const [nth, candidate] of candidates.entries()) {
      try { return await this.#withRetries(candidate, request) } catch (error) {
        if (!(error instanceof BackplaneError) || !mayFallBack(error)) throw error
        errors.push(error)
        const next = candidates[nth + 1]
        if (next === undefined) break
        fallbacksTotal.inc({ model: candidate, fallback: next })
        this.hooks.log.warn('a model is replaced by its fallback', { model: candidate, fallback: next, code: error.code, reason: error.message })
      }
    }
    // The job may be tried again if any of them may answer then.
    throw errors.find(each => each.retryable) ?? errors[0]!
  }

  async #withRetries(model: string, request: Request): Promise<Stream> {
    const { attempts, max_wait_ms } = this.#settings.retries
    for (let nth = 0; ; nth++) {
      try { return await this.#once(model, request) } catch (error) {
        if (!(error instanceof BackplaneError) || !isPassing(error) || nth >= attempts) throw error
        const asked = error.details['retry_after']
        const wait = typeof asked === 'number' ? asked * 1000 : backoff(nth, max_wait_ms)
        if (wait > max_wait_ms) throw error
        retriesTotal.inc({ model, code: error.code })
        this.hooks.log.info('a model is asked again', { model, code: error.code, wait_ms: Math.round(wait) })
        await pause(this.hooks.clock, wait, request.signal)
      }
    }
  }

  async #once(model: string, { context, options, signal }: Request): Promise<Stream> {
    const { provider, id } = this.find(model)
    const gate = this.#gate(provider.name)
    // What is aborted already has its record too, so that every call that was asked for is told of.
    const passage = options.abortSignal?.aborted ? undefined : await gate.enter(this.#settings.retries.max_wait_ms, signal)
    const call = new Call(context, provider, id, options, this.#timeouts(provider.name), this.hooks, (each, record, error) => {
      this.#running.delete(each)
      passage?.ended(record, error)
    })
    this.#running.add(call)
    const stream = await call.stream(() => this.#create(provider, id))
    passage?.begun()
    return stream
  }

  async list(): Promise<readonly ModelInfo[]> {
    const more = (id: string, provider: string) => ({
      ...(this.fallbacksOf(id).length && { fallbacks: this.fallbacksOf(id) }), circuit: this.circuit(provider),
    })
    const named = [...this.providers].flatMap(({ name, models, missing }) =>
      (models ?? ['*']).map(model => ({ id: `${name}/${model}`, provider: name, missing, ...more(`${name}/${model}`, name) })))
    const aliases = Object.keys(this.aliases).flatMap(alias => {
      const target = resolveAlias(this.aliases, alias)!
      const provider = target.slice(0, target.indexOf('/'))
      const found = this.#provider(provider)
      return found ? [{ id: alias, provider, alias_of: target, missing: found.missing, ...more(alias, provider) }] : []
    })
    return [...named, ...aliases]
  }

  /** Of the name itself, or else of what it leads to. */
  fallbacksOf(model: string): readonly string[] {
    const { fallbacks } = this.#settings
    if (Object.hasOwn(fallbacks, model)) return fallbacks[model]!
    const target = model.includes('/') || !Object.hasOwn(this.aliases, model) ? undefined : this.aliases[model]
    return target === undefined ? [] : this.fallbacksOf(target)
  }

  circuit(provider: string): ModelInfo['circuit'] { return this.#gates.get(provider)?.circuit.state ?? 'closed' }
  /** Providers that are left alone for now. */
  get open(): string[] { return [...this.#gates.values()].flatMap(({ provider, circuit }) => (circuit.state === 'open' ? [provider] : [])) }

  /** Rejects with MODELS_UNKNOWN, MODELS_UNCONFIGURED or MODELS_PROVIDER_AWAY. */
  find(model: string): { readonly provider: ModelProvider; readonly id: string } {
    const target = resolveAlias(this.aliases, model)
    const slash = target?.indexOf('/') ?? -1
    const provider = slash > 0 ? this.#provider(target!.slice(0, slash)) : undefined
    const away = slash > 0 && !provider && this.providers.away.find(each => each.value.name === target!.slice(0, slash))
    if (away) throw ModelErrors.PROVIDER_AWAY({ provider: away.value.name })
    if (!provider) throw ModelErrors.UNKNOWN({ model, known: this.#known() })
    if (provider.missing.length) throw ModelErrors.UNCONFIGURED({ provider: provider.name, missing: provider.missing.join(', ') })
    return { provider, id: target!.slice(slash + 1) }
  }

  #provider(name: string): ModelProvider | undefined { return [...this.providers].find(each => each.name === name) }

  #known(): string {
    return [
      ...Object.keys(this.aliases),
      ...[...this.providers].flatMap(({ name, models, missing }) => (missing.length ? [] : (models ?? ['<model>']).map(model => `${name}/${model}`))),
    ].join(', ')
  }

  #timeouts(provider: string): Timeouts { return overridden(this.#settings.timeouts, this.#settings.providers[provider]?.timeouts) }
  #limits(provider: string) { return overridden(this.#settings.limits, this.#settings.providers[provider]?.limits) }
  #gate(provider: string): Gate {
    let gate = this.#gates.get(provider)
    if (!gate) this.#gates.set(provider, (gate = new Gate(provider, this.#settings.circuit, this.#limits(provider), this.hooks.clock)))
    return gate
  }

  async #create(provider: ModelProvider, id: string): Promise<LanguageModelV3> {
    let models = this.#created.get(provider)
    if (!models) this.#created.set(provider, (models = new Map()))
    let model = models.get(id)
    if (!model) models.set(id, (model = provider.create(id)))
    try { return await model } catch (error) { models.delete(id); throw error }
  }

  /** What a model needs leaves with its plugin, so its calls would hang or fail oddly. */
  #endOrphans(providers: readonly ModelProvider[]): void {
    for (const call of [...this.#running]) {
      if (!providers.includes(call.source)) call.abort(ModelErrors.PROVIDER_AWAY({ provider: call.provider }))
    }
  }

  /** Ends the calls that still run; their streams error with MODELS_ABORTED. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const call of [...this.#running]) call.abort()
    for (const stop of this.#waiting) stop.abort(ModelErrors.ABORTED({ model: 'any' }))
  }
}

const overridden = <T extends object>(all: T, own: { readonly [K in keyof T]?: T[K] | undefined } | undefined): T =>
  ({ ...all, ...Object.fromEntries(Object.entries(own ?? {}).filter(([, value]) => value !== undefined)) })
