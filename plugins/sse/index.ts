import { definePlugin, live } from '#core'
import { Access } from '#contracts/access'
import { EventLog } from '#contracts/events'
import { HttpRoute } from '#contracts/http'
import { JobUpdates } from '#contracts/job-updates'
import { Metric } from '#contracts/metrics'
import { config } from './config.ts'
import { routes } from './routes.ts'
import { Streams } from './streams.ts'

export default definePlugin({
  name: 'sse',
  summary: 'Streams what happens to jobs to browsers, as server-sent events that can be resumed',
  config,
  uses: { updates: JobUpdates, access: live(Access), events: live(EventLog) },
  contributes: [HttpRoute, Metric],
  setup(ctx, { updates, access, events }) {
    const streams = ctx.own(new Streams(ctx.config), each => each.close())
    for (const route of routes({ updates, access, events, streams, clock: ctx.clock, config: ctx.config })) ctx.contribute(HttpRoute, route)
    ctx.contribute(Metric, streams.metric)
    return { drain: async () => streams.close(), stop: async () => streams.close() }
  },
})
