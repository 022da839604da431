import type { HealthCheck } from '#contracts/health'
import type { Connections } from './connections.ts'

export const healthCheck = (connections: Connections, critical: boolean): HealthCheck => ({
  name: 'redis',
  critical,
  noted: true,
  async check() {
    const from = performance.now()
    // Rejects at once while Redis is away or refuses to write, and that is unhealthy.
    await connections.write()
    const details = { kind: connections.kind, connections: connections.names, ping_ms: Math.round(performance.now() - from) }
    const flaws = await connections.flaws()
    if (flaws.length) return { status: 'degraded', message: flaws.map(each => `${each.message}: ${each.fix}`).join(' '), details }
    return { status: 'healthy', details }
  },
})
