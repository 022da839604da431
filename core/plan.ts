import type { StandardSchemaV1 } from '@standard-schema/spec'
import { Holdings } from './disposal.ts'
import { BootError, LifecycleErrors, PluginErrors, ServiceErrors, type BackplaneError } from './errors.ts'
import { buildGraph, type Graph } from './graph.ts'
import { fieldProblems } from './schema/issues.ts'
import type { Lifecycle, Plugin } from './plugin.ts'
import { asksStores, bindSecrets } from './secret.ts'

export type PluginState = 'idle' | 'setup' | 'ready' | 'running' | 'stopping' | 'stopped' | 'failed'
export type Phase = 'load' | 'config' | 'graph' | 'setup' | 'start' | 'drain' | 'stop' | 'release'

/** One plugin of a deployment. With `error` it could not be loaded, or (`phase: 'config'`) its settings are wrong. */
export interface PluginEntry {
  readonly plugin: Plugin
  readonly name?: string
  readonly config?: unknown
  readonly optional?: boolean
  readonly error?: BackplaneError
  readonly phase?: 'load' | 'config'
}
export interface PluginProblem { readonly phase: Phase; readonly code: string; readonly message: string; readonly fix: string }

/** One plugin of the config and how it fares. A new one is made for each life. */
export class Unit {
  state: PluginState = 'idle'
  life: Lifecycle = {}
  problem: PluginProblem | undefined
  faults = 0
  readonly ms: Partial<Record<Phase, number>> = {}
  readonly holdings: Holdings
  readonly stopper = new AbortController()
  constructor(readonly name: string, readonly entry: PluginEntry, readonly config: unknown) { this.holdings = new Holdings(name) }
  get plugin(): Plugin { return this.entry.plugin }
  get optional(): boolean { return this.entry.optional === true }
}

/** What runs, or is about to: replaced as a whole, so that a change can go back to the one before. */
export interface Plan { readonly entries: readonly PluginEntry[]; readonly units: Map<string, Unit>; readonly graph: Graph; readonly out: Map<string, PluginProblem> }

export const nameOf = ({ name, plugin }: PluginEntry): string => name ?? plugin?.name ?? '(unnamed)'
export const problemOf = ({ code, message, fix }: BackplaneError, phase: Phase): PluginProblem => ({ phase, code, message, fix })

/** What a plugin's secrets ask; the plugin is named, since it decides what may be read. */
export interface Secrecy {
  read(name: string, plugin: string): Promise<string>
  watch(names: readonly string[], changed: () => void, plugin: string): () => void
}

/** Throws what is wrong with the definition, or a BootError with all that is wrong with the settings. */
export function unitOf(entry: PluginEntry, secrecy: Secrecy): Unit {
  const name = nameOf(entry)
  if (typeof entry.plugin?.setup !== 'function') throw PluginErrors.INVALID({ plugin: name, reason: 'it has no setup function' })
  const config = bindSecrets(entry.config, {
    read: secret => secrecy.read(secret, name),
    watch: (names, changed) => unit.holdings.defer(secrecy.watch(names, changed, name), 'watch secret'),
  })
  const unit: Unit = new Unit(name, entry, parse(entry.plugin.config, config, name))
  return unit
}

function parse(schema: StandardSchemaV1 | undefined, raw: unknown, plugin: string): unknown {
  if (!schema) return raw ?? {}
  const result = schema['~standard'].validate(raw ?? {})
  if (result instanceof Promise) throw PluginErrors.INVALID({ plugin, reason: 'its config schema is asynchronous' })
  if (!result.issues) return result.value
  throw new BootError(fieldProblems(schema, result.issues, raw ?? {}, '', Infinity).fields.map(({ path, message: reason }) => PluginErrors.CONFIG_INVALID({ plugin, path, reason })))
}

export interface PlanOptions {
  readonly outside: ReadonlySet<string>
  readonly offers: ((service: string) => readonly string[]) | undefined
  readonly unitOf: (entry: PluginEntry) => Unit
  /** The unit that goes on running under this name, if its settings did not change. */
  readonly kept: (name: string) => Unit | undefined
  /** What runs already is not left out because of a bad edit: the edit is refused. */
  readonly runs: (name: string) => boolean
}

/** Which plugins run with which settings and in what order, or a BootError with every reason why that can't be. Touches nothing. */
export function planFor(entries: readonly PluginEntry[], { outside, offers, unitOf, kept, runs }: PlanOptions): Plan {
  const errors: BackplaneError[] = []
  const units = new Map<string, Unit>()
  const out = new Map<string, PluginProblem>()
  const refuse = (entry: PluginEntry, error: BackplaneError, phase: Phase) => {
    if (entry.optional && !runs(nameOf(entry))) out.set(nameOf(entry), problemOf(error, phase))
    else errors.push(error)
  }
  const seen = new Set<string>()
  for (const entry of entries) {
    const name = nameOf(entry)
    if (seen.has(name)) { errors.push(PluginErrors.DUPLICATE({ plugin: name })); continue }
    seen.add(name)
    if (entry.error) { refuse(entry, entry.error, entry.phase ?? 'load'); continue }
    try { units.set(name, kept(name) ?? unitOf(entry)) } catch (error) {
      for (const each of error instanceof BootError ? error.errors : [error as BackplaneError]) refuse(entry, each, 'config')
    }
  }
  // What a plugin that did not load would have provided, nobody knows: it is taken for what is missing.
  const unknown = entries.find(each => each.optional && each.error && each.phase !== 'config')
  const lostProvider = (service: unknown) => entries.find(each => !units.has(nameOf(each)) && each.plugin?.provides?.some(ref => ref.id === service)) ?? unknown
  for (;;) {
    const nodes = [...units.values()].map(({ name, plugin, config }) => ({ name, plugin, asksStores: asksStores(config) }))
    const graph = buildGraph(nodes, outside, offers)
    if (!('problems' in graph)) {
      if (errors.length) throw new BootError(errors)
      return { entries, units, graph, out }
    }
    const leave = new Map<string, BackplaneError>()
    for (const { plugins, error } of graph.problems) {
      const lost = ServiceErrors.MISSING.is(error) && lostProvider(error.details['service'])
      if (lost && !lost.optional) continue // Told already, at its cause.
      const loser = plugins.find(name => units.get(name)?.optional && !runs(name)) ?? (lost ? plugins[0] : undefined)
      if (loser === undefined) errors.push(error)
      else leave.set(loser, lost ? LifecycleErrors.LEFT_OUT({ plugin: loser, provider: nameOf(lost) }) : error)
    }
    // Every problem of a broken graph is told at once; only what may be left out is tried without.
    if (!leave.size) throw new BootError(errors)
    for (const [name, error] of leave) { units.delete(name); out.set(name, problemOf(error, 'graph')) }
  }
}
