import { AgentErrors, type AgentLimits, type AgentUsage } from '#contracts/agents'
import type { Turn } from './turn.ts'

const MAX_TOOL_CALLS = 50

/** What one run used so far, and its bounds. It depends on nothing but the results of steps, so it is the same after a crash. */
export class Meter {
  readonly #limits: AgentLimits
  readonly usage: { -readonly [K in keyof AgentUsage]: AgentUsage[K] } = { model_calls: 0, tool_calls: 0, input_tokens: 0, output_tokens: 0 }
  /** The model that spoke last. */
  model: string | null = null
  constructor(readonly agent: string, limits: AgentLimits = {}) { this.#limits = limits }

  /** Output tokens that may still come; nothing if there is no bound. Throws AGENTS_TOO_MANY_TOKENS when none may. */
  tokensLeft(): number | undefined {
    const { max_output_tokens: limit } = this.#limits
    if (limit === undefined) return undefined
    const tokens = this.usage.output_tokens
    if (tokens >= limit) throw AgentErrors.TOO_MANY_TOKENS({ agent: this.agent, tokens, limit })
    return limit - tokens
  }

  turn({ model, usage }: Turn): void {
    this.model = model
    this.usage.model_calls++
    this.usage.input_tokens += usage.inputTokens.total ?? 0
    this.usage.output_tokens += usage.outputTokens.total ?? 0
  }

  /** Throws AGENTS_TOO_MANY_TOOL_CALLS before any of them is made. */
  calls(count: number): void {
    const { max_tool_calls: limit = MAX_TOOL_CALLS } = this.#limits
    if (this.usage.tool_calls + count > limit) throw AgentErrors.TOO_MANY_TOOL_CALLS({ agent: this.agent, limit })
    this.usage.tool_calls += count
  }
}

/** What was used between two readings. */
export const used = (before: AgentUsage, now: AgentUsage): AgentUsage => ({
  model_calls: now.model_calls - before.model_calls, tool_calls: now.tool_calls - before.tool_calls,
  input_tokens: now.input_tokens - before.input_tokens, output_tokens: now.output_tokens - before.output_tokens,
})
