import type { BackplaneError, Clock } from '#core'
import type { ModelCall } from '#contracts/models'
import { Circuit, type CircuitOptions } from './circuit.ts'
import { isOutage } from './failure.ts'
import { Limiter, type Limits } from './limiter.ts'
import { circuitState } from './metrics.ts'

const STATES = { closed: 0, 'half-open': 1, open: 2 }

export interface Passage { begun(): void; ended(call: ModelCall, error?: BackplaneError): void }

/** What every call of one provider passes: its circuit breaker and its limits. */
export class Gate {
  readonly circuit: Circuit
  readonly limiter: Limiter
  constructor(readonly provider: string, circuit: CircuitOptions, limits: Limits, clock: Clock) {
    this.circuit = new Circuit(provider, circuit, () => clock.now(), state => circuitState.set(STATES[state], { name: `models.${provider}` }))
    this.limiter = new Limiter(provider, limits, clock)
  }

  /** Rejects with MODELS_CIRCUIT_OPEN or MODELS_BUSY. What it lets through must tell when it begins to answer, and how it ended. */
  async enter(maxWaitMs: number, signal: AbortSignal): Promise<Passage> {
    // One that will be refused should not wait in line for it.
    this.circuit.check()
    const leave = await this.limiter.enter(maxWaitMs, signal)
    let passage: ReturnType<Circuit['admit']>
    try { passage = this.circuit.admit() } catch (error) { leave(); throw error }
    return {
      begun: passage.begun,
      ended: ({ status, usage, first_token_ms }, error) => {
        leave()
        this.limiter.spend((usage.inputTokens.total ?? 0) + (usage.outputTokens.total ?? 0))
        const well = status === 'completed' || first_token_ms !== undefined
        passage.ended(error && isOutage(error) ? 'failed' : well ? 'well' : 'unknown')
      },
    }
  }
}
