import { BackplaneError, reasonOf, type Clock } from '#core'
import { AgentErrors, type AgentAnswer } from '#contracts/agents'
import { JobErrors, type Job, type JobError, type JobProgress } from '#contracts/jobs'

/** Bytes that may wait for a client that reads slowly. */
export const MAX_WAITING = 1024 * 1024
const HEARTBEAT_MS = 15_000

export type FrameType = 'start' | 'token' | 'tool_start' | 'tool_end' | 'metadata' | 'done' | 'error'

/** The frames of one run, as server-sent events: `start` first, one of `done` and `error` last. */
export class RunStream implements AsyncIterable<string> {
  readonly #dropped: () => void
  readonly #silence: () => void
  #waiting: string[] = []
  #bytes = 0
  #seq = 0
  #job = ''
  #over = false
  #wake = () => {}

  /** `dropped`: the client was too slow, and hears no more of the run. */
  constructor(clock: Clock, dropped: () => void) {
    this.#dropped = dropped
    // Not a timer for each wait: there is one for each word.
    this.#silence = clock.every(HEARTBEAT_MS, () => { if (!this.#waiting.length) this.#add(': still there\n\n') })
  }

  start(job: Job, model: string): void {
    this.#job = job.id
    this.#send('start', { job_id: job.id, agent: job.agent, model })
  }

  progress({ type, ...fields }: JobProgress): void { this.#send(type === 'progress' ? 'metadata' : type, fields) }

  end(job: Job, duration_ms: number): void {
    const { result, status, error } = job
    if (status === 'completed') {
      const { text, usage, model, output } = result as AgentAnswer
      this.#last('done', { text, ...(output !== undefined && { output }), usage, model, duration_ms })
    } else this.#last('error', { status, ...(error ?? errorOf(status === 'cancelled' ? JobErrors.CANCELLED() : undefined)), duration_ms })
  }

  fail(error: unknown): void { this.#last('error', errorOf(error)) }

  #last(type: 'done' | 'error', fields: object): void {
    if (this.#over) return
    this.#send(type, { job_id: this.#job, ...fields }, true)
    this.#close()
  }

  #close(): void {
    this.#over = true
    this.#silence()
    this.#wake()
  }

  #send(type: FrameType, fields: object, whatever = false): void {
    if (this.#over) return
    const frame = `data: ${JSON.stringify({ seq: ++this.#seq, type, ...fields })}\n\n`
    if (!whatever && this.#bytes + frame.length > MAX_WAITING) {
      // What waits is let go of: a client that stands still would hold it until its connection ends.
      const error = AgentErrors.STREAM_SLOW({ bytes: this.#bytes, job_id: this.#job })
      this.#waiting = []
      this.#last('error', errorOf(error))
      this.#dropped()
      return
    }
    this.#add(frame)
  }

  #add(frame: string): void {
    this.#bytes += frame.length
    this.#waiting.push(frame)
    this.#wake()
  }

  [Symbol.asyncIterator](): AsyncIterator<string, undefined> {
    return {
      next: async () => {
        if (!this.#waiting.length && !this.#over) await new Promise<void>(resolve => { this.#wake = resolve })
        if (!this.#waiting.length) return { done: true, value: undefined }
        const value = this.#waiting.join('')
        this.#waiting = []
        this.#bytes = 0
        return { done: false, value }
      },
      return: async () => { this.#close(); return { done: true, value: undefined } },
    }
  }
}

function errorOf(error: unknown): JobError {
  if (error instanceof BackplaneError && error.expose) {
    const { code, fix, retryable } = error
    return { code, message: reasonOf(error), fix, retryable }
  }
  return { code: 'JOBS_FAILED', message: 'the run failed; the server\'s log has the reason', fix: 'Look there for when it failed.', retryable: false }
}
