import { reasonOf, type Logger } from '#core'
import { AgentErrors } from '#contracts/agents'
import type { HealthCheck } from '#contracts/health'
import type { AgentRegistry } from './registry.ts'

/** The tools that agents name and nothing contributes. */
function missing(registry: AgentRegistry): { readonly agent: string; readonly tool: string; readonly error: unknown }[] {
  return [...registry.agents].flatMap(({ name: agent, tools = [] }) => tools.flatMap(tool => {
    try { registry.tool(agent, tool); return [] } catch (error) { return [{ agent, tool, error }] }
  }))
}

const pairs = (name: string): Set<string> =>
  new Set(Array.from({ length: Math.max(0, name.length - 1) }, (_, at) => name.slice(at, at + 2).toLowerCase()))

/** The names that share at least half of their letter pairs with this one, the nearest first, at most three. */
function nearest(name: string, known: readonly string[]): string[] {
  const wanted = pairs(name)
  const likeness = (each: string) => {
    const has = pairs(each)
    return 2 * [...has].filter(pair => wanted.has(pair)).length / (has.size + wanted.size || 1)
  }
  return known.filter(each => likeness(each) >= 0.5).sort((a, b) => likeness(b) - likeness(a)).slice(0, 3)
}

/** Tells each of them in the log, with the names that were most likely meant. For when all plugins are set up. */
export function warnOfMissing(registry: AgentRegistry, log: Logger): void {
  const known = [...registry.tools].map(each => each.name)
  for (const { agent, tool, error } of missing(registry)) {
    const near = nearest(tool, known).map(each => `"${each}"`).join(' or ')
    log.warn(`${reasonOf(error)}. ${near ? `Did you mean ${near}?` : `Known tools: ${known.sort().join(', ') || 'none'}.`}`, { code: AgentErrors.TOOL_UNKNOWN.code, agent, tool })
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
