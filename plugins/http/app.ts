import type { RequestListener } from 'node:http'
import Koa, { type Context } from 'koa'
import { CoreErrors, reasonOf, rootOf, scope, type Clock, type Contribution, type Live, type Logger } from '#core'
import { AccessErrors, type Access, type Caller } from '#contracts/access'
import type { HttpAnswer, HttpMiddleware, HttpRequest, HttpRoute } from '#contracts/http'
import { HttpErrors } from '#contracts/http'
import { ClientGone } from './abort.ts'
import { answer, answerLater, answerProblem, answerStream } from './answer.ts'
import { Exchange, Request } from './exchange.ts'
import type { Gate } from './gate.ts'
import type { Headers } from './headers.ts'
import { checkPath, hasBody, readJson, readQuery, tokenIn, validate, wrong, type Input } from './input.ts'
import type { Instruments } from './metrics.ts'
import { problemAnswer } from './problem.ts'
import type { Proxies } from './proxies.ts'
import type { RouteEntry, RouteTable } from './table.ts'

export interface AppDeps {
  readonly gate: Gate
  readonly access: Live<Access>
  readonly log: Logger
  readonly clock: Clock
  readonly instruments: Instruments
  readonly headers: Headers
  readonly proxies: Proxies
}

const TRACEPARENT = /^[\da-f]{2}-[\da-f]{32}-[\da-f]{16}-[\da-f]{2}$/
const LEFT = new Set(['ERR_STREAM_PREMATURE_CLOSE', 'ECONNRESET', 'EPIPE'])
const NOWHERE = Symbol('there is no such route')
const NOTHING_NEAR = 'See `GET /` for where to begin; routes stand under /api/v1, and come with the plugins that `backplane plugins list` shows.'
const LONGEST_PATH = 200
const ORDER = { pre: 0, normal: 1, post: 2 }

/** From the first byte of a request to the last of its answer. */
export class App {
  readonly #deps: AppDeps
  readonly #koa = new Koa()
  #middleware: readonly Contribution<HttpMiddleware>[] = []
  table!: RouteTable

