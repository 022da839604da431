import { createContext, type Board } from './context.ts'
import { BackplaneError, LifecycleErrors, PluginErrors, RuntimeErrors, SecretErrors, ServiceErrors, reasonOf } from './errors.ts'
import { Hooks, type GuardState, type HookInput, type HookResult } from './hooks.ts'
import { nameOf, planFor, problemOf, unitOf, type Phase, type Plan, type PluginEntry, type PluginProblem, type PluginState, type Unit } from './plan.ts'
import type { Logger, Plugin } from './plugin.ts'
import { Points } from './points.ts'
import { defineHook, defineService, type AnyHook, type PointRef, type ServiceRef } from './refs.ts'
import { inPhase, runPhase, scope } from './scope.ts'
import { SecretResolve, SecretRotated } from './secret.ts'
import { Services } from './services.ts'
import { SystemClock, isPromise, within, type Clock } from './time.ts'

export type { PluginEntry, PluginProblem, PluginState } from './plan.ts'

export interface Timeouts { readonly setup: number; readonly start: number; readonly hook: number }
export interface RuntimeOptions {
  readonly plugins: readonly PluginEntry[]
  readonly log: Logger
  /** Services that come from outside, such as fakes in a test. */
  readonly services?: readonly (readonly [ServiceRef<any>, unknown])[]
  readonly timeouts?: Partial<Timeouts>
  /** All of drain, stop and release; the last 5 s of it are kept for stop. */
  readonly graceMs?: number
  readonly clock?: Clock
  readonly host?: Partial<Omit<Host, 'inspect'>>
  /** Which known plugins provide a service; for the fix of SERVICE_MISSING. */
  readonly offers?: (service: string) => readonly string[]
}

/** What a plugin may know of, and ask from, the process it lives in. Provided by the runtime itself. */
/** What a process does: answers requests, runs jobs, decides what is due. */
export type Role = 'api' | 'worker' | 'scheduler'
export const ROLES: readonly Role[] = ['api', 'worker', 'scheduler']

export interface Host {
  readonly version: string
  /** Of this process, new at each start. */
  readonly instanceId: string
  /** Of this process; all of them, unless config says otherwise. */
  readonly roles: readonly Role[]
  /** Where everything that is kept on disk belongs. */
  readonly dataDir: string
  /** The environment of the process. Settings come from config: only a plugin that hands the environment on reads it. */
  readonly env: Readonly<Record<string, string | undefined>>
  /** `development`, `production`, `test` or one of your own: where a plugin refuses what it else only warns of. */
  readonly environment: string
  /** The command of the CLI that this process runs; none in a server. */
  readonly command?: string
  inspect(): ReturnType<Runtime['inspect']>
  /** Restarts one plugin and its dependents; the old one stays if the new one can't start. Resolves to those restarted. */
  reload(name: string): Promise<readonly string[]>
  /** As config says it, until the next edit of the config. */
  enable(name: string): Promise<readonly string[]>
  disable(name: string): Promise<readonly string[]>
}
export const Host = defineService<Host>('core.host')

export const RuntimeHooks = {
  /** Everything has started. */
  ready: defineHook.notify<void>('runtime.ready'),
  /** Stop accepting; the process is about to end. */
  draining: defineHook.notify<void>('runtime.draining'),
  /** Plugins were exchanged, added or taken out. */
  changed: defineHook.notify<{ readonly plugins: readonly string[]; readonly restarted: readonly string[] }>('runtime.changed'),
  state: defineHook.notify<{ readonly plugin: string; readonly state: PluginState }>('runtime.plugin-state'),
  /** A failure that only its plugin is to blame for, and that nobody was there to catch. */
  faulted: defineHook.notify<{ readonly plugin: string; readonly where: string; readonly error: unknown }>('runtime.plugin-faulted'),
}

/** `lost` is told of those that can't come up, required ones too, and they are left out. */
interface UpOptions { readonly setupOnly?: boolean; readonly lost?: (error: BackplaneError) => void; readonly runs?: ReadonlySet<string> }
/** `arrivals` end the absence of what plugins contributed; `runs` ran before, and so are required now. */
interface MoveOptions extends UpOptions { readonly arrivals: (() => void)[]; readonly drainUntil?: number }
const OUTSIDE = '(outside)'
const STOP_MS = 5_000

