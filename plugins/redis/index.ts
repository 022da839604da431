import { definePlugin, Secret } from '#core'
import { HealthCheck } from '#contracts/health'
import { Redis } from '#contracts/redis'
import { config } from './config.ts'
import { Connections } from './connections.ts'
import { healthCheck } from './health.ts'

export default definePlugin({
  name: 'redis',
  summary: 'Owns every connection to Redis',
  config,
  provides: [Redis],
  contributes: [HealthCheck],
  async setup(ctx) {
    const { url, critical } = ctx.config
    const connections = ctx.own(await Connections.open(ctx))
    if (url instanceof Secret) ctx.defer(url.watch(() => void connections.renew().catch(() => {})))
    ctx.provide(Redis, connections)
    ctx.contribute(HealthCheck, healthCheck(connections, critical))
  },
})
