import { Command as Program, CommanderError } from 'commander'
import { BackplaneError, BootError, reasonOf } from '../errors.ts'
import { nameOf } from '../plan.ts'
import type { ServiceRef } from '../refs.ts'
import { createRuntime, type Runtime } from '../runtime.ts'
import { maskSecrets } from '../secret.ts'
import { connect } from './client.ts'
import type { Command, CommandIo } from './command.ts'
import { hostCommands, type HostCommand } from './commands.ts'
import { makeDataDir, neededFor, problemsOf, problemsText } from '../host/deployment.ts'
import { host, loadDeployment, type Deployment } from '../host/loader.ts'
import { createLogger } from '../host/logger.ts'
import { withKnownGuards } from '../host/snapshot.ts'
import { didYouMean } from '../schema/nearest.ts'
import { HostErrors, errorText, type World } from '../host/world.ts'

type Any = Command | HostCommand
type Execute = (command: Any, args: readonly string[], options: Readonly<Record<string, any>>) => Promise<number>
interface PluginCommand { readonly plugin: string; readonly command: Command }

/** Runs one command line; resolves to the exit code: 0, 1 for a failure while running, 2 for a mistake in config or use. */
export async function run(argv: readonly string[], world: World): Promise<number> {
  let loaded: Promise<Deployment> | undefined
  const load = (configFile: string | undefined) => (loaded ??= loadDeployment({ cwd: world.cwd, env: world.env, ...(configFile !== undefined && { configFile }) }))
  let code = 0
  const execute = (owner: string | undefined): Execute => async (command, args, options) => {
    const configFile = options['config'] as string | undefined
    return owner === undefined
      ? runOwn(command as HostCommand, { args, options, json: options['json'] === true, world, configFile, load: () => load(configFile), ...lines(world) })
      : runOfPlugin(owner, command as Command, { args, options, world, load: () => load(configFile) })
  }
  try {
    const words = argv.filter(each => !each.startsWith('-'))
    const plugins = isOwn(argv, words) ? [] : await pluginCommands(await load(configFileIn(argv)), world)
    const program = build(world, [
      ...hostCommands.map(command => ({ command, run: execute(undefined) })), ...plugins.map(({ plugin, command }) => ({ command, run: execute(plugin) })),
    ], value => { code = value })
    if (!argv.length) { world.out(program.helpInformation()); return 0 }
    const unknown = unknownCommand(program, argv)
    if (unknown !== undefined) {
      world.err(`error: unknown command "${unknown.words}". ${didYouMean(unknown.words, unknown.known)}\n  fix: see \`backplane ${unknown.group ? `${unknown.group} ` : ''}--help\`\n`)
      const broken = loaded && problemsOf(await loaded)
      if (broken?.length) world.err(`\nIt may come from a plugin that could not be loaded: ${problemsText(broken)}`)
      return 2
    }
    await program.parseAsync(argv, { from: 'user' })
    return code
  } catch (error) { return failure(error, world) }
}

function failure(error: unknown, world: World): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
  if (world.signal.aborted) { world.err(`interrupted: ${reasonOf(world.signal.reason)}\n`); return 1 }
  if (error instanceof BackplaneError) world.err(maskSecrets(`${errorText(error)}\n`))
  else world.err(maskSecrets(`${error instanceof Error ? error.stack : String(error)}\n`))
  return HostErrors.DATA_DIR.is(error) ? 2 : 1
}

const lines = (world: World) => ({ out: (text: string) => world.out(`${text}\n`), err: (text: string) => world.err(`${text}\n`) })

/** Is this a command of the host, so that no plugin need be asked? Help of a group or of everything lists those of plugins too. */
function isOwn(argv: readonly string[], words: readonly string[]): boolean {
  const named = hostCommands.find(({ name }) => name === words[0] || name === words.slice(0, 2).join(' '))
  return named !== undefined || argv.includes('--version') || argv.includes('-V')
}

function configFileIn(argv: readonly string[]): string | undefined {
  for (const [at, word] of argv.entries()) {
    if (word === '--') return undefined
    if (word === '--config' || word === '-c') return argv[at + 1]
    if (word.startsWith('--config=')) return word.slice('--config='.length)
  }
  return undefined
}

async function pluginCommands(deployment: Deployment, world: World): Promise<PluginCommand[]> {
  const found = new Map<string, PluginCommand>()
  for (const entry of deployment.entries) {
    try {
      for (const command of (await entry.plugin.commands?.())?.default ?? []) {
        if (hostCommands.some(({ name }) => name === command.name) || found.has(command.name)) world.err(`command "${command.name}" of plugin "${nameOf(entry)}" is left out: there is one of that name\n`)
        else found.set(command.name, { plugin: nameOf(entry), command })
      }
    } catch (error) { world.err(`the commands of plugin "${nameOf(entry)}" could not be loaded: ${reasonOf(error)}\n`) }
  }
  return [...found.values()]
}