export class Runtime implements AsyncDisposable {
  #state: 'new' | 'starting' | 'running' | 'stopping' | 'stopped' = 'new'
  #plan: Plan
  #rank = new Map<string, number>()
  #queue: Promise<unknown> = Promise.resolve()
  readonly #outside: ReadonlySet<string>
  readonly #timeouts: Timeouts
  readonly #graceMs: number
  readonly #board: Board
  readonly host: Host

  constructor(readonly options: RuntimeOptions) {
    const clock = options.clock ?? new SystemClock()
    this.#plan = { entries: options.plugins, units: new Map(), out: new Map(), graph: { order: [], edges: [], dependents: () => [] } }
    this.#graceMs = options.graceMs ?? 30_000
    this.#timeouts = { setup: 10_000, start: 30_000, hook: 5_000, ...options.timeouts }
    const hooks = new Hooks({
      deadlines: clock.deadlines, now: () => clock.now(), timeout: this.#timeouts.hook, rankOf: plugin => this.#rank.get(plugin) ?? -1,
      onFailure: (plugin, failure) => this.#log(plugin).error(failure.message, { code: failure.code, fix: failure.fix, err: failure.cause }),
    })
    this.#board = { services: new Services(), points: new Points(), hooks, clock, fault: (plugin, error, where) => this.fault(plugin, error, where) }
    let id: string | undefined
    this.host = {
      // Made when somebody asks: loading node:crypto takes as long as booting a hundred plugins.
      get instanceId() { return (id ??= crypto.randomUUID()) },
      version: '0.0.0', roles: ROLES, dataDir: 'data', env: {}, environment: 'development',
      enable: async name => this.#cannot('enable', name), disable: async name => this.change(new Map([[this.#unit(name).name, undefined]])),
      reload: async name => this.change(new Map([[name, this.#unit(name).entry]]), true), inspect: () => this.inspect(), ...options.host,
    }
    const given: readonly (readonly [ServiceRef<any>, unknown])[] = [[Host, this.host], ...(options.services ?? [])]
    for (const [ref, value] of given) if (!this.#board.services.has(ref)) this.#board.services.set(ref, OUTSIDE, value)
    this.#outside = new Set(given.map(([ref]) => ref.slot))
  }

  get state() { return this.#state }
  /** Kept of the grace period for stop and release. */
  get #lastMs(): number { return Math.min(STOP_MS, this.#graceMs / 2) }
  get log(): Logger { return this.options.log }
  get<T>(ref: ServiceRef<T>): T { return this.#board.services.get(ref) }
  collect<T>(point: PointRef<T>): T[] { return this.#board.points.list(point).all.map(entry => entry.value) }
  call<H extends AnyHook>(ref: H, input: HookInput<H>): HookResult<H> | Promise<HookResult<H>> { return this.#board.hooks.call(ref, input) }

  /** Checks definitions, config and graph, and throws one BootError with every problem. Runs no setup. */
  check(): readonly string[] { return this.#planFor(this.options.plugins).graph.order }

  /** `setupOnly` leaves out start(): for commands that need services but no ports and no workers. */
  async start({ setupOnly = false } = {}): Promise<this> {
    this.#expect('start', 'new')
    try { this.#take(this.#planFor(this.options.plugins)) } catch (error) { this.#state = 'stopped'; throw error }
    this.#state = 'starting'
    const { graph: { order }, out } = this.#plan
    for (const name of order) this.#guards(name, 'coming')
    for (const name of out.keys()) this.#guards(name, 'failed')
    const up = this.#up(order, { setupOnly })
    // A stop() that comes now waits for the step under way; no further one is begun.
    this.#queue = up.catch(() => {})
    try { await up } catch (error) {
      const stopped = this.#state !== 'starting'
      await this.stop()
      if (stopped) return this
      throw error
    }
    if (this.#state !== 'starting') return this
    this.#state = 'running'
    await this.call(RuntimeHooks.ready, undefined)
    return this
  }

  async stop(): Promise<void> {
    if (this.#state === 'new') this.#state = 'stopped'
    if (this.#state === 'stopped') return
    if (this.#state !== 'stopping') {
      const from = this.#state
      const until = performance.now() + this.#graceMs
      this.#state = 'stopping'
      // A step under way may end, but not use up the time that the others have for stopping.
      const { deadlines } = this.#board.clock
      const begun = async () => within(deadlines, this.#graceMs - this.#lastMs, () => RuntimeErrors.STATE({ action: 'wait', state: this.#state }), () => this.#queue)
      this.#queue = begun().catch(() => {}).then(async () => {
        await this.call(RuntimeHooks.draining, undefined)
        await this.#down(this.#plan.graph.order, from === 'running' ? until : undefined)
        deadlines.stop()
        this.#state = 'stopped'
      })
    }
    await this.#queue
  }
  [Symbol.asyncDispose]() { return this.stop() }

  /** Replaces one plugin, or its settings, and restarts its hard dependents. */
  async swap(name: string, plugin: Plugin, config: unknown = this.#unit(name).entry.config): Promise<readonly string[]> {
    return this.change(new Map([[name, { ...this.#unit(name).entry, plugin, config }]]))
  }

  /**
   * Exchanges, adds (a new name) and takes out (`undefined`) plugins in one step. Everything is checked before anything is touched; only these
   * plugins and their hard dependents restart; if one can't start, all is as before and this rejects. Changes queue behind each other.
   */
  async change(changes: ReadonlyMap<string, PluginEntry | undefined>, force = false): Promise<readonly string[]> {
    if (inPhase()) throw RuntimeErrors.STATE({ action: 'change plugins', state: `in a lifecycle step of "${scope.current?.plugin}", which would wait for itself` })
    const run = () => this.#change(changes, force)
    const result = this.#queue.then(run, run)
    this.#queue = result.catch(() => {})
    return result
  }

  async #change(changes: ReadonlyMap<string, PluginEntry | undefined>, force: boolean): Promise<readonly string[]> {
    this.#expect('change plugins', 'running')
    const before = this.#plan
    const known = new Set(before.entries.map(nameOf))
    const next = (name: string) => { const entry = changes.get(name); return entry ? [{ ...entry, name }] : [] }
    const added = [...changes.keys()].filter(name => !known.has(name))
    const entries = [...before.entries.flatMap(entry => (changes.has(nameOf(entry)) ? next(nameOf(entry)) : [entry])), ...added.flatMap(next)]
    const runs = new Set([...before.units].flatMap(([name, unit]) => (unit.state === 'running' ? [name] : [])))
    const after = this.#planFor(entries, before.units, changes, runs)
    const inPlace = force ? [] : await this.#offer(changes, after)
    const restart = [...changes.keys()].filter(name => !inPlace.some(each => each.unit.name === name))
    const arrivals: (() => void)[] = []
    try {
      const restarted = await this.#move(after, restart, { arrivals, runs, drainUntil: performance.now() + this.#graceMs })
      await this.call(RuntimeHooks.changed, { plugins: [...changes.keys()], restarted })
      return restarted
    } catch (error) {
      if (this.#state !== 'running') throw error
      this.log.error(`the change failed, putting the old plugins back: ${reasonOf(error)}`)
      for (const { unit, was } of inPlace) Object.assign(unit, was)
      // What can't come back is left out with its dependents; the rest goes on.
      const lost = (cause: BackplaneError) => this.log.error(RuntimeErrors.ROLLBACK_FAILED({ plugin: String(cause.details['plugin']), reason: cause.message }).message)
      await this.#move(before, restart, { arrivals, lost })
      for (const { unit } of inPlace) if (unit.state === 'running') await this.#reconfigure(unit)
      throw error
    } finally { for (const arrive of arrivals) arrive() }
  }

  /** From the plan that runs to another one: takes down and brings up only `restart` and what depends on it. */
  async #move(to: Plan, restart: readonly string[], { arrivals, drainUntil, ...up }: MoveOptions): Promise<readonly string[]> {
    const from = this.#plan
    const differ = [...from.units.keys(), ...to.units.keys()].filter(name => !from.units.has(name) || !to.units.has(name))
    const affected = new Set([from, to].flatMap(plan => plan.graph.dependents([...restart, ...differ])))
    const [down, order] = [from, to].map(plan => plan.graph.order.filter(name => affected.has(name))) as [string[], string[]]
    // A plugin that restarts because of another, or comes back, gets a new life.
    for (const name of order) if (to.units.get(name)!.state !== 'idle') to.units.set(name, this.#unitOf(to.units.get(name)!.entry))
    arrivals.push(this.#board.points.suspend(new Set(down)))
    await this.#down(down, drainUntil, name => (to.units.has(name) ? 'away' : to.out.has(name) ? 'failed' : 'gone'))
    this.#take(to)
    this.#forgetGuards(from, to)
    for (const name of order) this.#guards(name, 'away')
    for (const name of to.out.keys()) this.#guards(name, 'failed')
    await this.#up(order, up)
    return order
  }

  /** Guards that config no longer has, in whatever state they were: only that takes one away. */
  #forgetGuards(from: Plan, to: Plan): void {
    const still = new Map(to.entries.map(entry => [nameOf(entry), new Set(entry.plugin?.guards?.map(guard => guard.slot))]))
    for (const entry of from.entries) for (const guard of entry.plugin?.guards ?? []) {
      if (!still.get(nameOf(entry))?.has(guard.slot)) this.#board.hooks.guard(guard, nameOf(entry), 'gone')
    }
  }

  /** A change of settings alone is first offered to the plugin itself. Returns those that took it, with what they had. */
  async #offer(changes: ReadonlyMap<string, PluginEntry | undefined>, plan: Plan): Promise<{ unit: Unit; was: Pick<Unit, 'entry' | 'config'> }[]> {
    const taken: { unit: Unit; was: Pick<Unit, 'entry' | 'config'> }[] = []
    for (const [name, entry] of changes) {
      const [unit, next] = [this.#plan.units.get(name), plan.units.get(name)]
      if (!unit || !next || entry?.plugin !== unit.plugin || unit.state !== 'running') continue
      const was = { entry: unit.entry, config: unit.config }
      if (!await this.#reconfigure(unit, next.config)) continue
      plan.units.set(name, Object.assign(unit, { entry: next.entry, config: next.config }))
      taken.push({ unit, was })
    }
    return taken
  }

  async #reconfigure(unit: Unit, config = unit.config): Promise<boolean> {
    if (!unit.life.reconfigure) return false
    try { return await this.#phase(unit, 'start', () => unit.life.reconfigure!(config)) } catch (error) {
      this.#log(unit.name).warn(`reconfigure failed, so it is restarted: ${reasonOf(error)}`)
      return false
    }
  }

  /** Everything an operator or a test may ask about, as plain data. */
  inspect() {
    const row = (name: string, { plugin, optional }: { plugin?: Plugin; optional?: boolean }, state: PluginState, problem?: PluginProblem) => ({
      name, plugin: plugin?.name ?? name, summary: plugin?.summary ?? '', state, optional: optional === true, problem, faults: 0, ms: {} as Unit['ms'], held: [] as string[], reconfigures: false,
      uses: Object.values(plugin?.uses ?? {}).map(use => (use.is === 'live' ? `${use.ref.id}?` : use.is === 'settled' ? `${use.point.id}*` : use.id)),
      provides: (plugin?.provides ?? []).map(ref => ref.id), contributes: (plugin?.contributes ?? []).map(ref => ref.id), guards: (plugin?.guards ?? []).map(ref => ref.id),
    })
    const { entries, units, graph, out } = this.#plan
    const leftOut = entries.filter(entry => out.has(nameOf(entry)))
    return {
      state: this.#state,
      plugins: [
        ...[...units.values()].map(unit => ({
          ...row(unit.name, unit, unit.state, unit.problem),
          faults: unit.faults, ms: { ...unit.ms }, held: unit.holdings.held, reconfigures: unit.life.reconfigure !== undefined,
        })),
        ...leftOut.map(entry => row(nameOf(entry), entry, 'failed', out.get(nameOf(entry)))),
      ],
      order: graph.order,
      edges: graph.edges,
      services: this.#board.services.provided.filter(({ plugin }) => plugin !== OUTSIDE),
      points: this.#board.points.contributions,
      hooks: this.#board.hooks.handlers,
      closed: this.#board.hooks.closed,
    }
  }

  /** A stray failure: logged under its plugin, counted and told; the rest goes on. */
  fault(plugin: string, error: unknown, where: string): void {
    const unit = this.#plan.units.get(plugin)
    if (unit) unit.faults++
    this.#log(plugin).error(`${where}: ${reasonOf(error)}`, { err: error })
    // A handler that fails while it hears of failures would be told of its own for ever.
    if (scope.current?.faulted) return
    scope.run({ faulted: true }, () => void Promise.resolve(this.call(RuntimeHooks.faulted, { plugin, where, error })).catch(() => {}))
  }

  #planFor(entries: readonly PluginEntry[], keep?: ReadonlyMap<string, Unit>, changes?: ReadonlyMap<string, unknown>, runs?: ReadonlySet<string>): Plan {
    const kept = (name: string) => (changes?.has(name) ? undefined : keep?.get(name))
    return planFor(entries, { outside: this.#outside, offers: this.options.offers, unitOf: entry => this.#unitOf(entry), kept, runs: name => runs?.has(name) === true })
  }

  #unitOf(entry: PluginEntry): Unit {
    const { hooks } = this.#board
    return unitOf(entry, {
      read: async (name, plugin) => (await hooks.call(SecretResolve, { name, plugin })) ?? Promise.reject(SecretErrors.NOT_FOUND({ name })),
      watch: (names, changed, plugin) => hooks.add(SecretRotated, plugin, ({ name }: { name: string }) => { if (names.includes(name)) changed() }),
    })
  }

  #take(plan: Plan): void {
    this.#plan = plan
    this.#rank = new Map(plan.graph.order.map((name, at) => [name, at]))
  }

  #guards(name: string, state: GuardState | 'gone'): void {
    const plugin = this.#plan.units.get(name)?.plugin ?? this.#plan.entries.find(entry => nameOf(entry) === name)?.plugin
    for (const guard of plugin?.guards ?? []) this.#board.hooks.guard(guard, name, state)
  }

  /** Sets up all, then starts all. `optional` ones (or any, with `lost`) that fail are taken down with their dependents and left out. */
  async #up(order: readonly string[], { setupOnly = false, lost, runs }: UpOptions): Promise<void> {
    const step = async (phase: 'setup' | 'start', work: (unit: Unit) => void | Promise<void>) => {
      for (const name of order) {
        if (this.#state === 'stopping' || this.#state === 'stopped') throw RuntimeErrors.STATE({ action: phase, state: this.#state })
        const unit = this.#unit(name)
        if (unit.state === 'failed') continue
        try {
          const working = work(unit)
          if (working) await working
        } catch (error) {
          if ((!unit.optional || runs?.has(name)) && !lost) throw error
          lost?.(error as BackplaneError)
          const leaving = this.#plan.graph.dependents([name])
          const why = (plugin: string) => (plugin === name ? error as BackplaneError : LifecycleErrors.LEFT_OUT({ plugin, provider: name }))
          for (const each of leaving) this.#unit(each).problem = problemOf(why(each), phase)
          this.#log(name).error(`left out: ${reasonOf(error)}`, { code: (error as BackplaneError).code, fix: (error as BackplaneError).fix, err: (error as BackplaneError).cause })
          await this.#down(leaving, undefined, () => 'failed')
          for (const each of leaving) this.#unit(each).state = 'failed'
        }
      }
    }
    await step('setup', unit => this.#setup(unit))
    if (setupOnly) return
    const running = (unit: Unit) => this.#enter(unit, 'running')
    await step('start', unit => (unit.life.start ? this.#phase(unit, 'start', () => unit.life.start!()).then(() => running(unit)) : running(unit)))
  }

  async #setup(unit: Unit): Promise<void> {
    const { name, plugin, holdings } = unit
    unit.state = 'setup'
    const life = await this.#phase(unit, 'setup', () => {
      const { ctx, deps } = createContext(plugin, this.#board, { name, config: unit.config, log: this.#log(name), stopper: unit.stopper, holdings })
      return plugin.setup(ctx, deps)
    })
    unit.life = life ?? {}
    for (const ref of plugin.provides) if (!this.#board.services.has(ref)) throw ServiceErrors.NOT_PROVIDED({ plugin: name, service: ref.id })
    this.#guards(name, 'open')
    const told = this.#enter(unit, 'ready')
    if (told) await told
  }

  /**
   * drain, all at once; then each stop() in reverse, while everything still stands; then the release, in reverse. Never throws.
   * Guards close between drain and stop when others live on, so that no call enters a plugin that is going.
   */
  async #down(order: readonly string[], drainUntil: number | undefined, guards?: (name: string) => GuardState | 'gone'): Promise<void> {
    const units = order.map(name => this.#unit(name)).reverse()
    const { deadlines } = this.#board.clock
    const last = this.#lastMs
    const tell = (unit: Unit, what: string) => (error: unknown) => this.#log(unit.name).error(`${what}: ${reasonOf(error)}`, { err: error })
    // What is left of the time, in equal parts. When nothing is left, work is begun and not waited for.
    const share = (until: number, left: number) => Math.max(0, (until - performance.now()) / left)
    const running = units.filter(unit => unit.state === 'running')
    const drainMs = drainUntil === undefined ? 0 : drainUntil - last - performance.now()
    if (drainMs > 0) await Promise.all(running.map(unit => unit.life.drain && this.#phase(unit, 'drain', () => unit.life.drain!(), drainMs).catch(error => {
      // That there is more work than time is nobody's fault: stop() hands it back.
      if (LifecycleErrors.TIMEOUT.is(error)) this.#log(unit.name).info(`drain: not all was done within ${Math.round(drainMs)} ms of runtime.graceMs; what still runs is stopped`)
      else tell(unit, 'drain')(error)
    })))
    if (guards) {
      for (const unit of units) this.#guards(unit.name, guards(unit.name))
      await Promise.all(units.flatMap(unit => unit.plugin.guards.map(guard => this.#board.hooks.quiet(guard))))
    }
    const until = performance.now() + last * 0.8
    for (const [at, unit] of units.entries()) {
      if (unit.life.stop && unit.state !== 'failed' && unit.state !== 'idle') {
        unit.state = 'stopping'
        const ms = share(until, units.length - at)
        const stopped = this.#phase(unit, 'stop', () => unit.life.stop!(), ms).catch(tell(unit, 'stop'))
        if (ms > 0) await stopped
      }
      // A listener that throws is its plugin's.
      scope.run({ plugin: unit.name }, () => unit.stopper.abort())
    }
    const end = performance.now() + last * 0.2
    for (const [at, unit] of units.entries()) {
      const ms = share(end, units.length - at)
      const late = () => LifecycleErrors.TIMEOUT({ plugin: unit.name, phase: 'release', ms: Math.round(ms), setting: 'runtime.graceMs' })
      const by = performance.now() + ms
      const failures = await unit.holdings.close(work => {
        const left = by - performance.now()
        const result = within(deadlines, left, late, work)
        if (left > 0 || !isPromise(result)) return result
        result.catch(() => {})
        throw late()
      })
      for (const { label, error } of failures) tell(unit, `releasing "${label}"`)(error)
      if (!guards) this.#guards(unit.name, 'failed')
      if (unit.state !== 'idle') await this.#enter(unit, 'stopped')
    }
  }

  async #phase<T>(unit: Unit, phase: Phase, work: () => T | Promise<T>, limit?: number): Promise<T> {
    const { name: plugin } = unit
    const from = performance.now()
    const ms = Math.round(limit ?? this.#timeouts[phase as 'setup' | 'start'])
    try {
      const setting = phase === 'setup' || phase === 'start' ? `runtime.timeouts.${phase}` : 'runtime.graceMs'
      const result = within(this.#board.clock.deadlines, ms, () => LifecycleErrors.TIMEOUT({ phase, plugin, ms, setting }), extend => runPhase(plugin, extend, work))
      return isPromise(result) ? await result : result
    } catch (cause) {
      if (cause instanceof BackplaneError && cause.details['plugin'] === plugin) throw cause
      // What knows its own fix says it.
      const advice = cause instanceof BackplaneError ? cause.fix : `See ${placeOf(cause)}.${unit.optional ? '' : ' `optional: true` would let the others start without it.'}`
      throw LifecycleErrors.FAILED({ phase, plugin, reason: reasonOf(cause), advice }, { cause })
    } finally { unit.ms[phase] = Math.round((performance.now() - from) * 10) / 10 }
  }

  #enter(unit: Unit, state: PluginState): Promise<void> | undefined {
    unit.state = state
    const told = this.call(RuntimeHooks.state, { plugin: unit.name, state })
    return isPromise(told) ? told.then(() => undefined) : undefined
  }

  #unit(name: string): Unit {
    const unit = this.#plan.units.get(name)
    if (!unit) throw PluginErrors.UNKNOWN({ plugin: name, advice: `Known here: ${[...this.#plan.units.keys()].join(', ') || 'none'}.` })
    return unit
  }
  #log(plugin: string): Logger { return this.options.log.child({ plugin }) }
  #cannot(action: string, name: string): never { throw RuntimeErrors.STATE({ action: `${action} "${name}"`, state: 'without a config file' }) }
  #expect(action: string, state: string): void { if (this.#state !== state) throw RuntimeErrors.STATE({ action, state: this.#state }) }
}

/** The line of somebody's own code where an error came up. */
const placeOf = (cause: unknown): string =>
  (cause instanceof Error ? cause.stack?.split('\n').find(line => /^\s+at /.test(line) && !/node:|[\\/]core[\\/][a-z]+\.[jt]s/.test(line))?.trim() : undefined) ?? 'the cause'

export const createRuntime = (options: RuntimeOptions): Runtime => new Runtime(options)
