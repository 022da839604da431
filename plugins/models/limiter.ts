import type { Clock } from '#core'
import { ModelErrors } from '#contracts/models'
import { pause } from './pause.ts'

export interface Limits { readonly concurrency: number; readonly queue: number; readonly tokens_per_minute?: number | undefined }

/** When somebody who found no place in the queue may come again. */
const FULL_S = 5

/** Bounds the calls of one provider: so many at once, so many waiting, and so many tokens a minute. */
export class Limiter {
  #limits: Limits
  #active = 0
  readonly #waiting = new Set<() => void>()
  /** Tokens that may be spent; below zero, later calls pay it off. */
  #tokens: number
  #at: number
  constructor(readonly provider: string, limits: Limits, readonly clock: Clock) {
    this.#limits = limits
    this.#tokens = limits.tokens_per_minute ?? 0
    this.#at = clock.now()
  }

  get limits(): Limits { return this.#limits }
  set limits(limits: Limits) {
    this.#limits = limits
    this.#admit()
  }

  /** Resolves when it is its turn, with how to leave. Rejects with MODELS_BUSY, or as the signal does. */
  async enter(maxWaitMs: number, signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted()
    if (this.#active >= this.limits.concurrency) await this.#turn(signal)
    else this.#active++
    try {
      for (let wait = this.#tokensInMs(); wait > 0; wait = this.#tokensInMs()) {
        if (wait > maxWaitMs) throw ModelErrors.BUSY({ provider: this.provider, retry_after: Math.ceil(wait / 1000) })
        await pause(this.clock, wait, signal)
      }
    } catch (error) { this.#leave(); throw error }
    return () => this.#leave()
  }

  spend(tokens: number): void {
    if (this.limits.tokens_per_minute === undefined) return
    this.#refill()
    this.#tokens -= tokens
  }

  #turn(signal: AbortSignal): Promise<void> {
    if (this.#waiting.size >= this.limits.queue) throw ModelErrors.BUSY({ provider: this.provider, retry_after: FULL_S })
    return new Promise((resolve, reject) => {
      const settle = () => { this.#waiting.delete(go); signal.removeEventListener('abort', aborted) }
      const go = () => { settle(); resolve() }
      const aborted = () => { settle(); reject(signal.reason as Error) }
      this.#waiting.add(go)
      signal.addEventListener('abort', aborted, { once: true })
    })
  }

  #leave(): void {
    this.#active--
    this.#admit()
  }
  /** Lets in those who wait the longest, as far as there is room. */
  #admit(): void {
    for (const go of this.#waiting) {
      if (this.#active >= this.limits.concurrency) return
      this.#active++
      go()
    }
  }

  #tokensInMs(): number {
    const perMinute = this.limits.tokens_per_minute
    if (perMinute === undefined) return 0
    this.#refill()
    return this.#tokens > 0 ? 0 : Math.ceil((1 - this.#tokens) / perMinute * 60_000)
  }
  #refill(): void {
    const now = this.clock.now()
    const perMinute = this.limits.tokens_per_minute!
    this.#tokens = Math.min(perMinute, this.#tokens + (now - this.#at) * perMinute / 60_000)
    this.#at = now
  }
}
