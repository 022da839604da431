import type { HealthCheck } from '#contracts/health'
import type { Fitness } from './fitness.ts'
import type { BullQueue } from './queue.ts'

export const healthCheck = (queue: BullQueue, fitness: Fitness): HealthCheck => ({
  name: 'queue-bullmq',
  async check() {
    // Both reject with what is wrong.
    fitness.expect()
    return { status: 'healthy', details: { depth: await queue.depth() } }
  },
})
