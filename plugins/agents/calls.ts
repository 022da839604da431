import { STATUS_CODES } from 'node:http'
import { CoreErrors, type Clock, type Live } from '#core'
import { onRefusal, type Caller } from '#contracts/access'
import type { Agent } from '#contracts/agents'
import { HttpErrors, type HttpAnswer, type HttpRequest, type Problem } from '#contracts/http'
import { JobErrors, Jobs, type Job, type JobRequest } from '#contracts/jobs'
import { checkAccess, DEFAULT_MODEL, type AgentRegistry } from './registry.ts'
import { RunStream } from './stream.ts'

export const MAX_WAIT_MS = 600_000
const SSE = { 'Content-Type': 'text/event-stream; charset=utf-8', 'Cache-Control': 'no-cache, no-transform', 'X-Accel-Buffering': 'no' }

type AgentRequest = JobRequest & { readonly agent: string }

/** Runs that somebody waits for over HTTP. */
export class AgentCalls {
  constructor(readonly jobs: Live<Jobs>, readonly registry: AgentRegistry, readonly clock: Clock, readonly recheckMs: number) {}

  async answer({ caller, headers, signal, id }: HttpRequest, request: AgentRequest): Promise<HttpAnswer> {
    const given = Object.fromEntries(Object.entries(request).filter(([, value]) => value !== undefined)) as AgentRequest
    const accepts = String(headers['accept'] ?? '').toLowerCase()
    return accepts.includes('text/event-stream') ? this.#stream(caller, given, signal) : this.#wait(caller, given, signal, id)
  }

  async #wait(caller: Caller, request: AgentRequest, signal: AbortSignal, requestId: string): Promise<HttpAnswer> {
    const job = await this.#jobs().run(caller, request, { signal: new Client(signal).gone })
    const headers = { Location: `/api/v1/jobs/${job.id}` }
    return job.status === 'completed' ? { headers, body: job } : { ...problemOf(job, requestId), headers: { ...headers, 'Content-Type': 'application/problem+json; charset=utf-8' } }
  }

  /** Answers as soon as the job exists, long before a model has spoken; what is refused before that is a problem answer. */
  async #stream(caller: Caller, request: AgentRequest, signal: AbortSignal): Promise<HttpAnswer> {
    const from = performance.now()
    const jobs = this.#jobs()
    const agent = this.registry.find(request.agent).value
    const client = new Client(signal)
    // Who is too slow hears no more, but the run goes on: leaving after that must not cancel it.
    const stream = new RunStream(this.clock, () => client.forget())
    let started = false
    const begun = new Promise<void>((resolve, reject) => {
      const onBegin = (job: Job) => {
        if (!started) {
          stream.start(job, agent.model ?? DEFAULT_MODEL)
          this.#watch(caller, agent, job, client, stream)
        }
        started = true
        resolve()
      }
      jobs.run(caller, request, { signal: client.gone, onBegin, onProgress: progress => stream.progress(progress) })
        .then(job => { onBegin(job); stream.end(job, Math.round(performance.now() - from)) })
        .catch(error => { stream.fail(error); reject(error) })
        .finally(() => client.forget())
    })
    await begun
    return { headers: SSE, stream }
  }

  /** Whoever may not have it run any more is told so, and it is cancelled: nobody who may waits for it. */
  #watch(caller: Caller, agent: Agent, { project_id }: Job, client: Client, stream: RunStream): void {
    const { registry, registry: { access } } = this
    const check = async (now: Caller) => {
      await checkAccess(access, now, 'agents:run', { kind: 'agent', id: agent.name, project_id })
      await registry.checkOwn(now, agent)
    }
    onRefusal(access, caller, { check, clock: this.clock, everyMs: this.recheckMs, signal: client.done }, why => {
      stream.fail(why)
      client.refuse(why)
    })
  }

  #jobs(): Jobs {
    if (!this.jobs.current) throw CoreErrors.Service.UNAVAILABLE({ service: Jobs.id })
    return this.jobs.current
  }
}

/**
 * Whoever waits. Once he went away, or his time is up, nobody wants the answer: `gone` cancels the run. Where it is this server or a plugin
 * that goes, the job is handed back and ends later or elsewhere; cancelling it would lose it.
 */
class Client {
  readonly #gone = new AbortController()
  readonly #done = new AbortController()
  readonly #signal: AbortSignal
  constructor(signal: AbortSignal) {
    this.#signal = signal
    if (signal.aborted) this.#left()
    signal.addEventListener('abort', this.#left, { once: true })
  }
  get gone(): AbortSignal { return this.#gone.signal }
  /** Aborts when nobody minds any more whether the client is there. */
  get done(): AbortSignal { return this.#done.signal }
  refuse(why: unknown): void { this.#gone.abort(why) }
  forget(): void {
    this.#signal.removeEventListener('abort', this.#left)
    this.#done.abort()
  }
  readonly #left = (): void => {
    const { reason } = this.#signal
    if (!HttpErrors.AWAY.is(reason) && !HttpErrors.STARTING.is(reason)) this.#gone.abort(reason)
  }
}

/** A run that did not end well, in the form of every error answer. */
function problemOf({ id, status: state, error }: Job, request_id: string): HttpAnswer {
  const { code, message, fix } = error ?? { code: JobErrors.FAILED.code, message: `the job is ${state}`, fix: undefined }
  const status = state === 'cancelled' ? 409 : code === JobErrors.TIMEOUT.code ? 504 : 502
  const body: Problem & { job_id: string } = {
    type: `urn:backplane:error:${code}`, title: STATUS_CODES[status]!, status, code, detail: message, fix: `${fix ? `${fix} ` : ''}See GET /api/v1/jobs/${id}.`, request_id, job_id: id,
  }
  return { status, body }
}
