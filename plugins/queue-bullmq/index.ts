import { definePlugin, Host } from '#core'
import { Database } from '#contracts/database'
import { HealthCheck } from '#contracts/health'
import { JobQueue } from '#contracts/queue'
import { Redis } from '#contracts/redis'
import { config } from './config.ts'
import { Deployment, LOOK_MS } from './deployment.ts'
import { Engine } from './engine.ts'
import { Fitness } from './fitness.ts'
import { healthCheck } from './health.ts'
import { Loss } from './loss.ts'
import { migrations } from './migrations.ts'
import { BullQueue } from './queue.ts'

const RELOOK_MS = 10_000

export default definePlugin({
  name: 'queue-bullmq',
  summary: 'Carries jobs to workers on any machine, by BullMQ on Redis',
  config,
  uses: { host: Host, database: Database, redis: Redis },
  provides: [JobQueue],
  contributes: [HealthCheck],
  async setup(ctx, { host, database, redis }) {
    await database.migrate('queue-bullmq', migrations)
    const { clock, log, name, config: { unfit, lock_ms } } = ctx
    const fitness = new Fitness(redis, unfit === 'refuse' || (unfit === 'auto' && host.environment === 'production'), log)
    await fitness.look()
    fitness.expect()
    const connection = ctx.own(await redis.connect('command', name))
    const deployment = new Deployment({ database, redis, connection, queue: ctx.config.name, log })
    await deployment.look()
    const loss = new Loss({ redis, connection, queue: ctx.config.name, log })
    connection.onReady(() => void Promise.all([fitness.look(), deployment.look(), loss.look()]))
    clock.every(LOOK_MS, () => Promise.all([deployment.look(), loss.look()]))
    clock.every(RELOOK_MS, () => (fitness.unknown ? fitness.look() : undefined))
    const expectFit = () => { fitness.expect(); deployment.expect() }
    const queue = ctx.own(new BullQueue({
      engine: new Engine(connection.client, redis.prefix, ctx.config.name, lock_ms), connection, connect: () => redis.connect('blocking', name),
      expectFit, loss, clock, log, lockMs: lock_ms, id: host.instanceId,
    }))
    ctx.provide(JobQueue, queue)
    const worksOnly = host.roles.includes('worker') && !host.roles.includes('api')
    ctx.contribute(HealthCheck, healthCheck({ queue, expectFit, shared: () => deployment.shared, worksOnly }))
  },
})
