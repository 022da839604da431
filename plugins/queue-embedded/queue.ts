import { BackplaneError, reasonOf, type Clock, type Logger } from '#core'
import type { Database, ManyStatement, Statement, Tx } from '#contracts/database'
import type { Consumer, Deliver, JobQueue, QueueEntry } from '#contracts/queue'

const POLL_MS = 1_000
const RETRY = { first: 100, most: 5_000 }
/** Entries of one delivery: the event loop stands still while they are claimed. */
const MOST = 100

/** Delivers as many entries as there is room for when its turn comes; says how many as soon as it knows, and again when they are off the table. */
type Deliveries = (room: () => number, begun: (count: number) => void) => Promise<number>
/** Takes so many off the table, in their order. */
type Take = (count: number, tx: Tx) => Promise<readonly string[]>

/** Takes entries off the table whenever there is room for them: told by those who add some, else once a second. */
class TableConsumer implements Consumer {
  #room = 0
  #asked = 0
  #looking: Promise<void> | undefined
  #again = false
  #closed = false
  #retryMs = 0
  #failures = 0
  /** The last who looked found as many as there was room for, or some were added since. */
  #more = false
  #noticed = 0
  #lookedAt = -Infinity
  #cancelRetry = () => {}
  readonly #cancelPoll: () => void

  constructor(readonly clock: Clock, readonly log: Logger, readonly deliver: Deliveries, readonly takeSome: Take, readonly gone: () => void) {
    // Only for entries that another process added: it can't wake us.
    this.#cancelPoll = clock.every(POLL_MS, () => this.look())
  }

  // Without room nobody looks, and what other processes add tells nobody here.
  get empty(): boolean {
    const age = this.clock.now() - this.#lookedAt
    return !this.#more && age >= 0 && age < POLL_MS
  }

