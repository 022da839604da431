import { AsyncResource } from 'node:async_hooks'

const TICK_MS = 50
/** Ticks of peace after which it ticks no more. */
const PEACE = 20

export interface PulseDeps {
  /** How long the server may give no sign of life while somebody waits. */
  readonly ms: number
  /** Resolves when it answers a question that costs it nothing; one at a time. */
  readonly probe: () => Promise<void>
  /** Lets go of what the probe is asked on, and so of a probe under way. */
  readonly rest: () => void
  /** Nobody was answered, and no probe was either. */
  readonly silent: () => void
}

/**
 * Tells a server that is slow from one that is gone without a word. A deadline for each statement could not: it would end what honestly takes
 * long. So while somebody waits and nothing at all is heard, it is asked for a sign of life; without one nobody has to wait any longer.
 */
export class Pulse {
  #waiting = 0
  /** For how long nothing was heard. */
  #quiet = 0
  #heard = false
  #probing = false
  #held = false
  /** The probe is being let in: it is also up to us, who have passwords to hash in turn after turn. */
  #entering = false
  #peace = 0
  #last = 0
  #timer: NodeJS.Timeout | undefined
  // In the scope of nobody: it serves all of them.
  readonly #outside = new AsyncResource('BackplanePulse', { requireManualDestroy: true })
  constructor(readonly deps: PulseDeps) {}

  /** Somebody begins to wait for the server. */
  enter(): void {
    if (this.#waiting++) return
    this.#quiet = this.#peace = 0
    if (this.#timer) return
    this.#last = performance.now()
    this.#timer = this.#outside.runInAsyncScope(() => setInterval(() => this.#tick(), TICK_MS)).unref()
  }

  leave(): void { this.#waiting-- }

  /** It said something, to whomever. */
  heard(): void { this.#quiet = 0; this.#heard = true }

  /** It said something to the probe, if not all of it. */
  greeted(): void {
    this.#quiet = 0
    this.#entering = true
  }

  /** Nobody waits any more, and nobody will. */
  stop(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #tick(): void {
    const { ms, silent } = this.deps
    const now = performance.now()
    // A process that stood still itself gave nobody a chance to answer. One that is merely slow has to tell its callers in time all the same.
    this.#quiet += Math.min(now - this.#last, (this.#entering ? 1 : 4) * TICK_MS)
    this.#last = now
    if (this.#heard || !this.#waiting) this.#rest()
    this.#heard = false
    if (!this.#waiting) {
      if (++this.#peace <= PEACE) return
      clearInterval(this.#timer)
      this.#timer = undefined
    } else if (this.#quiet >= ms) {
      this.#rest()
      silent()
    } else if (this.#quiet >= ms / 3 && !this.#probing) void this.#probe()
  }

  async #probe(): Promise<void> {
    this.#probing = this.#held = true
    // What it is asked on is kept for the next time: nobody else was answered.
    try { await this.deps.probe() } catch { /* At the next tick again. */ } finally { this.#probing = this.#entering = false }
  }

  #rest(): void {
    this.#quiet = 0
    if (this.#held) this.deps.rest()
    this.#held = false
  }
}
