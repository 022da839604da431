import type { Role } from '#core'
import { HttpErrors } from '#contracts/http'
import type { HttpConfig } from './config.ts'
import type { Exchange } from './exchange.ts'

/** `leaving`: it serves on, and each answer closes its connection, until everybody has seen that it is not ready. */
export type ServerState = 'starting' | 'serving' | 'leaving' | 'draining'
export type Kind = 'request' | 'stream'

/** Who is inside, and whether more may come in. */
export class Gate {
  state: ServerState = 'starting'
  readonly #inside = { request: new Set<Exchange>(), stream: new Set<Exchange>() }
  readonly #counts = { request: 0, stream: 0 }
  #waiting: (() => void)[] = []
  #bodyBytes = 0
  constructor(public settings: HttpConfig, readonly roles: readonly Role[]) {}

  get counts(): Readonly<Record<Kind, number>> { return this.#counts }
  get bodyBytes(): number { return this.#bodyBytes }

  /** Throws HTTP_ROLE, or HTTP_STARTING, if nothing but what is early is served now. */
  open(path: string): void {
    if (!this.roles.includes('api')) throw HttpErrors.ROLE({ path, roles: this.roles.join(', ') })
    if (this.state !== 'serving' && this.state !== 'leaving') throw HttpErrors.STARTING({ state: this.state })
  }

  /** `early` ones are never refused and never counted. Throws HTTP_BUSY. */
  enter(exchange: Exchange, kind: Kind, early: boolean): void {
    if (!early) this.take(exchange, kind)
    this.#inside[(exchange.inside = kind)].add(exchange)
  }

  /** Counts against the limits. A request whose body still comes in does not: slow clients would lock out the others. */
  take(exchange: Exchange, kind: Kind): void {
    const limit = kind === 'stream' ? this.settings.maxStreams : this.settings.maxConcurrentRequests
    if (this.#counts[kind] >= limit) throw HttpErrors.BUSY({ limit })
    this.#counts[(exchange.counted = kind)]++
  }

  yield(exchange: Exchange): void {
    if (exchange.counted === undefined) return
    this.#counts[exchange.counted]--
    exchange.counted = undefined
  }

  /** Turns into a stream and is counted as one. */
  stream(exchange: Exchange, early: boolean): void {
    if (exchange.inside === 'stream') return
    this.yield(exchange)
    if (!early) this.take(exchange, 'stream')
    this.#inside.request.delete(exchange)
    this.#inside.stream.add(exchange)
    exchange.inside = 'stream'
    this.#tell()
  }

  leave(exchange: Exchange): void {
    this.yield(exchange)
    if (exchange.inside === undefined) return
    this.#inside[exchange.inside].delete(exchange)
    exchange.inside = undefined
    this.#tell()
  }

  /** Bytes of bodies that are being received. Throws before memory would run out. */
  hold(bytes: number): void {
    if (this.#bodyBytes + bytes > this.settings.bodyMemory) throw HttpErrors.BUSY({ limit: this.#inside.request.size })
    this.#bodyBytes += bytes
  }
  release(bytes: number): void { this.#bodyBytes -= bytes }

  /** Settles when no request, or no stream, is inside. */
  async empty(kind: Kind): Promise<void> { while (this.#inside[kind].size > 0) await new Promise<void>(resolve => this.#waiting.push(resolve)) }

  abort(reason: Error): void { for (const each of ['request', 'stream'] as const) for (const exchange of [...this.#inside[each]]) exchange.abort(reason) }
  /** Not who waits on a route that may stream: he can have his answer yet. */
  abortStreams(reason: Error): void { for (const exchange of [...this.#inside.stream]) if (exchange.streaming) exchange.abort(reason) }

  #tell(): void {
    if (this.#waiting.length === 0) return
    for (const resolve of this.#waiting.splice(0)) resolve()
  }
}
