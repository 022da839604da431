import { definePlugin, Host } from '#core'
import { PermissionInfo } from '#contracts/access'
import { HttpRoute } from '#contracts/http'
import { routes } from './routes.ts'
import { Switchboard } from './switchboard.ts'

export default definePlugin({
  name: 'plugins-api',
  summary: 'Shows the plugins of the running process, and turns them on and off',
  uses: { host: Host },
  contributes: [HttpRoute, PermissionInfo],
  commands: () => import('./commands.ts'),
  setup(ctx, { host }) {
    const switchboard = new Switchboard({ host, log: ctx.log, clock: ctx.clock, self: ctx.name })
    for (const route of routes(switchboard)) ctx.contribute(HttpRoute, route)
    ctx.contribute(PermissionInfo, { name: 'plugins:read', summary: 'See which plugins run, and how they are' })
    ctx.contribute(PermissionInfo, { name: 'plugins:write', summary: 'Enable, disable and reload plugins' })
  },
})
