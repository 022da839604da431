import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { AwilixContainer } from 'awilix'
import type { Disposer } from './disposal.ts'
import type { Command } from './cli/command.ts'
import type { HookHandler, HookInput, HookResult, Order } from './hooks.ts'
import type { AnyHook, Contributions, GuardMode, HookRef, Live, LiveRef, PointOf, PointRef, ServiceOf, ServiceRef, SettledRef } from './refs.ts'
import type { Clock } from './time.ts'

type Awaitable<T> = T | Promise<T>

export type Level = 'debug' | 'info' | 'warn' | 'error'
export type Fields = Readonly<Record<string, unknown>>
/** A message says what happened; what varies goes into fields. */
export interface Logger extends Record<Level, (message: string, fields?: Fields) => void> { child(fields: Fields): Logger }

export type Uses = Readonly<Record<string, ServiceRef<any> | LiveRef<any> | SettledRef<any>>>
export type Provides = readonly ServiceRef<any>[]
export type Contributes = readonly PointRef<any>[]
export type Guards = readonly HookRef<GuardMode, any, any>[]
type NoConfig = StandardSchemaV1<unknown, {}>

/** What setup() gets for `uses`: the service itself, a `Live`, or the settled contributions. */
export type Deps<U extends Uses> = {
  readonly [K in keyof U]: U[K] extends LiveRef<infer T> ? Live<T> : U[K] extends SettledRef<infer T> ? Contributions<T> : ServiceOf<U[K]>
}
/** The refs of `uses` that are present in setup. */
export type HardRefs<U extends Uses> = { [K in keyof U]: U[K] extends ServiceRef<any> ? U[K] : never }[keyof U]

/** What setup() returns: how the plugin begins, ends and changes. All are optional. */
export interface Lifecycle<C = any> {
  /** Begin work: listen, poll, subscribe. Runs after every plugin was set up; 30 s. */
  start?(): Awaitable<unknown>
  /** Accept nothing new and let what runs finish. All plugins at once, before any stop(). */
  drain?(): Awaitable<unknown>
  /** Abort what still runs and close. Everything that the plugin uses is still there. */
  stop?(): Awaitable<unknown>
  /** Other settings: apply them and return true, or return false to be restarted with them. */
  reconfigure?(next: C): Awaitable<boolean>
}

/** What `make` injects besides the declared dependencies. */
export interface Ambient<C> {
  readonly config: C
  readonly log: Logger
  /** Aborts after stop(). */
  readonly signal: AbortSignal
  /** Timers set here are the plugin's: cancelled with it, and a failure in one is put down to it. */
  readonly clock: Clock
}

export interface PluginContext<C = any, U extends Uses = {}, P extends Provides = Provides, K extends Contributes = Contributes, G extends Guards = Guards> extends Ambient<C> {
  /** The instance's name in config. */
  readonly name: string
  provide<R extends P[number]>(ref: R, value: ServiceOf<R>): void
  /** For helpers that get only the context; setup() has the same values as its second argument. */
  use<R extends HardRefs<U>>(ref: R): ServiceOf<R>
  contribute<R extends K[number]>(point: R, value: PointOf<R>): void
  collect<T>(point: PointRef<T>): Contributions<T>
  hook<H extends HookRef<'notify', any, any> | G[number]>(ref: H, handler: HookHandler<H>, options?: { order?: Order }): void
  /** Answers without a promise if every handler did: always await it. */
  call<H extends AnyHook>(ref: H, input: HookInput<H>): Awaitable<HookResult<H>>
  /** Settles when every guard of the hook is there; rejects with PLUGIN_UNAVAILABLE. Call it before you open a transaction. */
  ready(ref: AnyHook): Awaitable<void>
  /** Release this when the plugin goes. Last deferred, first released. */
  defer(dispose: Disposer, label?: string): Disposer
  /** Hold this until the plugin goes; without a disposer, Symbol.asyncDispose or Symbol.dispose is used. */
  own<T>(resource: T, dispose?: (resource: T) => unknown): T
  /** Builds a class from the declared dependencies, and owns it. */
  make<T>(type: new (deps: Deps<U> & Ambient<C>) => T): T
  /** This plugin's own awilix scope, for object graphs that `make` is too small for. */
  readonly container: AwilixContainer<Deps<U> & Ambient<C>>
}

export interface PluginDefinition<
  C extends StandardSchemaV1 = NoConfig, U extends Uses = {}, P extends Provides = readonly [], K extends Contributes = readonly [], G extends Guards = readonly [],
> {
  readonly name: string
  /** One line for people, in lists and generated pages. */
  readonly summary?: string
  readonly config?: C
  readonly uses?: U
  readonly provides?: P
  /** The points that it adds to. */
  readonly contributes?: K
  /** The series, waterfall and first hooks that it handles. While it is away, these hooks are closed rather than open. */
  readonly guards?: G
  /** Names of secrets that it may read, with globs. */
  readonly secrets?: readonly string[]
  /** Hosts that it talks to. */
  readonly hosts?: readonly string[]
  /** Loaded only when the CLI runs. */
  readonly commands?: () => Promise<{ readonly default: readonly Command[] }>
  setup(ctx: PluginContext<StandardSchemaV1.InferOutput<C>, U, P, K, G>, deps: Deps<U>): Awaitable<Lifecycle<StandardSchemaV1.InferOutput<C>> | void>
}

/** A definition whose types were checked where it was written and are no longer needed. */
export interface Plugin extends Pick<PluginDefinition, 'name' | 'summary' | 'secrets' | 'hosts' | 'commands'> {
  readonly config?: StandardSchemaV1
  readonly uses: Uses
  readonly provides: Provides
  readonly contributes: Contributes
  readonly guards: Guards
  setup(ctx: any, deps: any): Awaitable<Lifecycle | void>
}

export function definePlugin<
  C extends StandardSchemaV1 = NoConfig, const U extends Uses = {},
  const P extends Provides = readonly [], const K extends Contributes = readonly [], const G extends Guards = readonly [],
>(
  definition: PluginDefinition<C, U, P, K, G>,
): Plugin {
  return Object.freeze({ uses: {}, provides: [], contributes: [], guards: [], ...definition }) as Plugin
}
