import { randomUUID } from 'node:crypto'
import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { nameOf, type PluginEntry } from '../plan.ts'
import { definePlugin } from '../plugin.ts'
import { defineHook, type GuardMode, type HookOptions, type HookRef } from '../refs.ts'
import type { Runtime } from '../runtime.ts'
import { Secret, maskSecrets } from '../secret.ts'
import { conceal } from '../config/conceal.ts'
import { variables as wellKnown, type Settings, type UsedVariable } from '../config/config.ts'
import { planOf } from './deployment.ts'
import type { Deployment } from './loader.ts'
import { HostErrors } from './world.ts'

interface Recorded {
  readonly plugin: string
  readonly file: string
  readonly version: string
  readonly optional: boolean
  readonly reconfigures: boolean
  readonly config: unknown
  /** Whom it is restarted with. */
  readonly needs: readonly string[]
  /** What it guards; unknown if it never loaded. */
  readonly guards?: readonly { readonly id: string; readonly mode: GuardMode; readonly options: HookOptions }[]
}
/** What a server runs with, as it leaves it in its data directory. Secrets are masked, so that a new value of one is no difference. */
export interface Snapshot {
  readonly at: string
  readonly pid: number
  readonly settings: Settings
  /** How it was started: absolute, as `--roles` says, and the variables that its config looked at. */
  readonly configFile?: string
  readonly roles?: string
  readonly variables?: readonly UsedVariable[]
  readonly plugins: Readonly<Record<string, Recorded>>
}

const fileIn = (dataDir: string) => join(dataDir, 'config.snapshot.json')
const plain = (value: unknown): unknown => JSON.parse(maskSecrets(JSON.stringify(conceal(value ?? {}))))
const needsOf = (edges: ReturnType<Runtime['inspect']>['edges'], name: string) => [...new Set(edges.flatMap(edge => (edge.from === name && edge.kind !== 'live' ? [edge.to] : [])))]

/** Of a server: what it was started with. */
export interface Started { readonly pid: number; readonly configFile?: string; readonly roles?: string }

export async function writeSnapshot({ settings, manifest, variables }: Deployment, entries: Iterable<PluginEntry>, runtime: Runtime, started: Started): Promise<void> {
  const { plugins, edges } = runtime.inspect()
  const reconfigures = new Set(plugins.flatMap(each => (each.reconfigures ? [each.name] : [])))
  const recorded = [...entries].map(entry => {
    const name = nameOf(entry)
    const { file = '', version = '' } = manifest.get(name) ?? {}
    const needs = needsOf(edges, name)
    // A stand-in guards what is known of it; of one that never loaded, that nothing is known must stay to be seen.
    const guards = entry.phase === 'load' && !entry.plugin.guards.length ? undefined : entry.plugin.guards.map(({ id, mode, options }) => ({ id, mode, options }))
    return [name, { plugin: entry.plugin.name, file, version, optional: entry.optional === true, reconfigures: reconfigures.has(name), config: plain(entry.config), needs, guards }] as const
  })
  const snapshot: Snapshot = { at: new Date().toISOString(), ...started, settings, variables, plugins: Object.fromEntries(recorded) }
  const draft = `${fileIn(settings.dataDir)}.${randomUUID()}`
  try {
    await writeFile(draft, `${JSON.stringify(snapshot, null, 2)}\n`, { mode: 0o600, flag: 'wx' })
    await rename(draft, fileIn(settings.dataDir))
  } catch (error) { await rm(draft, { force: true }); throw error }
}

export async function readSnapshot(dataDir: string): Promise<Snapshot> {
  try { return JSON.parse(await readFile(fileIn(dataDir), 'utf8')) as Snapshot } catch (cause) { throw HostErrors.NO_SNAPSHOT({ folder: dataDir }, { cause }) }
}

type Env = Readonly<Record<string, string | undefined>>
/**
 * The environment as the process has it that left the snapshot. A secret's value is not in there, and does not count: only its name is compared.
 * What its config did not look at, it may have: that is taken from this shell. `other`: those that this shell has otherwise.
 */
export function environmentOf({ variables = [] }: Snapshot, shell: Env): { readonly env: Env; readonly other: readonly string[] } {
  const known = new Map(variables.map(each => [each.name, each]))
  const ours = (name: string) => known.has(name) || /^BACKPLANE__/i.test(name) || wellKnown.some(each => each.name === name)
  const env: Record<string, string | undefined> = Object.fromEntries(Object.entries(shell).filter(([name]) => !variables.length || !ours(name)))
  for (const { name, value, secret } of variables) if (secret || value !== undefined) env[name] = secret ? shell[name] ?? 'not known here' : value
  return { env, other: [...new Set([...known.keys(), ...Object.keys(shell)])].filter(name => ours(name) && variables.length && !known.get(name)?.secret && env[name] !== shell[name]) }
}

// With its options, since the first ref of a hook that the runtime sees decides how it is run.
const guardOf = ({ id, mode, options }: NonNullable<Recorded['guards']>[number]) => (defineHook[mode] as (id: string, options: HookOptions) => HookRef<GuardMode, any, any>)(id, options)

/**
 * Has each optional plugin that could not be loaded guard what it guarded when a server here last ran it, so that its hooks stay closed.
 * What a plugin guards that never ran, nobody knows: that is a warning.
 */
