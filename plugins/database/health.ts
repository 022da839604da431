import { statSync } from 'node:fs'
import type { HealthCheck } from '#contracts/health'
import type { PostgresDatabase } from './postgres.ts'
import type { SqliteDatabase } from './sqlite.ts'

const detailsOf = (database: SqliteDatabase | PostgresDatabase) =>
  (database.dialect === 'sqlite' ? { bytes: statSync(database.file).size, waiting: database.waiting } : database.pool)

export const healthCheck = (database: SqliteDatabase | PostgresDatabase): HealthCheck => ({
  name: 'database',
  critical: true,
  async check() {
    const from = performance.now()
    // An empty transaction waits for the writer, or for a connection, as every request does.
    await database.transaction(async () => {})
    return { status: 'healthy', details: { dialect: database.dialect, ...detailsOf(database), transaction_ms: Math.round(performance.now() - from) } }
  },
})
