import { relative, resolve } from 'node:path'
import { PluginErrors } from '../errors.ts'
import { nameOf, type PluginEntry } from '../plan.ts'
import { createPlugin } from './create-plugin.ts'
import { planOf, problemsOf, problemsText } from '../host/deployment.ts'
import { pluginStates } from './client.ts'
import { toDot, toMermaid, toText } from './graph-text.ts'
import { loadDeployment, type Deployment } from '../host/loader.ts'
import { didYouMean } from '../schema/nearest.ts'
import { testPlugin } from './plugin-tests.ts'
import { jsonSchemaOf, variants, type JsonSchema } from '../schema/schema.ts'
import { start } from '../host/server.ts'
import { comparePlan, environmentOf, readSnapshot } from '../host/snapshot.ts'
import type { Command } from './command.ts'
import type { World } from '../host/world.ts'

/** What a command of the host itself gets. */
export interface HostIo {
  readonly args: readonly string[]
  readonly options: Readonly<Record<string, any>>
  readonly json: boolean
  readonly world: World
  readonly configFile: string | undefined
  load(): Promise<Deployment>
  out(text: string): void
  err(text: string): void
}
const LABELS = [
  ['provides', 'provides'], ['uses', 'needs'], ['live', 'uses if there'], ['settled', 'waits for all of'],
  ['contributes', 'adds to'], ['guards', 'guards'], ['secrets', 'may read'], ['hosts', 'talks to'],
] as const

/** `plain`: it prints no data, so it has no --json. */
export interface HostCommand extends Omit<Command, 'run' | 'needs'> { readonly plain?: true; run(io: HostIo): Promise<number | void> }

const print = (io: HostIo, value: unknown) => io.out(JSON.stringify(value, null, 2))

/** The deployment, or undefined after its problems were told. */
async function sound(io: HostIo): Promise<Deployment | undefined> {
  const deployment = await io.load()
  const problems = problemsOf(deployment)
  if (!problems.length) return deployment
  io.err(problemsText(problems).trimEnd())
  return undefined
}

function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]?.map((_, at) => Math.max(...rows.map(row => row[at]!.length))) ?? []
  return rows.map(row => row.map((cell, at) => cell.padEnd(widths[at]!)).join('  ').trimEnd()).join('\n')
}

function describe(entry: PluginEntry, { manifest }: Deployment) {
  const { plugin, error } = entry
  const uses = Object.values(plugin.uses)
  return {
    name: nameOf(entry), plugin: plugin.name, summary: plugin.summary ?? '', optional: entry.optional === true,
    provides: plugin.provides.map(ref => ref.id),
    uses: uses.flatMap(use => (use.is === 'service' ? [use.id] : [])),
    live: uses.flatMap(use => (use.is === 'live' ? [use.ref.id] : [])),
    settled: uses.flatMap(use => (use.is === 'settled' ? [use.point.id] : [])),
    contributes: plugin.contributes.map(ref => ref.id), guards: plugin.guards.map(ref => ref.id), secrets: [...(plugin.secrets ?? [])], hosts: [...(plugin.hosts ?? [])],
    file: manifest.get(nameOf(entry))?.file ?? '', version: manifest.get(nameOf(entry))?.version,
    ...(error && { error: { code: error.code, message: error.message, fix: error.fix } }),
  }
}

interface Described { type?: string | string[]; description?: string; enum?: unknown[]; anyOf?: { type?: string }[]; default?: unknown }
interface Setting { readonly path: string; readonly type: string; readonly default?: unknown; readonly required: boolean; readonly description?: string }
function settingsOf(schema: JsonSchema | undefined, path = ''): Setting[] {
  return variants(schema).flatMap(each => Object.entries(each.properties ?? {}).flatMap(([key, child]): Setting[] => {
    const at = path ? `${path}.${key}` : key
    if (child.properties) return settingsOf(child, at)
    const { type, description, enum: options, anyOf, default: preset } = child as Described
    const kind = options?.map(option => JSON.stringify(option)).join(' | ') ?? (Array.isArray(type) ? type.join(' | ') : type) ?? anyOf?.map(one => one.type ?? 'any').join(' | ') ?? 'any'
    const required = preset === undefined && ((each as { required?: string[] }).required ?? []).includes(key)
    return [{ path: at, type: kind, required, ...(preset !== undefined && { default: preset }), ...(description !== undefined && { description }) }]
  }))
}

