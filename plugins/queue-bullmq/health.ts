import type { HealthCheck } from '#contracts/health'
import type { BullQueue } from './queue.ts'

export const healthCheck = (queue: BullQueue, expectFit: () => void): HealthCheck => ({
  name: 'queue-bullmq',
  async check() {
    // Both reject with what is wrong.
    expectFit()
    return { status: 'healthy', details: { depth: await queue.depth() } }
  },
})
