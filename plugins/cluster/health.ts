import type { HealthCheck } from '#contracts/health'
import type { CarriedBroadcast } from './broadcast.ts'
import type { InstanceTable } from './instances.ts'
import type { LeaseBook } from './leases.ts'
import type { RedisLink } from './redis-link.ts'
import { BAD_MS, FIX, told, type MeasuredSkew } from './skew.ts'

export interface HealthDeps {
  readonly instances: InstanceTable
  readonly leases: LeaseBook
  readonly broadcast: CarriedBroadcast
  readonly link: RedisLink
  readonly skew: MeasuredSkew
  readonly heartbeatMs: number
}

export const healthCheck = ({ instances, leases, broadcast, link, skew, heartbeatMs }: HealthDeps): HealthCheck => ({
  name: 'cluster',
  async check() {
    const silent_ms = instances.beatAt === undefined ? undefined : Math.round(performance.now() - instances.beatAt)
    const redis = link.present ? { redis: link.connected } : {}
    const details = { instances: (await instances.list()).length, leases: leases.held, silent_ms, broadcast: broadcast.connected, skew_ms: skew.ms, ...redis }
    if (silent_ms === undefined || silent_ms > 3 * heartbeatMs) return { status: 'degraded', message: 'no heartbeat was written of late: others take this process for gone', details }
    if (!broadcast.connected) return { status: 'degraded', message: 'messages of other processes do not arrive: PostgreSQL is being connected to again', details }
    if (Math.abs(skew.ms) > BAD_MS) return { status: 'degraded', message: `the clock of this machine is ${told(skew.ms)}. ${FIX}`, details }
    return { status: 'healthy', details }
  },
})
