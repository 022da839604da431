import type { BackplaneError, Contribution } from '#core'
import { AgentErrors, type Tool } from '#contracts/agents'
import type { AgentRun } from './run.ts'
import { TIMEOUT_MS, checkInput, failed, isOfCall, parseInput, runTool, succeeded, type ToolDeps, type ToolOutcome } from './toolbox.ts'
import type { ToolRequest } from './turn.ts'

/** Calls under way at once in one run. */
const AT_ONCE = 8

/** One tool among those that the model was told of, under the name of its step: that may not depend on what a model makes up. */
interface Wanted { readonly request: ToolRequest; readonly owned: Contribution<Tool> | undefined; readonly step: string }

/**
 * The calls of one turn, each a step. Those without side effects run side by side, the others one by one in the order that the model gave.
 * Steps of one name always begin in that order, so that after a crash each gets its own result again.
 */
export async function callTools(deps: ToolDeps, run: AgentRun, offered: readonly string[], requests: readonly ToolRequest[]): Promise<ToolOutcome[]> {
  const wanted = requests.map((request): Wanted => {
    const owned = offered.includes(request.name) ? deps.registry.tool(run.agent.name, request.name) : undefined
    return { request, owned, step: `tool:${owned ? owned.value.name : 'unknown'}` }
  })
  const outcomes: ToolOutcome[] = []
  for (let from = 0; from < wanted.length;) {
    let to = from
    while (to < wanted.length && !wanted[to]!.owned?.value.sideEffects) to++
    // One with side effects stands alone: what comes after it may look at what it did.
    if (to === from) outcomes.push(await run.inOrder(() => attempt(deps, run, wanted[from]!, offered)))
    else outcomes.push(...await sideBySide(wanted.slice(from, to), each => attempt(deps, run, each, offered)))
    from = outcomes.length
  }
  return outcomes
}

/** Begins them in their order, some at once. After a failure none begins. */
async function sideBySide<T, R>(all: readonly T[], work: (each: T) => Promise<R>): Promise<R[]> {
  const results: R[] = new Array(all.length)
  let at = 0
  const worker = async () => {
    while (at < all.length) {
      const mine = at++
      try { results[mine] = await work(all[mine]!) } catch (error) { at = all.length; throw error }
    }
  }
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, all.length) }, worker))
  return results
}

/** One call that a model asked for. What is wrong with it is an outcome, which the model is told. */
async function attempt(deps: ToolDeps, run: AgentRun, { request, owned, step }: Wanted, offered: readonly string[]): Promise<ToolOutcome> {
  const { ctx } = run
  const effect_key = owned?.value.sideEffects ? await effectKey(run, owned.value.name, step) : undefined
  return ctx.step(step, async () => {
    let shown: unknown = request.input
    let begun = false
    const begin = (input: unknown) => { shown = input; begun = true; ctx.emit({ type: 'tool_start', tool: request.name, call_id: request.id, input }) }
    let outcome: ToolOutcome
    try {
      if (!owned) throw AgentErrors.TOOL_INPUT({ tool: request.name, reason: `there is no such tool; there are ${offered.join(', ') || 'none'}` })
      const input = await parseInput(owned.value, request.input)
      begin(input)
      outcome = succeeded(request.name, await runTool(deps, owned, input, ctx, effect_key))
    } catch (error) {
      if (!isOfCall(error)) throw error
      outcome = failed(error)
    }
    if (!begun) begin(shown)
    end(run, request, outcome)
    return outcome
  })
}

/** One call that an agent's code makes. A failure is its to handle, and is not kept: the next attempt may do better. */
export async function callTool(deps: ToolDeps, run: AgentRun, name: string, given: unknown): Promise<unknown> {
  const { ctx, meter } = run
  const owned = deps.registry.tool(ctx.agent, name)
  meter.calls(1)
  const step = `tool:${name}`
  if (!owned.value.sideEffects) return perform(undefined)
  return run.inOrder(async () => perform(await effectKey(run, name, step)))

  function perform(effect_key: string | undefined): Promise<unknown> {
    const request = { id: `${step}#${run.next(step)}`, name }
    return ctx.step(step, async () => {
      const input = await checkInput(owned.value, given)
      ctx.emit({ type: 'tool_start', tool: name, call_id: request.id, input })
      try {
        const value = await runTool(deps, owned, input, ctx, effect_key)
        end(run, request, succeeded(name, value))
        return value
      } catch (error) {
        if (isOfCall(error)) end(run, request, failed(error))
        throw error
      }
    })
  }
}

/** The same at every try of this call; recorded before the tool first runs. */
async function effectKey({ ctx, next, scope }: AgentRun, tool: string, step: string): Promise<string> {
  const key = `${ctx.job_id}/${scope}${step}#${next(step)}`
  return (await ctx.step(`effect:${tool}`, async () => ({ key }))).key
}

function end({ ctx }: AgentRun, { id, name }: { readonly id: string; readonly name: string }, { output, error }: ToolOutcome): void {
  ctx.emit({ type: 'tool_end', tool: name, call_id: id, output: 'value' in output ? output.value : null, ...(error && { error }) })
}

/** The stored outcome as the error that it was. */
export function revive(tool: string, { code, reason }: NonNullable<ToolOutcome['error']>, known: Tool | undefined): BackplaneError {
  if (code === AgentErrors.TOOL_TIMEOUT.code) return AgentErrors.TOOL_TIMEOUT({ tool, ms: known?.timeout ?? TIMEOUT_MS })
  return code === AgentErrors.TOOL_INPUT.code ? AgentErrors.TOOL_INPUT({ tool, reason }) : AgentErrors.TOOL_FAILED({ tool, reason })
}
