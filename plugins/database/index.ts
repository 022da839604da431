import { definePlugin, Host, RuntimeHooks } from '#core'
import { Database, DatabaseAdmin, DatabaseChannels } from '#contracts/database'
import { HealthCheck } from '#contracts/health'
import { config } from './config.ts'
import { openDatabase } from './dialect.ts'
import { healthCheck } from './health.ts'

/** After all that is said when everything has started. */
const REMIND_MS = 1_000

export default definePlugin({
  name: 'database',
  summary: 'Keeps everything, in a SQLite file or in PostgreSQL',
  config,
  uses: { host: Host },
  provides: [Database, DatabaseAdmin, DatabaseChannels],
  contributes: [HealthCheck],
  commands: () => import('./commands.ts'),
  async setup(ctx, { host }) {
    const { database, admin, channels } = await openDatabase(ctx.config, host, ctx.clock, ctx.log)
    ctx.own(database, each => each.close())
    ctx.provide(Database, database)
    ctx.provide(DatabaseAdmin, admin)
    ctx.provide(DatabaseChannels, channels)
    ctx.contribute(HealthCheck, healthCheck(database))
    if (database.dialect === 'postgres') ctx.hook(RuntimeHooks.ready, () => void ctx.clock.after(REMIND_MS, () => database.remind()))
  },
})
