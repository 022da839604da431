import { meant, type BackplaneError, type Contribution, type Contributions, type Live } from '#core'
import { AccessErrors, type Access, type Caller, type Permission, type Resource } from '#contracts/access'
import { AgentErrors, type Agent, type AgentInfo, type Agents, type AgentState, type Tool } from '#contracts/agents'

export const DEFAULT_MODEL = 'default'

/** Asks whoever says who may do what; with nobody there it is refused. */
export async function checkAccess(access: Live<Access>, caller: Caller, permission: Permission, resource?: Resource): Promise<void> {
  if (!access.current) throw AccessErrors.UNAVAILABLE()
  await access.current.check(caller, permission, resource)
}

const resourceOf = (agent: string): Resource => ({ kind: 'agent', id: agent })
const namesOf = (all: Iterable<{ readonly name: string }>): string => [...all].map(each => each.name).sort().join(', ') || 'none'

/** Something that works with what a plugin contributed, and is told when that leaves. */
interface Use<T> extends Contribution<T> { leave(error: BackplaneError): void }

/** The agents and tools that plugins and config contribute, as they stand now, and which of them are at work. */
export class AgentRegistry implements Agents {
  readonly #runs = new Set<Use<Agent>>()
  readonly #calls = new Set<Use<Tool>>()
  /** Of agents as they are now: one that comes back anew has not failed yet. */
  readonly #failed = new WeakSet<Agent>()

  constructor(readonly agents: Contributions<Agent>, readonly tools: Contributions<Tool>, readonly access: Live<Access>) {
    agents.watch(all => this.#end(this.#runs, all, ({ plugin, value }) => AgentErrors.AWAY({ agent: value.name, plugin })))
    tools.watch(all => this.#end(this.#calls, all, ({ plugin, value }) => AgentErrors.TOOL_AWAY({ tool: value.name, plugin })))
  }

  async list(caller: Caller): Promise<readonly AgentInfo[]> {
    await checkAccess(this.access, caller, 'agents:read')
    const away = this.agents.away.filter(({ value }) => !this.agents.all.some(each => each.value.name === value.name))
    return [...this.agents.all, ...away].map(each => this.#info(each)).sort((a, b) => (a.name < b.name ? -1 : 1))
  }

  async get(caller: Caller, name: string): Promise<AgentInfo> {
    await checkAccess(this.access, caller, 'agents:read', resourceOf(name))
    const found = [...this.agents.all, ...this.agents.away].find(each => each.value.name === name)
    if (!found) throw this.#unknown(name)
    return this.#info(found)
  }

  /** Rejects with AGENTS_UNKNOWN, AGENTS_AWAY, or if the caller lacks the agent's own permission. */
  async admit(caller: Caller, name: string): Promise<Contribution<Agent>> {
    const found = this.find(name)
    await this.checkOwn(caller, found.value)
    return found
  }

  async checkOwn(caller: Caller, { name, permission }: Agent): Promise<void> {
    if (permission) await checkAccess(this.access, caller, permission, resourceOf(name))
  }

  find(name: string): Contribution<Agent> {
    const away = this.agents.away.find(each => each.value.name === name)
    if (away) throw AgentErrors.AWAY({ agent: name, plugin: away.plugin })
    const found = this.agents.all.find(each => each.value.name === name)
    if (!found) throw this.#unknown(name)
    return found
  }

  /** Throws AGENTS_TOOL_UNKNOWN or AGENTS_TOOL_AWAY. */
  tool(agent: string, name: string): Contribution<Tool> {
    const away = this.tools.away.find(each => each.value.name === name)
    if (away) throw AgentErrors.TOOL_AWAY({ tool: name, plugin: away.plugin })
    const found = this.tools.all.find(each => each.value.name === name)
    if (!found) throw AgentErrors.TOOL_UNKNOWN({ agent, tool: name, known: namesOf(this.tools) })
    return found
  }

  /** `leave` hears when the plugin of the agent goes. Call what this returns at the end, with whether that was a failure of the agent. */
  begin(agent: Contribution<Agent>, leave: (error: BackplaneError) => void): (failed: boolean) => void {
    const use = { ...agent, leave }
    this.#runs.add(use)
    return failed => {
      this.#runs.delete(use)
      if (failed) this.#failed.add(agent.value)
      else this.#failed.delete(agent.value)
    }
  }

  /** As `begin`, for one call of a tool. */
  call(tool: Contribution<Tool>, leave: (error: BackplaneError) => void): () => void {
    const use = { ...tool, leave }
    this.#calls.add(use)
    return () => void this.#calls.delete(use)
  }

  #end<T>(uses: ReadonlySet<Use<T>>, all: readonly Contribution<T>[], error: (use: Use<T>) => BackplaneError): void {
    for (const use of [...uses]) if (!all.some(each => each.value === use.value)) use.leave(error(use))
  }

  #unknown(agent: string): BackplaneError {
    return AgentErrors.UNKNOWN({ agent, meant: meant(agent, [...this.agents].map(each => each.name)), known: namesOf(this.agents) })
  }

  #info({ plugin, value }: Contribution<Agent>): AgentInfo {
    const { name, summary, version = null, model = DEFAULT_MODEL, tools = [] } = value
    const running = [...this.#runs].filter(each => each.value === value).length
    return { name, summary, version, plugin, model, tools, state: this.#state(value, running), running }
  }

  #state(agent: Agent, running: number): AgentState {
    if (this.agents.away.some(each => each.value.name === agent.name)) return 'offline'
    if (running) return 'busy'
    const there = (name: string) => this.tools.all.some(each => each.value.name === name)
    return this.#failed.has(agent) || !(agent.tools ?? []).every(there) ? 'error' : 'idle'
  }
}
