import type { LanguageModelV3FunctionTool, LanguageModelV3ToolResultOutput, JSONValue } from '@ai-sdk/provider'
import { BackplaneError, maskSecrets, reasonOf, scope, type Clock, type Contribution, type Live } from '#core'
import type { Access } from '#contracts/access'
import { AgentErrors, type AgentContext, type Tool, type ToolContext } from '#contracts/agents'
import type { JobError } from '#contracts/jobs'
import { checkAccess, type AgentRegistry } from './registry.ts'
import { check, inWords, jsonSchemaOf } from './schema.ts'

export const TIMEOUT_MS = 30_000
export const MAX_OUTPUT = 64 * 1024

export interface ToolDeps { readonly registry: AgentRegistry; readonly access: Live<Access>; readonly clock: Clock }
/** How one call of a tool ended; plain data, as a step stores it. */
export interface ToolOutcome { readonly output: LanguageModelV3ToolResultOutput; readonly error?: JobError & { readonly reason: string } }

const described = new WeakMap<Tool, LanguageModelV3FunctionTool>()

/** What a model is told of a tool. */
export function describeTool(tool: Tool): LanguageModelV3FunctionTool {
  let told = described.get(tool)
  if (!told) {
    const { name, description, input } = tool
    described.set(tool, told = { type: 'function', name, description, inputSchema: jsonSchemaOf(input) })
  }
  return told
}

/** The arguments that a model wrote, checked by the tool's schema. Rejects with AGENTS_TOOL_INPUT, which says what is wrong. */
export async function parseInput(tool: Tool, text: string): Promise<unknown> {
  let value: unknown
  try { value = JSON.parse(text.trim() === '' ? '{}' : text) } catch (error) { throw AgentErrors.TOOL_INPUT({ tool: tool.name, reason: `they are not JSON: ${reasonOf(error)}` }) }
  return checkInput(tool, value)
}

export async function checkInput(tool: Tool, value: unknown): Promise<unknown> {
  const { value: input, problems } = await check(tool.input, value, '')
  if (problems) throw AgentErrors.TOOL_INPUT({ tool: tool.name, reason: inWords(problems) })
  return input
}

function jsonOf(tool: string, value: unknown): string {
  const refuse = (cause?: unknown) => AgentErrors.TOOL_FAILED({ tool, reason: 'what it returned is neither text nor JSON' }, { cause })
  let text: string | undefined
  try { text = JSON.stringify(value ?? null) } catch (error) { throw refuse(error) }
  if (text === undefined) throw refuse()
  return text
}

/** Text stays text, everything else becomes JSON; what is longer than 64 KiB is cut, and says so. */
function boundedOutput(tool: string, value: unknown): LanguageModelV3ToolResultOutput {
  const text = typeof value === 'string' ? value : jsonOf(tool, value)
  const bytes = Buffer.byteLength(text)
  if (bytes <= MAX_OUTPUT) return typeof value === 'string' ? { type: 'text', value } : { type: 'json', value: JSON.parse(text) as JSONValue }
  const kept = new TextDecoder().decode(Buffer.from(text).subarray(0, MAX_OUTPUT), { stream: true })
  return { type: 'text', value: `${kept}\n[cut: ${bytes} bytes were returned, ${MAX_OUTPUT} are shown]` }
}

export const succeeded = (tool: string, value: unknown): ToolOutcome => ({ output: boundedOutput(tool, value) })
export const failed = (error: BackplaneError): ToolOutcome =>
  ({
    output: { type: 'error-text', value: error.message },
    error: { code: error.code, message: error.message, retryable: error.retryable, reason: String(error.details['reason'] ?? error.message) },
  })

/** Is it the call that failed, so that a model may be told and do better? All else ends the run. */
export const isOfCall = (error: unknown): error is BackplaneError =>
  AgentErrors.TOOL_INPUT.is(error) || AgentErrors.TOOL_FAILED.is(error) || AgentErrors.TOOL_TIMEOUT.is(error)

/** Runs a tool within its time, and not longer than its plugin is there. */
export async function runTool(
  deps: ToolDeps, owned: Contribution<Tool>, input: unknown, ctx: AgentContext, effect_key: string | undefined,
): Promise<unknown> {
  const { value: tool, plugin } = owned
  if (tool.permission) await checkAccess(deps.access, ctx.caller, tool.permission, { kind: 'tool', id: tool.name, project_id: ctx.project_id })
  ctx.signal.throwIfAborted()
  const stopper = new AbortController()
  const { timeout: ms = TIMEOUT_MS } = tool
  const { agent, caller, project_id, job_id } = ctx
  const given: ToolContext = {
    agent, caller, project_id, job_id, signal: stopper.signal, log: ctx.log.child({ tool: tool.name }),
    ...(effect_key !== undefined && { effect_key }),
  }
  let release = () => {}
  const ended = new Promise<never>((_, reject) => {
    const end = (error: unknown) => { stopper.abort(error); reject(error) }
    const aborted = () => end(ctx.signal.reason)
    const cancel = deps.clock.after(ms, () => end(AgentErrors.TOOL_TIMEOUT({ tool: tool.name, ms })))
    const hangUp = deps.registry.call(owned, end)
    ctx.signal.addEventListener('abort', aborted, { once: true })
    release = () => { cancel(); hangUp(); ctx.signal.removeEventListener('abort', aborted) }
  })
  try {
    const work = scope.run({ plugin }, async () => tool.run(input, given))
    // It may still fail after its time is up, when nobody listens.
    work.catch(() => {})
    return await Promise.race([work, ended])
  } catch (error) {
    if (stopper.signal.aborted) throw stopper.signal.reason
    ctx.log.warn('a tool failed', { tool: tool.name, err: error })
    throw AgentErrors.TOOL_FAILED.is(error) ? error : AgentErrors.TOOL_FAILED({ tool: tool.name, reason: told(error) }, { cause: error })
  } finally { release() }
}

/** Only what was written for callers reaches the model and the job: other errors hold paths and queries. */
function told(error: unknown): string {
  if (!(error instanceof BackplaneError)) return 'see the log'
  return error.expose ? maskSecrets(error.message).slice(0, 1_000) : `${error.code}, see the log`
}
