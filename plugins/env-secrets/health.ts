import type { HealthCheck } from '#contracts/health'
import type { EnvironmentStore } from './environment.ts'

/** Of files that somebody asked for: other variables that end in _FILE may be no secrets at all. */
export const healthCheck = (store: EnvironmentStore): HealthCheck => ({
  name: 'env-secrets',
  async check() {
    const [first, ...more] = store.failing
    if (first === undefined) return { status: 'healthy' }
    return { status: 'degraded', message: more.length ? `${first}, and ${more.length} more` : first }
  },
})
