import { z } from 'zod'

export const config = z.strictObject({
  name: z.string().regex(/^[\w.-]{1,50}$/, 'letters, digits and _ . -, at most 50').default('jobs').describe('Of the queue in BullMQ.'),
  lock_ms: z.int().min(200).max(60_000).default(5_000)
    .describe('For how long a consumer may keep ids that it was given and did not take yet; a job itself is held by `jobs.lease`.'),
  unfit: z.enum(['auto', 'refuse', 'warn']).default('auto')
    .describe('What if Redis evicts keys or keeps nothing over a restart: `auto` refuses in production and warns elsewhere.'),
})
export type QueueConfig = z.output<typeof config>