/** The whole command line, those of two words as groups. */
function build(world: World, commands: readonly { command: Any; run: Execute }[], done: (code: number) => void): Program {
  const dress = (program: Program) => program.exitOverride().showSuggestionAfterError()
    .configureOutput({ writeOut: world.out, writeErr: world.err }).configureHelp({ showGlobalOptions: true })
  const program = dress(new Program('backplane')).description('The plugin runtime for AI agents.').version(host.version)
    .option('-c, --config <file>', 'a config file on top of the default ones')
    .addHelpText('after', '\nExample:\n  $ backplane start --config my.yaml')
  const groups = new Map<string, Program>()
  for (const { command, run: execute } of commands) {
    const [first, second] = command.name.split(' ') as [string, string?]
    let parent = program
    if (second !== undefined) {
      parent = groups.get(first) ?? dress(program.command(first)).summary(groupSummary(first, commands)).description(groupSummary(first, commands))
      groups.set(first, parent)
    }
    const sub = dress(parent.command(second ?? first)).summary(command.summary).description(command.summary)
    for (const { name, summary } of command.arguments ?? []) sub.argument(name, summary)
    for (const { flags, summary, default: preset } of command.options ?? []) sub.option(flags, summary, preset)
    const server = 'needs' in command && (command.needs === 'server' || command.serverFirst)
    if (server) sub.option('--url <url>', 'the server to ask; else the one that runs here')
    if (!('plain' in command) && !sub.options.some(({ long }) => long === '--json')) sub.option('--json', 'print data for programs')
    const examples = command.examples?.length ? command.examples : [`backplane ${command.name} --help`]
    sub.addHelpText('after', `\n${examples.length > 1 ? 'Examples' : 'Example'}:\n${examples.map(each => `  $ ${each}`).join('\n')}`)
    sub.action(async () => { done(await execute(command, sub.args, sub.optsWithGlobals())) })
  }
  return program
}

const groupSummary = (group: string, commands: readonly { command: Any }[]): string =>
  commands.flatMap(({ command: { name } }) => (name.startsWith(`${group} `) ? [name.slice(group.length + 1)] : [])).join(', ')

/** The first word, or the second in a group, that is no command. */
function unknownCommand(program: Program, argv: readonly string[]): { words: string; known: string[]; group: string } | undefined {
  const { operands } = program.parseOptions([...argv])
  const [first, second] = operands
  if (first === undefined || first === 'help') return undefined
  const top = program.commands.find(each => each.name() === first)
  if (!top) return { words: first, group: '', known: program.commands.flatMap(each => [each.name(), ...each.commands.map(sub => `${each.name()} ${sub.name()}`)]) }
  if (!top.commands.length || second === undefined || second === 'help' || top.commands.some(each => each.name() === second)) return undefined
  return { words: `${first} ${second}`, group: first, known: top.commands.map(each => `${first} ${each.name()}`) }
}

async function runOwn(command: HostCommand, io: Parameters<HostCommand['run']>[0]): Promise<number> { return (await command.run(io)) ?? 0 }

interface Call { readonly args: readonly string[]; readonly options: Readonly<Record<string, any>>; readonly world: World; load(): Promise<Deployment> }

/** Gives a plugin's command what it needs, and takes that down again. */
async function runOfPlugin(plugin: string, command: Command, { args, options, world, load }: Call): Promise<number> {
  const url = options['url'] as string | undefined
  const deployment = await load()
  const { dataDir } = deployment.settings
  let server: CommandIo['server']
  if (command.needs === 'server') server = await connect(dataDir, url, 'only', world.alive)
  else if (command.serverFirst) server = await connect(dataDir, url, 'first', world.alive).catch((error: unknown) => { if (url !== undefined) throw error; return undefined })
  // Who is in another folder than the server would look for the data there, and find another's.
  if (command.serverFirst && !server) world.err(`no server found; running here, data in ${dataDir}\n`)
  const runtime = command.needs === 'runtime' && !server ? await setUp(plugin, command, deployment, world) : undefined
  if (runtime === 'broken' || (command.needs === 'config' && told(deployment, world))) return 2
  const io: CommandIo = {
    args, options, json: options['json'] === true, tty: world.tty, signal: world.signal, server, stdin: world.stdin, ...lines(world), write: world.out,
    get<T>(ref: ServiceRef<T>): T {
      if (!runtime) throw HostErrors.NO_RUNTIME({ command: command.name })
      return runtime.get(ref)
    },
  }
  try { return (await command.run(io)) ?? 0 } finally {
    await runtime?.stop()
    world.onStray(undefined)
  }
}

function told(deployment: Deployment, world: World): boolean {
  const problems = problemsOf(deployment)
  if (problems.length) world.err(problemsText(problems))
  return problems.length > 0
}

/** A runtime with what a command of this plugin needs: set up, never started. */
async function setUp(plugin: string, command: Command, deployment: Deployment, world: World): Promise<Runtime | 'broken'> {
  if (deployment.problems.length && told(deployment, world)) return 'broken'
  const { settings: { dataDir, timeouts, graceMs, log: { format } }, entries, offers, warnings, environment } = await withKnownGuards(deployment)
  await makeDataDir(dataDir)
  const log = createLogger({ level: 'warn', format: format === 'json' ? 'json' : 'pretty', write: line => world.err(line) })
  for (const warning of warnings) log.warn(warning)
  const runtime = createRuntime({
    plugins: command.everyPlugin ? entries : neededFor([plugin], entries), log, timeouts, graceMs, offers,
    host: { version: host.version, dataDir, env: world.env, environment, command: command.name },
  })
  world.onStray(({ error, where, plugin: owner }) => {
    if (owner !== undefined) { runtime.fault(owner, error, where); return }
    log.error(`${where}: ${reasonOf(error)}`, { err: error })
  })
  try { return await runtime.start({ setupOnly: true }) } catch (error) {
    if (!(error instanceof BootError)) throw error
    told(deployment, world)
    return 'broken'
  }
}
