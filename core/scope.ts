import { AsyncLocalStorage } from 'node:async_hooks'

/** What is known about the work going on. For observing (logs, traces, attribution), never for authority: that is `Caller`. */
export interface ScopeFields {
  readonly plugin?: string
  readonly request_id?: string
  readonly traceparent?: string
  readonly job_id?: string
  readonly project_id?: string
  /** Inside a handler that hears of faults: one of its own is logged, and not announced again. */
  readonly faulted?: true
}

const storage = new AsyncLocalStorage<ScopeFields>()

/** Runs `work` with these fields added to what is known already. */
function run<T>(fields: ScopeFields, work: () => T): T { return storage.run({ ...storage.getStore(), ...fields }, work) }

export const scope = {
  run,
  get current(): ScopeFields | undefined { return storage.getStore() },
}

/**
 * Enters one plugin again and again, at the price of one AsyncLocalStorage.run: the frame is kept as long as
 * the surrounding scope is the same one, as it is when a list of handlers is walked.
 */
export class PluginScope {
  #parent: ScopeFields | undefined
  #frame: ScopeFields
  constructor(readonly plugin: string) { this.#frame = { plugin } }

  run<A, B, T>(work: (a: A, b: B) => T, a: A, b: B): T {
    const parent = storage.getStore()
    if (parent !== this.#parent) {
      this.#parent = parent
      this.#frame = { ...parent, plugin: this.plugin }
    }
    return storage.run(this.#frame, work, a, b)
  }
}

/** Runs `work` in no scope at all: for what serves everybody. */
export const outside = <T>(work: () => T): T => storage.run(undefined as never, work)

const extenders = new WeakMap<ScopeFields, (ms: number) => void>()

/** Runs a lifecycle step of a plugin; `extendDeadline` inside it reaches `extend`. */
export function runPhase<T>(plugin: string, extend: (ms: number) => void, work: () => T): T {
  const frame: ScopeFields = { ...storage.getStore(), plugin }
  extenders.set(frame, extend)
  const over = () => void extenders.delete(frame)
  const result = storage.run(frame, work)
  if (result instanceof Promise) result.then(over, over)
  else over()
  return result
}
/** Is this a lifecycle step that is still going on? Whoever waits there for the runtime waits for himself. */
export const inPhase = (): boolean => { const frame = storage.getStore(); return frame !== undefined && extenders.has(frame) }

/** For long work that is known to be sound, such as a migration: the running setup() or start() may take `ms` from now. */
export function extendDeadline(ms: number): void { const frame = storage.getStore(); if (frame) extenders.get(frame)?.(ms) }
