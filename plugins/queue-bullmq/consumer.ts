import { reasonOf, type Clock, type Logger } from '#core'
import type { Tx } from '#contracts/database'
import type { Consumer, Deliver } from '#contracts/queue'
import type { RedisConnection } from '#contracts/redis'
import { Ahead, type Taking } from './ahead.ts'

/** How long one BZPOPMIN waits; whoever missed a bell looks after this. */
const BLOCK_S = 2
const RETRY = { first: 100, most: 1_000 }
/** Until it is put back what a transaction took that did not commit: long after most do, and long before the lock is over. */
const LENT_MS = 500
/** Most ids of one delivery. */
export const MOST = 200

/** What the queue does for its consumers. */
export interface Source extends Taking {
  /** They were delivered: they leave. */
  acknowledge(ids: readonly string[]): Promise<void>
  /** Where it rings when an id was added. */
  readonly bell: string
}

export interface ConsumerDeps {
  readonly source: Source
  readonly deliver: Deliver
  /** Of its own: whoever waits in Redis holds up everything else on the connection. */
  readonly connection: RedisConnection
  readonly clock: Clock
  readonly log: Logger
  readonly gone: () => void
}

/** Takes ids whenever there is room for them, and delivers them all at once. */
export class RedisConsumer implements Consumer {
  /** It waits for an id to be added. */
  empty = false
  #room = 0
  #asked = 0
  #failures = 0
  #closed: Promise<void> | undefined
  #wake = () => {}
  readonly #acknowledging = new Set<Promise<void>>()
  readonly #ahead: Ahead
  readonly #running: Promise<void>

  constructor(readonly deps: ConsumerDeps) {
    this.#ahead = new Ahead(deps.source, deps.clock, MOST)
    this.#running = this.#run()
  }

  want(count: number): void {
    this.#asked++
    this.#room = Math.max(0, Math.trunc(count))
    if (this.#room && !this.#failures) this.#wake()
  }

  /** Should `tx` be rolled back, of which nobody tells, they go back soon. If it is only slow, they are refused when they come again. */
  async take(count: number, tx: Tx): Promise<readonly string[]> {
    const { clock, source } = this.deps
    const ids = this.#closed ? [] : this.#ahead.atHand(count)
    if (!ids.length) return ids
    const cancel = clock.after(LENT_MS, () => void source.putBack(ids).catch(() => {}))
    tx.afterCommit(() => { cancel(); this.#acknowledge(ids) })
    return ids
  }

  [Symbol.asyncDispose](): Promise<void> { return (this.#closed ??= this.#close()) }

  async #close(): Promise<void> {
    this.#wake()
    // It ends what waits in Redis.
    await this.deps.connection[Symbol.asyncDispose]()
    await this.#running
    await this.#ahead.close()
    await Promise.all(this.#acknowledging)
    this.deps.gone()
  }

  async #run(): Promise<void> {
    while (!this.#closed) {
      try {
        if (this.#room && !await this.#deliverSome()) await this.#ring()
        this.#failures = 0
        // After that: want() wakes nobody who waits to try again.
        if (!this.#room) await this.#sleep()
      } catch (error) {
        if (this.#closed) return
        const retry_ms = Math.min(RETRY.first * 2 ** this.#failures++, RETRY.most)
        // Of an outage of Redis the connection tells; of all else, once.
        const level = this.deps.connection.ready && this.#failures === 1 ? 'warn' : 'debug'
        this.deps.log[level]('a delivery failed and is tried again', { reason: reasonOf(error), retry_ms })
        await this.#sleep(retry_ms)
      }
    }
  }

  async #deliverSome(): Promise<boolean> {
    const { source, deliver } = this.deps
    const taken = await this.#ahead.take(this.#room)
    // Fewer may be wanted by now, or none.
    const ids = taken.slice(0, this.#closed ? 0 : this.#room)
    if (ids.length < taken.length) await source.putBack(taken.slice(ids.length)).catch(() => {})
    if (!ids.length) return taken.length > 0
    const [room, asked] = [this.#room, this.#asked]
    this.#room -= ids.length
    try { await deliver(ids) } catch (error) {
      if (this.#asked === asked) this.#room = room
      await source.putBack(ids).catch(() => {})
      throw error
    }
    this.#acknowledge(ids)
    return true
  }

  /** The next ones need not wait for it; should it fail, they come again when their lock is over, and `jobs` refuses them. */
  #acknowledge(ids: readonly string[]): void {
    const done = this.deps.source.acknowledge(ids).catch(() => {}).finally(() => this.#acknowledging.delete(done))
    this.#acknowledging.add(done)
  }

  /** Until an id is added, for a while. */
  async #ring(): Promise<void> {
    const { connection: { client }, clock, source } = this.deps
    if (this.#closed) return
    // A peer that is gone without a word answers never.
    const cancel = clock.after((BLOCK_S + 2) * 1_000, () => client.disconnect(true))
    this.empty = true
    try { await client.bzpopmin(source.bell, BLOCK_S) } finally { this.empty = false; cancel() }
    // The bell rings for one consumer: if this one can take nothing now, another may.
    if (!this.#room && !this.#closed) await client.zadd(source.bell, 0, '0')
  }

  async #sleep(ms?: number): Promise<void> {
    if (this.#closed) return
    await new Promise<void>(resolve => {
      const cancel = ms === undefined ? () => {} : this.deps.clock.after(ms, resolve)
      this.#wake = () => { cancel(); resolve() }
    })
    this.#wake = () => {}
  }
}
