import { CoreErrors, type Clock } from '#core'
import type { Caller } from '#contracts/access'
import { EventErrors, type EventLog, type LoggedEvent } from '#contracts/events'
import { JobUpdateErrors, JobUpdates, type JobUpdate } from '#contracts/job-updates'
import type { Job, JobError, JobStatus } from '#contracts/jobs'
import { isFinal } from '../tables/machine.ts'
import type { ProgressLog } from './progress.ts'
import { toJob } from '../tables/record.ts'
import type { JobStore } from '../tables/store.ts'

const PAGE = 100
const POLL_MS = 250

export interface FollowerDeps {
  readonly store: Pick<JobStore, 'read'>
  readonly clock: Clock
  readonly events: () => EventLog | undefined
  /** Of the attempt that runs here, if one does. */
  readonly progress: (id: string) => ProgressLog | undefined
  /** The job, if the caller may see it. */
  readonly get: (caller: Caller, id: string) => Promise<Job>
}

/** Where a reader stands: after an event, and after so many characters of what the attempt says. */
interface Place { readonly seq: number; readonly characters: number }

export function placeOf(cursor: string): Place {
  const found = /^(0|[1-9]\d{0,14})(?:\.(0|[1-9]\d{0,14}))?$/.exec(cursor || '0')
  if (!found) throw JobUpdateErrors.CURSOR_INVALID({ cursor: cursor.slice(0, 40) })
  return { seq: Number(found[1]), characters: Number(found[2] ?? 0) }
}

/** Tells what happens to a job: from the event log, and what is said here and now before it is logged. */
export class JobFollower implements JobUpdates {
  readonly #readers = new Set<AbortController>()
  #closed = false

  constructor(readonly deps: FollowerDeps) {}

  async *follow(caller: Caller, id: string, { after = '', signal }: Parameters<JobUpdates['follow']>[2]): AsyncGenerator<JobUpdate, void> {
    const place = placeOf(after)
    const job = await this.deps.get(caller, id)
    if (place.seq > job.seq) throw JobUpdateErrors.CURSOR_INVALID({ cursor: after })
    // Whoever is told that it is over must not take the end of this process for the end of the job.
    if (!(yield* this.watch(job, place, signal)) && !signal.aborted) throw CoreErrors.Service.UNAVAILABLE({ service: JobUpdates.id })
  }

  /** As follow(), for those who asked already: every update after that place. Returns whether that was all. */
  async *watch(job: Job, place: Place, signal: AbortSignal): AsyncGenerator<JobUpdate, boolean> {
    const reader = new Reader(job, place)
    const stop = new AbortController()
    const end = () => stop.abort()
    if (signal.aborted || this.#closed) return false
    signal.addEventListener('abort', end, { once: true })
    this.#readers.add(stop)
    try {
      while (!reader.over && !stop.signal.aborted) {
        const log = this.deps.events()
        yield* log ? this.#fromLog(log, reader, stop.signal) : this.#fromRow(reader, stop.signal)
      }
      return reader.over
    } finally {
      end()
      signal.removeEventListener('abort', end)
      this.#readers.delete(stop)
    }
  }

  close(): void {
    this.#closed = true
    for (const stop of this.#readers) stop.abort()
  }

  /** Until the final update, the signal, or the end of the log: then from another, or from the row. */
  async *#fromLog(log: EventLog, reader: Reader, signal: AbortSignal): AsyncGenerator<JobUpdate, void> {
    const mine = new AbortController()
    const end = () => { mine.abort(); bell.ring() }
    const bell = new Bell()
    signal.addEventListener('abort', end, { once: true })
    // Before the log is read: what is written in between must be in one of the two.
    const tail = log.tail([`job:${reader.id}`], mine.signal)[Symbol.asyncIterator]()
    let listening: { readonly to: ProgressLog; stop(): void } | undefined
    try {
      yield* this.#past(log, reader)
      let arrived = pull(tail, bell)
      while (!reader.over && !signal.aborted) {
        if (arrived.error !== undefined) {
          if (!EventErrors.BEHIND.is(arrived.error)) throw arrived.error
          return
        }
        if (arrived.result) {
          const { done, value } = arrived.result
          if (done) return
          arrived = pull(tail, bell)
          const update = reader.take(value)
          if (update) yield update
          continue
        }
        const progress = this.deps.progress(reader.id)
        if (progress !== listening?.to) {
          listening?.stop()
          listening = progress && { to: progress, stop: progress.listen(() => bell.ring()) }
        }
        const said = progress && reader.live(progress, this.deps.clock.now())
        if (said) yield said
        else await bell.rung()
      }
    } finally {
      signal.removeEventListener('abort', end)
      listening?.stop()
      mine.abort()
    }
  }

  /** What the log has; where it lacks something, the job as it is now. */
  async *#past(log: EventLog, reader: Reader): AsyncGenerator<JobUpdate, void> {
    for (;;) {
      const { events, gap } = await log.read(`job:${reader.id}`, reader.seq, PAGE)
      if (gap && (yield* this.#now(reader))) continue
      for (const event of events) {
        const update = reader.take(event)
        if (update) yield update
        if (reader.over) return
      }
      if (events.length < PAGE) break
    }
    // It ran while there was no log.
    if (reader.seq < reader.known) yield* this.#now(reader)
  }

  async *#fromRow(reader: Reader, signal: AbortSignal): AsyncGenerator<JobUpdate, void> {
    yield* this.#now(reader)
    if (!reader.over) await pause(this.deps.clock, POLL_MS, signal)
  }

  /** The job as it is, if that is news. */
  async *#now(reader: Reader): AsyncGenerator<JobUpdate, boolean> {
    const row = await this.deps.store.read(reader.id)
    if (!row) reader.over = true
    if (!row || row.seq <= reader.seq) return false
    yield reader.jump(toJob(row), this.deps.clock.now())
    return true
  }
}

