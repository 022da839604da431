import type { HealthCheck } from '#contracts/health'
import type { DatabaseBroadcast } from './broadcast.ts'
import type { InstanceTable } from './instances.ts'
import type { LeaseTable } from './leases.ts'

export const healthCheck = (instances: InstanceTable, leases: LeaseTable, broadcast: DatabaseBroadcast, heartbeatMs: number): HealthCheck => ({
  name: 'cluster',
  async check() {
    const silent_ms = instances.beatAt === undefined ? undefined : Math.round(performance.now() - instances.beatAt)
    const details = { instances: (await instances.list()).length, leases: leases.held, silent_ms, broadcast: broadcast.connected }
    if (silent_ms === undefined || silent_ms > 3 * heartbeatMs) return { status: 'degraded', message: 'no heartbeat was written of late: others take this process for gone', details }
    if (!broadcast.connected) return { status: 'degraded', message: 'messages of other processes do not arrive: PostgreSQL is being connected to again', details }
    return { status: 'healthy', details }
  },
})
