import { definePlugin, Host } from '#core'
import { HealthCheck } from '#contracts/health'
import { JobQueue } from '#contracts/queue'
import { Redis } from '#contracts/redis'
import { config } from './config.ts'
import { Engine } from './engine.ts'
import { Fitness } from './fitness.ts'
import { healthCheck } from './health.ts'
import { BullQueue } from './queue.ts'

const RELOOK_MS = 10_000

export default definePlugin({
  name: 'queue-bullmq',
  summary: 'Carries jobs to workers on any machine, by BullMQ on Redis',
  config,
  uses: { host: Host, redis: Redis },
  provides: [JobQueue],
  contributes: [HealthCheck],
  async setup(ctx, { host, redis }) {
    const { clock, log, name, config: { unfit, lock_ms } } = ctx
    const fitness = new Fitness(redis, unfit === 'refuse' || (unfit === 'auto' && host.environment === 'production'), log)
    await fitness.look()
    fitness.expect()
    const connection = ctx.own(await redis.connect('command', name))
    connection.onReady(() => void fitness.look())
    clock.every(RELOOK_MS, () => (fitness.unknown ? fitness.look() : undefined))
    const queue = ctx.own(new BullQueue({
      engine: new Engine(connection.client, redis.prefix, ctx.config.name, lock_ms), connection, connect: () => redis.connect('blocking', name),
      expectFit: () => fitness.expect(), clock, log, lockMs: lock_ms, id: host.instanceId,
    }))
    ctx.provide(JobQueue, queue)
    ctx.contribute(HealthCheck, healthCheck(queue, fitness))
  },
})
