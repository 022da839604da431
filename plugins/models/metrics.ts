import { counter, gauge, histogram } from '#contracts/metrics'
import type { ModelCall } from '#contracts/models'

export const llmCalls = counter({ name: 'llm_calls_total', help: 'Calls of language models that are over', labels: ['provider', 'model', 'status'] })
export const tokensUsed = counter({ name: 'tokens_used_total', help: 'Tokens of language models, as told by the provider or else counted here', labels: ['model', 'kind'] })
export const llmCallDuration = histogram({ name: 'llm_call_duration_seconds', help: 'From the call of a language model to its end', labels: ['provider', 'model'] })
export const llmFirstToken = histogram({ name: 'llm_time_to_first_token_seconds', help: 'From the call of a language model to its first token', labels: ['provider', 'model'] })
export const retriesTotal = counter({ name: 'llm_retries_total', help: 'Calls of language models made again after a failure', labels: ['model', 'code'] })
export const fallbacksTotal = counter({ name: 'llm_fallbacks_total', help: 'Models that were replaced by their fallback', labels: ['model', 'fallback'] })
export const circuitState = gauge({ name: 'circuit_breaker_state', help: 'Circuit breakers: 0 closed, 1 half-open, 2 open', labels: ['name'] })
export const metrics = [llmCalls, tokensUsed, llmCallDuration, llmFirstToken, retriesTotal, fallbacksTotal, circuitState]

export function measure({ provider, model, status, usage, duration_ms, first_token_ms }: ModelCall): void {
  llmCalls.inc({ provider, model, status })
  const { inputTokens, outputTokens } = usage
  const kinds = {
    input: inputTokens.total, output: outputTokens.total, cache_read: inputTokens.cacheRead, cache_write: inputTokens.cacheWrite,
    reasoning: outputTokens.reasoning,
  }
  for (const [kind, count] of Object.entries(kinds)) if (count) tokensUsed.add(count, { model, kind })
  llmCallDuration.observe(duration_ms / 1000, { provider, model })
  if (first_token_ms !== undefined) llmFirstToken.observe(first_token_ms / 1000, { provider, model })
}
