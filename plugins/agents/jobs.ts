import { z } from 'zod'
import { BackplaneError } from '#core'
import type { Caller } from '#contracts/access'
import { AgentErrors, type Agent, type AgentAnswer } from '#contracts/agents'
import { JobErrors, type JobContext, type JobType } from '#contracts/jobs'
import type { LoopDeps } from './loop.ts'
import { beginRun, work } from './run.ts'
import { check, inWords } from './schema.ts'

const TIMEOUT_MS = 300_000
const MAX_TEXT = 64 * 1024

const text = z.string().min(1).refine(each => Buffer.byteLength(each) <= MAX_TEXT, `may have at most ${MAX_TEXT} bytes`)
const input = z.strictObject({ agent: z.string().min(1).max(64), input: z.unknown() })
export type AgentInput = z.output<typeof input>

/** What the agent takes: a text, or what its schema says. */
async function checkInput({ name, input: schema = text }: Agent, given: unknown): Promise<unknown> {
  const { value, problems } = await check(schema, given, 'input')
  if (problems) throw AgentErrors.INPUT({ agent: name, reason: inWords(problems), errors: problems })
  return value
}

/** Ends of a run that say nothing about the agent. */
const NO_FAILURE = [JobErrors.WAITING, JobErrors.CANCELLED, JobErrors.INTERRUPTED, JobErrors.LEASE_LOST]

/** A run of an agent. */
export const agentJob = (deps: LoopDeps): JobType<AgentInput, AgentAnswer> => ({
  type: 'agent',
  summary: 'Lets an agent answer, with the model and the tools that it has',
  input,
  permission: 'agents:run',
  async admit(caller: Caller, request) {
    const { agent, input: given } = request.input as AgentInput
    await checkInput((await deps.registry.admit(caller, agent)).value, given)
  },
  async run(job: JobContext<AgentInput>) {
    const owned = await deps.registry.admit(job.caller, job.input.agent)
    const { value: agent } = owned
    const given = await checkInput(agent, job.input.input)
    const stopper = new AbortController()
    const { signal } = stopper
    const { timeout: ms = TIMEOUT_MS } = agent
    const aborted = () => stopper.abort(job.signal.reason)
    const stopped = new Promise<never>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }))
    stopped.catch(() => {})
    const cancel = deps.clock.after(ms, () => stopper.abort(JobErrors.TIMEOUT({ ms })))
    const end = deps.registry.begin(owned, error => stopper.abort(error))
    if (job.signal.aborted) aborted()
    job.signal.addEventListener('abort', aborted, { once: true })
    const { attempt, max_attempts } = job.job
    if (attempt > 1) job.emit({ type: 'progress', message: `attempt ${attempt} of ${max_attempts}: what was said since the last finished step is said again` })
    try {
      const answered = await Promise.race([stopped, work(deps, beginRun(deps, job, agent, signal), owned, given)])
      end(false)
      return answered
    } catch (cause) {
      // What was aborted says so in its own way; why it was is what the job is about.
      const error = signal.aborted ? signal.reason : cause
      end(!NO_FAILURE.some(each => each.is(error)) && !(error instanceof BackplaneError && error.away))
      throw error
    } finally {
      cancel()
      job.signal.removeEventListener('abort', aborted)
      // Ends what its code left behind.
      stopper.abort(JobErrors.CANCELLED())
    }
  },
})
