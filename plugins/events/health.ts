import type { HealthCheck } from '#contracts/health'
import type { Consumers } from './consumer.ts'
import type { EventStore } from './store.ts'
import type { Tailer } from './tail.ts'

/** Failures in a row from which a consumer is not well. */
const BAD = 3

export const healthCheck = (store: EventStore, tailer: Tailer, consumers: Consumers): HealthCheck => ({
  name: 'events',
  async check() {
    const { last, safe } = await store.horizon()
    const states = [...consumers.states]
    const details = { last, readable: safe, readers: tailer.readers, consumers: Object.fromEntries(states) }
    const failing = states.filter(([, { failures }]) => failures >= BAD).map(([name]) => name)
    if (failing.length) return { status: 'degraded', message: `these consumers fail again and again: ${failing.join(', ')}`, details }
    return { status: 'healthy', details }
  },
})
