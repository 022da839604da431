import { didYouMean, reasonOf, type Logger } from '#core'
import { AgentErrors } from '#contracts/agents'
import type { HealthCheck } from '#contracts/health'
import type { AgentRegistry } from './registry.ts'

/** The tools that agents name and nothing contributes. */
function missing(registry: AgentRegistry): { readonly agent: string; readonly tool: string; readonly error: unknown }[] {
  return [...registry.agents].flatMap(({ name: agent, tools = [] }) => tools.flatMap(tool => {
    try { registry.tool(agent, tool); return [] } catch (error) { return [{ agent, tool, error }] }
  }))
}

/** Tells each of them in the log, with the names that were most likely meant. For when all plugins are set up. */
export function warnOfMissing(registry: AgentRegistry, log: Logger): void {
  const known = [...registry.tools].map(each => each.name)
  for (const { agent, tool, error } of missing(registry)) {
    log.warn(`${reasonOf(error)}. ${didYouMean(tool, known)}`, { code: AgentErrors.TOOL_UNKNOWN.code, agent, tool })
  }
}

/** Does every agent find the tools that it names? */
export const health = (registry: AgentRegistry): HealthCheck => ({
  name: 'agents',
  async check() {
    const problems = missing(registry).map(({ error }) => reasonOf(error))
    return problems.length ? { status: 'degraded', message: problems.join('; ') } : { status: 'healthy', details: { agents: [...registry.agents].length } }
  },
})
