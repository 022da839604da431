import { definePlugin } from '#core'
import { Tool } from '#contracts/agents'
import { HealthCheck } from '#contracts/health'
import { Metric } from '#contracts/metrics'
import { BeforeModelCall, ModelCalled, ModelProvider, Models } from '#contracts/models'
import { config, withDefault } from './config.ts'
import { health } from './health.ts'
import { measure, metrics } from './metrics.ts'
import { ModelRegistry } from './models.ts'
import { offlineProvider } from './offline.ts'

export default definePlugin({
  name: 'models',
  summary: 'Language models by name, whoever makes them; with one that needs neither key nor network',
  config,
  provides: [Models],
  contributes: [ModelProvider, HealthCheck, Metric],
  setup(ctx) {
    const models = new ModelRegistry(ctx.collect(ModelProvider), withDefault(ctx.config.aliases), {
      before: async call => { await ctx.call(BeforeModelCall, call) },
      called: async call => {
        measure(call)
        await ctx.call(ModelCalled, call)
      },
      log: ctx.log,
    })
    ctx.provide(Models, models)
    ctx.contribute(ModelProvider, offlineProvider(ctx.collect(Tool), ctx.log))
    ctx.contribute(HealthCheck, health(models))
    for (const metric of metrics) ctx.contribute(Metric, metric)
    return {
      stop: () => models[Symbol.asyncDispose](),
      reconfigure(next) {
        models.aliases = withDefault(next.aliases)
        return true
      },
    }
  },
})
