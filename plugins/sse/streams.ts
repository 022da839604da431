import { gauge } from '#contracts/metrics'
import { SseErrors } from './contract.ts'

/** One open stream. `signal` aborts when its client leaves, or when all are closed. */
export interface Stream { readonly signal: AbortSignal; close(): void }

/** The streams that are open here, and whether there may be more. */
export class Streams {
  readonly metric = gauge({ name: 'sse_streams', help: 'Event streams that are open' })
  readonly #open = new Set<AbortController>()
  readonly #byCaller = new Map<string, number>()

  constructor(readonly limits: { readonly maxStreams: number; readonly maxPerCaller: number }) {}

  /** Throws SSE_TOO_MANY. */
  open(caller: string, client: AbortSignal): Stream {
    const { maxStreams, maxPerCaller } = this.limits
    const own = this.#byCaller.get(caller) ?? 0
    if (this.#open.size >= maxStreams) throw SseErrors.TOO_MANY({ who: 'this server has', open: this.#open.size, limit: maxStreams, setting: 'maxStreams' })
    if (own >= maxPerCaller) throw SseErrors.TOO_MANY({ who: 'you have', open: own, limit: maxPerCaller, setting: 'maxPerCaller' })
    const stop = new AbortController()
    this.#open.add(stop)
    this.metric.set(this.#open.size)
    this.#byCaller.set(caller, own + 1)
    const close = () => {
      client.removeEventListener('abort', close)
      if (!this.#open.delete(stop)) return
      this.metric.set(this.#open.size)
      const left = this.#byCaller.get(caller)! - 1
      if (left) this.#byCaller.set(caller, left)
      else this.#byCaller.delete(caller)
      stop.abort()
    }
    // Not only when its frames end: those of an answer that was never begun do not.
    client.addEventListener('abort', close)
    if (client.aborted) close()
    return { signal: stop.signal, close }
  }

  /** Ends all: their clients connect again, where there is somebody to answer. */
  close(): void { for (const stop of [...this.#open]) stop.abort() }
}
