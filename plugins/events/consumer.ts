import { BackplaneError, reasonOf, type Clock, type Logger } from '#core'
import type { Lease, Leases } from '#contracts/cluster'
import type { Database, Statement } from '#contracts/database'
import { EventErrors, type LoggedEvent } from '#contracts/events'
import type { Bell } from './bell.ts'
import type { EventsConfig } from './config.ts'
import { instruments } from './instruments.ts'
import { pause } from './pause.ts'
import type { EventStore, Page } from './store.ts'

/** Without events of its types a consumer's place is written down this often. Milliseconds. */
const NOTE_MS = 5_000

export interface ConsumersDeps {
  readonly store: EventStore
  readonly database: Database
  readonly leases: Leases
  readonly bell: Bell
  readonly clock: Clock
  readonly log: Logger
  readonly pollMs: number
  readonly consumer: EventsConfig['consumer']
}
export type Handle = (events: readonly LoggedEvent[]) => Promise<void>
export interface ConsumerState { readonly leads: boolean; readonly failures: number; readonly behind: number | undefined; readonly gaps: number }

/** One name in this process: waits for its lease, then hands on batch after batch. */
class Consumer implements AsyncDisposable {
  readonly #page: (after: number, limit: number) => Promise<Page>
  #candidate: AsyncDisposable | undefined
  #ring = () => {}
  #notedAt = 0
  #registered = false
  state: ConsumerState = { leads: false, failures: 0, behind: undefined, gaps: 0 }

  constructor(readonly name: string, readonly handle: Handle, types: readonly string[] | undefined, readonly owner: Consumers) {
    this.#page = owner.deps.store.reader(types)
  }

  async open(): Promise<void> {
    try { await this.#register() } catch (error) {
      if (!(error instanceof BackplaneError && error.retryable)) throw error
      this.owner.deps.log.warn(`the consumer "${this.name}" begins as soon as the database is there`, { reason: reasonOf(error) })
    }
    this.#candidate = await this.owner.deps.leases.lead(`events.consumer.${this.name}`, lease => this.#lead(lease))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.owner.remove(this)
    await this.#candidate?.[Symbol.asyncDispose]()
  }

  async #register(): Promise<void> {
    if (!this.#registered) await this.owner.register(this.name)
    this.#registered = true
  }

  async #lead({ token, signal }: Lease): Promise<void> {
    await this.#register()
    const { clock, consumer: { batch }, bell } = this.owner.deps
    // A leader that was paused finds a larger token, and can not set the cursor back.
    let cursor = await this.owner.begin(this.name, token)
    if (cursor === undefined) return
    this.state = { ...this.state, leads: true }
    let rang = false
    const unlisten = bell.listen(() => { rang = true; this.#ring() })
    try {
      while (!signal.aborted) {
        rang = false
        const page = await this.#page(cursor, batch)
        if (signal.aborted) break
        if (page.removed > cursor) this.#missed(cursor, page.removed)
        if (page.events.length && !await this.#hand(page.events, signal)) continue
        const note = page.events.length > 0 || (page.through > cursor && clock.now() - this.#notedAt > NOTE_MS)
        cursor = page.through
        if (note && !await this.#note(cursor, token)) return
        this.#measure(page)
        if (page.events.length < batch && !rang) await this.#idle(signal)
      }
    } finally {
      unlisten()
      this.state = { ...this.state, leads: false }
    }
  }

  /** Tries until it succeeds, with growing pauses, or the lease is gone: then false. */
  async #hand(events: readonly LoggedEvent[], signal: AbortSignal): Promise<boolean> {
    const { clock, log, consumer: { retryMs, retryMaxMs } } = this.owner.deps
    for (let failures = 0; !signal.aborted; failures++) {
      try {
        await this.handle(events)
        this.state = { ...this.state, failures: 0 }
        instruments.consumed.add(events.length, { consumer: this.name })
        return true
      } catch (error) {
        instruments.failed.inc({ consumer: this.name })
        this.state = { ...this.state, failures: failures + 1 }
        const ms = Math.min(retryMs * 2 ** Math.min(failures, 30), retryMaxMs)
        log.warn(`the consumer "${this.name}" failed, and gets the same events again: ${reasonOf(error)}`, { err: error, retry_ms: ms, position: events[0]!.position })
        await pause(clock, ms * (0.75 + Math.random() / 4), signal)
      }
    }
    return false
  }

  #missed(cursor: number, removed: number): void {
    instruments.missed.inc({ consumer: this.name })
    this.state = { ...this.state, gaps: this.state.gaps + 1 }
    this.owner.deps.log.error(`events were removed before the consumer "${this.name}" had seen them`, { after: cursor, through: removed })
  }

  #measure({ through }: Page): void {
    void this.owner.deps.store.horizon().then(({ last }) => {
      const behind = Math.max(0, last - through)
      this.state = { ...this.state, behind }
      instruments.behind.set(behind, { consumer: this.name })
    }, () => {})
  }

  async #note(position: number, token: number): Promise<boolean> {
    this.#notedAt = this.owner.deps.clock.now()
    return this.owner.note(this.name, position, token)
  }

