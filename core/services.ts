import { createRequire } from 'node:module'
import type * as Awilix from 'awilix'
import type { AwilixContainer } from 'awilix'
import { ServiceErrors } from './errors.ts'
import type { ServiceRef } from './refs.ts'

interface Slot { readonly ref: ServiceRef<any>; value: unknown; provider: string | undefined; readonly watchers: Set<(value: any) => void> }

// awilix takes 27 ms to import, and only a plugin that asks for its container needs it.
export const awilix = (): typeof Awilix => createRequire(import.meta.url)('awilix') as typeof Awilix

/**
 * Who provides what. awilix holds the names, this class holds the values: awilix cannot unregister
 * a name and keeps a replaced singleton, and a swap needs both.
 */
export class Services {
  #slots = new Map<string, Slot>()
  #root: AwilixContainer | undefined

  #slot(ref: ServiceRef<any>): Slot {
    let slot = this.#slots.get(ref.slot)
    if (!slot) {
      this.#slots.set(ref.slot, (slot = { ref, value: undefined, provider: undefined, watchers: new Set() }))
      if (this.#root) this.#register(this.#root, ref)
    }
    return slot
  }

  #register(root: AwilixContainer, ref: ServiceRef<any>): void { root.register(ref.slot, awilix().asFunction(() => this.get(ref)).transient()) }

  /** The root container, made on first use, in strict PROXY mode: every service is looked up when it is asked for. */
  get root(): AwilixContainer {
    if (!this.#root) {
      this.#root = awilix().createContainer({ strict: true })
      for (const { ref } of this.#slots.values()) this.#register(this.#root, ref)
    }
    return this.#root
  }

  set<T>(ref: ServiceRef<T>, provider: string, value: T): () => void {
    const slot = this.#slot(ref)
    if (slot.provider !== undefined) throw ServiceErrors.DUPLICATE({ service: ref.id, first: slot.provider, second: provider })
    this.#assign(slot, provider, value)
    return () => this.#assign(slot, undefined, undefined)
  }

  get<T>(ref: ServiceRef<T>): T {
    const slot = this.#slot(ref)
    if (slot.provider === undefined) throw ServiceErrors.UNAVAILABLE({ service: ref.id })
    return slot.value as T
  }

  peek<T>(ref: ServiceRef<T>): T | undefined { return this.#slot(ref).value as T | undefined }
  has(ref: ServiceRef<any>): boolean { return this.#slot(ref).provider !== undefined }

  watch<T>(ref: ServiceRef<T>, listener: (value: T | undefined) => void): () => void {
    const { watchers } = this.#slot(ref)
    watchers.add(listener)
    listener(this.peek(ref))
    return () => void watchers.delete(listener)
  }

  #assign(slot: Slot, provider: string | undefined, value: unknown): void {
    slot.provider = provider
    slot.value = value
    for (const listener of [...slot.watchers]) listener(value)
  }

  get provided(): { service: string; plugin: string }[] {
    return [...this.#slots].flatMap(([service, { provider }]) => (provider === undefined ? [] : [{ service, plugin: provider }]))
  }
}
