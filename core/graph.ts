import { ServiceErrors, SecretErrors, type BackplaneError } from './errors.ts'
import type { Plugin } from './plugin.ts'
import { SecretResolve } from './secret.ts'

export interface GraphNode { readonly name: string; readonly plugin: Plugin; readonly asksStores: boolean }
/** `from` waits for `to`. `live` edges order where that costs nothing, and restart nobody. */
export interface Edge { readonly from: string; readonly to: string; readonly via: string; readonly kind: 'hard' | 'settled' | 'secret' | 'live' }

export interface Graph {
  /** Providers first; among equals, the order of the config. */
  readonly order: readonly string[]
  readonly edges: readonly Edge[]
  /** These plugins and all that must be restarted with them, in boot order. */
  dependents(names: Iterable<string>): string[]
}
/** A reason why there is no graph, put down to the plugins that it concerns. */
export interface GraphProblem { readonly plugins: readonly string[]; readonly error: BackplaneError }

/** Returns the graph, or every reason why there is none. `offers` says which known plugins provide a service. */
export function buildGraph(nodes: readonly GraphNode[], outside: ReadonlySet<string>, offers: (service: string) => readonly string[] = () => []): Graph | { problems: GraphProblem[] } {
  const problems: GraphProblem[] = []
  const providers = new Map<string, string>()
  const byId = new Map<string, { name: string; version: number }>()
  for (const { name, plugin } of nodes) for (const ref of plugin.provides) {
    const first = providers.get(ref.slot)
    if (first !== undefined) problems.push({ plugins: [name], error: ServiceErrors.DUPLICATE({ service: ref.id, first, second: name }) })
    else providers.set(ref.slot, name)
    byId.set(ref.id, { name, version: ref.version })
  }

  const edges: Edge[] = []
  const stores: string[] = []
  const contributors = new Map<string, string[]>()
  for (const { name, plugin } of nodes) {
    for (const point of plugin.contributes) contributors.set(point.slot, [...(contributors.get(point.slot) ?? []), name])
    if (plugin.guards.some(guard => guard.slot === SecretResolve.slot)) stores.push(name)
  }
  for (const { name, plugin } of nodes) for (const use of Object.values(plugin.uses)) {
    if (use.is === 'settled') {
      for (const to of contributors.get(use.point.slot) ?? []) if (to !== name) edges.push({ from: name, to, via: use.point.id, kind: 'settled' })
      continue
    }
    const ref = use.is === 'live' ? use.ref : use
    const to = providers.get(ref.slot)
    if (to !== undefined) edges.push({ from: name, to, via: ref.id, kind: use.is === 'live' ? 'live' : 'hard' })
    else if (use.is === 'service' && !outside.has(ref.slot)) problems.push({ plugins: [name], error: missing(name, ref.id, ref.version) })
  }
  function missing(plugin: string, service: string, wanted: number): BackplaneError {
    const other = byId.get(service)
    if (other) return ServiceErrors.VERSION({ plugin, service, wanted, provider: other.name, found: other.version })
    return ServiceErrors.MISSING({ plugin, service, candidates: offers(service).join(', ') || 'none is known here' })
  }

  const needs = new Map<string, string[]>(nodes.map(({ name }) => [name, []]))
  for (const edge of edges) if (edge.kind !== 'live') needs.get(edge.from)!.push(edge.to)
  for (const { name, asksStores } of nodes) if (asksStores) {
    // A store that stands on this plugin can't be waited for; one that doesn't, must.
    const before = stores.filter(store => store !== name && !reaches(needs, store, name))
    if (stores.length && !before.length) problems.push({ plugins: [name], error: SecretErrors.CYCLE({ plugin: name, stores: stores.join(', ') }) })
    for (const to of before) { edges.push({ from: name, to, via: SecretResolve.id, kind: 'secret' }); needs.get(name)!.push(to) }
  }

  const wishes = new Map<string, string[]>()
  for (const edge of edges) if (edge.kind === 'live') wishes.set(edge.from, [...(wishes.get(edge.from) ?? []), edge.to])
  const order: string[] = []
  const state = new Map<string, 'visiting' | 'done'>()
  const path: string[] = []
  const visit = (name: string): void => {
    if (state.get(name) === 'done') return
    if (state.get(name) === 'visiting') {
      const circle = path.slice(path.indexOf(name))
      problems.push({ plugins: circle, error: ServiceErrors.CYCLE({ path: [...circle, name].join(' -> ') }) })
      return
    }
    state.set(name, 'visiting')
    path.push(name)
    for (const provider of needs.get(name)!) visit(provider)
    for (const wish of wishes.get(name) ?? []) if (!state.has(wish) && !path.some(waiting => reaches(needs, wish, waiting))) visit(wish)
    path.pop()
    state.set(name, 'done')
    order.push(name)
  }
  for (const { name } of nodes) visit(name)
  if (problems.length) return { problems }

  return { order, edges, dependents: names => {
    const affected = new Set(names)
    for (const name of order) if (needs.get(name)!.some(provider => affected.has(provider))) affected.add(name)
    return order.filter(name => affected.has(name))
  } }
}

function reaches(needs: ReadonlyMap<string, readonly string[]>, from: string, to: string): boolean {
  const seen = new Set([from])
  for (const name of seen) {
    if (name === to) return true
    for (const next of needs.get(name) ?? []) seen.add(next)
  }
  return false
}