  want(count: number): void {
    this.#asked++
    this.#room = Math.max(0, Math.trunc(count))
    if (this.#room) this.look()
  }

  async take(count: number, tx: Tx): Promise<readonly string[]> {
    const room = Math.min(count, MOST)
    if (this.#closed || !this.#more || room < 1) return []
    this.#more = false
    const ids = await this.takeSome(room, tx)
    if (ids.length === room) this.#more = true
    return ids
  }

  /** Some were added. */
  notice(): void {
    this.#noticed++
    this.#more = true
    this.look()
  }

  look(): void {
    if (this.#closed || !this.#room || this.#retryMs) return
    this.#again = true
    this.#looking ??= this.#loop()
  }

  async #loop(): Promise<void> {
    while (this.#again && this.#room && !this.#closed) {
      this.#again = false
      let [room, asked] = [this.#room, this.#asked]
      const noticed = this.#noticed
      const from = this.clock.now()
      try {
        const count = await this.deliver(
          () => { [room, asked] = [this.#room, this.#asked]; return Math.min(room, MOST) },
          begun => { this.#room -= Math.min(begun, this.#room) },
        )
        if (count) this.#again = true
        if (count === Math.min(room, MOST)) this.#more = true
        else if (noticed === this.#noticed) [this.#more, this.#lookedAt] = [false, from]
        this.#cancelRetry()
      } catch (error) {
        if (this.#asked === asked) this.#room = room
        this.#retry(error)
        break
      }
    }
    this.#looking = undefined
  }

  #retry(error: unknown): void {
    if (this.#closed) return
    this.#retryMs = Math.min(RETRY.first * 2 ** this.#failures++, RETRY.most)
    // Of an outage it is enough to hear once.
    const away = error instanceof BackplaneError && error.retryable
    const level = away && this.#failures > 1 ? 'debug' : 'warn'
    this.log[level]('a delivery failed and is tried again', { ...(away ? { reason: reasonOf(error) } : { err: error }), retry_ms: this.#retryMs })
    const cancel = this.clock.after(this.#retryMs, () => { this.#retryMs = 0; this.look() })
    this.#cancelRetry = () => { this.#failures = 0; cancel() }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    this.#cancelPoll()
    this.#cancelRetry()
    this.gone()
    await this.#looking
  }
}

interface Entry extends QueueEntry { readonly position: number }

/** The queue as a table: an entry and what it stands for are written, and taken, in one transaction. */
export class EmbeddedQueue implements JobQueue {
  readonly can = { transactional: true, distributed: false }
  readonly #consumers = new Set<TableConsumer>()
  readonly #insert: ManyStatement
  readonly #take: Statement<Entry>
  readonly #delete: ManyStatement
  readonly #count: Statement<{ count: number }>
  readonly #any: Statement

  constructor(readonly database: Database, readonly clock: Clock, readonly log: Logger) {
    this.#insert = database.prepareMany(
      `INSERT INTO queue_entries (id, priority) VALUES :rows
       ON CONFLICT (id) DO UPDATE SET priority = excluded.priority WHERE excluded.priority > queue_entries.priority`, ['text', 'bigint'])
    const head = 'SELECT position FROM queue_entries ORDER BY priority DESC, position'
    // An array: as a plain IN, PostgreSQL may run the inner part more than once, and take more than the limit. A limit that it sees it would plan for
    // each time.
    const chosen = database.dialect === 'postgres' ? `= ANY(ARRAY(${head} LIMIT (SELECT CAST(? AS bigint)) FOR UPDATE SKIP LOCKED))` : `IN (${head} LIMIT ?)`
    this.#take = database.prepare(`DELETE FROM queue_entries WHERE position ${chosen} RETURNING id, priority, position`)
    this.#delete = database.prepareMany('DELETE FROM queue_entries WHERE id IN (VALUES :rows)', ['text'])
    this.#count = database.prepare('SELECT count(*) AS count FROM queue_entries')
    // In order, and so by the index: what was taken and is not swept away yet lies in the way in the table.
    this.#any = database.prepare('SELECT 1 FROM queue_entries ORDER BY priority DESC, position LIMIT 1')
  }

  async enqueue(entries: readonly QueueEntry[], tx?: Tx): Promise<void> {
    if (!entries.length) return
    if (!tx) return this.database.transaction(own => this.enqueue(entries, own))
    await this.#insert.run(entries.map(({ id, priority }) => [id, priority]), tx)
    tx.afterCommit(() => { for (const consumer of this.#consumers) consumer.notice() })
  }

  async consume(deliver: Deliver): Promise<Consumer> {
    const deliveries: Deliveries = (room, begun) => this.#hand(room, begun, deliver)
    const take: Take = (count, tx) => this.#takeSome(count, tx)
    const consumer: TableConsumer = new TableConsumer(this.clock, this.log, deliveries, take, () => this.#consumers.delete(consumer))
    this.#consumers.add(consumer)
    return consumer
  }

  async remove(ids: readonly string[], tx?: Tx): Promise<void> {
    if (!ids.length) return
    if (!tx) return this.database.transaction(own => this.remove(ids, own))
    await this.#delete.run(ids.map(id => [id]), tx)
  }

  async depth(): Promise<number> { return Number((await this.#count.get([]))!.count) }

  async #hand(room: () => number, begun: (count: number) => void, deliver: Deliver): Promise<number> {
    // A look at an empty queue must not ask for the write lock.
    if (!await this.#any.get([])) return 0
    return this.database.transaction(async tx => {
      // Deleted before they are delivered: who adds one of them again meanwhile then waits for the end of this, and is not told that it is there.
      const ids = await this.#takeSome(room(), tx)
      begun(ids.length)
      if (ids.length) await deliver(ids, tx)
      return ids.length
    })
  }

  async #takeSome(count: number, tx: Tx): Promise<readonly string[]> {
    const entries = await this.#take.all([count], tx)
    return entries.sort((a, b) => b.priority - a.priority || a.position - b.position).map(({ id }) => id)
  }
}
