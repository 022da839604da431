import { monitorEventLoopDelay } from 'node:perf_hooks'
import { definePlugin, Host } from '#core'
import { PermissionInfo } from '#contracts/access'
import { Health, HealthCheck } from '#contracts/health'
import { HttpRoute } from '#contracts/http'
import { Checker } from './checker.ts'
import { config } from './config.ts'
import { RESOLUTION_MS, diskCheck, eventLoopCheck, memoryCheck, pluginsCheck } from './health.ts'
import { routes } from './routes.ts'

export default definePlugin({
  name: 'health',
  summary: 'How the process and what it stands on are, and whether it should get traffic',
  config,
  uses: { host: Host },
  provides: [Health],
  contributes: [HealthCheck, HttpRoute, PermissionInfo],
  commands: () => import('./commands.ts'),
  setup(ctx, { host }) {
    const { memory, disk, eventLoop } = ctx.config
    const delays = ctx.own(monitorEventLoopDelay({ resolution: RESOLUTION_MS }), each => each.disable())
    delays.enable()
    const checks = [pluginsCheck(host), memoryCheck(memory), diskCheck(disk, host.dataDir), eventLoopCheck(eventLoop, delays)]
    for (const check of checks) ctx.contribute(HealthCheck, check)

    const checker = new Checker({ checks: ctx.collect(HealthCheck), host, clock: ctx.clock })
    ctx.provide(Health, checker)
    for (const route of routes(checker, host)) ctx.contribute(HttpRoute, route)
    ctx.contribute(PermissionInfo, { name: 'monitoring:read', summary: 'See health in full: messages, details, plugins and versions' })
  },
})
