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
  readonly id: string
  readonly from = performance.now()
  readonly address: string
  /** Came over TLS, here or at the proxy. */
  readonly secure: boolean
  readonly path: string
  readonly search: string
  entry: RouteEntry | undefined
  params: Record<string, string> | undefined
  /** Seconds until the answer, or until the head of a stream. */
  seconds: number | undefined
  failure: unknown
  /** What it counts as at the gate now, if it counts. */
  counted: Kind | undefined
  inside: Kind | undefined
  timeoutMs = 0
  /** Somebody has begun to answer, or nobody is there to be answered. */
  over = false
  streaming = false
  aborted = false
  /** Ends the reading of a body. */
  interrupt: ((reason: unknown) => void) | undefined
  #reason: unknown
  #controller: AbortController | undefined

  constructor(readonly req: IncomingMessage, readonly res: ServerResponse, origin: Origin, readonly ended: Ended) {
    super()
    const { url = '' } = req
    const at = url.indexOf('?')
    this.id = origin.id ?? randomUUID()
    this.address = origin.address
    this.secure = origin.secure
    this.path = at < 0 ? url : url.slice(0, at)
    this.search = at < 0 ? '' : url.slice(at)
  }

  get method(): string { return this.req.method ?? 'GET' }
  get reason(): unknown { return (this.#reason === REQUEST_TIMEOUT ? (this.#reason = HttpErrors.TIMEOUT({ ms: this.timeoutMs })) : this.#reason) }

  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController()
      if (this.aborted) this.#controller.abort(this.reason)
    }
    return this.#controller.signal
  }

  /** The first reason counts. Whoever waits for the answer hears of it at once, whatever the handler does. */
  abort(reason: unknown): void {
    if (this.aborted) return
    this.aborted = true
    this.#reason = reason
    this.interrupt?.(this.reason)
    this.#controller?.abort(this.reason)
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
