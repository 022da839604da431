import type { Clock } from '#core'
import type { HealthCheck } from '#contracts/health'
import type { JobQueue } from '#contracts/queue'
import type { JobQueries } from './tables/queries.ts'
import type { Holdups } from './watch/holdup.ts'

const LATE_MS = 300_000

export const healthCheck = (queries: JobQueries, queue: JobQueue, clock: Clock, holdups: Holdups): HealthCheck => ({
  name: 'queue',
  async check() {
    const { queued, running, oldest } = await queries.load()
    const oldest_ms = oldest === undefined ? 0 : Math.max(0, clock.now() - oldest)
    const absent = queued > 0 ? await holdups.noWorker() : undefined
    const message = absent ? `${queued} ${queued === 1 ? 'job waits' : 'jobs wait'}, and ${absent.message}` : `the oldest job has waited for ${Math.round(oldest_ms / 1_000)} s`
    const late = absent !== undefined || oldest_ms > LATE_MS
    return {
      status: late ? 'degraded' : 'healthy',
      ...(late ? { message } : {}),
      details: { depth: await queue.depth(), queued, running, oldest_ms },
    }
  },
})
