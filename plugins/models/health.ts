import { reasonOf } from '#core'
import type { HealthCheck } from '#contracts/health'
import type { ModelRegistry } from './models.ts'

/** Does every alias lead to a provider that is there and configured, and is none of them left alone? Calls no model. */
export const health = (models: ModelRegistry): HealthCheck => ({
  name: 'models',
  async check() {
    const broken = Object.keys(models.aliases).flatMap(alias => {
      try { models.find(alias); return [] } catch (error) { return [`${alias}: ${reasonOf(error)}`] }
    })
    const problems = [...broken, ...models.open.map(provider => `${provider}: its circuit breaker is open`)]
    return problems.length ? { status: 'degraded', message: problems.join('; ') } : { status: 'healthy', details: { aliases: models.aliases } }
  },
})
