import { definePlugin, Host, SecretResolve } from '#core'
import { HealthCheck } from '#contracts/health'
import { SecretStore } from '#contracts/secrets'
import { config } from './config.ts'
import { EnvironmentStore } from './environment.ts'
import { healthCheck } from './health.ts'

export default definePlugin({
  name: 'env-secrets',
  summary: 'Reads secrets from environment variables, and from the files that they name',
  config,
  uses: { host: Host },
  contributes: [SecretStore, HealthCheck],
  guards: [SecretResolve],
  setup(ctx, { host }) {
    const store = new EnvironmentStore(host.env, ctx.config.prefix)
    ctx.contribute(SecretStore, store)
    ctx.contribute(HealthCheck, healthCheck(store))
    // Better stores answer first.
    ctx.hook(SecretResolve, async ({ name }) => (await store.read(name))?.value, { order: 'post' })
  },
})
