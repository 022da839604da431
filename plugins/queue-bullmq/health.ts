import type { HealthCheck } from '#contracts/health'
import type { BullQueue } from './queue.ts'

export interface HealthDeps {
  readonly queue: BullQueue
  /** Throws why Redis may not be used. */
  readonly expectFit: () => void
  /** The queue is that of another database. */
  readonly shared: () => boolean
  /** It takes no jobs in. */
  readonly worksOnly: boolean
}

export const healthCheck = ({ queue, expectFit, shared, worksOnly }: HealthDeps): HealthCheck => ({
  name: 'queue-bullmq',
  noted: true,
  // Who takes jobs in can do that without Redis, but not for a deployment that it is no part of.
  get critical() { return worksOnly || shared() },
  async check() {
    // Both reject with what is wrong.
    expectFit()
    return { status: 'healthy', details: { depth: await queue.depth() } }
  },
})