/** Resolves after that time, or at once when the signal aborts. */
export function pause(clock: Clock, ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise(resolve => {
    const end = () => { cancel(); signal?.removeEventListener('abort', end); resolve() }
    const cancel = clock.after(ms, end)
    signal?.addEventListener('abort', end)
    if (signal?.aborted) end()
  })
}

/** Wakes one who waits; a ring before that is not forgotten. */
class Bell {
  #rung = false
  #wake = () => {}
  readonly ring = (): void => { this.#rung = true; this.#wake() }
  async rung(): Promise<void> {
    if (!this.#rung) await new Promise<void>(resolve => { this.#wake = resolve })
    this.#rung = false
  }
}

interface Arrival { result?: IteratorResult<LoggedEvent>; error?: unknown }
/** Asks for the next event, and rings when it is there. */
function pull(tail: AsyncIterator<LoggedEvent>, bell: Bell): Arrival {
  const arrival: Arrival = {}
  tail.next().then(result => { arrival.result = result }, error => { arrival.error = error }).finally(bell.ring)
  return arrival
}

interface EventData {
  readonly status: JobStatus
  readonly attempt: number
  readonly error?: JobError | null
  readonly result?: unknown
  readonly [field: string]: unknown
}

/** What one follower has seen, and what a thing is to it: an update, a part of one, or nothing new. */
class Reader {
  readonly id: string
  readonly project_id: string
  seq: number
  /** Of the text of the attempt. */
  characters: number
  over: boolean
  /** The job is at least there: what ended it before that did not end it for good. */
  known: number

  constructor(job: Job, place: Place) {
    this.id = job.id
    this.project_id = job.project_id
    this.seq = place.seq
    this.characters = place.characters
    this.known = job.seq
    this.over = isFinal(job.status) && place.seq >= job.seq
  }

  take({ seq = 0, type, at, data }: LoggedEvent): JobUpdate | undefined {
    if (seq <= this.seq) return undefined
    this.seq = seq
    const { id: _id, type: _type, status, attempt, error, result, ...rest } = data as EventData
    const fields = type === 'job.token' ? this.#unseen(rest as { offset: number; content: string }) : rest
    if (!fields) return undefined
    if (type === 'job.started') this.characters = 0
    const final = isFinal(status) && seq >= this.known
    if (final) this.over = true
    return {
      ...fields, cursor: String(seq), type: type.replace(/^job\./, ''), job_id: this.id, project_id: this.project_id, status, final, seq, attempt,
      timestamp: new Date(at).toISOString(), ...(status === 'completed' && result !== undefined && { result }), ...(error && { error }),
    }
  }

  /** What was said and is not logged, if all that is logged was seen. */
  live(progress: ProgressLog, now: number): JobUpdate | undefined {
    if (progress.seq !== this.seq) return undefined
    const said = progress.after(Math.max(this.characters, progress.logged))
    if (!said) return undefined
    const { offset, content } = said
    this.characters = offset + content.length
    return {
      cursor: `${this.seq}.${this.characters}`, type: 'token', job_id: this.id, project_id: this.project_id, status: 'running', final: false,
      seq: this.seq, attempt: progress.row.attempt, timestamp: new Date(now).toISOString(), offset, content,
    }
  }

  jump(job: Job, now: number): JobUpdate {
    this.seq = job.seq
    this.characters = 0
    this.over = isFinal(job.status)
    return {
      cursor: String(job.seq), type: 'gap', job_id: job.id, project_id: job.project_id, status: job.status, final: this.over,
      seq: job.seq, attempt: job.attempt, timestamp: new Date(now).toISOString(), job,
    }
  }

  #unseen({ offset, content }: { offset: number; content: string }): { offset: number; content: string } | undefined {
    const seen = Math.max(0, this.characters - offset)
    if (seen >= content.length) return undefined
    this.characters = offset + content.length
    return { offset: offset + seen, content: content.slice(seen) }
  }
}
