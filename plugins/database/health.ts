import { statSync } from 'node:fs'
import type { HealthCheck } from '#contracts/health'
import type { SqliteDatabase } from './sqlite.ts'

export const healthCheck = (database: SqliteDatabase): HealthCheck => ({
  name: 'database',
  critical: true,
  async check() {
    const from = performance.now()
    // An empty transaction waits for the writer, as every request does.
    await database.transaction(async () => {})
    return {
      status: 'healthy',
      details: { dialect: database.dialect, bytes: statSync(database.file).size, waiting: database.waiting, lock_ms: Math.round(performance.now() - from) },
    }
  },
})