  constructor(deps: AppDeps) {
    this.#deps = deps
    this.#koa.silent = true
    this.#koa.on('error', (error: NodeJS.ErrnoException) => {
      // A client that leaves in the middle of an answer is no failure of ours.
      if (!LEFT.has(error.code ?? '')) deps.log.error(`answering failed: ${reasonOf(error)}`, { err: error })
    })
    this.#koa.use(ctx => this.#envelope(ctx))
  }

  callback(): RequestListener { return this.#koa.callback() }

  useMiddleware(all: readonly Contribution<HttpMiddleware>[]): void {
    const rank = ({ value }: Contribution<HttpMiddleware>) => ORDER[value.order ?? 'normal']
    this.#middleware = [...all].sort((a, b) => rank(a) - rank(b))
  }

  /** Request id, scope, the form of failures, metrics and the log line. The answer is ours to send: koa's own way would cost as much again. */
  #envelope(ctx: Context): Promise<void> {
    const { req, res } = ctx
    ctx.respond = false
    const exchange = new Exchange(req, res, this.#deps.proxies.originOf(req), this.#aborted)
    this.#deps.instruments.inProgress.add(1)
    res.on('close', () => this.#closed(exchange))
    const traceparent = req.headers['traceparent']
    const fields = typeof traceparent === 'string' && TRACEPARENT.test(traceparent) ? { request_id: exchange.id, traceparent } : { request_id: exchange.id }
    return scope.run(fields, () => this.#run(exchange))
  }

  /**
   * Identity from the headers first; only who is let in has his body read, and only what fits reaches the handler.
   * One function with few awaits: under AsyncLocalStorage each further promise is a twentieth of the whole way.
   */
  async #run(exchange: Exchange): Promise<void> {
    try {
      const entry = this.#enter(exchange)
      if (!entry) { this.#send(exchange, this.#options(exchange)); return }
      const { route, plugin } = entry
      let caller: Caller | undefined
      if (route.permission !== undefined) {
        // Never open: without an access plugin nobody is let in.
        const guard = this.#deps.access.current
        if (!guard) throw AccessErrors.UNAVAILABLE()
        const { address, method, path, req: { headers } } = exchange
        const token = route.streams ? tokenIn(exchange) : undefined
        caller = await guard.identify({ headers, address, method, path, ...(token !== undefined && { token }) })
        await guard.check(caller, route.permission)
        exchange.throwIfAborted()
      }
      const reading = this.#input(exchange, route)
      const { params, query, body } = reading instanceof Promise ? await reading : reading
      exchange.throwIfAborted()
      const request = new Request(exchange, params, query, body, caller as Caller)
      const chain = this.#middleware
      const given = await (chain.length === 0 ? scope.run({ plugin }, () => route.handler(request)) : this.#through(chain, 0, request, route, plugin))
      if (given?.stream) await this.#stream(exchange, entry, given)
      else this.#send(exchange, given ?? {})
    } catch (error) { await this.#fail(exchange, error === NOWHERE ? await this.#notFound(exchange) : error) }
  }

  async #notFound(exchange: Exchange): Promise<unknown> {
    const { method, path } = exchange
    const near = await this.#near(exchange).catch(() => [])
    const advice = near.length ? `Did you mean ${near.map(route => `\`${route.method} ${route.path}\``).join(' or ')}?` : NOTHING_NEAR
    return exchange.aborted ? exchange.reason : HttpErrors.NOT_FOUND({ method, path: path.slice(0, LONGEST_PATH), advice })
  }

  /** Routes that were perhaps meant, to who may use them: a stranger is told of public ones alone, as slowly as if he had asked for one. */
  async #near(exchange: Exchange): Promise<readonly HttpRoute[]> {
    const { gate, access: { current: guard }, clock } = this.#deps
    const { method, path, address, req: { headers } } = exchange
    const near = gate.state === 'serving' && gate.roles.includes('api') ? this.table.near(method, path) : []
    const open = near.filter(route => route.public)
    if (!guard || open.length === near.length) return open
    try {
      gate.take(exchange, 'request')
      clock.deadlines.arm(exchange, (exchange.timeoutMs = gate.settings.requestTimeoutMs))
      const caller = await guard.identify({ headers, address, method, path })
      const isLetIn = ({ permission }: HttpRoute) => permission === undefined || guard.check(caller, permission).then(() => true, () => false)
      const may = await Promise.all(near.map(isLetIn))
      return near.filter((_, at) => may[at])
    } catch { return open }
  }

  #send(exchange: Exchange, given: HttpAnswer): void {
    if (exchange.over) return
    exchange.answered()
    answer(exchange, given, this.#base(exchange))
    exchange.over = true
    this.#settled(exchange)
  }

  /** Finds the route and lets the request in, or says why not: all that can be said without waiting for anybody. Nothing for OPTIONS. */
  #enter(exchange: Exchange): RouteEntry | undefined {
    const { gate, clock } = this.#deps
    const { method, path, req, res } = exchange
    if (!path.startsWith('/')) throw wrong('path', 'does not begin with "/"')
    checkPath(path)
    const found = this.table.find(method, path)
    if (!found) {
      const allowed = this.table.methodsOf(path)
      if (allowed.length === 0) throw NOWHERE
      if (method !== 'OPTIONS') throw HttpErrors.METHOD_NOT_ALLOWED({ method, path, allowed: allowed.join(', ') })
      return undefined
    }
    const { entry } = found
    const { route, plugin } = entry
    exchange.entry = entry
    exchange.params = found.params
    if (!route.early) gate.open(route.path)
    if (this.table.isAway(plugin)) throw HttpErrors.AWAY({ path: route.path, plugin })
    if (res.destroyed || req.destroyed) throw new ClientGone()
    gate.enter(exchange, route.streams ? 'stream' : 'request', route.early === true)
    entry.active.add(exchange)
    exchange.timeoutMs = route.limits?.timeout ?? gate.settings.requestTimeoutMs
    clock.deadlines.arm(exchange, exchange.timeoutMs)
    return entry
  }

  #options({ path, req }: Exchange): HttpAnswer {
    const allowed = this.table.methodsOf(path).join(', ')
    return { headers: { Allow: allowed, ...this.#deps.headers.preflight(req, allowed) } }
  }

  #input(exchange: Exchange, route: HttpRoute): Input | Promise<Input> {
    const { req, search, params } = exchange
    const query = readQuery(search)
    if (!hasBody(req)) return validate(route, { params, query, body: undefined })
    if (!route.body) throw wrong('body', 'is not taken here')
    return this.#read(exchange, route, query)
  }

  async #read(exchange: Exchange, route: HttpRoute, query: Record<string, unknown>): Promise<Input> {
    const { gate } = this.#deps
    const { bodyLimit, jsonDepth } = gate.settings
    gate.yield(exchange)
    const body = await readJson(exchange, { bytes: route.limits?.body ?? bodyLimit, depth: jsonDepth }, gate)
    exchange.throwIfAborted()
    if (!route.early) gate.take(exchange, route.streams ? 'stream' : 'request')
    return await validate(route, { params: exchange.params, query, body })
  }

  /** Middleware from the outside in, and the handler in their midst. */
  #through(chain: readonly Contribution<HttpMiddleware>[], at: number, request: HttpRequest, route: HttpRoute, plugin: string): Promise<HttpAnswer> {
    const middleware = chain[at]
    if (!middleware) return scope.run({ plugin }, async () => await route.handler(request))
    const next = () => this.#through(chain, at + 1, request, route, plugin)
    return scope.run({ plugin: middleware.plugin }, async () => await middleware.value.handle(request, route, next))
  }

  async #stream(exchange: Exchange, { plugin, route }: RouteEntry, given: HttpAnswer): Promise<void> {
    if (exchange.aborted) { dismiss(given); throw exchange.reason }
    this.#deps.clock.deadlines.disarm(exchange)
    this.#deps.gate.stream(exchange, route.early === true)
    exchange.streaming = true
    exchange.answered()
    try { await scope.run({ plugin }, () => answerStream(exchange, given, this.#base(exchange))) } finally { exchange.streaming = false }
    exchange.over = true
    this.#settled(exchange)
  }

  #base(exchange: Exchange) { return this.#deps.headers.of(exchange.req, exchange.secure, this.#deps.gate.state === 'leaving' || this.#deps.gate.state === 'draining') }

  /** Who is slow to read an answer holds no place that others wait for. */
  #settled(exchange: Exchange): void {
    this.#deps.clock.deadlines.disarm(exchange)
    this.#deps.gate.yield(exchange)
  }

  /** The time is up, the client left, or the route: answered now, whatever the handler goes on doing. A stream hears it by its signal. */
  readonly #aborted = (exchange: Exchange, reason: unknown): void => { if (!exchange.streaming) void this.#fail(exchange, reason) }

  async #fail(exchange: Exchange, error: unknown): Promise<void> {
    if (exchange.over) return
    exchange.over = true
    exchange.failure = error
    exchange.answered()
    this.#settled(exchange)
    const { entry, id, method, res } = exchange
    const { problem, headers, hidden } = problemAnswer(error, id)
    if (hidden && !(error instanceof ClientGone)) {
      this.#deps.log.error(`a request failed: ${reasonOf(error)}`, { request_id: id, method, route: entry?.route.path, err: error, ...(entry && { plugin: entry.plugin }) })
    }
    if (error instanceof ClientGone || res.headersSent || res.destroyed) return
    try {
      if (asksForEvents(exchange) && isMoment(error)) answerLater(exchange, Number(headers['Retry-After']), this.#base(exchange))
      else await answerProblem(exchange, problem, headers, this.#base(exchange))
    } catch (cause) {
      this.#deps.log.error(`answering failed: ${reasonOf(cause)}`, { request_id: id, err: cause })
      res.destroy()
    }
  }

  #closed(exchange: Exchange): void {
    const { clock, gate, instruments, log } = this.#deps
    exchange.left()
    exchange.entry?.active.delete(exchange)
    clock.deadlines.disarm(exchange)
    gate.leave(exchange)
    const route = exchange.entry?.route.path ?? 'none'
    const { id, method, path, res, failure, from } = exchange
    const status = res.headersSent && !(failure instanceof ClientGone) ? res.statusCode : 499
    const seconds = (performance.now() - from) / 1_000
    instruments.inProgress.add(-1)
    instruments.requests.inc({ method, route, status: String(status) })
    instruments.duration.observe(exchange.seconds ?? seconds, { method, route })
    log[status >= 500 ? 'info' : 'debug']('request', { request_id: id, method, path, route, status, ms: Math.round(seconds * 10_000) / 10 })
  }
}

/** As a browser's EventSource does, which never comes back after any answer but a stream. */
const asksForEvents = ({ entry, method, req }: Exchange): boolean =>
  entry?.route.streams === true && method === 'GET' && req.headers.accept?.includes('text/event-stream') === true
/** This process, or a plugin, is about to come, or to go where another takes its place. */
function isMoment(error: unknown): boolean {
  const root = rootOf(error)
  return HttpErrors.STARTING.is(root) || HttpErrors.AWAY.is(root) || CoreErrors.Service.UNAVAILABLE.is(root)
}

/** Lets go of a stream that nobody will read. */
function dismiss({ stream }: HttpAnswer): void {
  try { stream![Symbol.asyncIterator]().return?.()?.then(undefined, () => {}) } catch { /* it is over either way */ }
}
