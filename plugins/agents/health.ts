import { reasonOf } from '#core'
import type { HealthCheck } from '#contracts/health'
import type { AgentRegistry } from './registry.ts'

/** Does every agent find the tools that it names? */
export const health = (registry: AgentRegistry): HealthCheck => ({
  name: 'agents',
  async check() {
    const agents = [...registry.agents]
    const problems = agents.flatMap(({ name, tools = [] }) => tools.flatMap(tool => {
      try { registry.tool(name, tool); return [] } catch (error) { return [reasonOf(error)] }
    }))
    return problems.length ? { status: 'degraded', message: problems.join('; ') } : { status: 'healthy', details: { agents: agents.length } }
  },
})
