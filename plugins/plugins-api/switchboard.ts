import { BackplaneError, BootError, CoreErrors, reasonOf, type Clock, type Host, type Logger } from '#core'
import { Access } from '#contracts/access'
import { HttpServer } from '#contracts/http'
import { PluginsApiErrors } from './contract.ts'

export type Action = 'enable' | 'disable' | 'reload'
export interface Changed { readonly name: string; readonly state: string; readonly restarted: readonly string[]; readonly accepted?: true }

/** Milliseconds that an answer gets to reach the caller before the server that carries it restarts. */
const HEAD_START_MS = 100

export interface SwitchboardDeps {
  readonly host: Host
  readonly log: Logger
  readonly clock: Clock
  /** The plugin that this is. */
  readonly self: string
}

/** Turns plugins of the running process on and off. */
export class Switchboard {
  /** Turned off from here, so that a list can still show them. */
  readonly #off = new Set<string>()
  constructor(readonly deps: SwitchboardDeps) {}

  list() {
    const { plugins } = this.deps.host.inspect()
    const running = new Set(plugins.map(({ name }) => name))
    const rows = plugins.map(({ name, plugin, summary, state, optional, problem, faults, uses, provides, contributes, ms }) =>
      ({ name, plugin, summary, state: String(state), optional, problem: problem ?? null, faults, uses, provides, contributes, ms: { ...ms } }))
    const off = [...this.#off].filter(name => !running.has(name)).map(name => ({
      name, plugin: name, summary: '', state: 'disabled', optional: false, problem: null, faults: 0, uses: [], provides: [], contributes: [], ms: {},
    }))
    return [...rows, ...off]
  }

  graph() {
    const { order, edges } = this.deps.host.inspect()
    return { order, edges }
  }

  /** Rejects with PLUGIN_UNKNOWN, PLUGINS_REFUSED or PLUGINS_NEEDED; then nothing was changed. */
  async change(action: Action, name: string): Promise<Changed> {
    const affected = this.#affected(name)
    if (action === 'disable') this.#keep(name, affected)
    const carriers = [this.deps.self, this.#provider(HttpServer.slot)].filter(each => each !== undefined)
    if (action === 'reload' && carriers.some(each => affected.includes(each))) return this.#later(name, affected)
    return { name, restarted: await this.#apply(action, name), state: this.#stateOf(name) }
  }

  async #apply(action: Action, name: string): Promise<readonly string[]> {
    try {
      const restarted = await this.deps.host[action](name)
      if (action === 'disable') this.#off.add(name)
      else this.#off.delete(name)
      return restarted
    } catch (error) {
      if (CoreErrors.Plugin.UNKNOWN.is(error) || (error instanceof BackplaneError && error.expose)) throw error
      throw PluginsApiErrors.REFUSED({ action, plugin: name, ...problemsOf(error, name) }, { cause: error })
    }
  }

  /** What carries this very answer restarts once it was sent: it would wait for the answer, and the answer for it. */
  #later(name: string, affected: readonly string[]): Changed {
    const { clock, log } = this.deps
    clock.after(HEAD_START_MS, () => {
      // Not awaited by anybody: this plugin may be among those that go.
      this.#apply('reload', name).then(restarted => log.info(`"${name}" was reloaded`, { restarted }), (error: unknown) => {
        log.error(reasonOf(error), { err: error })
      })
    })
    return { name, state: this.#stateOf(name), restarted: affected, accepted: true }
  }

  /** Who could turn it on again, if it carries the way in? */
  #keep(name: string, affected: readonly string[]): void {
    const [server, access] = [this.#provider(HttpServer.slot), this.#provider(Access.slot)]
    const reason = affected.includes(this.deps.self) ? `"${this.deps.self}", which answers this request, would go with it`
      : server !== undefined && affected.includes(server) ? `"${server}", the server that carries this request, would go with it`
        : access !== undefined && affected.includes(access) ? `"${access}", which lets callers in, would go with it, and nobody could enable it again` : undefined
    if (reason !== undefined) throw PluginsApiErrors.NEEDED({ plugin: name, reason })
  }

  /** Itself and all that restart with it, in boot order. */
  #affected(name: string): readonly string[] {
    const { order, edges } = this.deps.host.inspect()
    const found = new Set([name])
    for (const each of order) if (edges.some(({ from, to, kind }) => from === each && kind !== 'live' && found.has(to))) found.add(each)
    return [...found]
  }

  #provider(slot: string): string | undefined { return this.deps.host.inspect().services.find(({ service }) => service === slot)?.plugin }
  #stateOf(name: string): string { return this.deps.host.inspect().plugins.find(each => each.name === name)?.state ?? 'disabled' }
}

/** Every problem at once, each under the plugin that it is about. */
function problemsOf(error: unknown, name: string) {
  const all = error instanceof BootError ? error.errors : [error]
  const errors = all.map(each => {
    const { details = {}, fix } = each instanceof BackplaneError ? each : {} as Partial<BackplaneError>
    return { path: `plugins.${String(details['plugin'] ?? name)}`, message: fix === undefined ? reasonOf(each) : `${reasonOf(each)} (${fix})` }
  })
  return { reason: errors.length === 1 ? reasonOf(all[0]) : `${errors.length} problems`, errors }
}
