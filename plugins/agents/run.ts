import { reasonOf, scope, type Contribution } from '#core'
import { AgentErrors, type Agent, type AgentAnswer, type AgentContext } from '#contracts/agents'
import type { JobContext } from '#contracts/jobs'
import { answer, type LoopDeps } from './loop.ts'
import { Meter } from './meter.ts'
import { check, inWords } from './schema.ts'
import { callTool } from './tools.ts'

/** One run of an agent: what its code gets, and what the loop keeps of it. */
export interface AgentRun {
  readonly ctx: AgentContext
  readonly agent: Agent
  readonly meter: Meter
  /** Before the names of its steps. */
  readonly scope: string
  /** The number that the next step of this name gets: an effect key must be known before its step runs. */
  next(name: string): number
  /** One after another, in the order in which they were handed in. */
  inOrder<T>(work: () => Promise<T>): Promise<T>
}

export function beginRun(deps: LoopDeps, job: JobContext, agent: Agent, signal: AbortSignal): AgentRun {
  const counts = new Map<string, number>()
  const next = (name: string) => (counts.get(name) ?? 0) + 1
  const counted = <T>(name: string, begin: () => Promise<T>): Promise<T> => {
    // Code that goes on after its run is over must not.
    signal.throwIfAborted()
    counts.set(name, next(name))
    return begin()
  }
  let last: Promise<unknown> = Promise.resolve()
  let answers = 0
  // Answers that code asks for side by side must not share names: which of them comes first may differ after a crash.
  const inScope = (scope: string): AgentRun =>
    ({ ...run, scope, next: name => next(scope + name), ctx: { ...ctx, step: (name, work, options) => ctx.step(scope + name, work, options) } })
  const ctx: AgentContext = {
    agent: agent.name, caller: job.caller, project_id: job.job.project_id, job_id: job.job.id, signal, log: job.log.child({ agent: agent.name }),
    async step(name, work, options) { return counted(name, () => job.step(name, work, options)) },
    async ask(ask) { return counted('ask', () => job.ask(ask)) },
    async children(requests) { return counted('children', () => job.children(requests)) },
    emit: progress => { if (!signal.aborted) job.emit(progress) },
    answer: request => answer(deps, inScope(`answer#${++answers}/`), request),
    tool: (name, input) => callTool(deps, run, name, input),
  }
  const run: AgentRun = {
    ctx, agent, meter: new Meter(agent.name, agent.limits), scope: '', next,
    inOrder<T>(work: () => Promise<T>) {
      const mine = last.then(work, work)
      last = mine.catch(() => {})
      return mine
    },
  }
  return run
}

/** Lets the agent do its work, and makes of what it returns the answer of its job. */
export async function work(deps: LoopDeps, run: AgentRun, { plugin, value: agent }: Contribution<Agent>, input: unknown): Promise<AgentAnswer> {
  if (!agent.run) return ofModel(run, await answer(deps, run, { input: typeof input === 'string' ? input : JSON.stringify(input) }, agent.output))
  const { returned, text } = await scope.run({ plugin }, () => perform(run, agent, input))
  return ofCode(run, returned, text)
}

/** Runs its code; what a generator yields is streamed. */
async function perform({ ctx }: AgentRun, agent: Agent, input: unknown): Promise<{ returned: unknown; text: string }> {
  const going = agent.run!(ctx, input)
  if (!(Symbol.asyncIterator in going)) return { returned: await going, text: '' }
  let text = ''
  try {
    for (;;) {
      const { done, value } = await going.next()
      if (done) return { returned: value, text }
      if (typeof value !== 'string') throw AgentErrors.OUTPUT({ agent: agent.name, reason: `it yielded a ${typeof value}, and only texts are streamed` })
      ctx.signal.throwIfAborted()
      text += value
      if (value) ctx.emit({ type: 'token', content: value })
    }
  } finally { going.return(undefined).then(undefined, () => {}) }
}

async function ofModel(run: AgentRun, given: AgentAnswer): Promise<AgentAnswer> {
  if (!run.agent.output) return given
  let value: unknown
  try { value = JSON.parse(given.text) } catch (error) { throw AgentErrors.OUTPUT({ agent: run.agent.name, reason: `it is not JSON: ${reasonOf(error)}` }) }
  return { ...given, output: await fitting(run.agent, value) }
}

async function ofCode({ agent, meter: { usage, model } }: AgentRun, returned: unknown, text: string): Promise<AgentAnswer> {
  const used = { usage: { ...usage }, model }
  if (agent.output) return { text: jsonOf(agent, returned), ...used, output: await fitting(agent, returned) }
  if (returned === undefined) return { text, ...used }
  if (typeof returned === 'string') return { text: returned, ...used }
  if (isAnswer(returned)) return { ...returned, usage: used.usage }
  return { text: jsonOf(agent, returned), ...used, output: returned }
}

const isAnswer = (value: unknown): value is AgentAnswer => {
  const { text, usage, model } = (value ?? {}) as Partial<AgentAnswer>
  return typeof text === 'string' && typeof usage === 'object' && (typeof model === 'string' || model === null)
}

async function fitting(agent: Agent, value: unknown): Promise<unknown> {
  const checked = await check(agent.output!, value, '')
  if (checked.problems) throw AgentErrors.OUTPUT({ agent: agent.name, reason: inWords(checked.problems) })
  return checked.value
}

function jsonOf(agent: Agent, value: unknown): string {
  let text: string | undefined
  let cause: unknown
  try { text = JSON.stringify(value) } catch (error) { cause = error }
  if (text === undefined) throw AgentErrors.OUTPUT({ agent: agent.name, reason: 'it is no JSON' }, { cause })
  return text
}