export const hostCommands: readonly HostCommand[] = [
  {
    name: 'start', summary: 'Run what the config names until SIGTERM or Ctrl-C', plain: true,
    options: [
      { flags: '--roles <roles>', summary: 'what this process does: api, worker, scheduler, with commas between them, or all' },
      { flags: '--no-watch', summary: 'do not apply edits of the config files while running' },
    ],
    examples: ['backplane start', 'PORT=9000 backplane start --config my.yaml', 'backplane start --roles worker'],
    run: ({ world, configFile, options: { roles, watch } }) => start(world, { configFile, roles: roles as string | undefined, watch: watch !== false }),
  },
  {
    name: 'config check', summary: 'Is everything right, and if not, where; runs no plugin', examples: ['backplane config check', 'backplane config check --config my.yaml --json'],
    async run(io) {
      const deployment = await io.load()
      const problems = problemsOf(deployment)
      if (io.json) print(io, { ok: problems.length === 0, environment: deployment.environment, problems })
      else if (problems.length) io.err(problemsText(problems).trimEnd())
      else {
        for (const warning of deployment.warnings) io.err(warning)
        io.out(`no problems; ${deployment.entries.length} plugins, environment ${deployment.environment}`)
        for (const entry of deployment.entries) if (entry.error) io.out(`left out, since it is optional: ${nameOf(entry)}: ${entry.error.message}`)
      }
      return problems.length ? 2 : 0
    },
  },
  {
    name: 'config print', summary: 'Every setting in force and where it comes from, secrets masked', examples: ['backplane config print', 'backplane config print --json'],
    async run(io) {
      const deployment = await io.load()
      const rows = deployment.effective()
      const place = ({ file, line }: { file: string; line: number }) => (line ? `${file}:${line}` : file)
      if (io.json) print(io, rows)
      else io.out(table(rows.map(({ path, value, origin }) => [`${path}: ${JSON.stringify(value)}`, `# ${place(origin)}`])))
      const problems = problemsOf(deployment)
      if (problems.length) io.err(`\n${problemsText(problems).trimEnd()}`)
      return problems.length ? 2 : 0
    },
  },
  {
    name: 'config schema', summary: 'JSON Schema of the whole file, made from the loaded plugins; for editors', plain: true, examples: ['backplane config schema > config/schema.json'],
    async run(io) {
      const deployment = await io.load()
      print(io, deployment.schema())
      const lost = deployment.entries.filter(({ error, phase }) => error && phase !== 'config')
      for (const { name, error } of lost) io.err(`without the settings of "${name}": ${error!.message}`)
      return lost.length ? 2 : 0
    },
  },
  {
    name: 'config plan', summary: 'What a running server would do about the files as they are now, with its own variables and --config; runs no plugin',
    examples: ['backplane config plan', 'backplane config plan --json'],
    async run(io) {
      const { settings: { dataDir } } = await io.load()
      const snapshot = await readSnapshot(dataDir)
      const { env, other } = environmentOf(snapshot, io.world.env)
      const configFile = io.configFile ?? snapshot.configFile
      const options = { cwd: io.world.cwd, env, ...(configFile !== undefined && { configFile }), ...(snapshot.roles !== undefined && { roles: snapshot.roles }) }
      const deployment = await sound({ ...io, load: () => loadDeployment(options) })
      if (!deployment) return 2
      const plan = comparePlan(snapshot, deployment)
      if (io.json) return print(io, { since: { at: snapshot.at, pid: snapshot.pid }, ...plan })
      io.err(`compared with what process ${snapshot.pid} put into effect at ${snapshot.at}${io.configFile === undefined && configFile !== undefined ? `, with its --config ${short(configFile, io.world.cwd)}` : ''}`)
      if (other.length) io.err(`judged with the variables of that process; this shell has others for ${other.join(', ')}, which a server would take only if it was started here`)
      const rows = [
        ...plan.added.map(name => `+ ${name}: added`), ...plan.removed.map(name => `- ${name}: removed`),
        ...plan.reconfigured.map(name => `~ ${name}: re-configured in place, or restarted if it cannot take these settings while it runs`),
        ...plan.restarted.map(name => `! ${name}: restarted`), ...plan.dependents.map(name => `! ${name}: restarted with what it stands on`),
        ...plan.settings.map(({ path, from, to, restart }) => `${restart ? '!' : '~'} ${path}: ${from} -> ${to}${restart ? '; takes a restart of the process' : ''}`),
      ]
      io.out(rows.join('\n') || 'nothing would change')
    },
  },
  {
    name: 'plugins list', summary: 'The plugins of the config, and their states in the server that runs here', examples: ['backplane plugins list', 'backplane plugins list --json'],
    async run(io) {
      const deployment = await io.load()
      const states = await pluginStates(deployment.settings.dataDir, io.world)
      const rows = deployment.entries.map(entry => ({ ...describe(entry, deployment), ...(states && { state: states.get(nameOf(entry)) ?? 'not running' }) }))
      if (io.json) print(io, rows)
      else for (const { name, plugin, summary, provides, uses, live, settled, optional, file, error, state } of rows) {
        io.out(`${name}${plugin === name ? '' : ` (${plugin})`}${optional ? ', optional' : ''}${state ? `, ${state}` : ''}  ${error ? `not loaded: ${error.message}` : summary}`)
        if (provides.length) io.out(`    provides  ${provides.join(', ')}`)
        const all = [...uses, ...live.map(id => `${id}?`), ...settled.map(id => `${id}*`)]
        if (all.length) io.out(`    uses      ${all.join(', ')}`)
        if (file) io.out(`    file      ${short(file, io.world.cwd)}`)
      }
      if (!io.json && deployment.disabled.length) io.out(`turned off: ${deployment.disabled.join(', ')}`)
      return rows.some(row => row.error && !row.optional) ? 2 : 0
    },
  },
  {
    name: 'plugins graph', summary: 'Which plugin stands on which; `?` is a live use, `*` a settled point',
    options: [{ flags: '--mermaid', summary: 'as a Mermaid diagram' }, { flags: '--dot', summary: 'for Graphviz' }], examples: ['backplane plugins graph', 'backplane plugins graph --dot | dot -Tsvg > plugins.svg'],
    async run(io) {
      const deployment = await sound(io)
      if (!deployment) return 2
      const { order, edges } = planOf(deployment.entries, deployment.offers).graph
      if (io.json) return print(io, { order, edges })
      io.out((io.options['mermaid'] ? toMermaid : io.options['dot'] ? toDot : toText)({ order, edges }))
    },
  },
  {
    name: 'plugins info', summary: 'What one plugin does, takes, provides and touches', arguments: [{ name: '<name>', summary: 'its name in the config' }], examples: ['backplane plugins info http'],
    async run(io) {
      const deployment = await io.load()
      const [name] = io.args as [string]
      const entry = deployment.entries.find(each => nameOf(each) === name)
      if (!entry) {
        throw PluginErrors.UNKNOWN({ plugin: name, advice: didYouMean(name, deployment.entries.map(nameOf)) })
      }
      const info = describe(entry, deployment)
      const settings = settingsOf(entry.plugin.config && jsonSchemaOf(entry.plugin.config))
      const commands = ((await entry.plugin.commands?.())?.default ?? []).map(each => ({ name: each.name, summary: each.summary }))
      if (io.json) return print(io, { ...info, settings, commands })
      io.out(`${info.name}${info.plugin === info.name ? '' : ` (${info.plugin})`}  ${info.summary}`)
      for (const [key, label] of LABELS) if (info[key].length) io.out(`  ${label.padEnd(17)}${info[key].join(', ')}`)
      if (info.file) io.out(`  ${'file'.padEnd(17)}${short(info.file, io.world.cwd)}${info.version ? ` (${info.version})` : ''}`)
      if (info.error) io.out(`  ${'error'.padEnd(17)}${info.error.message}`)
      if (settings.length) io.out(`\nsettings, under plugins.${info.name}.config:`)
      for (const { path, type, default: preset, required, description } of settings) {
        io.out(`  ${path}  ${type}${preset === undefined ? (required ? ', required' : '') : `, ${JSON.stringify(preset)}`}${description ? `\n      ${description}` : ''}`)
      }
      if (commands.length) io.out(`\ncommands:\n${table(commands.map(each => [`  ${each.name}`, each.summary]))}`)
    },
  },
  {
    name: 'plugins test', summary: 'Run the tests of a plugin\'s folder as this host would load it', plain: true, arguments: [{ name: '<folder>', summary: 'with files that end in .test.ts or .test.js' }],
    examples: ['backplane plugins test ./my-plugin'],
    run: io => testPlugin(io.args[0]!, io.world),
  },
  {
    name: 'create-plugin', summary: 'Make a folder with a plugin, a test that passes, types and a README', plain: true, arguments: [{ name: '<name>', summary: 'lower-case words with dashes' }],
    options: [{ flags: '--kind <kind>', summary: 'what it adds; without it, `service`', default: 'service' }, { flags: '--out <folder>', summary: 'where to; ./<name> if not given' }],
    examples: ['backplane create-plugin my-tools --kind tool'],
    async run(io) {
      const [name] = io.args as [string]
      const folder = resolve(io.world.cwd, (io.options['out'] as string | undefined) ?? name)
      for (const file of await createPlugin({ name, kind: String(io.options['kind']), folder })) io.out(short(file, io.world.cwd))
      const shown = short(folder, io.world.cwd)
      io.err(`\nTry it:  backplane plugins test ${shown}\nUse it:  add to plugins in the config\n  ${name}:\n    use: ${shown.startsWith('/') ? shown : `./${shown}`}   # relative to the config file`)
    },
  },
]
const short = (file: string, cwd: string): string => { const path = relative(cwd, file); return path && !path.startsWith('..') ? path : file }
