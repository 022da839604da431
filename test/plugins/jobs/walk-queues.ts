import assert from 'node:assert/strict'
import type { Clock, Logger } from '#core'
import { DatabaseErrors, type Database, type Tx } from '#contracts/database'
import type { Consumer, Deliver, JobQueue, QueueEntry } from '#contracts/queue'

/** The process that a lane belongs to. */
export interface Host {
  readonly name: string
  readonly dead: boolean
  readonly clock: Clock
  readonly log: Logger
  readonly database: Database
  /** Lets new attempts begin where others end. */
  readonly takes: boolean
  /** A moment at which it may end. */
  point(): void
  /** The walk waits for what is under way. */
  fly<T>(work: () => Promise<T>): Promise<T>
  /** Until nothing goes on without the time going on. */
  idle(): Promise<void>
}

/** The queue as one process has it: what it delivers, and when, the walk says. */
export interface Lane extends AsyncDisposable {
  readonly ready?: Promise<void>
  /** As `jobs` has it. */
  readonly queue: JobQueue
  /** Takes up to `count` ids and delivers them. */
  claim(count: number): Promise<void>
  /** Takes them, and delivers them when it is told to, or delivers them, and says so then. */
  carry(count: number, delivered: boolean): Promise<void>
  deliverCarried(): Promise<void>
  /** Whether they are its own, or nobody's. */
  deliver(ids: readonly string[]): Promise<void>
}

/** Ids outside the database. It may lose them, or be away. */
export interface Outside {
  /** What only the sweep can give it again. */
  readonly lost: ReadonlySet<string>
  ids(): Promise<ReadonlySet<string>>
  open(host: Host): Lane
  lose(): Promise<void>
  /** Whoever stands still too long is taken for dead, and delivers later all the same. */
  stall(): Promise<void>
  /** What it was asked for meanwhile, and does later. */
  catchUp(): void
  leave(): void
  comeBack(): Promise<void>
}

/** A table of the database. */
export function openTable({ database, takes }: Host): Lane {
  let deliver: Deliver | undefined
  const table = (tx?: Tx) => database.knex(tx)('queue_entries')
  const take = async (count: number, tx: Tx): Promise<string[]> => {
    const ids = (await table(tx).orderBy([{ column: 'priority', order: 'desc' }, { column: 'position' }]).limit(count)).map(entry => entry.id as string)
    if (ids.length) await table(tx).whereIn('id', ids).delete()
    return ids
  }
  const consume = async (to: Deliver): Promise<Consumer> => {
    deliver = to
    return { empty: takes, want() {}, take: async (count, tx) => (takes ? take(count, tx) : []), [Symbol.asyncDispose]: async () => {} }
  }
  const never = () => Promise.reject(new TypeError('a table delivers in the transaction in which it takes'))
  return {
    queue: {
      can: { transactional: true, distributed: false }, consume,
      async enqueue(entries: readonly QueueEntry[], tx) { if (entries.length) await table(tx).insert(entries.map(({ id, priority }) => ({ id, priority }))).onConflict('id').ignore() },
      async remove(ids, tx) { await table(tx).whereIn('id', [...ids]).delete() },
      async depth() { return Number((await table().count({ count: '*' }).first())!['count']) },
    },
    async claim(count) {
      assert.ok(deliver, 'nobody consumes')
      await database.transaction(async tx => {
        const ids = await take(count, tx)
        if (ids.length) await deliver!(ids, tx)
      })
    },
    carry: never, deliver: never, async deliverCarried() {}, async [Symbol.asyncDispose]() {},
  }
}

interface Entry { readonly priority: number; readonly position: number; readonly taken: Host | undefined }
/** As Redis has them: an id is there until its delivery was acknowledged. */
export class Engine implements Outside {
  readonly entries = new Map<string, Entry>()
  readonly lost = new Set<string>()
  readonly #late: (() => void)[] = []
  #away = false
  #position = 0

