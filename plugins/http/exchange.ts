import { randomUUID } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { Deadline } from '#core'
import type { Caller } from '#contracts/access'
import { HttpErrors, type HttpRequest } from '#contracts/http'
import { ClientGone } from './abort.ts'
import type { Kind } from './gate.ts'
import type { RouteEntry } from './table.ts'

/** Where a request comes from, as its peer says it, or a proxy that is trusted. */
export interface Origin { readonly address: string; readonly secure: boolean; readonly id: string | undefined }

/** What happens when it is aborted. */
export type Ended = (exchange: Exchange, reason: unknown) => void

const REQUEST_TIMEOUT = Symbol('the time of the request is up')

/**
 * One request on its way: its deadline, its place at the gate and how it ends. One object instead of a signal, a timer and a set of
 * closures for each request, which cost more than all the rest together; the signal is made when somebody asks for it.
 */
export class Exchange extends Deadline {
  // Set in the constructor: class fields cost several times as much, as in Deadline.
  declare readonly req: IncomingMessage
  declare readonly res: ServerResponse
  declare readonly ended: Ended
  declare readonly id: string
  declare readonly from: number
  declare readonly address: string
  /** Came over TLS, here or at the proxy. */
  declare readonly secure: boolean
  declare readonly path: string
  declare readonly search: string
  declare entry: RouteEntry | undefined
  declare params: Record<string, string> | undefined
  /** Seconds until the answer, or until the head of a stream. */
  declare seconds: number | undefined
  declare failure: unknown
  /** What it counts as at the gate now, if it counts. */
  declare counted: Kind | undefined
  declare inside: Kind | undefined
  declare timeoutMs: number
  /** Somebody has begun to answer, or nobody is there to be answered. */
  declare over: boolean
  declare streaming: boolean
  declare aborted: boolean
  /** Ends the reading of a body. */
  declare interrupt: ((reason: unknown) => void) | undefined
  declare private why: unknown
  declare private controller: AbortController | undefined

  constructor(req: IncomingMessage, res: ServerResponse, origin: Origin, ended: Ended) {
    super()
    const { url = '' } = req
    const at = url.indexOf('?')
    this.req = req
    this.res = res
    this.ended = ended
    this.id = origin.id ?? randomUUID()
    this.from = performance.now()
    this.address = origin.address
    this.secure = origin.secure
    this.path = at < 0 ? url : url.slice(0, at)
    this.search = at < 0 ? '' : url.slice(at)
    this.entry = this.params = this.seconds = this.failure = this.counted = this.inside = this.interrupt = this.why = this.controller = undefined
    this.timeoutMs = 0
    this.over = this.streaming = this.aborted = false
  }

  get method(): string { return this.req.method ?? 'GET' }
  get reason(): unknown { return (this.why === REQUEST_TIMEOUT ? (this.why = HttpErrors.TIMEOUT({ ms: this.timeoutMs })) : this.why) }

  get signal(): AbortSignal {
    if (!this.controller) {
      this.controller = new AbortController()
      if (this.aborted) this.controller.abort(this.reason)
    }
    return this.controller.signal
  }

  /** The first reason counts. Whoever waits for the answer hears of it at once, whatever the handler does. */
  abort(reason: unknown): void {
    if (this.aborted) return
    this.aborted = true
    this.why = reason
    this.interrupt?.(this.reason)
    this.controller?.abort(this.reason)
    this.ended(this, this.reason)
  }

  expire(): void { this.abort(REQUEST_TIMEOUT) }
  throwIfAborted(): void { if (this.aborted) throw this.reason }
  left(): void { if (!this.res.writableFinished) this.abort(new ClientGone()) }
  answered(): void { this.seconds ??= (performance.now() - this.from) / 1_000 }
}

/** What a handler sees of it. */
export class Request implements HttpRequest {
  readonly #exchange: Exchange
  constructor(exchange: Exchange, readonly params: unknown, readonly query: unknown, readonly body: unknown, readonly caller: Caller) {
    this.#exchange = exchange
  }
  get id(): string { return this.#exchange.id }
  get method(): string { return this.#exchange.method }
  get path(): string { return this.#exchange.path }
  get headers(): HttpRequest['headers'] { return this.#exchange.req.headers }
  get signal(): AbortSignal { return this.#exchange.signal }
  get address(): string { return this.#exchange.address }
}
