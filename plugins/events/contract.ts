import { defineErrors, defineService } from '#core'
import type { Tx } from '#contracts/database'

/** `job:<id>`, `project:<id>`, `agent:<name>`, or an area such as `alerts`. */
export type Topic = string

export interface NewEvent {
  /** What happened, in the past tense: `job.completed`. */
  readonly type: string
  readonly topics: readonly Topic[]
  readonly project_id: string
  readonly created_by: string
  readonly job_id?: string
  /** Counts within the job, taken from the job's row in the UPDATE that changes it. With job_id only. */
  readonly seq?: number
  /** Plain data, at most 64 KiB as JSON. */
  readonly data: unknown
}
export interface LoggedEvent extends NewEvent {
  /** Increasing over the whole log, not dense. */
  readonly position: number
  readonly at: number
}

/** Where a reader stands in a topic: `seq` of a job's topic, `position` of any other. */
export type Cursor = number

export interface Reading {
  readonly events: readonly LoggedEvent[]
  readonly next: Cursor
  /** The window has passed this cursor by: some events are gone, so show the current state instead. */
  readonly gap: boolean
}

/** What happened, kept in the database for a time (by count and age) and carried sooner by whatever is loaded. */
export interface EventLog {
  /**
   * Inside the transaction that makes it true. The topic `job:<id>` takes only events of that job, with `seq`, once each. Rejects with
   * EVENTS_TOO_LARGE, EVENTS_INVALID.
   */
  append(tx: Tx, events: readonly NewEvent[]): Promise<void>
  /** Events of one topic after a cursor, oldest first; 100 of them, at most 1,000. The first cursor is 0. */
  read(topic: Topic, after: Cursor, limit?: number): Promise<Reading>
  /**
   * Every event of these topics from now on, in order, once; ends with the signal, when the log leaves, and when the database comes that was away at
   * the start: then begin again. Those of the last moments before may be among them, so call it first and `read()` after it, and nothing is missed.
   * Throws EVENTS_BEHIND at a reader so slow that the window passed it by.
   */
  tail(topics: readonly Topic[], signal: AbortSignal): AsyncIterable<LoggedEvent>
  /**
   * At least once, in order, on one instance at a time: the cursor is stored under `name` after each batch. A batch that fails is given again after
   * a pause. A name that is new begins with what comes after this resolves; if the database is away then, as soon as it is there. For what must
   * survive a kill or reach another process; a hook does neither.
   */
  consume(name: string, handle: (events: readonly LoggedEvent[]) => Promise<void>, options?: { readonly types?: readonly string[] }): Promise<AsyncDisposable>
}
export const EventLog = defineService<EventLog>('events.log')

export const EventErrors = defineErrors('EVENTS', {
  TOO_LARGE: { message: 'the data of event "{type}" has {bytes} bytes, more than {limit}', fix: 'Store it elsewhere and put its id into the event.' },
  INVALID: { message: 'the event log refuses this: {reason}', fix: 'Correct the event, the topic or the cursor.', status: 400 },
  BEHIND: { message: 'this reader is so slow that events which it had not read were removed', fix: 'Show the current state, then tail again.', status: 503, retryable: true },
  CONSUMER_TAKEN: { message: 'this process consumes as "{name}" already', fix: 'Give the second consumer another name.' },
})
