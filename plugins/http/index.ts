import { definePlugin, Host, live, RuntimeHooks } from '#core'
import { Access } from '#contracts/access'
import { HealthCheck } from '#contracts/health'
import { HttpMiddleware, HttpRoute, HttpServer, HttpUpgrade } from '#contracts/http'
import { Metric } from '#contracts/metrics'
import { config, type HttpConfig } from './config.ts'
import { Gate } from './gate.ts'
import { createHealthCheck } from './health.ts'
import { createInstruments } from './metrics.ts'

export default definePlugin({
  name: 'http',
  summary: 'The one HTTP server: routes, identity, limits and problem answers',
  config,
  uses: { host: Host, access: live(Access) },
  provides: [HttpServer],
  contributes: [HealthCheck, Metric],
  async setup(ctx, { host, access }) {
    const [{ App }, { Headers }, { Listener }, { Proxies }, { rootRoute, withRoot }, { RouteTable }, { Upgrades }] = await Promise.all([
      import('./app.ts'), import('./headers.ts'), import('./listener.ts'), import('./proxies.ts'), import('./root.ts'), import('./table.ts'), import('./upgrade.ts'),
    ])
    const { log, clock } = ctx
    const instruments = createInstruments()
    const gate = new Gate(ctx.config, host.roles)

    const [headers, proxies] = [new Headers(), new Proxies()]
    const routes = ctx.collect(HttpRoute)
    const app = new App({ gate, access, log, clock, instruments, headers, proxies })
    app.table = new RouteTable(routes, (plugin, error) => log.error(error.message, { plugin, code: error.code, fix: error.fix }))
    const root = rootRoute(host.version, () => app.table)
    routes.watch((all, away) => app.table.update(withRoot(all, root), away))
    ctx.collect(HttpMiddleware).watch(all => app.useMiddleware(all))

    const takers = ctx.collect(HttpUpgrade)
    const upgrades = new Upgrades({ gate, access, log, clock, proxies, upgrades: takers })
    const listener = new Listener({ gate, access, host, log, clock, headers, proxies, upgrades, requests: app.callback() })
    takers.watch(all => { upgrades.update(all); listener.listenForUpgrades() })

    ctx.provide(HttpServer, listener)
    ctx.contribute(HealthCheck, createHealthCheck(app.table, gate))
    for (const instrument of Object.values(instruments)) ctx.contribute(Metric, instrument)
    ctx.hook(RuntimeHooks.ready, () => { gate.state = 'serving' })
    ctx.hook(RuntimeHooks.draining, () => listener.leave())
    ctx.defer(() => listener.stop(), 'listener')

    return {
      async start() {
        await listener.start()
        // Swapped in while the others run: nobody will say "ready" again.
        if (host.inspect().state === 'running') gate.state = 'serving'
      },
      drain: () => listener.drain(),
      stop: () => listener.stop(),
      async reconfigure(next: HttpConfig) {
        const fixed: readonly (keyof HttpConfig)[] = ['host', 'port', 'maxHeaderBytes']
        if (fixed.some(key => next[key] !== gate.settings[key]) || !next.tls !== !gate.settings.tls) return false
        await listener.renew(next.tls)
        listener.tune(next)
        return true
      },
    }
  },
})
