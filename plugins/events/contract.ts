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
  /** Inside the transaction that makes it true. */
  append(tx: Tx, events: readonly NewEvent[]): Promise<void>
  /** Events of one topic after a cursor, oldest first. */
  read(topic: Topic, after: Cursor, limit?: number): Promise<Reading>
  /** Every event of these topics from now on, in order, once; ends with the signal. */
  tail(topics: readonly Topic[], signal: AbortSignal): AsyncIterable<LoggedEvent>
  /**
   * At least once, in order, on one instance at a time: the cursor is stored under `name` after each batch.
   * For what must survive a kill or reach another process; a hook does neither.
   */
  consume(name: string, handle: (events: readonly LoggedEvent[]) => Promise<void>, options?: { readonly types?: readonly string[] }): Promise<AsyncDisposable>
}
export const EventLog = defineService<EventLog>('events.log')

export const EventErrors = defineErrors('EVENTS', {
  TOO_LARGE: { message: 'the data of event "{type}" has {bytes} bytes, more than {limit}', fix: 'Store it elsewhere and put its id into the event.' },
  CONSUMER_TAKEN: { message: 'this process consumes as "{name}" already', fix: 'Give the second consumer another name.' },
})
