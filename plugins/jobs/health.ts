import type { Clock } from '#core'
import type { HealthCheck } from '#contracts/health'
import type { JobQueue } from '#contracts/queue'
import type { JobQueries } from './tables/queries.ts'

const LATE_MS = 300_000

export const healthCheck = (queries: JobQueries, queue: JobQueue, clock: Clock): HealthCheck => ({
  name: 'queue',
  async check() {
    const { queued, running, oldest } = await queries.load()
    const oldest_ms = oldest === undefined ? 0 : Math.max(0, clock.now() - oldest)
    const late = oldest_ms > LATE_MS
    return {
      status: late ? 'degraded' : 'healthy',
      ...(late ? { message: `the oldest job has waited for ${Math.round(oldest_ms / 1_000)} s` } : {}),
      details: { depth: await queue.depth(), queued, running, oldest_ms },
    }
  },
})
