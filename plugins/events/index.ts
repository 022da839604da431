import { definePlugin, Host, live } from '#core'
import { Broadcast, ClockSkew, Leases, sharedClock } from '#contracts/cluster'
import { Database } from '#contracts/database'
import { EventLog } from '#contracts/events'
import { HealthCheck } from '#contracts/health'
import { Metric } from '#contracts/metrics'
import { Bell } from './bell.ts'
import { config } from './config.ts'
import { Consumers } from './consumer.ts'
import { healthCheck } from './health.ts'
import { instruments } from './instruments.ts'
import { DatabaseEventLog } from './log.ts'
import { migrations } from './migrations.ts'
import { retain } from './retention.ts'
import { EventStore } from './store.ts'
import { Tailer } from './tail.ts'

export default definePlugin({
  name: 'events',
  summary: 'The log of what happened: written with what made it true, read, followed and consumed in order',
  config,
  uses: { host: Host, database: Database, leases: Leases, broadcast: live(Broadcast), skew: live(ClockSkew) },
  provides: [EventLog],
  contributes: [HealthCheck, Metric],
  async setup(ctx, { host, database, leases, broadcast, skew }) {
    await database.migrate('events', migrations)
    const { log, config: { retention, pollMs, buffer, consumer } } = ctx
    const clock = sharedClock(ctx.clock, skew)
    const store = new EventStore(database, clock)
    const bell = ctx.own(new Bell({ broadcast, clock, log, id: host.instanceId }), each => each.close())
    const tailer = ctx.own(new Tailer({ store, bell, clock, log, pollMs, buffer }), each => each.close())
    const consumers = new Consumers({ store, database, leases, bell, clock, log, pollMs, consumer })
    await tailer.open()
    ctx.provide(EventLog, new DatabaseEventLog(store, tailer, consumers, bell))
    for (const instrument of Object.values(instruments)) ctx.contribute(Metric, instrument)
    ctx.contribute(HealthCheck, healthCheck(store, tailer, consumers))
    let retaining: AsyncDisposable | undefined
    return {
      async start() { retaining = await leases.lead('events.retention', lease => retain({ store, clock, log, retention }, lease)) },
      async stop() { await Promise.all([consumers.close(), retaining?.[Symbol.asyncDispose](), tailer.close()]) },
    }
  },
})