  async #idle(signal: AbortSignal): Promise<void> {
    // While its place was being written down: nobody would wake it any more.
    if (signal.aborted) return
    const awake = new AbortController()
    this.#ring = () => awake.abort()
    const end = () => awake.abort()
    signal.addEventListener('abort', end, { once: true })
    await pause(this.owner.deps.clock, this.owner.deps.pollMs, awake.signal)
    signal.removeEventListener('abort', end)
    this.#ring = () => {}
  }
}

/** Those who read the log by name, with a cursor that is kept. */
export class Consumers {
  readonly #all = new Map<string, Consumer>()
  readonly #register: Statement
  readonly #begin: Statement<{ position: number }>
  readonly #note: Statement

  constructor(readonly deps: ConsumersDeps) {
    const { database } = deps
    this.#register = database.prepare('INSERT INTO event_consumers (name, position, token, updated_at) VALUES (?, ?, 0, ?) ON CONFLICT (name) DO NOTHING')
    this.#begin = database.prepare('UPDATE event_consumers SET token = ? WHERE name = ? AND token <= ? RETURNING position')
    this.#note = database.prepare('UPDATE event_consumers SET position = ?, updated_at = ? WHERE name = ? AND token = ?')
  }

  get states(): ReadonlyMap<string, ConsumerState> { return new Map([...this.#all].map(([name, each]) => [name, each.state])) }

  async consume(name: string, handle: Handle, types?: readonly string[]): Promise<AsyncDisposable> {
    if (!/^[\w.-]{1,100}$/.test(name)) throw EventErrors.INVALID({ reason: `"${name}" is no name of a consumer: letters, digits and _ . -, at most 100` })
    if (this.#all.has(name)) throw EventErrors.CONSUMER_TAKEN({ name })
    const consumer = new Consumer(name, handle, types, this)
    this.#all.set(name, consumer)
    try { await consumer.open() } catch (error) {
      this.remove(consumer)
      throw error
    }
    return consumer
  }

  remove(consumer: Consumer): void { if (this.#all.get(consumer.name) === consumer) this.#all.delete(consumer.name) }

  async close(): Promise<void> { await Promise.all([...this.#all.values()].map(consumer => consumer[Symbol.asyncDispose]())) }

  async register(name: string): Promise<void> {
    const { safe } = await this.deps.store.horizon()
    await this.#register.run([name, safe, this.deps.clock.now()])
  }
  async begin(name: string, token: number): Promise<number | undefined> { return (await this.#begin.get([token, name, token]))?.position }
  async note(name: string, position: number, token: number): Promise<boolean> {
    return await this.#note.run([position, this.deps.clock.now(), name, token]) > 0
  }
}
