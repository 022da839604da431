import type { AwilixContainer } from 'awilix'
import { disposerOf, type Disposer, type Holdings } from './disposal.ts'
import { SecretErrors, ServiceErrors } from './errors.ts'
import type { Hooks } from './hooks.ts'
import type { Logger, Plugin, PluginContext } from './plugin.ts'
import type { Points } from './points.ts'
import type { Contributions, Live, PointRef, ServiceRef } from './refs.ts'
import { PluginScope } from './scope.ts'
import { mayRead, SecretResolve } from './secret.ts'
import { awilix, type Services } from './services.ts'
import { isPromise, type Clock } from './time.ts'

/** What all plugins of one runtime meet at. */
export interface Board {
  readonly services: Services
  readonly points: Points
  readonly hooks: Hooks
  readonly clock: Clock
  /** A failure that nobody else will hear of, put down to a plugin. */
  readonly fault: (plugin: string, error: unknown, where: string) => void
}

export interface ContextOptions { readonly name: string; readonly config: unknown; readonly log: Logger; readonly stopper: AbortController; readonly holdings: Holdings }

/** What setup() receives. Every verb ends in holdings.defer(): whatever a plugin does, leaving undoes it. */
export function createContext(plugin: Plugin, board: Board, { name, config, log, stopper, holdings }: ContextOptions): { ctx: PluginContext; deps: Record<string, unknown> } {
  const { services, points, hooks } = board
  const inside = new PluginScope(name)
  const keep = (undo: Disposer, label: string) => void holdings.defer(undo, label)
  const declared = (ref: { slot: string; id: string }, list: readonly { slot: string }[], field: string) => {
    if (!list.some(each => each.slot === ref.slot)) throw ServiceErrors.UNDECLARED({ plugin: name, ref: ref.id, list: field })
  }
  /** A listener or timer of this plugin: runs in its scope, and its failure is its own. */
  const guarded = <A extends unknown[]>(where: string, run: (...args: A) => unknown) => (...args: A): void => {
    const failed = (error: unknown) => board.fault(name, error, where)
    try {
      const result = inside.run(() => run(...args), undefined, undefined)
      if (isPromise(result)) Promise.resolve(result).catch(failed)
    } catch (error) { failed(error) }
  }

  const liveOf = <T>(ref: ServiceRef<T>): Live<T> => ({
    get current() { return services.peek(ref) },
    watch: listener => keep(services.watch(ref, guarded(`watch ${ref.id}`, listener)), `watch ${ref.id}`),
  })
  const collect = <T>(point: PointRef<T>): Contributions<T> => ({
    get all() { return points.list(point).all },
    get away() { return points.list(point).away },
    watch: listener => keep(points.watch(point, guarded(`watch ${point.id}`, listener)), `watch ${point.id}`),
    *[Symbol.iterator]() { for (const { value } of points.list(point).all) yield value },
  })
  const deps = Object.fromEntries(Object.entries(plugin.uses).map(([key, use]) =>
    [key, use.is === 'live' ? liveOf(use.ref) : use.is === 'settled' ? collect(use.point) : services.get(use)]))

  const timer = (kind: 'after' | 'every') => (ms: number, run: () => void): (() => void) => {
    let release: Disposer = () => {}
    const cancel = board.clock[kind](ms, guarded(`clock.${kind}`, () => { if (kind === 'after') void release(); return run() }))
    release = holdings.defer(cancel, `clock.${kind}(${ms})`)
    return () => void release()
  }
  const clock: Clock = { deadlines: board.clock.deadlines, now: () => board.clock.now(), after: timer('after'), every: timer('every') }
  const own = <T>(resource: T, dispose?: (resource: T) => unknown): T => {
    const release = dispose ? () => dispose(resource) : disposerOf(resource)
    if (release) keep(release, `own ${(resource as object)?.constructor?.name ?? typeof resource}`)
    return resource
  }

  let container: AwilixContainer | undefined
  // A signal costs 30 µs, and few plugins ever look at theirs.
  const bag = { ...deps, config, log, clock, get signal() { return stopper.signal } }
  const ctx: PluginContext = {
    name, config, log, clock, own, collect,
    get signal() { return stopper.signal },
    provide(ref, value) {
      declared(ref, plugin.provides, 'provides')
      keep(services.set(ref, name, value), `provide ${ref.id}`)
    },
    use(ref: ServiceRef<any>) {
      declared(ref, Object.values(plugin.uses).flatMap(use => (use.is === 'service' ? [use] : [])), 'uses')
      return services.get(ref)
    },
    contribute(point, value) {
      declared(point, plugin.contributes, 'contributes')
      keep(points.add(point, name, value), `contribute ${point.id}`)
    },
    hook(ref, handler, options) {
      if (ref.mode !== 'notify') declared(ref, plugin.guards, 'guards')
      keep(hooks.add(ref, name, handler, options?.order), `hook ${ref.id}`)
    },
    call(ref, input) {
      if (ref.slot !== SecretResolve.slot) return hooks.call(ref, input, stopper)
      const { name: wanted } = input as { readonly name: string }
      if (!mayRead(plugin.secrets, wanted)) throw SecretErrors.UNDECLARED({ plugin: name, name: wanted })
      // Whoever asks is named here, not by the asker.
      return hooks.call(ref, { name: wanted, plugin: name } as typeof input, stopper)
    },
    ready: ref => hooks.ready(ref),
    defer: (dispose, label = 'defer') => holdings.defer(dispose, label),
    make: type => own(new type(bag as never)),
    get container() {
      if (!container) {
        container = services.root.createScope()
        for (const [key, value] of Object.entries(bag)) container.register(key, awilix().asValue(value))
        keep(() => container!.dispose(), 'container')
      }
      return container as never
    },
  }
  return { ctx, deps }
}
