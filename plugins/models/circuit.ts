import { ModelErrors } from '#contracts/models'

export interface CircuitOptions { readonly failures: number; readonly open_ms: number }
export type CircuitState = 'closed' | 'open' | 'half-open'

/** Leaves a provider alone that fails again and again; after a while one call is let through, to see. */
export class Circuit {
  #failures = 0
  #openedAt: number | undefined
  #probing = false
  constructor(readonly provider: string, public options: CircuitOptions, readonly now: () => number, readonly changed: (state: CircuitState) => void) {}

  get state(): CircuitState {
    if (this.#openedAt === undefined) return 'closed'
    return this.#probing || this.#leftMs() <= 0 ? 'half-open' : 'open'
  }
  #leftMs(): number { return this.#openedAt! + this.options.open_ms - this.now() }

  /** Rejects with MODELS_CIRCUIT_OPEN while no call can be made. */
  check(): void {
    if (this.#openedAt === undefined) return
    const wait = this.#probing ? this.options.open_ms : this.#leftMs()
    if (this.#probing || wait > 0) throw ModelErrors.CIRCUIT_OPEN({ provider: this.provider, failures: this.#failures, retry_after: Math.ceil(wait / 1000) })
  }
  /** As `check`, but what it lets through must tell its outcome. */
  admit(): void {
    this.check()
    if (this.#openedAt === undefined) return
    this.#probing = true
    this.changed('half-open')
  }

  succeeded(): void {
    this.#failures = 0
    if (this.#openedAt === undefined) return
    this.#openedAt = undefined
    this.#probing = false
    this.changed('closed')
  }
  failed(): void {
    this.#failures++
    // What began before it opened and fails now tells nothing new.
    if (this.#openedAt === undefined ? this.#failures < this.options.failures : !this.#probing) return
    this.#openedAt = this.now()
    this.#probing = false
    this.changed('open')
  }
  /** The call said nothing about the provider: it was aborted, or never made. */
  skipped(): void { this.#probing = false }
}
