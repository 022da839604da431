import { z } from 'zod'
import { Secret } from '#core'

const ms = (least: number, most: number) => z.int().min(least).max(most)

export const config = z.strictObject({
  url: z.union([z.instanceof(Secret).meta({ type: 'string' }), z.string()]).default('redis://127.0.0.1:6379')
    .describe('`redis://user:password@host:port/database`, `rediss://` for TLS, `redis+sentinel://host,host/master?db=0`, `redis+cluster://host,host` (REDIS_URL).'),
  prefix: z.string().regex(/^[\w.-]{1,50}$/, 'letters, digits and _ . -, at most 50').default('backplane')
    .describe('What every key begins with. Deployments that share one Redis need different ones.'),
  tls: z.strictObject({
    ca: z.string().min(1).optional().describe('Certificates that are trusted, as PEM: `${file:/etc/ssl/redis-ca.pem}`.'),
    servername: z.string().min(1).optional().describe('Name that the certificate must have, if it is not that of the address.'),
    verify: z.boolean().default(true).describe('False takes any certificate; for trying things out only.'),
  }).prefault({}).describe('For `rediss://` addresses.'),
  connectMs: ms(100, 60_000).default(2_000).describe('How long one attempt to connect may take.'),
  silentMs: ms(100, 60_000).default(2_000)
    .describe('How long Redis may give no sign of life, in milliseconds, before it is connected to again: under Sentinel or in a cluster, to whoever took over.'),
  commandMs: ms(100, 600_000).default(5_000).describe('How long a command may take, but for those that wait by their nature.'),
  critical: z.boolean().default(false).describe('Is this process not ready while Redis is away? Jobs are taken in all the same, by the database; one that only works is not ready anyway.'),
})
export type RedisConfig = z.output<typeof config>
