import { randomUUID } from 'node:crypto'
import type { IncomingMessage, RequestListener } from 'node:http'
import Koa, { type Context } from 'koa'
import { reasonOf, scope, type Clock, type Contribution, type Live, type Logger } from '#core'
import { AccessErrors, type Access, type Caller, type Credentials, type Permission } from '#contracts/access'
import { HttpErrors, type HttpAnswer, type HttpMiddleware, type HttpRequest, type HttpRoute } from '#contracts/http'
import { ClientGone, Timeout, unlessAborted } from './abort.ts'
import { answer, answerProblem, answerStream } from './answer.ts'
import type { Gate, Pass } from './gate.ts'
import { checkPath, hasBody, invalid, readJson, readQuery, validate, type Input } from './input.ts'
import type { Instruments } from './metrics.ts'
import { problemAnswer } from './problem.ts'
import type { RouteEntry, RouteTable } from './table.ts'

export interface AppDeps {
  readonly gate: Gate
  readonly access: Live<Access>
  readonly log: Logger
  readonly clock: Clock
  readonly instruments: Instruments
}

const TRACEPARENT = /^[\da-f]{2}-[\da-f]{32}-[\da-f]{16}-[\da-f]{2}$/
const LEFT = new Set(['ERR_STREAM_PREMATURE_CLOSE', 'ECONNRESET', 'EPIPE'])
const ORDER = { pre: 0, normal: 1, post: 2 }

/** What is known of one request while it is answered. */
interface Exchange { readonly id: string; readonly from: number; entry: RouteEntry | undefined; seconds: number | undefined; failure: unknown }

/** Who is asking, and may they? Never open: without an access plugin nobody is let in. */
export async function admit(access: Live<Access>, credentials: Credentials, permission: Permission): Promise<Caller> {
  const guard = access.current
  if (!guard) throw AccessErrors.UNAVAILABLE()
  const caller = await guard.identify(credentials)
  await guard.check(caller, permission)
  return caller
}

/** The peer's address; an IPv4 peer of an IPv6 socket is named as IPv4. */
export const addressOf = (req: IncomingMessage): string => (req.socket.remoteAddress ?? '').replace(/^::ffff:(?=\d+\.)/, '')

/** From the first byte of a request to the last of its answer. */
export class App {
  readonly #deps: AppDeps
  readonly #koa = new Koa()
  readonly #exchanges = new WeakMap<Context, Exchange>()
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

