import type { Clock } from '#core'
import { JobErrors } from '#contracts/jobs'
import type { JobQueries } from '../tables/queries.ts'

/** After a count that found no room, whoever comes is turned away so long without another. */
const REFUSE_MS = 100
/** A count is good for so long: other processes add and take away as well. */
const FRESH_MS = 5_000
const RETRY_AFTER_S = 2

/**
 * Keeps the number of waiting jobs below its limit without counting them for each: a count allows this process a part of the room that is left,
 * so that it counts seldom when there is much of it, and each time at the end. The rest is for the other processes.
 */
export class Backlog {
  #allowed = 0
  #countedAt = -Infinity
  #queued = 0
  readonly #adding = new Set<Promise<unknown>>()
  #counting: Promise<void> | undefined

  constructor(readonly queries: JobQueries, readonly clock: Clock, readonly limit: number) {}

  /** Does `work`, which adds so many; rejects with JOBS_QUEUE_FULL if there is no room for them. */
  async add<T>(count: number, work: () => Promise<T>): Promise<T> {
    let adding!: Promise<T>
    // In the same turn: whoever counts next must know of it.
    await this.#enter(count, () => { this.#adding.add(adding = work()) })
    try { return await adding } finally { this.#adding.delete(adding) }
  }

  admit(count: number): Promise<void> { return this.#enter(count, () => {}) }

  async #enter(count: number, begin: () => void): Promise<void> {
    while (this.#allowed < count || this.#age > FRESH_MS) {
      if (this.#queued >= this.limit && this.#age < REFUSE_MS) throw this.#full()
      await (this.#counting ??= this.#count(count).finally(() => { this.#counting = undefined }))
      if (this.#queued + count > this.limit) throw this.#full()
    }
    this.#allowed -= count
    begin()
  }

  get #age(): number {
    const age = this.clock.now() - this.#countedAt
    // The clock was set back: nobody knows how old it is.
    return age < 0 ? Infinity : age
  }

  async #count(count: number): Promise<void> {
    this.#allowed = 0
    // What is being written now must be in the count.
    await Promise.allSettled(this.#adding)
    this.#queued = await this.queries.waiting(this.limit + 1)
    const room = this.limit - this.#queued
    this.#allowed = room < count ? 0 : Math.max(count, Math.ceil(room / 4))
    this.#countedAt = this.clock.now()
  }

  #full(): Error { return JobErrors.QUEUE_FULL({ queued: Math.min(this.#queued, this.limit), limit: this.limit, retry_after: RETRY_AFTER_S }) }
}
