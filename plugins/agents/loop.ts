import type { LanguageModelV3Prompt } from '@ai-sdk/provider'
import type { Schema } from '#core'
import { AgentErrors, type AgentAnswer, type AgentSettings, type AnswerRequest } from '#contracts/agents'
import type { LanguageModelV3CallOptions, Models } from '#contracts/models'
import { used } from './meter.ts'
import { DEFAULT_MODEL } from './registry.ts'
import type { AgentRun } from './run.ts'
import { jsonSchemaOf } from './schema.ts'
import { describeTool, type ToolDeps, type ToolOutcome } from './toolbox.ts'
import { callTools, revive } from './tools.ts'
import { takeTurn, type ToolRequest, type Turn } from './turn.ts'

export const MAX_STEPS = 10
/** The same call with the same result in so many turns ends the run. */
const SAME = 3
/** Turns in a row of nothing but failed calls, after which telling the model has no use. */
const FAILURES = 3

export interface LoopDeps extends ToolDeps { readonly models: Models }

/**
 * Model, tools, model, until the model answers without calling one. Every model call and tool call is a step of the job,
 * so that none of them is made or paid for twice. The order of steps depends on nothing but the results of steps.
 */
export async function answer(deps: LoopDeps, run: AgentRun, request: AnswerRequest, output?: Schema): Promise<AgentAnswer> {
  const { agent, meter } = run
  const { input, instructions = agent.instructions, model = agent.model ?? DEFAULT_MODEL } = request
  const { tools = agent.tools ?? [], max_steps = agent.max_steps ?? MAX_STEPS } = request
  const settings = { ...agent.settings, ...request.settings }
  const prompt: LanguageModelV3Prompt = [
    ...(instructions ? [{ role: 'system' as const, content: instructions }] : []),
    { role: 'user', content: [{ type: 'text', text: input }] },
  ]
  const before = { ...meter.usage }
  const watch = new Watch(deps, run)
  for (let steps = 1; ; steps++) {
    const turn = await modelStep(deps, run, model, tools, {
      prompt: [...prompt], ...optionsOf(settings, meter.tokensLeft()), ...(output && { responseFormat: { type: 'json', schema: jsonSchemaOf(output) } }),
    })
    meter.turn(turn)
    // What was said until then is no answer.
    if (turn.finish === 'content-filter') throw AgentErrors.WITHHELD({ agent: agent.name })
    if (!turn.calls.length) return { text: turn.text, usage: used(before, meter.usage), model: turn.model }
    // It has no turn left to read what the tools return.
    if (steps >= max_steps) throw AgentErrors.TOO_MANY_STEPS({ agent: agent.name, steps })
    meter.calls(turn.calls.length)
    const outcomes = await callTools(deps, run, tools, turn.calls)
    watch.see(turn.calls, outcomes)
    prompt.push({ role: 'assistant', content: turn.content })
    prompt.push({ role: 'tool', content: turn.calls.map(({ id, name }, at) => ({ type: 'tool-result', toolCallId: id, toolName: name, output: outcomes[at]!.output })) })
  }
}

function optionsOf({ temperature, top_p, max_output_tokens, stop }: AgentSettings, left: number | undefined): Partial<LanguageModelV3CallOptions> {
  const most = max_output_tokens === undefined || left === undefined ? max_output_tokens ?? left : Math.min(max_output_tokens, left)
  return {
    ...(temperature !== undefined && { temperature }), ...(top_p !== undefined && { topP: top_p }),
    ...(most !== undefined && { maxOutputTokens: most }), ...(stop?.length && { stopSequences: [...stop] }),
  }
}

function modelStep(
  deps: LoopDeps, { agent: { run: code }, ctx, next, scope }: AgentRun, model: string, names: readonly string[], options: LanguageModelV3CallOptions,
): Promise<Turn> {
  const { agent, caller, project_id, job_id, signal } = ctx
  const step = `${scope}model#${next('model')}`
  // Looked up at each turn: they may have been swapped since the last.
  const tools = names.map(name => describeTool(deps.registry.tool(agent, name).value))
  const all = { ...options, ...(tools.length && { tools }), abortSignal: signal }
  const turn = () => takeTurn(deps.models, { agent, caller, project_id, job_id, step }, model, all, content => ctx.emit({ type: 'token', content }))
  // Where no code goes on with it, an answer that calls nothing is the end.
  return ctx.step('model', turn, { last: ({ calls }) => !code && !calls.length })
}

/** Ends a run that gets nowhere. */
class Watch {
  readonly #seen = new Map<string, number>()
  #failures = 0
  constructor(readonly deps: LoopDeps, readonly run: AgentRun) {}

  see(calls: readonly ToolRequest[], outcomes: readonly ToolOutcome[]): void {
    const { name: tool } = calls.at(-1)!
    const { error } = outcomes.at(-1)!
    if (outcomes.some(each => !each.error)) this.#failures = 0
    else if (++this.#failures >= FAILURES) throw revive(tool, error!, this.deps.registry.tools.all.find(each => each.value.name === tool)?.value)
    const made = new Map(calls.map(({ name, input }, at) => [JSON.stringify([name, sorted(input), outcomes[at]!.output]), name]))
    for (const [key, name] of made) {
      const times = (this.#seen.get(key) ?? 0) + 1
      this.#seen.set(key, times)
      if (times === SAME) throw AgentErrors.LOOP({ agent: this.run.agent.name, tool: name, times })
    }
  }
}

/** Arguments are the same whatever blanks and order they are written in. */
function sorted(input: string): unknown {
  const entries = (value: unknown) =>
    (typeof value === 'object' && value !== null && !Array.isArray(value) ? Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1)) : value)
  try { return JSON.parse(input, (_, value: unknown) => entries(value)) } catch { return input }
}
