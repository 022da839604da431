import type { Clock } from '#core'
import type { HealthCheck } from '#contracts/health'
import type { ScheduleStore } from './store.ts'

const LATE_MS = 60_000

export const healthCheck = (store: ScheduleStore, clock: Clock): HealthCheck => ({
  name: 'schedules',
  async check() {
    const nearest = await store.nearest()
    const late_ms = nearest === undefined ? 0 : Math.max(0, clock.now() - nearest)
    return {
      status: late_ms > LATE_MS ? 'degraded' : 'healthy',
      ...(late_ms > LATE_MS && { message: `a schedule is ${Math.round(late_ms / 1_000)} s late: does a process with the role scheduler run?` }),
      details: { late_ms, refused: await store.failing() },
    }
  },
})
