import type { Clock } from '#core'

/** Whoever wants more within such a time wants more than Redis can answer; and for so long what was taken may stay with us. */
const QUICK_MS = 20
/** Of what was wanted the last time. */
const TIMES = 2

export interface Taking {
  /** Up to `room` ids, under a lock. */
  take(room: number): Promise<readonly string[]>
  putBack(ids: readonly string[]): Promise<void>
}

/**
 * Ids that were taken before anybody wants them. Where places come free sooner than Redis answers, new attempts so begin in the transaction in which
 * others end. Where they don't, nothing is kept from consumers elsewhere.
 */
export class Ahead {
  #ids: string[] = []
  #filling: Promise<void> | undefined
  #wantedAt = -Infinity
  #closed = false
  #cancel = () => {}
  constructor(readonly source: Taking, readonly clock: Clock, readonly most: number) {}

  /** What is at hand. */
  atHand(count: number): readonly string[] {
    const ids = this.#ids.splice(0, count)
    if (ids.length) this.#used(count, ids.length)
    return ids
  }

  /** What is at hand, else from Redis. */
  async take(count: number): Promise<readonly string[]> {
    await this.#filling
    const ids = this.atHand(count)
    if (ids.length) return ids
    const taken = await this.source.take(count)
    this.#used(count, taken.length)
    return taken
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#filling
    await this.#release()
  }

  #used(wanted: number, got: number): void {
    const now = this.clock.now()
    const quick = now - this.#wantedAt < QUICK_MS
    this.#wantedAt = now
    // Fewer: there are no more.
    const missing = Math.min(wanted * TIMES, this.most) - this.#ids.length
    if (quick && got === wanted && missing > 0 && !this.#closed) this.#filling ??= this.#fill(missing).finally(() => { this.#filling = undefined })
    this.#hold()
  }

  async #fill(count: number): Promise<void> {
    // Who delivers hears of it, should Redis be away.
    this.#ids.push(...await this.source.take(count).catch(() => []))
    this.#hold()
  }

  #hold(): void {
    this.#cancel()
    if (this.#ids.length) this.#cancel = this.clock.after(QUICK_MS, () => void this.#release())
  }

  async #release(): Promise<void> {
    this.#cancel()
    this.#wantedAt = -Infinity
    const ids = this.#ids.splice(0)
    // Else their lock runs out.
    if (ids.length) await this.source.putBack(ids).catch(() => {})
  }
}
