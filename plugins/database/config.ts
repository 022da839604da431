import { z } from 'zod'
import { Secret } from '#core'

const count = (most: number) => z.number().int().min(1).max(most)
const postgres = z.strictObject({
  poolMin: z.number().int().min(0).max(1_000).default(0).describe('Connections that are kept open although nobody uses them.'),
  poolMax: count(1_000).default(10).describe('Most connections of one process, besides one that asks whether a silent server lives; the server must allow so many for each process.'),
  acquireMs: count(600_000).default(5_000).describe('How long to wait for a free connection, in milliseconds.'),
  idleMs: count(86_400_000).default(30_000).describe('When an unused connection is closed, in milliseconds.'),
  silentMs: count(60_000).default(1_000)
    .describe('How long PostgreSQL may give no sign of life while somebody waits for it, in milliseconds. After that it is taken for away, and its connections are given up.'),
  statementMs: count(86_400_000).default(30_000).describe('How long a statement may take, in milliseconds; migrations may take longer.'),
}).refine(({ poolMin, poolMax }) => poolMin <= poolMax, { path: ['poolMin'], error: 'must not be more than poolMax' })
export type PostgresSettings = z.output<typeof postgres>

const sqlite = z.strictObject({
  transactionMs: count(600_000).default(5_000).describe('How long a transaction may stay open, in milliseconds, since all other writers wait for it; migrations may take longer.'),
})

export const config = z.strictObject({
  file: z.string().min(1).default('backplane.db').describe('The SQLite file; a relative path is below the data folder.'),
  url: z.union([z.instanceof(Secret).meta({ type: 'string' }), z.string()]).optional()
    .describe('Address of the database, `sqlite:<path>` or `postgres://user:password@host:port/database`; wins over `file`. Leave it out for SQLite in the data folder.'),
  migrate: z.enum(['auto', 'check']).default('auto').describe('`auto` brings tables up to date at start; `check` refuses to start until `backplane migrate` has done so.'),
  sqlite: sqlite.prefault({}).describe('For SQLite only.'),
  postgres: postgres.prefault({}).describe('For PostgreSQL only.'),
})
export type DatabaseConfig = z.output<typeof config>
