import { reasonOf, type Clock, type Logger } from '#core'
import { ClusterErrors, type Broadcast } from '#contracts/cluster'
import type { Database, DatabaseChannels, DatabaseListener, Statement } from '#contracts/database'
import { readEnvelope, writeEnvelope, type Carrier, type Heard } from './carrier.ts'
import { nowOf } from './clock.ts'
import { instruments } from './instruments.ts'
import type { RedisLink } from './redis-link.ts'

const LIMIT = 4_096
const CHANNEL_LIMIT = 200
/** Of PostgreSQL, for all messages of this deployment. */
const NOTIFY = 'backplane'
const KEPT_MS = 60_000
const SWEEP_MS = 20_000

export interface BroadcastDeps {
  readonly database: Database
  readonly channels: DatabaseChannels
  readonly clock: Clock
  readonly log: Logger
  readonly id: string
  readonly pollMs: number
  /** Sooner than the database, while it is connected. */
  readonly link: RedisLink
  /** Does anybody else live? */
  readonly others: () => Promise<boolean>
}

/** NOTIFY, on one channel: each process listens with a connection of its own. */
class NotifyCarrier implements Carrier {
  readonly #notify: Statement
  constructor(readonly deps: BroadcastDeps, readonly listener: DatabaseListener) { this.#notify = deps.database.prepare('SELECT pg_notify(?, ?)') }

  static async open(deps: BroadcastDeps, heard: Heard): Promise<NotifyCarrier | undefined> {
    const listener = await deps.channels.listen(NOTIFY, payload => {
      const [sender, channel, message] = readEnvelope(payload)
      if (message !== undefined && sender !== deps.id) heard(channel!, message)
    })
    return listener && new NotifyCarrier(deps, listener)
  }

  get connected(): boolean { return this.listener.connected }
  async send(channel: string, message: string): Promise<void> { await this.#notify.get([NOTIFY, writeEnvelope(this.deps.id, channel, message)]) }
  [Symbol.asyncDispose]() { return this.listener[Symbol.asyncDispose]() }
}

/** A table that every process looks into, for SQLite. Nothing is written while this process is alone. */
class TableCarrier implements Carrier {
  readonly connected = true
  readonly #insert: Statement
  readonly #newer: Statement<{ id: number; sender: string; channel: string; message: string }>
  readonly #sweep: Statement
  readonly #cancel: (() => void)[]
  #position: number
  #looking: Promise<void> | undefined
  #failing = false

  constructor(readonly deps: BroadcastDeps, readonly heard: Heard, position: number) {
    const { database, clock, pollMs } = deps
    const now = nowOf(database.dialect)
    this.#position = position
    this.#insert = database.prepare(`INSERT INTO cluster_messages (sender, channel, message, at) VALUES (?, ?, ?, ${now})`)
    this.#newer = database.prepare('SELECT id, sender, channel, message FROM cluster_messages WHERE id > ? ORDER BY id LIMIT 1000')
    this.#sweep = database.prepare(`DELETE FROM cluster_messages WHERE at < ${now} - ${KEPT_MS}`)
    this.#cancel = [clock.every(pollMs, () => (this.#looking ??= this.#look())), clock.every(SWEEP_MS, () => this.#clean())]
  }

  static async open(deps: BroadcastDeps, heard: Heard): Promise<TableCarrier> {
    const row = await deps.database.prepare<{ last: number }>('SELECT coalesce(max(seq), 0) AS last FROM sqlite_sequence WHERE name = \'cluster_messages\'').get([])
    return new TableCarrier(deps, heard, row!.last)
  }

  async send(channel: string, message: string): Promise<void> {
    if (await this.deps.others()) await this.#insert.run([this.deps.id, channel, message])
  }

  async #look(): Promise<void> {
    try {
      for (const { id, sender, channel, message } of await this.#newer.all([this.#position])) {
        this.#position = id
        if (sender !== this.deps.id) this.heard(channel, message)
      }
      this.#failing = false
    } catch (error) { this.#failed(error) } finally { this.#looking = undefined }
  }

  async #clean(): Promise<void> {
    // A look at the table first: while it is empty nobody must ask for the write lock.
    try { if ((await this.#newer.all([0])).length) await this.#sweep.run([]) } catch (error) { this.#failed(error) }
  }

  #failed(error: unknown): void {
    if (!this.#failing) this.deps.log.warn('messages of other processes could not be read', { reason: reasonOf(error) })
    this.#failing = true
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const cancel of this.#cancel) cancel()
    await this.#looking
  }
}

/** Delivers in this process at once, and to the others by Redis, or else by what the database has for it. All of them listen to both. */
export class CarriedBroadcast implements Broadcast, AsyncDisposable {
  readonly #handlers = new Map<string, Set<(message: unknown) => void>>()
  #carrier: Carrier | undefined

  private constructor(readonly deps: BroadcastDeps) {}

  static async open(deps: BroadcastDeps): Promise<CarriedBroadcast> {
    const broadcast = new CarriedBroadcast(deps)
    const heard: Heard = (channel, message) => {
      instruments.received.inc({ channel })
      broadcast.#deliver(channel, message)
    }
    deps.link.hear(heard)
    broadcast.#carrier = await NotifyCarrier.open(deps, heard) ?? await TableCarrier.open(deps, heard)
    return broadcast
  }

  get connected(): boolean { return this.deps.link.connected || this.#carrier?.connected === true }

  async publish(channel: string, message: unknown): Promise<void> {
    if (!/^[\w.:-]+$/.test(channel) || channel.length > CHANNEL_LIMIT) throw new TypeError(`"${channel}" is no name of a channel: letters, digits and _ . : -, at most ${CHANNEL_LIMIT}`)
    const text = JSON.stringify(message) ?? 'null'
    const bytes = Buffer.byteLength(text)
    if (bytes > LIMIT) throw ClusterErrors.TOO_LARGE({ bytes, limit: LIMIT })
    instruments.sent.inc({ channel })
    this.#deliver(channel, text)
    // Never by both: what Redis rejected may have been heard.
    await (this.deps.link.connected ? this.deps.link : this.#carrier!).send(channel, text)
  }

  async subscribe(channel: string, handle: (message: unknown) => void): Promise<AsyncDisposable> {
    const handlers = this.#handlers.get(channel) ?? new Set()
    this.#handlers.set(channel, handlers)
    // The same function may subscribe twice.
    const own = (message: unknown) => handle(message)
    handlers.add(own)
    return {
      [Symbol.asyncDispose]: async () => {
        handlers.delete(own)
        if (!handlers.size && this.#handlers.get(channel) === handlers) this.#handlers.delete(channel)
      },
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#handlers.clear()
    await this.#carrier?.[Symbol.asyncDispose]()
  }

  #deliver(channel: string, text: string): void {
    const failed = (error: unknown) => this.deps.log.error(`a handler of the channel "${channel}" failed: ${reasonOf(error)}`, { err: error })
    for (const handle of this.#handlers.get(channel) ?? []) {
      try {
        const result: unknown = handle(JSON.parse(text))
        if (result instanceof Promise) result.catch(failed)
      } catch (error) { failed(error) }
    }
  }
}
