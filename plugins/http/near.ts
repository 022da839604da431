import { nearest } from '#core'
import type { HttpRoute } from '#contracts/http'

const MOST = 3
/** Longer paths were not mistyped. */
const MOST_PARTS = 10
const MOST_LETTERS = 60

/** A path without what all of ours begin with, so that who leaves that out is understood. */
const partsOf = (path: string): string[] =>
  path.split('/').filter(Boolean).filter((part, at) => !(at === 0 && /^api$/i.test(part)) && !(at <= 1 && /^v\d+$/i.test(part)))

/** How far a route is from what was asked for; undefined if it can't have been meant. */
function farness(asked: readonly string[], { path }: HttpRoute): number | undefined {
  const parts = partsOf(path)
  if (parts.length < asked.length) return undefined
  // `/ready` for `/health/ready`: the end alone is more than nothing.
  const left = parts.length - asked.length
  if (left > 1) return undefined
  let far = left * 3
  let named = 0
  for (const [at, part] of parts.slice(left).entries()) {
    const given = asked[at]!
    if (part.startsWith(':')) { far += 0.5; continue }
    // `events` is no slip for `agents`, though it is as near.
    if (nearest(given, [part]).length === 0 || given[0]!.toLowerCase() !== part[0]!.toLowerCase()) return undefined
    named++
    if (part !== given) far += part.toLowerCase() === given.toLowerCase() ? 0.5 : 1
  }
  return named ? far : undefined
}

/** Those that were most likely meant by a path that there is not, best first. */
export function nearRoutes(method: string, path: string, routes: Iterable<HttpRoute>): HttpRoute[] {
  const asked = partsOf(path)
  if (!asked.length || asked.length > MOST_PARTS || asked.some(part => part.length > MOST_LETTERS)) return []
  const wanted = method === 'HEAD' ? 'GET' : method
  const found = [...routes].flatMap(route => {
    const far = farness(asked, route)
    return far === undefined ? [] : [{ route, far: far + (route.method === wanted ? 0 : 0.25) }]
  }).sort((a, b) => a.far - b.far || (a.route.path < b.route.path ? -1 : 1))
  // Of those that are far, none, if there is one that is near; and each path once.
  const best = found.filter(({ route, far }, at) => far < found[0]!.far + 1 && found.findIndex(each => each.route.path === route.path) === at)
  return best.slice(0, MOST).map(({ route }) => route)
}
