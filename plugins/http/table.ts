import Router from '@koa/router'
import type { BackplaneError, Contribution, Contributions } from '#core'
import { HttpErrors, type HttpRoute } from '#contracts/http'
import type { Exchange } from './exchange.ts'
import { nearRoutes } from './near.ts'

/** One route in service, and the requests that are on their way through it. */
export interface RouteEntry {
  readonly plugin: string
  readonly route: HttpRoute
  readonly active: Set<Exchange>
}
export interface Found { readonly entry: RouteEntry; readonly params: Record<string, string> }

const METHODS: readonly string[] = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE']
const SEGMENT = /^(?::[a-z_]\w*|[\w.~@-]+)$/i

/** Routes as they stand now. Follows the point; the router itself is built when the next request asks for it. */
export class RouteTable {
  #entries = new Map<HttpRoute, RouteEntry>()
  #gone: readonly RouteEntry[] = []
  #built: Built | undefined
  #told = new WeakSet<HttpRoute>()
  #awayList: readonly Contribution<HttpRoute>[] | undefined
  #awayPlugins: ReadonlySet<string> = new Set()
  /** Routes that can't be registered, each with its reason. */
  refused: readonly BackplaneError[] = []

  constructor(
    readonly contributions: Pick<Contributions<HttpRoute>, 'away'>,
    readonly onRefused: (plugin: string, error: BackplaneError) => void,
  ) {}

  get size(): number { return this.#entries.size }

  /** Takes over the point's lists. Requests in a route that left are aborted. */
  update(all: readonly Contribution<HttpRoute>[], away: readonly Contribution<HttpRoute>[]): void {
    const before = this.#entries
    const entries = new Map<HttpRoute, RouteEntry>()
    const shapes = new Map<string, string>()
    const refused: BackplaneError[] = []
    for (const { plugin, value: route } of all) {
      const reason = faultOf(route) ?? clashOf(route, shapes)
      if (reason === undefined) {
        shapes.set(shapeOf(route), plugin)
        entries.set(route, before.get(route) ?? { plugin, route, active: new Set() })
        continue
      }
      const error = HttpErrors.ROUTE_INVALID({ method: String(route?.method), path: String(route?.path), plugin, reason })
      refused.push(error)
      if (typeof route !== 'object' || route === null || this.#told.has(route)) continue
      this.#told.add(route)
      this.onRefused(plugin, error)
    }
    this.#entries = entries
    this.#gone = away.filter(({ value }) => !entries.has(value) && faultOf(value) === undefined && !shapes.has(shapeOf(value)))
      .map(({ plugin, value }) => ({ plugin, route: value, active: new Set() }))
    this.#built = undefined
    this.refused = refused
    for (const entry of before.values()) {
      if (!entries.has(entry.route)) for (const each of entry.active) each.abort(HttpErrors.AWAY({ path: entry.route.path, plugin: entry.plugin }))
    }
  }

  /** Is the plugin being swapped? Its routes may be there already, or still; what stands behind them is not. */
  isAway(plugin: string): boolean {
    // Not taken from the watcher: the point calls nobody when the swap begins, only when a list changes.
    const { away } = this.contributions
    if (away !== this.#awayList) {
      this.#awayList = away
      this.#awayPlugins = new Set(away.map(each => each.plugin))
    }
    return this.#awayPlugins.has(plugin)
  }

  /** The route that fits, HEAD as GET. */
  find(method: string, path: string): Found | undefined {
    const { fixed, routers } = (this.#built ??= this.#build())
    const wanted = method === 'HEAD' ? 'GET' : method
    const exact = fixed.get(path)?.get(wanted)
    if (exact) return { entry: exact, params: {} }
    const layer = routers.get(partsOf(path))?.match(path, wanted).pathAndMethod[0]
    const entry = layer && (layer.opts as Marked).entry
    return entry && { entry, params: layer.params(path, layer.captures(path), {}) as Record<string, string> }
  }

  /** The methods that a path takes; none if there is no such path. */
  methodsOf(path: string): readonly string[] {
    const { routers } = (this.#built ??= this.#build())
    const methods = new Set((routers.get(partsOf(path))?.match(path, '').path ?? []).flatMap(layer => layer.methods))
    return methods.size === 0 ? [] : [...methods, 'OPTIONS'].sort()
  }

  /** What was most likely meant by a path that there is not. */
  near(method: string, path: string): readonly HttpRoute[] { return nearRoutes(method, path, this.#entries.keys()) }

  /** Names without a parameter are looked up; the rest is matched by a router for each number of parts, so that few patterns are tried. */
  #build(): Built {
    const fixed: Built['fixed'] = new Map()
    const routers: Built['routers'] = new Map()
    for (const entry of [...this.#entries.values(), ...this.#gone].sort((a, b) => rank(a).localeCompare(rank(b)))) {
      const { method, path } = entry.route
      const parts = partsOf(path)
      let router = routers.get(parts)
      if (!router) routers.set(parts, (router = new Router({ sensitive: true })))
      // The router only finds: what it would call is the app's to run.
      const layer = router.register(path, [method], () => {})
      Object.assign(layer!.opts, { entry })
      if (path.includes(':')) continue
      if (!fixed.has(path)) fixed.set(path, new Map())
      fixed.get(path)!.set(method, entry)
    }
    return { fixed, routers }
  }
}

interface Built { readonly fixed: Map<string, Map<string, RouteEntry>>; readonly routers: Map<number, Router> }
interface Marked { readonly entry?: RouteEntry }

/** How many parts a path has; a last slash makes no difference. */
function partsOf(path: string): number {
  let parts = 0
  for (let at = path.indexOf('/'); at >= 0 && at < path.length - 1; at = path.indexOf('/', at + 1)) parts++
  return parts
}

/** Names before parameters, so that /jobs/stats wins over /jobs/:id whoever came first. */
const rank = ({ route }: RouteEntry): string => route.path.split('/').map(part => (part.startsWith(':') ? '1' : '0')).join('')
const shapeOf = ({ method, path }: HttpRoute): string => `${method} ${path.replaceAll(/:\w+/g, ':')}`

function clashOf(route: HttpRoute, shapes: ReadonlyMap<string, string>): string | undefined {
  const first = shapes.get(shapeOf(route))
  return first === undefined ? undefined : `plugin "${first}" has the same route already`
}

function faultOf(route: HttpRoute): string | undefined {
  if (typeof route !== 'object' || route === null) return 'it is not an object'
  if (!METHODS.includes(route.method)) return `its method is none of ${METHODS.join(', ')}`
  if (typeof route.path !== 'string' || !route.path.startsWith('/')) return 'its path does not begin with "/"'
  const parts = route.path === '/' ? [] : route.path.slice(1).split('/')
  const odd = parts.find(part => !SEGMENT.test(part))
  if (odd !== undefined) return `"${odd}" in its path is neither a name nor a ":parameter"`
  const names = parts.filter(part => part.startsWith(':'))
  if (new Set(names).size !== names.length) return 'its path names a parameter twice'
  if (route.public !== undefined && route.public !== true) return '`public` may only be true'
  if (route.permission === undefined && !route.public) return 'it has neither `permission` nor `public: true`'
  if (route.permission !== undefined && route.public) return 'it has both `permission` and `public: true`'
  if (route.permission && !/^[^:\s]+:\S+$/.test(String(route.permission))) return `"${route.permission}" is not of the form area:action`
  if (route.body && route.method === 'GET') return 'a GET takes no body'
  if (typeof route.handler !== 'function') return 'it has no handler'
  return undefined
}
