import { definePlugin, live } from '#core'
import { Access, PermissionInfo } from '#contracts/access'
import { Agent, Agents, Tool } from '#contracts/agents'
import { HealthCheck } from '#contracts/health'
import { HttpRoute } from '#contracts/http'
import { Jobs, JobType } from '#contracts/jobs'
import { Models } from '#contracts/models'
import { AgentCalls } from './calls.ts'
import { config } from './config.ts'
import { health, warnOfMissing } from './health.ts'
import { agentJob } from './jobs.ts'
import { AgentRegistry } from './registry.ts'
import { routes } from './routes.ts'

export default definePlugin({
  name: 'agents',
  summary: 'Agents from code and config, run as durable jobs: model, tools, model, until there is an answer',
  config,
  uses: { models: Models, access: live(Access), jobs: live(Jobs) },
  provides: [Agents],
  contributes: [Agent, JobType, HttpRoute, HealthCheck, PermissionInfo],
  commands: () => import('./commands.ts'),
  setup(ctx, { models, access, jobs }) {
    const registry = new AgentRegistry(ctx.collect(Agent), ctx.collect(Tool), access)
    ctx.provide(Agents, registry)
    for (const [name, { timeout_ms, ...agent }] of Object.entries(ctx.config.agents)) ctx.contribute(Agent, { name, timeout: timeout_ms, ...agent })
    ctx.contribute(JobType, agentJob({ models, registry, access, clock: ctx.clock }))
    for (const route of routes(registry, new AgentCalls(jobs, registry, ctx.clock, ctx.config.recheck_ms))) ctx.contribute(HttpRoute, route)
    ctx.contribute(HealthCheck, health(registry))
    ctx.contribute(PermissionInfo, { name: 'agents:read', summary: 'See which agents there are' })
    ctx.contribute(PermissionInfo, { name: 'agents:run', summary: 'Let agents run' })
    return { start: () => warnOfMissing(registry, ctx.log) }
  },
})
