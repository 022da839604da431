declare const type: unique symbol

export type HookMode = 'notify' | 'series' | 'waterfall' | 'first'
export type GuardMode = Exclude<HookMode, 'notify'>

interface Ref {
  /** `<owner>.<thing>`, and unique. */
  readonly id: string
  /** Counts breaking changes. Provider and user must name the same one; two majors may stand side by side. */
  readonly version: number
  /** id and version in one, the key under which the runtime keeps it. */
  readonly slot: string
}

/** Names a service and carries its type: one provider, many users. */
export interface ServiceRef<T> extends Ref { readonly is: 'service'; readonly [type]?: (value: T) => T }

/** Names a list that many plugins add to and few read. */
export interface PointRef<T> extends Ref {
  readonly is: 'point'
  readonly key: ((value: T) => string) | undefined
  readonly [type]?: (value: T) => T
}

/** Names a moment that one plugin announces and many handle. The mode says how; see `defineHook`. */
export interface HookRef<M extends HookMode, In, Out> extends Ref {
  readonly is: 'hook'
  readonly mode: M
  readonly options: HookOptions
  readonly [type]?: (input: In, output: Out) => void
}

export type AnyHook = HookRef<HookMode, any, any>

export interface HookOptions {
  readonly version?: number
  /** Milliseconds that one handler may take: 5,000, or 500 for a hook that carries a transaction. */
  readonly timeout?: number
  /** The input carries an open `Tx`: an absent guard is not waited for, since others wait for the transaction. */
  readonly tx?: boolean
  /** May be called while plugins are still being set up; those that are up already answer. */
  readonly early?: boolean
}

/** A use that is looked up each time: it never waits, and never restarts its user. */
export interface LiveRef<T> { readonly is: 'live'; readonly ref: ServiceRef<T> }

/** A use of a point for which every plugin that declares to contribute to it is set up first. */
export interface SettledRef<T> { readonly is: 'settled'; readonly point: PointRef<T> }

export interface Live<T> {
  /** `undefined` while nothing provides it. */
  readonly current: T | undefined
  /** Runs now and after every change, until the plugin is released. */
  watch(listener: (current: T | undefined) => void): void
}

export interface Contribution<T> { readonly plugin: string; readonly value: T }

/** A live, read-only view of what was contributed to a point. */
export interface Contributions<T> extends Iterable<T> {
  readonly all: readonly Contribution<T>[]
  /** Of plugins that are being swapped right now, and will most likely be back in a moment. */
  readonly away: readonly Contribution<T>[]
  /** Runs now and after every change, until the plugin is released. */
  watch(listener: (all: readonly Contribution<T>[], away: readonly Contribution<T>[]) => void): void
}

export type ServiceOf<R> = R extends ServiceRef<infer T> ? T : never
export type PointOf<R> = R extends PointRef<infer T> ? T : never

const ref = <K extends string>(is: K, id: string, version = 1) => ({ is, id, version, slot: `${id}@${version}` })

export const defineService = <T>(id: string, options: { version?: number } = {}): ServiceRef<T> => ref('service', id, options.version)
export const definePoint = <T>(id: string, options: { version?: number; key?: (value: T) => string } = {}): PointRef<T> =>
  ({ ...ref('point', id, options.version), key: options.key })
export const live = <T>(service: ServiceRef<T>): LiveRef<T> => ({ is: 'live', ref: service })
export const settled = <T>(point: PointRef<T>): SettledRef<T> => ({ is: 'settled', point })

const hook = <M extends HookMode, In, Out>(mode: M, id: string, options: HookOptions = {}): HookRef<M, In, Out> =>
  ({ ...ref('hook', id, options.version), mode, options })

export const defineHook = {
  /** All at once; a failing handler is isolated, and the caller gets a report. Name it in the past tense. */
  notify: <In>(id: string, options?: HookOptions) => hook<'notify', In, void>('notify', id, options),
  /** One after another; the first failure stops the line and reaches the caller: a veto. */
  series: <In>(id: string, options?: HookOptions) => hook<'series', In, void>('series', id, options),
  /** Each handler gets what the one before returned; `undefined` leaves the value as it is. */
  waterfall: <In>(id: string, options?: HookOptions) => hook<'waterfall', In, In>('waterfall', id, options),
  /** One after another until a handler answers with something other than `undefined`. */
  first: <In, Out>(id: string, options?: HookOptions) => hook<'first', In, Out>('first', id, options),
}
