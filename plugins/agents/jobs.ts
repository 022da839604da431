import { z } from 'zod'
import type { Caller } from '#contracts/access'
import type { AgentAnswer, AgentContext } from '#contracts/agents'
import { JobErrors, type JobContext, type JobType } from '#contracts/jobs'
import { answer, type Counter, type LoopDeps } from './loop.ts'

const TIMEOUT_MS = 300_000
const MAX_INPUT = 64 * 1024

const input = z.strictObject({
  agent: z.string().min(1).max(64),
  input: z.string().min(1).refine(text => Buffer.byteLength(text) <= MAX_INPUT, `may have at most ${MAX_INPUT} bytes`),
})
export type AgentInput = z.output<typeof input>

/** Counts as step() does, of which it is a copy: an effect key must be known before its step runs. */
function counter(): Counter {
  const counts = new Map<string, number>()
  return name => {
    const next = (counts.get(name) ?? 0) + 1
    counts.set(name, next)
    return next
  }
}

/** A run of an agent. */
export const agentJob = (deps: LoopDeps): JobType<AgentInput, AgentAnswer> => ({
  type: 'agent',
  summary: 'Lets an agent answer, with the model and the tools that it has',
  input,
  permission: 'agents:run',
  async admit(caller: Caller, request) {
    await deps.registry.admit(caller, (request.input as AgentInput).agent)
  },
  async run(job: JobContext<AgentInput>) {
    const { agent: name, input: text } = job.input
    const agent = await deps.registry.admit(job.caller, name)
    const stopper = new AbortController()
    const { timeout: ms = TIMEOUT_MS } = agent
    const aborted = () => stopper.abort(job.signal.reason)
    if (job.signal.aborted) aborted()
    job.signal.addEventListener('abort', aborted, { once: true })
    const cancel = deps.clock.after(ms, () => stopper.abort(JobErrors.TIMEOUT({ ms })))
    const uses = counter()
    const ctx: AgentContext = {
      agent: name, caller: job.caller, project_id: job.job.project_id, job_id: job.job.id,
      signal: stopper.signal, log: job.log.child({ agent: name }),
      step: (step, run) => job.step(step, run),
      emit: progress => job.emit(progress),
      answer: request => answer(deps, ctx, uses, request),
    }
    const { model, instructions, tools, max_steps } = agent
    try {
      return agent.run ? await agent.run(ctx, text) : await ctx.answer({ input: text, model, instructions, tools, max_steps })
    } catch (error) {
      // What was aborted says so in its own way; why it was is what the job is about.
      throw stopper.signal.aborted ? stopper.signal.reason : error
    } finally {
      cancel()
      job.signal.removeEventListener('abort', aborted)
    }
  },
})
