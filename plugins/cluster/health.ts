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
    const between = { broadcast: broadcast.connected, ...(link.present && { redis: link.connected }), skew_ms: skew.ms }
    const details = { instances: (await instances.list()).length, leases: leases.held, silent_ms, ...between }
    const degraded = (message: string) => ({ status: 'degraded' as const, message, details })
    if (silent_ms === undefined || silent_ms > 3 * heartbeatMs) return degraded('no heartbeat was written of late: others take this process for gone')
    if (!broadcast.connected) return degraded('messages of other processes do not arrive: PostgreSQL is being connected to again')
    if (Math.abs(skew.ms) > BAD_MS) return degraded(`${told(skew.ms)}. ${FIX}`)
    return { status: 'healthy', details }
  },
})
