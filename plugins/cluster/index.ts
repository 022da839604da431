import { definePlugin, Host, live } from '#core'
import { Broadcast, ClockSkew, Instances, Leases } from '#contracts/cluster'
import { Database, DatabaseChannels } from '#contracts/database'
import { HealthCheck } from '#contracts/health'
import { Metric } from '#contracts/metrics'
import { Redis } from '#contracts/redis'
import { CarriedBroadcast } from './broadcast.ts'
import { config } from './config.ts'
import { healthCheck } from './health.ts'
import { InstanceTable } from './instances.ts'
import { instruments } from './instruments.ts'
import { DatabaseKeeper, RedisKeeper } from './lease-keeper.ts'
import { LeaseBook } from './leases.ts'
import { migrations } from './migrations.ts'
import { RedisLink } from './redis-link.ts'
import { MeasuredSkew } from './skew.ts'

const FREED = 'cluster.lease-freed'

export default definePlugin({
  name: 'cluster',
  summary: 'Makes several processes one deployment: who is alive, who leads, and a word to all',
  config,
  uses: { host: Host, database: Database, channels: DatabaseChannels, redis: live(Redis) },
  provides: [Instances, Leases, Broadcast, ClockSkew],
  contributes: [HealthCheck, Metric],
  async setup(ctx, { host, database, channels, redis }) {
    await database.migrate('cluster', migrations)
    const { clock, log, config: { heartbeatMs, leaseMs, retryMs, pollMs } } = ctx
    const id = host.instanceId
    const instances = new InstanceTable({ database, clock, log, id, version: host.version, roles: host.roles, heartbeatMs })
    const skew = ctx.own(new MeasuredSkew({ database, clock, log }))
    // Now: whoever starts may compare times at once.
    if (database.dialect === 'postgres') await skew.watch()
    const link = ctx.own(new RedisLink({ id, log }))
    const broadcast = ctx.own(await CarriedBroadcast.open({ database, channels, link, clock, log, id, pollMs, others: () => instances.others() }))
    const freed = (name: string) => void broadcast.publish(FREED, name).catch(() => {})
    const keeper = ctx.config.leases === 'redis' ? new RedisKeeper({ database, link, id, leaseMs, log }) : new DatabaseKeeper({ database, id, leaseMs })
    const leases = new LeaseBook({ keeper, clock, log, leaseMs, retryMs, freed })
    redis.watch(current => void link.follow(current))
    ctx.own(await broadcast.subscribe(FREED, name => leases.heardFreed(name)))
    ctx.provide(Instances, instances)
    ctx.provide(Leases, leases)
    ctx.provide(Broadcast, broadcast)
    ctx.provide(ClockSkew, skew)
    for (const instrument of Object.values(instruments)) ctx.contribute(Metric, instrument)
    ctx.contribute(HealthCheck, healthCheck({ instances, leases, broadcast, link, skew, heartbeatMs }))
    return {
      start: () => instances.join(),
      drain: () => instances.leave(),
      async stop() {
        await leases.close()
        await instances.leave()
      },
    }
  },
})
