import type { Contributions, Live } from '#core'
import { AccessErrors, type Access, type Caller, type Permission, type Resource } from '#contracts/access'
import { AgentErrors, type Agent, type AgentInfo, type Agents, type Tool } from '#contracts/agents'

export const DEFAULT_MODEL = 'default'

/** Asks whoever says who may do what; with nobody there it is refused. */
export async function checkAccess(access: Live<Access>, caller: Caller, permission: Permission, resource?: Resource): Promise<void> {
  if (!access.current) throw AccessErrors.UNAVAILABLE()
  await access.current.check(caller, permission, resource)
}

const resourceOf = (agent: string): Resource => ({ kind: 'agent', id: agent })

/** The agents that plugins and config contribute, as they stand now. */
export class AgentRegistry implements Agents {
  constructor(readonly agents: Contributions<Agent>, readonly tools: Contributions<Tool>, readonly access: Live<Access>) {}

  async list(caller: Caller): Promise<readonly AgentInfo[]> {
    await checkAccess(this.access, caller, 'agents:read')
    return this.agents.all.map(({ plugin, value }) => this.#info(plugin, value)).sort((a, b) => (a.name < b.name ? -1 : 1))
  }

  async get(caller: Caller, name: string): Promise<AgentInfo> {
    await checkAccess(this.access, caller, 'agents:read', resourceOf(name))
    const agent = this.find(name)
    return this.#info(this.agents.all.find(each => each.value === agent)!.plugin, agent)
  }

  /** Rejects with AGENTS_UNKNOWN, or if the caller lacks the agent's own permission. */
  async admit(caller: Caller, name: string): Promise<Agent> {
    const agent = this.find(name)
    if (agent.permission) await checkAccess(this.access, caller, agent.permission, resourceOf(name))
    return agent
  }

  find(name: string): Agent {
    const agent = [...this.agents].find(each => each.name === name)
    if (!agent) throw AgentErrors.UNKNOWN({ agent: name, known: [...this.agents].map(each => each.name).sort().join(', ') || 'none' })
    return agent
  }

  /** Throws AGENTS_TOOL_UNKNOWN. */
  tool(agent: string, name: string): Tool {
    const tool = [...this.tools].find(each => each.name === name)
    if (!tool) throw AgentErrors.TOOL_UNKNOWN({ agent, tool: name, known: [...this.tools].map(each => each.name).sort().join(', ') || 'none' })
    return tool
  }

  #info(plugin: string, { name, summary, model = DEFAULT_MODEL, tools = [] }: Agent): AgentInfo { return { name, summary, plugin, model, tools } }
}
