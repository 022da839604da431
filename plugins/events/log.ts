import type { Tx } from '#contracts/database'
import type { Cursor, EventLog, LoggedEvent, NewEvent, Reading, Topic } from '#contracts/events'
import type { Bell } from './bell.ts'
import type { Consumers, Handle } from './consumer.ts'
import { instruments } from './instruments.ts'
import type { EventStore } from './store.ts'
import type { Tailer } from './tail.ts'

/** The log in the database. */
export class DatabaseEventLog implements EventLog {
  constructor(readonly store: EventStore, readonly tailer: Tailer, readonly consumers: Consumers, readonly bell: Bell) {}

  async append(tx: Tx, events: readonly NewEvent[]): Promise<void> {
    const positions = await this.store.append(tx, events)
    if (!positions.length) return
    tx.afterCommit(() => {
      for (const { type } of events) instruments.appended.inc({ type })
      this.tailer.committed(positions)
      this.bell.ring()
    })
  }

  read(topic: Topic, after: Cursor, limit?: number): Promise<Reading> { return this.store.read(topic, after, limit) }
  tail(topics: readonly Topic[], signal: AbortSignal): AsyncIterable<LoggedEvent> { return this.tailer.follow(topics, signal) }

  consume(name: string, handle: Handle, { types }: { readonly types?: readonly string[] } = {}): Promise<AsyncDisposable> {
    return this.consumers.consume(name, handle, types)
  }
}
