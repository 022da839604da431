import type { HealthCheck } from '#contracts/health'
import type { JobQueue } from '#contracts/queue'
import type { JobStore } from './store.ts'

const LATE_MS = 300_000

export const healthCheck = (store: JobStore, queue: JobQueue): HealthCheck => ({
  name: 'queue',
  async check() {
    const { queued, running, oldest } = await store.load()
    const oldest_ms = oldest === undefined ? 0 : Math.max(0, store.now - oldest)
    const late = oldest_ms > LATE_MS
    return {
      status: late ? 'degraded' : 'healthy',
      ...(late ? { message: `the oldest job has waited for ${Math.round(oldest_ms / 1_000)} s` } : {}),
      details: { depth: await queue.depth(), queued, running, oldest_ms },
    }
  },
})
