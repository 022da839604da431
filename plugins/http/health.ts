import type { HealthCheck } from '#contracts/health'
import type { Gate } from './gate.ts'
import type { RouteTable } from './table.ts'

/** Degraded while a route could not be registered: its plugin runs, but is not reached. */
export const createHealthCheck = (table: RouteTable, gate: Gate): HealthCheck => ({
  name: 'http',
  async check() {
    const details = { routes: table.size, requests: gate.counts.request, streams: gate.counts.stream, refused: table.refused.map(({ message }) => message) }
    return table.refused.length > 0 ? { status: 'degraded', message: `${table.refused.length} routes could not be registered`, details } : { status: 'healthy', details }
  },
})
