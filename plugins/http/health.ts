import type { HealthCheck } from '#contracts/health'
import type { Gate } from './gate.ts'
import type { RouteTable } from './table.ts'

/** Degraded while a route could not be registered: its plugin runs, but is not reached. */
export const createHealthCheck = (table: RouteTable, gate: Gate): HealthCheck => ({
  name: 'http',
  async check() {
    const refused = table.refused.map(({ message }) => message)
    const details = { routes: table.size, requests: gate.counts.request, streams: gate.counts.stream, refused }
    if (refused.length === 0) return { status: 'healthy', details }
    return { status: 'degraded', message: `${refused.length} of the routes could not be registered`, details }
  },
})
