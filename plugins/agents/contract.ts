import { defineErrors, definePoint, defineService, type Logger, type Schema } from '#core'
import type { Caller, Permission } from '#contracts/access'
import type { JobContext, JobProgress, StepOptions } from '#contracts/jobs'
import type { Ask } from '#contracts/questions'

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

/** How the model speaks; what is not set is the provider's own. */
export interface AgentSettings { readonly temperature?: number; readonly max_output_tokens?: number; readonly top_p?: number; readonly stop?: readonly string[] }
/** Of one run in all. `max_tool_calls`: 50; `max_output_tokens`: no end. */
export interface AgentLimits { readonly max_tool_calls?: number; readonly max_output_tokens?: number }

/** What is left out is the agent's own. */
export interface AnswerRequest {
  readonly input: string
  readonly instructions?: string
  readonly model?: string
  readonly tools?: readonly string[]
  readonly settings?: AgentSettings
  /** Model calls until the answer. */
  readonly max_steps?: number
}

/** What an agent's code gets. The loop over model and tools is `answer`. */
export interface AgentContext {
  readonly agent: string
  readonly caller: Caller
  readonly project_id: string
  readonly job_id: string
  readonly signal: AbortSignal
  readonly log: Logger
  /** As `JobContext.step`. */
  step<T>(name: string, run: () => Promise<T>, options?: StepOptions<T>): Promise<T>
  /** As `JobContext.ask`: a person's answer, for which no worker is held. */
  ask<T = any>(ask: Ask): Promise<T>
  /** As `JobContext.children`. */
  children: JobContext['children']
  emit(progress: JobProgress): void
  /** Lets the model answer, calling tools until it is done or a bound is reached. Each model and tool call is a step. */
  answer(request: AnswerRequest): Promise<AgentAnswer>
  /** Calls one tool as a step, and resolves to what it returned. Rejects with AGENTS_TOOL_INPUT, AGENTS_TOOL_FAILED, AGENTS_TOOL_TIMEOUT. */
  tool(name: string, input: unknown): Promise<any>
}

export interface AgentUsage { readonly model_calls: number; readonly tool_calls: number; readonly input_tokens: number; readonly output_tokens: number }
/** `model`: the `provider/model` that answered last; null if none was asked. `output`: what was returned as data, or by an agent with an `output` schema; `text` is then its JSON. */
export interface AgentAnswer { readonly text: string; readonly usage: AgentUsage; readonly model: string | null; readonly output?: unknown }

/** Declared in config (model, instructions, tools) or in code, with `run`. */
export interface Agent<I = any, O = any> {
  /** Kebab case. */
  readonly name: string
  readonly summary: string
  readonly version?: string
  readonly model?: string
  readonly instructions?: string
  readonly tools?: readonly string[]
  readonly settings?: AgentSettings
  readonly limits?: AgentLimits
  /** Model calls of one answer; 10. */
  readonly max_steps?: number
  /** Milliseconds of one run; 300,000. */
  readonly timeout?: number
  readonly permission?: Permission
  /** Without it the input is a text of 1 byte to 64 KiB; with it JSON that fits. Without `run` the model is given it as JSON. */
  readonly input?: Schema<unknown, I>
  /** Checks what `run` returns. Without `run` the model is asked for JSON of this form. */
  readonly output?: Schema<unknown, O>
  /** What it returns is the answer: a text, what `answer` gave, or data. Of a generator each yielded text is streamed, and all together are the answer if it returns nothing. */
  run?(ctx: AgentContext, input: I): Promise<O> | AsyncGenerator<string, O | void, void>
}
export const Agent = definePoint<Agent>('agents.agent', { key: agent => agent.name })
export const defineAgent = <I = string, O = string | AgentAnswer>(agent: Agent<I, O>): Agent<I, O> => agent

/** `busy`: runs are going on in this process; `error`: the last one failed, or it names a tool that is not there; `offline`: its plugin is being restarted. */
export type AgentState = 'idle' | 'busy' | 'error' | 'offline'
export interface AgentInfo {
  readonly name: string
  readonly summary: string
  readonly version: string | null
  readonly plugin: string
  readonly model: string
  readonly tools: readonly string[]
  readonly state: AgentState
  /** Runs in this process. */
  readonly running: number
}

/** The registry. Agents run as jobs of type `agent`. */
export interface Agents {
  list(caller: Caller): Promise<readonly AgentInfo[]>
  get(caller: Caller, name: string): Promise<AgentInfo>
}
export const Agents = defineService<Agents>('agents.agents')

export const AgentErrors = defineErrors('AGENTS', {
  UNKNOWN: { message: 'there is no agent "{agent}"', fix: '{meant}Known agents: {known}.', status: 404, expose: true },
  AWAY: { message: 'agent "{agent}" belongs to plugin "{plugin}", which is being restarted', fix: 'Try again in a moment.', status: 503, retryable: true, away: true, expose: true },
  INPUT: { message: 'the input for agent "{agent}" does not fit: {reason}', fix: 'Correct the fields named.', status: 400, expose: true },
  NO_INPUT: { message: 'there is no input', fix: 'Give it as words, as `-` for standard input, or with --input-json.', status: 400, expose: true },
  OUTPUT: { message: 'what agent "{agent}" answered does not fit its output schema: {reason}', fix: 'Make its instructions or its schema clearer.', status: 502, expose: true },
  TOOL_UNKNOWN: { message: 'agent "{agent}" names the tool "{tool}", which nothing contributes', fix: 'Known tools: {known}.', status: 500, expose: true },
  TOOL_AWAY: { message: 'tool "{tool}" belongs to plugin "{plugin}", which is being restarted', fix: 'Try again in a moment.', status: 503, retryable: true, away: true, expose: true },
  TOOL_INPUT: { message: 'the arguments for tool "{tool}" do not fit: {reason}', fix: 'Correct the arguments.', status: 400, expose: true },
  TOOL_FAILED: { message: 'tool "{tool}" failed: {reason}', fix: 'See the log for the cause; a tool that throws an exposed error of its own says more.', status: 500, expose: true },
  TOOL_TIMEOUT: { message: 'tool "{tool}" took longer than {ms} ms', fix: 'Give it less to do, or raise its timeout.', status: 504, retryable: true, expose: true },
  TOO_MANY_STEPS: { message: 'agent "{agent}" made {steps} model calls without coming to an answer', fix: 'Make the task smaller, or raise max_steps.', status: 500, expose: true },
  TOO_MANY_TOOL_CALLS: { message: 'agent "{agent}" wanted more than {limit} tool calls in one run', fix: 'Make the task smaller, or raise limits.max_tool_calls.', status: 500, expose: true },
  TOO_MANY_TOKENS: { message: 'agent "{agent}" wrote {tokens} tokens in one run, and {limit} were allowed', fix: 'Make the task smaller, or raise limits.max_output_tokens.', status: 500, expose: true },
  LOOP: { message: 'agent "{agent}" called "{tool}" {times} times with the same arguments and result', fix: 'Make its instructions clearer.', status: 500, expose: true },
  WITHHELD: { message: 'the provider withheld the answer of agent "{agent}" by its content filter', fix: 'Change the request or the instructions, or use another model.', status: 502, expose: true },
  STREAM_SLOW: { message: 'the client read too slowly: {bytes} bytes were waiting for it', fix: 'The run goes on; follow it at /sse/jobs/{job_id}, and read as fast as it comes.', status: 503, expose: true },
})
