import type { TestRuntime } from '#core/testing'
import { createTestRuntime } from '#core/testing'
import { Database } from '#contracts/database'
import { EventLog, type NewEvent } from '#contracts/events'
import type { EventsSubject } from '#conformance/events'
import cluster from '../../../plugins/cluster/index.ts'
import database from '../../../plugins/database/index.ts'
import events from '../../../plugins/events/index.ts'
import { EventStore } from '../../../plugins/events/store.ts'
import { addressOf, FAST, type Place } from '../cluster/kit.ts'

export const event = (type: string, topics: readonly string[] = ['x'], more: Partial<NewEvent> = {}): NewEvent => ({ type, topics, project_id: 'p', created_by: 'u', data: null, ...more })

export const FAST_EVENTS = { pollMs: 100, consumer: { retryMs: 5, retryMaxMs: 40 } }

export interface Opened extends AsyncDisposable { readonly t: TestRuntime; readonly log: EventLog; readonly database: Database; readonly subject: EventsSubject }

/** Database, cluster and events as they are. */
export async function open(place: Place, config: Record<string, unknown> = {}): Promise<Opened> {
  const t = await createTestRuntime({
    plugins: [{ plugin: database, config: { url: addressOf(place) } }, { plugin: cluster, config: FAST }, { plugin: events, config: { ...FAST_EVENTS, ...config } }],
    timeouts: { setup: 20_000 },
  })
  const [log, db] = [t.get(EventLog), t.get(Database)]
  const store = new EventStore(db, { ...t.runtime.options.clock!, now: Date.now })
  const subject: EventsSubject = { log, database: db, async retain(count) { while (await store.remove(count, 0, 3)); } }
  return { t, log, database: db, subject, [Symbol.asyncDispose]: () => t[Symbol.asyncDispose]() }
}
