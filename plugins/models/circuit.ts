import { ModelErrors } from '#contracts/models'

export interface CircuitOptions { readonly failures: number; readonly open_ms: number }
/** `unknown`: the call was aborted, or never made. */
export type Outcome = 'well' | 'failed' | 'unknown'
export type CircuitState = 'closed' | 'open' | 'half-open'

/** Leaves a provider alone that fails again and again; after a while one call is let through, to see. */
export class Circuit {
  #failures = 0
  #openedAt: number | undefined
  #probing = false
  constructor(
    readonly provider: string, public options: CircuitOptions, readonly now: () => number, readonly changed: (state: CircuitState) => void,
  ) {}

  get state(): CircuitState {
    if (this.#openedAt === undefined) return 'closed'
    return this.#probing || this.#leftMs() <= 0 ? 'half-open' : 'open'
  }
  #leftMs(): number { return this.#openedAt! + this.options.open_ms - this.now() }

  /** Rejects with MODELS_CIRCUIT_OPEN while no call can be made. */
  check(): void {
    if (this.#openedAt === undefined) return
    const wait = this.#probing ? this.options.open_ms : this.#leftMs()
    if (!this.#probing && wait <= 0) return
    throw ModelErrors.CIRCUIT_OPEN({ provider: this.provider, failures: this.#failures, retry_after: Math.ceil(wait / 1000) })
  }

  /** As `check`; what it lets through tells how it went. The one that is to see need only begin well. */
  admit(): { begun(): void; ended(outcome: Outcome): void } {
    this.check()
    let probe = this.#openedAt !== undefined
    if (probe) this.#probing = true
    if (probe) this.changed('half-open')
    const probed = (outcome: Outcome) => { probe = false; this.#probed(outcome) }
    return { begun: () => { if (probe) probed('well') }, ended: outcome => (probe ? probed(outcome) : this.#counted(outcome)) }
  }

  #counted(outcome: Outcome): void {
    // What began before it opened tells nothing new.
    if (this.#openedAt !== undefined || outcome === 'unknown') return
    this.#failures = outcome === 'well' ? 0 : this.#failures + 1
    if (this.#failures >= this.options.failures) this.#open()
  }
  #probed(outcome: Outcome): void {
    this.#probing = false
    if (outcome === 'failed') this.#open()
    if (outcome !== 'well') return
    this.#failures = 0
    this.#openedAt = undefined
    this.changed('closed')
  }
  #open(): void {
    this.#openedAt = this.now()
    this.changed('open')
  }
}
