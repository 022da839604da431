import { definePlugin } from '#core'
import { Database } from '#contracts/database'
import { JobQueue } from '#contracts/queue'
import { migrations } from './migrations.ts'
import { EmbeddedQueue } from './queue.ts'

export default definePlugin({
  name: 'queue-embedded',
  summary: 'Carries jobs to workers by a table of the database',
  uses: { database: Database },
  provides: [JobQueue],
  async setup(ctx, { database }) {
    await database.migrate('queue-embedded', migrations)
    ctx.provide(JobQueue, new EmbeddedQueue(database, ctx.clock, ctx.log))
  },
})
