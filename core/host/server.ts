import { readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { BackplaneError, BootError, PluginErrors, reasonOf } from '../errors.ts'
import { didYouMean } from '../schema/nearest.ts'
import { nameOf, type PluginEntry } from '../plan.ts'
import type { Logger } from '../plugin.ts'
import { createRuntime, ROLES, type Runtime } from '../runtime.ts'
import { makeDataDir, problemText, problemsOf, problemsText } from './deployment.ts'
import { host, loadDeployment, type Deployment } from './loader.ts'
import { createLogger } from './logger.ts'
import { changesBetween, compareSettings, withKnownGuards, writeSnapshot } from './snapshot.ts'
import { FileWatch, type WatchOptions } from './watch.ts'
import { HostErrors, errorText, type Stray, type World } from './world.ts'

export interface ServerOptions { readonly configFile?: string; readonly roles?: string; readonly watch?: boolean | WatchOptions }

/** Runs a deployment until the world says stop. Resolves to the exit code: 0, 1 run-time failure, 2 configuration. */
export async function start(world: World, options: ServerOptions): Promise<number> {
  const deployment = await withKnownGuards(await loadDeployment({ cwd: world.cwd, env: world.env, configFile: options.configFile, roles: options.roles }))
  if (deployment.problems.length) { world.err(problemsText(problemsOf(deployment))); return 2 }
  try {
    await makeDataDir(deployment.settings.dataDir)
    return await new Server(world, options, deployment).run()
  } catch (error) {
    if (error instanceof BootError) { world.err(problemsText(problemsOf(deployment))); return 2 }
    world.err(`${error instanceof BackplaneError ? errorText(error) : (error as Error)?.stack ?? reasonOf(error)}\n`)
    return HostErrors.DATA_DIR.is(error) ? 2 : 1
  }
}

class Server {
  #deployment: Deployment
  /** What runs, or was left out, as far as the host is told: files, then enable and disable. */
  #running = new Map<string, PluginEntry>()
  #queue: Promise<unknown> = Promise.resolve()
  readonly #log: ReturnType<typeof createLogger>
  readonly #pretty: boolean
  readonly #runtime: Runtime

  constructor(readonly world: World, readonly options: ServerOptions, deployment: Deployment) {
    this.#deployment = deployment
    const { settings: { log, dataDir, roles, graceMs, timeouts }, entries } = deployment
    this.#pretty = log.format === 'auto' ? world.tty : log.format === 'pretty'
    this.#log = createLogger({ level: log.level, format: this.#pretty ? 'pretty' : 'json', color: this.#pretty && world.tty && !world.env['NO_COLOR'], write: line => world.out(line) })
    this.#runtime = createRuntime({
      plugins: entries, log: this.#log, graceMs, timeouts, offers: service => this.#deployment.offers(service),
      host: {
        version: host.version, dataDir, roles, env: world.env, environment: deployment.environment,
        enable: name => this.#enable(name), disable: name => this.#disable(name), reload: name => this.#reload(name),
      },
    })
    for (const entry of entries) this.#running.set(nameOf(entry), entry)
  }

  async run(): Promise<number> {
    const { world, options } = this
    // Without it a process whose plugins hold nothing open would end, though nobody asked for that.
    const alive = setInterval(() => {}, 2 ** 30)
    const end = new AbortController()
    let fatal = false
    world.onStray(stray => { if (!this.#attribute(stray)) { fatal = true; end.abort() } })
    // AbortSignal.any of one that is aborted already, as by SIGTERM while plugins are loaded, calls no listener; and what only it holds may be collected.
    const ended = new Promise<void>(resolve => {
      for (const signal of [end.signal, world.signal]) signal.addEventListener('abort', () => resolve(), { once: true })
      if (world.signal.aborted) resolve()
    })
    for (const warning of this.#deployment.warnings) this.#log.warn(warning)
    try {
      const started = this.#runtime.start()
      const outcome = await Promise.race([started.then(() => 'up' as const), ended.then(() => 'end' as const)])
      if (outcome === 'end') { started.catch(() => {}); await this.#stop(); return fatal ? 1 : 0 }
      await this.#record()
      // Before it says that it runs: an edit made right then would be missed.
      await using _watch = options.watch === false ? undefined : await this.#watch(typeof options.watch === 'object' ? options.watch : {})
      await this.#announce()
      await ended
      await this.#stop()
      return fatal ? 1 : 0
    } finally {
      clearInterval(alive)
      world.onStray(({ error, where, plugin }) => this.#log.error(`${where} after the stop: ${reasonOf(error)}`, { plugin, err: error }))
    }
  }

  async #stop(): Promise<void> {
    this.#log.info(`stopping${this.#runtime.state === 'running' ? `, within ${this.#deployment.settings.graceMs} ms` : ''}`)
    await this.#runtime.stop()
    this.#log.info('stopped')
  }

  /** Puts a stray down to its plugin, and says whether that could be done. */
  #attribute({ error, where, plugin }: Stray): boolean {
    if (plugin !== undefined && this.#running.has(plugin)) { this.#runtime.fault(plugin, error, where); return true }
    this.#log.error(`${where} of no plugin, so the process stops: ${reasonOf(error)}`, { err: error })
    return false
  }

  /** Changes follow one another, each seeing what the one before did. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(work)
    this.#queue = result.catch(() => {})
    return result
  }

  async #apply(changes: ReadonlyMap<string, PluginEntry | undefined>, force = false): Promise<readonly string[]> {
    const restarted = await this.#runtime.change(changes, force)
    for (const [name, entry] of changes) {
      if (entry) this.#running.set(name, entry)
      else this.#running.delete(name)
    }
    await this.#record()
    return restarted
  }

  async #record(): Promise<void> {
    const { configFile, roles } = this.options
    const started = { pid: this.world.pid, ...(configFile !== undefined && { configFile: resolve(this.world.cwd, configFile) }), ...(roles !== undefined && { roles }) }
    try { await writeSnapshot(this.#deployment, this.#running.values(), this.#runtime, started) } catch (error) {
      this.#log.warn(`the configuration could not be recorded for \`config plan\`: ${reasonOf(error)}`)
    }
  }

  #entry(name: string, { entries, disabled, originOf }: Deployment): PluginEntry {
    const entry = entries.find(each => nameOf(each) === name)
    if (entry) return entry
    if (disabled.includes(name)) throw HostErrors.DISABLED({ plugin: name, place: originOf(['plugins', name])?.file ?? 'the config' })
    throw PluginErrors.UNKNOWN({ plugin: name, advice: didYouMean(name, entries.map(nameOf)) })
  }

  #enable(name: string): Promise<readonly string[]> {
    return this.#inTurn(async () => (this.#running.has(name) ? [] : this.#apply(new Map([[name, this.#entry(name, this.#deployment)]]))))
  }

  #disable(name: string): Promise<readonly string[]> {
    return this.#inTurn(async () => {
      this.#entry(name, this.#deployment)
      return this.#running.has(name) ? this.#apply(new Map([[name, undefined]])) : []
    })
  }

  /** A plugin from outside is read again, code and settings; a first-party one just starts anew. */
  #reload(name: string): Promise<readonly string[]> {
    return this.#inTurn(async () => {
      this.#entry(name, this.#deployment)
      const own = this.#deployment.manifest.get(name)?.firstParty === true
      const next = await this.#load(own ? [] : [name])
      const problems = problemsOf(next)
      if (problems.length) throw HostErrors.CONFIG_BROKEN({ problems: problems.map(({ file, line, message }) => (file ? `${file}:${line}: ${message}` : message)).join('; ') })
      for (const warning of next.warnings) this.#log.warn(warning)
      return this.#apply(new Map([[name, this.#entry(name, next)]]), true)
    })
  }

  async #load(reload: readonly string[] = []): Promise<Deployment> {
    return withKnownGuards(await loadDeployment({ cwd: this.world.cwd, env: this.world.env, configFile: this.options.configFile, roles: this.options.roles, reload: new Set(reload) }))
  }

  async #watch(options: WatchOptions): Promise<FileWatch> {
    const files = new FileWatch(() => this.#inTurn(async () => {
      try { await files.watch((await this.#edited()).files) } catch (error) { this.#log.error(`the edit was not applied: ${reasonOf(error)}`, { err: error }) }
    }), options)
    await files.watch(this.#deployment.files)
    return files
  }

  /** Brings what runs to what the files say now; a bad edit changes nothing. */
  async #edited(): Promise<Deployment> {
    const next = await this.#load()
    const log: Logger = this.#log
    const problems = problemsOf(next)
    if (problems.length) {
      log.error(`the edit is refused, all goes on as before: ${problems.length === 1 ? '1 problem' : `${problems.length} problems`}`)
      for (const row of problems) {
        if (this.#pretty) for (const line of problemText(row).split('\n')) log.error(line)
        else log.error(row.message, { ...row })
      }
      return next
    }
    for (const { path, from, to, restart } of compareSettings(this.#deployment.settings, next.settings)) {
      if (restart) log.warn(`${path} is ${to} now, and was ${from}: that takes a restart of the process`)
      else log.info(`${path} is ${to} now`)
    }
    this.#log.setLevel(next.settings.log.level)
    const changes = await changesBetween(this.#running, next.entries)
    if (!changes.size) { this.#keep(next); return next }
    const before = this.#running
    const names = [...changes].map(([name, entry]) => `${name} ${entry ? (before.has(name) ? 'changed' : 'added') : 'removed'}`)
    try {
      const restarted = await this.#apply(changes)
      this.#keep(next)
      await this.#record()
      const inPlace = [...changes.keys()].filter(name => changes.get(name) && !restarted.includes(name))
      log.info(`the edit is applied: ${names.join(', ')}`, { restarted, in_place: inPlace })
    } catch (error) {
      const { code, fix } = error as Partial<BackplaneError>
      log.error(`the edit could not be applied, all is as before: ${reasonOf(error)}`, { code, fix, changes: names })
    }
    return next
  }

  /** What needs a restart stays as it is in here, so that it is told again. */
  #keep(next: Deployment): void {
    const { log, ...kept } = this.#deployment.settings
    this.#deployment = { ...next, settings: { ...kept, log: { ...log, level: next.settings.log.level } } }
  }

  async #announce(): Promise<void> {
    const { dataDir, roles } = this.#deployment.settings
    const { plugins } = this.#runtime.inspect()
    const { instanceId: instance } = this.#runtime.host
    const url = await urlOf(dataDir, instance)
    const out = plugins.filter(each => each.state === 'failed')
    if (!this.#pretty) {
      this.#log.info('started', { url, instance, roles, data: dataDir, version: host.version, plugins: plugins.length - out.length, left_out: out.map(({ name, problem }) => ({ name, ...problem })) })
      return
    }
    const lines = [`Backplane ${host.version} runs with ${plugins.length - out.length} plugins`, `  url   ${url ?? 'none: no plugin listens'}`, `  data  ${dataDir}`]
    if (roles.length < ROLES.length) lines.push(`  roles ${roles.join(', ')}`)
    for (const { name, problem } of out) lines.push(`  left out: ${name}, in ${problem?.phase}: ${problem?.message}\n    fix: ${problem?.fix}`)
    if (plugins.some(each => each.plugin === 'agent-pack-core' && each.state === 'running')) {
      const question = 'What is (2+3)*7, and 15% of 80?'
      if (url) lines.push('', 'Submit a job:', `  curl -s -X POST ${url}/api/v1/jobs -H 'content-type: application/json' -d '${JSON.stringify({ agent: 'math', input: question })}'`)
      lines.push('or let the agent answer here:', `  npm run backplane -- run math "${question}"`)
    }
    this.world.out(`\n${lines.join('\n')}\n\n`)
  }
}

/** Where this process listens, as its server plugin has written it down. */
async function urlOf(dataDir: string, instanceId: string): Promise<string | undefined> {
  for (const name of ['server.json', `server.${instanceId}.json`]) try {
    const found = JSON.parse(await readFile(join(dataDir, name), 'utf8')) as { url?: string; instanceId?: string }
    if (found.instanceId === instanceId) return found.url
  } catch { /* there is no such file */ }
  return undefined
}