export async function withKnownGuards(deployment: Deployment): Promise<Deployment> {
  const lost = (entry: PluginEntry) => entry.optional === true && entry.phase === 'load'
  if (!deployment.entries.some(lost)) return deployment
  const snapshot = await readSnapshot(deployment.settings.dataDir).catch(() => undefined)
  const warnings = [...deployment.warnings]
  const entries = deployment.entries.map(entry => {
    if (!lost(entry)) return entry
    const name = nameOf(entry)
    const known = snapshot?.plugins[name]?.guards
    if (!known) warnings.push(`optional plugin "${name}" could not be loaded and never ran here, so nobody knows what it guards: hooks that it was to guard are open`)
    if (!known?.length) return entry
    warnings.push(`optional plugin "${name}" could not be loaded; what it guarded when it last ran is closed: ${known.map(({ id }) => id).join(', ')}`)
    return { ...entry, plugin: definePlugin({ name, guards: known.map(guardOf), setup() {} }) }
  })
  return { ...deployment, entries, warnings }
}

export interface SettingChange { readonly path: string; readonly from: unknown; readonly to: unknown; readonly restart: boolean }
/** What putting the files into effect would do. `reconfigured` are offered the new settings first, and restarted with their dependents if they can't take them. */
export interface ChangePlan {
  readonly added: readonly string[]
  readonly removed: readonly string[]
  readonly reconfigured: readonly string[]
  readonly restarted: readonly string[]
  /** Restarted because of the ones before. */
  readonly dependents: readonly string[]
  readonly settings: readonly SettingChange[]
}

/** Compares what runs with the files as they are now. Runs no setup. */
export function comparePlan(snapshot: Snapshot, deployment: Deployment): ChangePlan {
  const { graph: { edges }, units } = planOf(deployment.entries, deployment.offers)
  const now = new Map(deployment.entries.map(entry => [nameOf(entry), entry]))
  const known = Object.keys(snapshot.plugins)
  const added = [...now.keys()].filter(name => !known.includes(name))
  const removed = known.filter(name => !now.has(name))
  const reconfigured: string[] = []
  const restarted: string[] = []
  for (const [name, entry] of now) {
    const was = snapshot.plugins[name]
    if (!was) continue
    const { file = '', version = '' } = deployment.manifest.get(name) ?? {}
    const same = was.plugin === entry.plugin.name && was.file === file && was.version === version && was.optional === (entry.optional === true)
    if (same && isDeepStrictEqual(was.config, plain(entry.config))) continue
    if (same && was.reconfigures) reconfigured.push(name)
    else restarted.push(name)
  }
  const affected = new Set([...added, ...removed, ...restarted])
  for (const name of affected) {
    for (const each of known) if (snapshot.plugins[each]!.needs.includes(name)) affected.add(each)
    for (const each of units.keys()) if (needsOf(edges, each).includes(name)) affected.add(each)
  }
  const dependents = [...affected].filter(name => ![...added, ...removed, ...restarted].includes(name))
  return { added, removed, reconfigured: reconfigured.filter(name => !affected.has(name)), restarted, dependents, settings: compareSettings(snapshot.settings, deployment.settings) }
}

/** Which of `runtime:` and `log:` differ; all but the log's level need a restart. */
export function compareSettings(from: Settings, to: Settings): SettingChange[] {
  const flat = ({ dataDir, roles, graceMs, timeouts, log }: Settings): [string, unknown][] => [
    ['runtime.dataDir', dataDir], ['runtime.roles', roles?.join(', ')], ['runtime.graceMs', graceMs], ...Object.entries(timeouts).map(([key, value]): [string, unknown] => [`runtime.timeouts.${key}`, value]),
    ['log.level', log.level], ['log.format', log.format],
  ]
  const before = new Map(flat(from))
  return flat(to).flatMap(([path, value]) => (before.get(path) === value ? [] : [{ path, from: before.get(path), to: value, restart: path !== 'log.level' }]))
}

/** Plugins to exchange, add or (`undefined`) take out, to get from what runs to what the files say. */
export async function changesBetween(running: ReadonlyMap<string, PluginEntry>, entries: readonly PluginEntry[]): Promise<Map<string, PluginEntry | undefined>> {
  const changes = new Map<string, PluginEntry | undefined>()
  const next = new Map(entries.map(entry => [nameOf(entry), entry]))
  for (const name of running.keys()) if (!next.has(name)) changes.set(name, undefined)
  for (const [name, entry] of next) {
    const was = running.get(name)
    // One that did not load has a stand-in, a new one each time.
    const code = was?.error || entry.error ? was?.error?.message === entry.error?.message : was?.plugin === entry.plugin
    const same = was && code && (was.optional === true) === (entry.optional === true)
    if (!same || !isDeepStrictEqual(await open(was.config), await open(entry.config))) changes.set(name, entry)
  }
  return changes
}

/** Settings with each secret as what it refers to, for comparing within this process only. */
async function open(value: unknown): Promise<unknown> {
  if (value instanceof Secret) return ['secret', await value.bind({ read: name => Promise.resolve(`\0${name}\0`), watch: () => () => {} }).read()]
  if (Array.isArray(value)) return Promise.all(value.map(open))
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(await Promise.all(Object.entries(value).map(async ([key, each]) => [key, await open(each)] as const)))
}
