import { definePlugin } from '#core'
import { PermissionInfo } from '#contracts/access'
import { Tool } from '#contracts/agents'
import { HealthCheck } from '#contracts/health'
import { HttpRoute } from '#contracts/http'
import { Metric } from '#contracts/metrics'
import { BeforeModelCall, ModelCalled, ModelProvider, Models } from '#contracts/models'
import { config } from './config.ts'
import { health } from './health.ts'
import { measure, metrics } from './metrics.ts'
import { ModelRegistry } from './models.ts'
import { offlineProvider } from './offline.ts'
import { routes } from './routes.ts'
import { sameProviders, vendorProviders } from './vendors.ts'

export default definePlugin({
  name: 'models',
  summary: 'Language models by name, whoever makes them; with one that needs neither key nor network',
  config,
  provides: [Models],
  contributes: [ModelProvider, HealthCheck, HttpRoute, Metric, PermissionInfo],
  commands: () => import('./commands.ts'),
  setup(ctx) {
    let settings = ctx.config
    const models = new ModelRegistry(ctx.collect(ModelProvider), settings, {
      before: async call => { await ctx.call(BeforeModelCall, call) },
      called: async call => {
        measure(call)
        await ctx.call(ModelCalled, call)
      },
      log: ctx.log, clock: ctx.clock,
    })
    ctx.provide(Models, models)
    ctx.contribute(ModelProvider, offlineProvider(ctx.collect(Tool), ctx.log))
    for (const provider of vendorProviders(() => settings.providers)) ctx.contribute(ModelProvider, provider)
    for (const route of routes(models)) ctx.contribute(HttpRoute, route)
    for (const metric of metrics) ctx.contribute(Metric, metric)
    ctx.contribute(HealthCheck, health(models))
    ctx.contribute(PermissionInfo, { name: 'models:read', summary: 'See which models there are' })
    return {
      stop: () => models[Symbol.asyncDispose](),
      reconfigure(next) {
        if (!sameProviders(settings.providers, next.providers)) return false
        settings = next
        models.apply(next)
        return true
      },
    }
  },
})
