import { reasonOf, type Clock, type Logger } from '#core'
import type { Lease } from '#contracts/cluster'
import type { EventsConfig } from './config.ts'
import { instruments } from './instruments.ts'
import { pause } from './pause.ts'
import type { EventStore } from './store.ts'

const DAY_MS = 86_400_000
/** Between two batches, so that those who write get their turn. */
const BREATHER_MS = 5

export interface RetentionDeps { readonly store: EventStore; readonly clock: Clock; readonly log: Logger; readonly retention: EventsConfig['retention'] }

/** Removes what the window has passed, again and again, while the lease is held. */
export async function retain({ store, clock, log, retention: { count, days, sweepMs, batch } }: RetentionDeps, { signal }: Lease): Promise<void> {
  while (!signal.aborted) {
    let removed = 0
    try { removed = await store.remove(count, clock.now() - days * DAY_MS, batch) } catch (error) {
      log.warn('old events could not be removed', { reason: reasonOf(error) })
    }
    instruments.removed.add(removed)
    await pause(clock, removed === batch ? BREATHER_MS : sweepMs, signal)
  }
}
