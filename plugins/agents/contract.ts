import { defineErrors, definePoint, defineService, type Logger, type Schema } from '#core'
import type { Caller, Permission } from '#contracts/access'
import type { JobProgress } from '#contracts/jobs'

/** What a tool gets besides its arguments. */
export interface ToolContext {
  readonly caller: Caller
  readonly project_id: string
  readonly agent: string
  readonly job_id: string
  readonly signal: AbortSignal
  readonly log: Logger
  /** The same at every try of this call: hand it to what must not do the same thing twice. With `sideEffects` only. */
  readonly effect_key?: string
}

/** Something that a model may call. */
export interface Tool<I = any, O = any> {
  /** `[a-zA-Z0-9_-]{1,64}`, as providers want it. */
  readonly name: string
  /** Read by the model: what it does and when to use it. */
  readonly description: string
  /** A strict object. Must convert to JSON Schema (zod does). */
  readonly input: Schema<unknown, I>
  readonly permission?: Permission
  /** It changes the world: its call is recorded before it runs. */
  readonly sideEffects?: boolean
  /** Milliseconds; 30,000. */
  readonly timeout?: number
  /** For a model that can't reason (offline): the arguments that this text asks for, if it is for this tool at all. Runs on the event loop: must be quick, and may throw an exposed error. */
  recognize?(text: string): I | undefined
  /** The model and the job hear of a typed error that is exposed (defineErrors); of any other only that the log has it. */
  run(input: I, ctx: ToolContext): Promise<O>
}
export const Tool = definePoint<Tool>('agents.tool', { key: tool => tool.name })
export const defineTool = <I, O>(tool: Tool<I, O>): Tool<I, O> => tool

/** What an agent's code gets. The loop over model and tools is `answer`. */
export interface AgentContext {
  readonly agent: string
  readonly caller: Caller
  readonly project_id: string
  readonly job_id: string
  readonly signal: AbortSignal
  readonly log: Logger
  /** As `JobContext.step`. */
  step<T>(name: string, run: () => Promise<T>): Promise<T>
  emit(progress: JobProgress): void
  /** Lets the model answer, calling tools until it is done or a bound is reached. Each model and tool call is a step. */
  answer(request: { readonly input: string; readonly instructions?: string; readonly model?: string; readonly tools?: readonly string[]; readonly max_steps?: number }): Promise<AgentAnswer>
}

export interface AgentUsage { readonly model_calls: number; readonly tool_calls: number; readonly input_tokens: number; readonly output_tokens: number }
export interface AgentAnswer { readonly text: string; readonly usage: AgentUsage; readonly model: string }

/** Declared in config (model, instructions, tools) or in code, with `run`. */
export interface Agent {
  readonly name: string
  readonly summary: string
  readonly model?: string
  readonly instructions?: string
  readonly tools?: readonly string[]
  /** Model calls in one run; 10. */
  readonly max_steps?: number
  /** Milliseconds of one run; 300,000. */
  readonly timeout?: number
  readonly permission?: Permission
  run?(ctx: AgentContext, input: string): Promise<AgentAnswer>
}
export const Agent = definePoint<Agent>('agents.agent', { key: agent => agent.name })
export const defineAgent = (agent: Agent): Agent => agent

export interface AgentInfo { readonly name: string; readonly summary: string; readonly plugin: string; readonly model: string; readonly tools: readonly string[] }

/** The registry. Agents run as jobs of type `agent`. */
export interface Agents {
  list(caller: Caller): Promise<readonly AgentInfo[]>
  get(caller: Caller, name: string): Promise<AgentInfo>
}
export const Agents = defineService<Agents>('agents.agents')

export const AgentErrors = defineErrors('AGENTS', {
  UNKNOWN: { message: 'there is no agent "{agent}"', fix: 'Known agents: {known}.', status: 404, expose: true },
  TOOL_UNKNOWN: { message: 'agent "{agent}" names the tool "{tool}", which nothing contributes', fix: 'Known tools: {known}.', status: 500, expose: true },
  TOOL_INPUT: { message: 'the arguments for tool "{tool}" do not fit: {reason}', fix: 'Correct the arguments.', status: 400, expose: true },
  TOOL_FAILED: { message: 'tool "{tool}" failed: {reason}', fix: 'See the log for the cause; a tool that throws an exposed error of its own says more.', status: 500, expose: true },
  TOOL_TIMEOUT: { message: 'tool "{tool}" took longer than {ms} ms', fix: 'Give it less to do, or raise its timeout.', status: 504, retryable: true, expose: true },
  TOO_MANY_STEPS: { message: 'agent "{agent}" made {steps} model calls without coming to an answer', fix: 'Make the task smaller, or raise max_steps.', status: 500, expose: true },
  LOOP: { message: 'agent "{agent}" called "{tool}" {times} times with the same arguments and result', fix: 'Make its instructions clearer.', status: 500, expose: true },
})
