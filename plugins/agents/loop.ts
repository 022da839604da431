import type { LanguageModelV3Prompt, LanguageModelV3ToolResultPart } from '@ai-sdk/provider'
import type { BackplaneError, Clock, Live } from '#core'
import type { Access } from '#contracts/access'
import { AgentErrors, type AgentAnswer, type AgentContext, type AgentUsage, type Tool } from '#contracts/agents'
import type { Models } from '#contracts/models'
import { DEFAULT_MODEL, type AgentRegistry } from './registry.ts'
import { TIMEOUT_MS as TOOL_TIMEOUT_MS, describeTool, failed, parseInput, runTool, type ToolOutcome } from './toolbox.ts'
import { takeTurn, type ToolRequest, type Turn } from './turn.ts'

export const MAX_STEPS = 10
/** The same call with the same result so often ends the run. */
const SAME = 3
/** Failed calls in a row after which telling the model has no use. */
const FAILURES = 3

export type AnswerRequest = Parameters<AgentContext['answer']>[0]
/** Counts the uses of a name in one run, as step() does. */
export type Counter = (name: string) => number

export interface LoopDeps { readonly models: Models; readonly registry: AgentRegistry; readonly access: Live<Access>; readonly clock: Clock }

interface Failures { count: number }

/**
 * Model, tools, model, until the model answers without calling one. Every model call and tool call is a step of the job,
 * so that none of them is made or paid for twice. The order of steps depends on nothing but the results of steps.
 */
export async function answer(deps: LoopDeps, ctx: AgentContext, uses: Counter, request: AnswerRequest): Promise<AgentAnswer> {
  const { input, instructions, model = DEFAULT_MODEL, tools: names = [], max_steps = MAX_STEPS } = request
  const tools = names.map(name => deps.registry.tool(ctx.agent, name))
  const described = tools.map(describeTool)
  const prompt: LanguageModelV3Prompt = [
    ...(instructions ? [{ role: 'system' as const, content: instructions }] : []),
    { role: 'user', content: [{ type: 'text', text: input }] },
  ]
  const usage = { model_calls: 0, tool_calls: 0, input_tokens: 0, output_tokens: 0 }
  const seen = new Map<string, number>()
  const failures: Failures = { count: 0 }
  while (usage.model_calls < max_steps) {
    const turn = await modelStep(deps, ctx, `model#${uses('model')}`, model, prompt, described)
    add(usage, turn)
    if (!turn.calls.length) return { text: turn.text, usage, model }
    // It has no turn left to read what the tools return.
    if (usage.model_calls === max_steps) break
    prompt.push({ role: 'assistant', content: turn.content })
    const results: LanguageModelV3ToolResultPart[] = []
    prompt.push({ role: 'tool', content: results })
    for (const call of turn.calls) {
      usage.tool_calls++
      const outcome = await toolStep(deps, ctx, uses, tools, call, failures)
      results.push({ type: 'tool-result', toolCallId: call.id, toolName: call.name, output: outcome.output })
      const key = JSON.stringify([call.name, call.input, outcome.output])
      seen.set(key, (seen.get(key) ?? 0) + 1)
      if (seen.get(key) === SAME) throw AgentErrors.LOOP({ agent: ctx.agent, tool: call.name, times: SAME })
    }
  }
  throw AgentErrors.TOO_MANY_STEPS({ agent: ctx.agent, steps: max_steps })
}

function add(usage: { -readonly [K in keyof AgentUsage]: AgentUsage[K] }, turn: Turn): void {
  usage.model_calls++
  usage.input_tokens += turn.usage.inputTokens.total ?? 0
  usage.output_tokens += turn.usage.outputTokens.total ?? 0
}

function modelStep(
  { models }: LoopDeps, ctx: AgentContext, step: string, model: string, prompt: LanguageModelV3Prompt,
  tools: ReturnType<typeof describeTool>[],
): Promise<Turn> {
  const { agent, caller, project_id, job_id, signal } = ctx
  const options = { prompt: [...prompt], ...(tools.length && { tools }), abortSignal: signal }
  return ctx.step('model', () => takeTurn(models, { agent, caller, project_id, job_id, step }, model, options, content => ctx.emit({ type: 'token', content })))
}

/** One call of a tool. A failure is told to the model, which may do better; the third in a row ends the run. */
async function toolStep(
  deps: LoopDeps, ctx: AgentContext, uses: Counter, tools: readonly Tool[], call: ToolRequest, failures: Failures,
): Promise<ToolOutcome> {
  const tool = tools.find(each => each.name === call.name)
  // The step's own name may not depend on what a model makes up.
  const name = `tool:${tool ? tool.name : 'unknown'}`
  const nth = uses(name)
  const outcome = await attempt()
  if (!outcome.error) failures.count = 0
  else if (++failures.count >= FAILURES) throw revive(call.name, outcome.error, tool)
  return outcome

  async function attempt(): Promise<ToolOutcome> {
    let input: unknown
    try {
      if (!tool) throw AgentErrors.TOOL_INPUT({ tool: call.name, reason: `there is no such tool; there are ${tools.map(each => each.name).join(', ') || 'none'}` })
      input = await parseInput(tool, call.input)
    } catch (error) {
      if (!AgentErrors.TOOL_INPUT.is(error)) throw error
      const refused = failed(error)
      return ctx.step(name, async () => { tell(call.input, refused); return refused })
    }
    const effect_key = tool.sideEffects ? (await ctx.step(`effect:${tool.name}`, async () => ({ key: `${ctx.job_id}/${name}#${nth}` }))).key : undefined
    return ctx.step(name, async () => {
      ctx.emit({ type: 'tool_start', tool: tool.name, call_id: call.id, input })
      const result = await runTool(tool, input, ctx, deps.access, deps.clock, effect_key)
      end(result)
      return result
    })
  }
  function tell(input: unknown, result: ToolOutcome): void { ctx.emit({ type: 'tool_start', tool: call.name, call_id: call.id, input }); end(result) }
  function end({ output, error }: ToolOutcome): void {
    ctx.emit({ type: 'tool_end', tool: call.name, call_id: call.id, output: 'value' in output ? output.value : null, ...(error && { error }) })
  }
}

/** The stored outcome as the error that it was. */
function revive(tool: string, { code, reason }: NonNullable<ToolOutcome['error']>, known: Tool | undefined): BackplaneError {
  if (code === AgentErrors.TOOL_TIMEOUT.code) return AgentErrors.TOOL_TIMEOUT({ tool, ms: known?.timeout ?? TOOL_TIMEOUT_MS })
  return code === AgentErrors.TOOL_INPUT.code ? AgentErrors.TOOL_INPUT({ tool, reason }) : AgentErrors.TOOL_FAILED({ tool, reason })
}