  /** Request id, scope, the form of failures, metrics and the log line. */
  async #envelope(ctx: Context): Promise<void> {
    const { gate, instruments } = this.#deps
    const exchange: Exchange = { id: randomUUID(), from: performance.now(), entry: undefined, seconds: undefined, failure: undefined }
    const { traceparent } = ctx.req.headers
    const traced = typeof traceparent === 'string' && TRACEPARENT.test(traceparent)
    this.#exchanges.set(ctx, exchange)
    ctx.set({ 'X-Request-Id': exchange.id, 'X-Content-Type-Options': 'nosniff', 'Cache-Control': 'no-store' })
    instruments.inProgress.add(1)
    ctx.res.once('close', () => this.#finished(ctx, exchange))
    await scope.run({ request_id: exchange.id, ...(traced && { traceparent: traceparent as string }) }, async () => {
      try {
        if (!ctx.req.url?.startsWith('/')) throw invalid({ path: 'path', message: 'does not begin with "/"' })
        checkPath(ctx.path)
        await this.table.dispatch(ctx)
      } catch (error) { await this.#fail(ctx, exchange, error) }
    })
    if (gate.state === 'draining' && !ctx.res.headersSent) ctx.set('Connection', 'close')
    exchange.seconds ??= (performance.now() - exchange.from) / 1_000
  }

  async #fail(ctx: Context, exchange: Exchange, error: unknown): Promise<void> {
    exchange.failure = error
    const { problem, headers, hidden } = problemAnswer(error, exchange.id)
    if (hidden && !(error instanceof ClientGone)) {
      this.#deps.log.error(`a request failed: ${reasonOf(error)}`, {
        request_id: exchange.id, method: ctx.method, route: exchange.entry?.route.path, err: error,
        ...(exchange.entry && { plugin: exchange.entry.plugin }),
      })
    }
    exchange.seconds ??= (performance.now() - exchange.from) / 1_000
    if (error instanceof ClientGone || ctx.res.headersSent || ctx.res.destroyed) { ctx.respond = false; return }
    await answerProblem(ctx, problem, headers)
  }

  #finished(ctx: Context, exchange: Exchange): void {
    const { instruments, log } = this.#deps
    const route = exchange.entry?.route.path ?? 'none'
    const { method } = ctx
    const status = ctx.res.headersSent && !(exchange.failure instanceof ClientGone) ? ctx.res.statusCode : 499
    const seconds = (performance.now() - exchange.from) / 1_000
    instruments.inProgress.add(-1)
    instruments.requests.inc({ method, route, status: String(status) })
    instruments.duration.observe(exchange.seconds ?? seconds, { method, route })
    const ms = Math.round(seconds * 10_000) / 10
    log[status >= 500 ? 'info' : 'debug']('request', { request_id: exchange.id, method, path: ctx.path, route, status, ms })
  }

  /** The way of a request that fits a route. Everything that can refuse it without its body does so before the body is read. */
  async serve(ctx: Context, entry: RouteEntry): Promise<void> {
    const { gate, clock } = this.#deps
    const { req, res } = ctx
    const { route, plugin } = entry
    const exchange = this.#exchanges.get(ctx)!
    exchange.entry = entry
    if (gate.state !== 'serving' && !route.early) throw HttpErrors.STARTING({ state: gate.state })
    if (this.table.isAway(plugin)) throw HttpErrors.AWAY({ path: route.path, plugin })
    const pass = gate.enter(route.streams ? 'stream' : 'request', route.early === true)
    const { controller } = pass
    const { signal } = controller
    entry.active.add(controller)
    res.once('close', () => {
      if (!res.writableFinished) controller.abort(new ClientGone())
      entry.active.delete(controller)
      pass.leave()
    })
    if (res.destroyed || req.destroyed) throw new ClientGone()
    const ms = route.limits?.timeout ?? gate.settings.requestTimeoutMs
    const deadline = new Timeout(() => controller.abort(HttpErrors.TIMEOUT({ ms })))
    clock.deadlines.arm(deadline, ms)
    try {
      const given = await unlessAborted(this.#work(ctx, exchange.id, entry, pass), signal)
      if (!given?.stream) return answer(ctx, given ?? {})
      clock.deadlines.disarm(deadline)
      pass.stream()
      exchange.seconds = (performance.now() - exchange.from) / 1_000
      await scope.run({ plugin }, () => answerStream(ctx, given, signal))
    } finally {
      clock.deadlines.disarm(deadline)
      // Who is slow to read an answer holds no place that others wait for.
      pass.yield()
    }
  }

  /** Identity from the headers first; only who is let in has his body read, and only what fits reaches the handler. */
  async #work(ctx: Context, id: string, entry: RouteEntry, pass: Pass): Promise<HttpAnswer> {
    const { route } = entry
    const { req, path, method } = ctx
    const { headers } = req
    const { signal } = pass.controller
    const { permission } = route
    const address = addressOf(req)
    const caller = permission && await admit(this.#deps.access, { headers, address, method, path }, permission)
    signal.throwIfAborted()
    const { params, query, body } = await this.#input(ctx, route, pass)
    signal.throwIfAborted()
    return await this.#handle({ id, method, path, headers, params, query, body, caller: caller as Caller, signal, address }, entry)
  }

  async #input(ctx: Context, route: HttpRoute, pass: Pass): Promise<Input> {
    const { gate } = this.#deps
    const { bodyLimit, jsonDepth } = gate.settings
    const query = readQuery(ctx.search)
    const params: unknown = { ...(ctx as Context & { params?: object }).params }
    if (!route.body && hasBody(ctx.req)) throw invalid({ path: 'body', message: 'is not taken here' })
    let body: unknown
    if (route.body && hasBody(ctx.req)) {
      pass.yield()
      body = await readJson(ctx.req, ctx.res, { bytes: route.limits?.body ?? bodyLimit, depth: jsonDepth }, gate, pass.controller.signal)
      pass.controller.signal.throwIfAborted()
      pass.take(route.streams ? 'stream' : 'request')
    }
    return await validate(route, { params, query, body })
  }

  /** Middleware from the outside in, and the handler in their midst. */
  #handle(request: HttpRequest, entry: RouteEntry, chain = this.#middleware, at = 0): Promise<HttpAnswer> {
    const { route, plugin } = entry
    const middleware = chain[at]
    if (!middleware) return scope.run({ plugin }, async () => await route.handler(request))
    const next = () => this.#handle(request, entry, chain, at + 1)
    return scope.run({ plugin: middleware.plugin }, async () => await middleware.value.handle(request, route, next))
  }
}
