import type { Contributions } from '#core'
import {
  ModelErrors, type LanguageModelV3, type LanguageModelV3CallOptions, type LanguageModelV3StreamPart, type ModelCallContext, type ModelInfo,
  type ModelProvider, type Models,
} from '#contracts/models'
import { Call, type CallHooks } from './call.ts'
import { resolveAlias } from './config.ts'

/** Finds models by name and calls them. */
export class ModelRegistry implements Models, AsyncDisposable {
  readonly #created = new WeakMap<ModelProvider, Map<string, Promise<LanguageModelV3>>>()
  readonly #running = new Set<Call>()
  constructor(readonly providers: Contributions<ModelProvider>, public aliases: Readonly<Record<string, string>>, readonly hooks: CallHooks) {
    providers.watch(all => this.#endOrphans(all.map(each => each.value)))
  }

  async stream(context: ModelCallContext, model: string, options: LanguageModelV3CallOptions): Promise<ReadableStream<LanguageModelV3StreamPart>> {
    const { provider, id } = this.find(model)
    const call = new Call(context, provider, id, options, this.hooks, each => void this.#running.delete(each))
    this.#running.add(call)
    return call.stream(() => this.#create(provider, id))
  }

  async list(): Promise<readonly ModelInfo[]> {
    const named = [...this.providers].flatMap(({ name, models = [], missing }) => models.map(model => ({ id: `${name}/${model}`, provider: name, missing })))
    const aliases = Object.keys(this.aliases).flatMap(alias => {
      const target = resolveAlias(this.aliases, alias)!
      const provider = target.slice(0, target.indexOf('/'))
      const found = this.#provider(provider)
      return found ? [{ id: alias, provider, alias_of: target, missing: found.missing }] : []
    })
    return [...named, ...aliases]
  }

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
      ...[...this.providers].flatMap(({ name, models }) => (models ? models.map(model => `${name}/${model}`) : [`${name}/<model>`])),
    ].join(', ')
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
  async [Symbol.asyncDispose](): Promise<void> { for (const call of [...this.#running]) call.abort() }
}
