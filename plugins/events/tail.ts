import { reasonOf, type Clock, type Logger } from '#core'
import { EventErrors, type LoggedEvent, type Topic } from '#contracts/events'
import type { Bell } from './bell.ts'
import { instruments } from './instruments.ts'
import type { EventStore } from './store.ts'

const PAGE = 500

export interface TailDeps {
  readonly store: EventStore
  readonly bell: Bell
  readonly clock: Clock
  readonly log: Logger
  readonly pollMs: number
  /** Events that wait in memory for one reader. */
  readonly buffer: number
}

type Result = IteratorResult<LoggedEvent, undefined>
const DONE: Result = { done: true, value: undefined }

/** One reader. Who is slower than the log gets the rest from the database, and then joins the others again. */
class Reader implements AsyncIterableIterator<LoggedEvent, undefined> {
  #buffer: LoggedEvent[] = []
  #at = 0
  #late = false
  #over = false
  #wake = () => {}
  #turn: Promise<unknown> = Promise.resolve()

  /** `position`: up to here all that it is to get is in its buffer. `skip`: what was committed here before it came. */
  constructor(
    readonly topics: ReadonlySet<Topic>, public position: number, readonly skip: Set<number>, readonly tailer: Tailer, readonly signal: AbortSignal,
  ) {
    if (signal.aborted) this.#over = true
    else signal.addEventListener('abort', this.end, { once: true })
  }

  [Symbol.asyncIterator](): this { return this }

  next(): Promise<Result> {
    // Who asks twice at once gets two answers, in order.
    const next = this.#turn.then(() => this.#next())
    this.#turn = next.catch(() => {})
    return next
  }

  async return(): Promise<Result> {
    this.end()
    return DONE
  }

  readonly end = (): void => {
    this.#over = true
    this.#buffer = []
    this.signal.removeEventListener('abort', this.end)
    this.tailer.remove(this)
    this.#wake()
  }

  offer(event: LoggedEvent): void {
    if (this.#late || this.skip.delete(event.position)) return
    if (this.#buffer.length - this.#at >= this.tailer.deps.buffer) { this.#late = true; return }
    this.#buffer.push(event)
    this.position = event.position
    this.#wake()
  }

  async #next(): Promise<Result> {
    for (;;) {
      if (this.#over) return DONE
      if (this.#at < this.#buffer.length) {
        const value = this.#buffer[this.#at++]!
        if (this.#at === this.#buffer.length) { this.#buffer = []; this.#at = 0 }
        return { done: false, value }
      }
      if (this.#late) await this.#catchUp()
      else await new Promise<void>(resolve => { this.#wake = resolve })
    }
  }

  async #catchUp(): Promise<void> {
    const through = this.tailer.position
    const page = await this.tailer.page(this.position, PAGE, through)
    if (page.removed > this.position) { this.end(); throw EventErrors.BEHIND() }
    this.#buffer = page.events.filter(event => event.topics.some(topic => this.topics.has(topic)) && !this.skip.delete(event.position))
    this.#at = 0
    this.position = page.through
    // Nothing came in between, and from here on all is offered again.
    if (page.through === through && this.tailer.position === through) this.#late = false
  }
}

/** Reads the log once for all who follow it in this process. */
export class Tailer {
  readonly page: ReturnType<EventStore['reader']>
  readonly #readers = new Set<Reader>()
  readonly #byTopic = new Map<Topic, Set<Reader>>()
  /** Committed by this process, and not read yet. */
  readonly #ahead = new Set<number>()
  #position = 0
  /** It is known where the log ends: not yet if the database was away at the start. */
  #placed = false
  #again = false
  #closed = false
  #failing = false
  #reading: Promise<void> | undefined
  #cancel: (() => void)[] = []

  constructor(readonly deps: TailDeps) { this.page = deps.store.reader() }

  /** Up to here every event was offered to every reader. */
  get position(): number { return this.#position }
  get readers(): number { return this.#readers.size }

  async open(): Promise<void> {
    this.#look()
    await this.#reading
    // While nobody follows, the place in the log may be old: the next who does reads no more than a page for it.
    const heard = () => { if (this.#readers.size || this.#ahead.size > PAGE) this.#look() }
    this.#cancel = [this.deps.bell.listen(heard), this.deps.clock.every(this.deps.pollMs, () => this.#look())]
  }

  async #place(): Promise<void> {
    this.#position = (await this.deps.store.horizon()).safe
    this.#placed = true
    // Who came before that may have missed something: with the end it is told to read and to follow again.
    for (const reader of this.#readers) reader.end()
  }

  async close(): Promise<void> {
    this.#closed = true
    for (const cancel of this.#cancel) cancel()
    for (const reader of this.#readers) reader.end()
    await this.#reading
  }

  /** Before the bell rings. */
  committed(positions: readonly number[]): void { for (const position of positions) if (position > this.#position) this.#ahead.add(position) }

  follow(topics: readonly Topic[], signal: AbortSignal): AsyncIterableIterator<LoggedEvent, undefined> {
    const reader = new Reader(new Set(topics), this.#position, new Set(this.#ahead), this, signal)
    if (this.#closed) reader.end()
    if (signal.aborted || this.#closed) return reader
    this.#readers.add(reader)
    for (const topic of reader.topics) {
      const readers = this.#byTopic.get(topic) ?? new Set()
      this.#byTopic.set(topic, readers.add(reader))
    }
    instruments.readers.set(this.#readers.size)
    return reader
  }

  remove(reader: Reader): void {
    if (!this.#readers.delete(reader)) return
    for (const topic of reader.topics) {
      const readers = this.#byTopic.get(topic)
      readers?.delete(reader)
      if (!readers?.size) this.#byTopic.delete(topic)
    }
    instruments.readers.set(this.#readers.size)
  }

  #look(): void {
    this.#again = true
    this.#reading ??= this.#read().finally(() => { this.#reading = undefined })
  }

  async #read(): Promise<void> {
    try {
      while (this.#again && !this.#closed) {
        this.#again = false
        await (this.#placed ? this.#step() : this.#place())
      }
      this.#failing = false
    } catch (error) {
      // The next look, at the latest that of the clock, goes on from the same place.
      if (!this.#failing) this.deps.log.warn('the event log could not be read', { reason: reasonOf(error) })
      this.#failing = true
    }
  }

  async #step(): Promise<void> {
    if (!this.#readers.size) {
      const { safe } = await this.deps.store.horizon()
      // Who came meanwhile must not miss what was committed after that.
      if (!this.#readers.size) this.#passed(Math.max(this.#position, safe))
      else this.#again = true
      return
    }
    const page = await this.page(this.#position, PAGE)
    for (const event of page.events) {
      const readers = new Set<Reader>()
      for (const topic of event.topics) for (const reader of this.#byTopic.get(topic) ?? []) readers.add(reader)
      for (const reader of readers) reader.offer(event)
    }
    if (page.events.length === PAGE) this.#again = true
    this.#passed(page.through)
  }

  #passed(position: number): void {
    this.#position = position
    for (const each of this.#ahead) if (each <= position) this.#ahead.delete(each)
  }
}
