import { defineService } from '#core'
import type { Tx } from '#contracts/database'

/** What an engine is told of a job. */
export interface QueueEntry {
  readonly id: string
  /** 0 to 9; the highest goes first, older before newer within it. */
  readonly priority: number
}

/** Takes ids off the queue: `jobs` claims or refuses each of them inside, in `tx` if it is given one. What it throws is delivered again. */
export type Deliver = (ids: readonly string[], tx?: Tx) => Promise<void>

export interface Consumer extends AsyncDisposable {
  /** When it looked, no more than a second ago, there was nothing more, whoever adds some: a place given away past it is kept from nobody. */
  readonly empty: boolean
  /** How many ids may be delivered now; raised as work finishes. Zero pauses. */
  want(count: number): void
  /**
   * Up to so many ids, beside those that are wanted, for who claims or refuses them in `tx` with other work of its own: they leave with `tx`, and
   * are delivered again if it is rolled back. None where it would have to wait for them.
   */
  take(count: number, tx: Tx): Promise<readonly string[]>
}

/**
 * Carries job ids to workers: at least once, in order of priority and time, and nothing more. It holds no lease, attempt,
 * schedule or retry: all of that is `jobs`'s, whose table is the truth.
 */
export interface JobQueue {
  readonly can: {
    /** Enqueues inside the caller's transaction. Without it, `jobs` writes an outbox. */
    readonly transactional: boolean
    /** Reaches workers on other machines. */
    readonly distributed: boolean
  }
  /** An id that is there already stays one; a higher priority raises it. */
  enqueue(entries: readonly QueueEntry[], tx?: Tx): Promise<void>
  consume(deliver: Deliver): Promise<Consumer>
  /** Ids that are not there are passed over. */
  remove(ids: readonly string[], tx?: Tx): Promise<void>
  /** Tells that it may have lost ids which it was given, where it sees that; what it does not see `jobs` finds in time. Ends with what it returns. */
  onLoss?(listener: () => void): () => void
  depth(): Promise<number>
}
export const JobQueue = defineService<JobQueue>('queue.queue')