  async ids(): Promise<ReadonlySet<string>> { return new Set(this.entries.keys()) }
  open(host: Host): Lane { return new EngineLane(host, this) }

  /** As in BullMQ an id that is being delivered is there already, though it may be about to leave. */
  add(entries: readonly QueueEntry[]): void {
    if (this.#away) throw DatabaseErrors.UNAVAILABLE({ reason: 'the engine is away' })
    for (const { id, priority } of entries) {
      const found = this.entries.get(id)
      if (found?.taken) this.lost.add(id)
      else this.lost.delete(id)
      this.entries.set(id, found ? { ...found, priority: Math.max(found.priority, priority) } : { priority, position: ++this.#position, taken: undefined })
    }
  }

  take(count: number, taken: Host): string[] {
    const waiting = this.#away ? [] : [...this.entries].filter(([, entry]) => !entry.taken).sort(([, one], [, two]) => two.priority - one.priority || one.position - two.position)
    const some = waiting.slice(0, count)
    for (const [id, entry] of some) this.entries.set(id, { ...entry, taken })
    return some.map(([id]) => id)
  }
  acknowledge(ids: readonly string[], by: Host): void { for (const id of ids) if (this.entries.get(id)?.taken === by) this.entries.delete(id) }
  putBack(which: (taken: Host) => boolean): void {
    for (const [id, entry] of this.entries) if (entry.taken && which(entry.taken)) this.entries.set(id, { ...entry, taken: undefined })
  }
  /** Whoever asked for it may have died since, and somebody else queued the job again. */
  remove(ids: readonly string[]): void { for (const id of ids) if (!this.entries.get(id)?.taken && this.entries.delete(id)) this.lost.add(id) }
  async lose(): Promise<void> {
    for (const id of this.entries.keys()) this.lost.add(id)
    this.entries.clear()
  }

  async stall(): Promise<void> { this.putBack(() => true) }
  leave(): void { this.#away = true }
  async comeBack(): Promise<void> { this.#away = false }
  later(work: () => void): Promise<void> { return new Promise(resolve => this.#late.push(() => { work(); resolve() })) }
  catchUp(): void { for (const work of this.#late.splice(0)) work() }
}

class EngineLane implements Lane {
  #deliver: Deliver | undefined
  readonly #carried: string[][] = []
  constructor(readonly host: Host, readonly engine: Engine) {}

  readonly queue: JobQueue = {
    can: { transactional: false, distributed: true },
    consume: async deliver => {
      this.#deliver = deliver
      const { host, engine } = this
      const take = async (count: number, tx: Tx) => {
        const ids = host.takes ? engine.take(count, host) : []
        tx.afterCommit(() => { host.point(); engine.acknowledge(ids, host) })
        return ids
      }
      return { empty: host.takes, want() {}, take, [Symbol.asyncDispose]: async () => {} }
    },
    enqueue: (entries, tx) => this.host.fly(async () => {
      assert.equal(tx, undefined)
      this.host.point()
      this.engine.add(entries)
      this.host.point()
    }),
    remove: ids => this.engine.later(() => this.engine.remove(ids)),
    depth: async () => this.engine.entries.size,
  }

  claim(count: number): Promise<void> { return this.deliver(this.engine.take(count, this.host)) }
  async carry(count: number): Promise<void> { this.#carried.push(this.engine.take(count, this.host)) }
  async deliverCarried(): Promise<void> { for (const ids of this.#carried.splice(0)) await this.deliver(ids) }
  /** Acknowledged when it was delivered, if the process lives so long. */
  async deliver(ids: readonly string[]): Promise<void> {
    if (!ids.length) return
    assert.ok(this.#deliver, 'nobody consumes')
    const { host, engine } = this
    try { await host.fly(() => this.#deliver!(ids)) } catch (error) {
      if (!host.dead) engine.putBack(taken => taken === host)
      throw error
    }
    host.point()
    engine.acknowledge(ids, host)
  }
  async [Symbol.asyncDispose](): Promise<void> {}
}
