import { reasonOf, type Clock, type Logger } from '#core'
import type { Database } from '#contracts/database'
import { next } from '../tables/machine.ts'
import type { JobQueries } from '../tables/queries.ts'
import type { JobRow } from '../tables/record.ts'
import type { JobStore } from '../tables/store.ts'
import type { Waiting } from './waiting.ts'

const BATCH = 200

export interface DueDeps {
  readonly store: JobStore
  readonly queries: JobQueries
  readonly waiting: Waiting
  readonly database: Database
  readonly clock: Clock
  readonly log: Logger
  /** Until the next sweep. */
  readonly sweepMs: number
}

/** Queues jobs whose time has come: at that very moment where this process knows of it, else with the next sweep. */
export class DueJobs {
  #next = Infinity
  #cancel = () => {}
  #waking: Promise<void> = Promise.resolve()
  #closed = false

  constructor(readonly deps: DueDeps) {}

  /** One will be due then. */
  expect(at: number): void {
    const { clock, log } = this.deps
    if (this.#closed || at >= this.#next) return
    this.#cancel()
    this.#next = at
    this.#cancel = clock.after(Math.max(0, at - clock.now()), () => {
      this.#next = Infinity
      this.wake().catch((error: unknown) => log.warn('jobs whose time has come wait for the next sweep', { reason: reasonOf(error) }))
    })
  }

  wake(): Promise<void> {
    // One after another, each with a look of its own: what fell due during one must not wait for the sweep.
    const waking = this.#waking.then(() => this.#wake())
    this.#waking = waking.catch(() => {})
    return waking
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#cancel()
    await this.#waking
  }

  async #wake(): Promise<void> {
    const { store, queries, database, clock, sweepMs } = this.deps
    for (let found = BATCH; found === BATCH && !this.#closed;) {
      const ids = await store.due(BATCH)
      found = ids.length
      if (found) await database.transaction(tx => this.#queue(ids, tx))
    }
    for (let found = BATCH; found === BATCH && !this.#closed;) {
      const ids = await store.overdue(BATCH)
      found = ids.length
      if (found) await database.transaction(tx => this.#expire(ids, tx))
    }
    if (this.#closed) return
    const until = clock.now() + sweepMs
    for (const next of [await queries.nextDue(until), await queries.nextOverdue(until)]) if (next !== undefined) this.expect(next)
  }

  async #queue(ids: readonly string[], tx: Parameters<JobStore['change']>[3]): Promise<void> {
    const { store } = this.deps
    const rows = await store.readAll(ids, tx)
    const due = ids.flatMap(id => rows.get(id) ?? []).filter(row => row.run_at <= store.now && next(row, 'due'))
    const queued = await store.changeAll(due.map(row => ({ row, event: 'due', changes: {} })), tx)
    await store.handOver(queued.filter(row => row !== undefined), tx)
  }

  async #expire(ids: readonly string[], tx: Parameters<JobStore['change']>[3]): Promise<void> {
    const { store, waiting } = this.deps
    const queued: JobRow[] = []
    for (const row of (await store.readAll(ids, tx)).values()) {
      const after = await waiting.expire(row, tx)
      if (after) queued.push(after)
    }
    await store.handOver(queued, tx)
  }
}
