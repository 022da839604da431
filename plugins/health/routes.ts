import { arch, platform, uptime, version as node } from 'node:process'
import { z } from 'zod'
import type { Host } from '#core'
import type { HealthReport } from '#contracts/health'
import { defineRoute, type HttpRoute } from '#contracts/http'
import type { Checker, CheckReport } from './checker.ts'

/** What everybody may know of a check: no message and no details, since they name hosts, paths and errors. */
const brief = ({ status, response_time_ms }: CheckReport) => ({ status, response_time_ms })
const codeOf = ({ status }: Pick<HealthReport, 'status'>) => (status === 'unhealthy' ? 503 : 200)

export function routes(checker: Checker, host: Host): HttpRoute[] {
  const overall = (path: string) => defineRoute({
    method: 'GET', path, summary: 'How the process and what it stands on are', public: true, early: true,
    async handler() {
      const report = await checker.report()
      const checks = Object.fromEntries(Object.entries(report.checks).map(([name, each]) => [name, brief(each)]))
      return { status: codeOf(report), body: { status: report.status, timestamp: report.timestamp, checks, version: host.version } }
    },
  })
  return [
    overall('/health'),
    overall('/api/v1/health'),
    defineRoute({
      method: 'GET', path: '/health/live', summary: 'Does the process answer? Looks at nothing else', public: true, early: true,
      handler: async () => ({ body: { status: 'healthy', uptime_s: Math.floor(uptime()) } }),
    }),
    defineRoute({
      method: 'GET', path: '/health/ready', summary: 'Should this process get traffic?', public: true, early: true,
      async handler() {
        const readiness = await checker.ready()
        const { ready } = readiness
        return { status: ready ? 200 : 503, ...(!ready && { headers: { 'Retry-After': '1' } }), body: readiness }
      },
    }),
    defineRoute({
      method: 'GET', path: '/health/checks/:name', summary: 'How one thing is', public: true, early: true,
      params: z.strictObject({ name: z.string().max(200) }),
      async handler({ params }) {
        const report = await checker.one(params.name)
        return { status: codeOf(report), body: { name: params.name, ...brief(report) } }
      },
    }),
    defineRoute({
      method: 'GET', path: '/health/detailed', summary: 'Every check with its message and details, every plugin, versions',
      permission: 'monitoring:read', early: true,
      async handler() {
        const report = await checker.report()
        const { state, plugins } = host.inspect()
        const rows = plugins.map(({ name, state: is, optional, faults, problem }) =>
          ({ name, state: is, optional, faults, ...(problem && { problem }) }))
        return {
          status: codeOf(report),
          body: {
            ...report, state, plugins: rows, versions: { backplane: host.version, node, platform: `${platform}-${arch}` },
            uptime_s: Math.floor(uptime()), instance_id: host.instanceId,
          },
        }
      },
    }),
  ]
}
