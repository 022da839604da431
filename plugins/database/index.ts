import { definePlugin, Host } from '#core'
import { Database } from '#contracts/database'
import { HealthCheck } from '#contracts/health'
import { fileOf } from './address.ts'
import { config } from './config.ts'
import { healthCheck } from './health.ts'
import { SqliteDatabase } from './sqlite.ts'

export default definePlugin({
  name: 'database',
  summary: 'Keeps everything, in a SQLite file',
  config,
  uses: { host: Host },
  provides: [Database],
  contributes: [HealthCheck],
  async setup(ctx, { host }) {
    const database = ctx.own(await SqliteDatabase.open(await fileOf(ctx.config, host.dataDir), ctx.log), each => each.close())
    ctx.provide(Database, database)
    ctx.contribute(HealthCheck, healthCheck(database))
  },
})
