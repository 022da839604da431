import { z } from 'zod'

const ms = (least: number, most: number) => z.int().min(least).max(most)

export const config = z.strictObject({
  heartbeatMs: ms(100, 60_000).default(2_000).describe('How often this process says that it lives; after three of these in silence it is taken for gone.'),
  leaseMs: ms(500, 60_000).default(6_000).describe('How long a lease outlives the last sign of life of its holder. Over 8,000 a fail-over may take longer than 10 s.'),
  leases: z.enum(['database', 'redis']).default('database').describe('Where leases are kept; the same in all processes of a deployment. Redis spares the database their renewals.'),
  retryMs: ms(20, 60_000).default(1_000).describe('How often those who wait for a lease ask for it.'),
  pollMs: ms(20, 60_000).default(100).describe('On SQLite: how often messages of other processes are looked for.'),
})
export type ClusterConfig = z.output<typeof config>
