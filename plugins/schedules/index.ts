import { BackplaneError, definePlugin, Host, live } from '#core'
import { Access, PermissionInfo } from '#contracts/access'
import { Broadcast, ClockSkew, Leases, sharedClock } from '#contracts/cluster'
import { Database } from '#contracts/database'
import { HealthCheck } from '#contracts/health'
import { HttpRoute } from '#contracts/http'
import { Jobs } from '#contracts/jobs'
import { Metric } from '#contracts/metrics'
import { Schedules } from '#contracts/schedules'
import { config } from './config.ts'
import { healthCheck } from './health.ts'
import { instruments } from './instruments.ts'
import { ScheduleLeader } from './leader.ts'
import { migrations } from './migrations.ts'
import { routes } from './routes.ts'
import { ScheduleService } from './schedules.ts'
import { ScheduleStore } from './store.ts'

const CHANGED = 'schedules.changed'
const DECLARE_AGAIN_MS = 1_000

export default definePlugin({
  name: 'schedules',
  summary: 'Submits jobs at times: cron in a time zone, each time once',
  config,
  uses: { host: Host, database: Database, jobs: Jobs, leases: Leases, broadcast: Broadcast, access: live(Access), skew: live(ClockSkew) },
  provides: [Schedules],
  contributes: [HttpRoute, HealthCheck, Metric, PermissionInfo],
  commands: () => import('./commands.ts'),
  async setup(ctx, { host, database, jobs, leases, broadcast, access, skew }) {
    await database.migrate('schedules', migrations)
    const { log } = ctx
    const clock = sharedClock(ctx.clock, skew)
    const store = new ScheduleStore(database)
    const leader = new ScheduleLeader({ store, database, jobs, access, clock, log, config: ctx.config })
    // Whom it does not reach looks again with the next sweep.
    const changed = () => void broadcast.publish(CHANGED, null).catch(() => {})
    const schedules = new ScheduleService({ store, database, jobs, access, clock, maxSchedules: ctx.config.max_schedules, changed })
    ctx.own(await broadcast.subscribe(CHANGED, () => leader.wake()))
    ctx.provide(Schedules, schedules)
    for (const route of routes(schedules)) ctx.contribute(HttpRoute, route)
    for (const instrument of Object.values(instruments)) ctx.contribute(Metric, instrument)
    ctx.contribute(HealthCheck, healthCheck(store, clock))
    ctx.contribute(PermissionInfo, { name: 'schedules:read', summary: 'See schedules' })
    ctx.contribute(PermissionInfo, { name: 'schedules:write', summary: 'Make, change, pause and run schedules' })

    const declare = async () => {
      try { await schedules.declare(ctx.config.schedules) } catch (error) {
        if (!(error instanceof BackplaneError && error.retryable)) throw error
        // The database may be away at the start.
        clock.after(DECLARE_AGAIN_MS, declare)
      }
    }
    let leading: AsyncDisposable | undefined
    const rest = async () => { await leading?.[Symbol.asyncDispose](); leading = undefined }
    return {
      async start() {
        await declare()
        if (host.roles.includes('scheduler')) leading = await leases.lead('schedules', lease => leader.lead(lease))
      },
      drain: rest,
      stop: rest,
    }
  },
})
