import { existsSync, readFileSync, readdirSync, realpathSync, statSync } from 'node:fs'
import { createRequire, register } from 'node:module'
import { dirname, join, resolve, sep } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import type { StandardSchemaV1 } from '@standard-schema/spec'
import { BackplaneError, PluginErrors, ServiceErrors, defineErrors, reasonOf } from '../errors.ts'
import { definePlugin, type Plugin } from '../plugin.ts'
import type { PluginEntry } from '../runtime.ts'
import { Secret } from '../secret.ts'
import { Config, ConfigErrors, entrySchema, settingsSchema, show, type Origin, type Settings, type UsedVariable } from '../config/config.ts'
import { conceal } from '../config/conceal.ts'
import { didYouMean, nearest } from '../schema/nearest.ts'
import { satisfies } from './range.ts'
import { jsonSchemaOf, variants, withReferences, type JsonSchema } from '../schema/schema.ts'
import { closest, find, leaves, valueOf, type Place, type Tree } from '../config/tree.ts'

const HERE = fileURLToPath(import.meta.url)
/** Does the host itself run from its TypeScript files, or from dist/? Its plugins and contracts come from the same place. */
const SOURCE = HERE.endsWith('.ts')
const BASE = resolve(dirname(HERE), '../..')
const ROOT = SOURCE ? BASE : dirname(BASE)
const INDEX = SOURCE ? 'index.ts' : 'index.js'
interface Package {
  readonly name?: string
  readonly version?: string
  readonly type?: string
  readonly main?: string
  readonly exports?: unknown
  readonly peerDependencies?: Readonly<Record<string, string>>
}
const own = readJson(join(ROOT, 'package.json')) as Package
/** Where this copy of Backplane lies, and which release it is. */
export const host = { root: ROOT, base: BASE, source: SOURCE, version: own.version ?? '0.0.0' }

export const LoaderErrors = defineErrors('LOADER', {
  UNKNOWN: { message: 'there is no plugin "{name}": neither a first-party one nor an installed package', fix: '{advice} A package is installed with `npm install {name}`; a path starts with ./ or /.' },
  NAME: { message: '"{name}" cannot name a plugin', fix: 'Use letters, digits and dashes, or the name of a package or a path.' },
  NOT_FOUND: { message: 'plugin "{plugin}": {target} does not exist', fix: 'Correct the path; it is relative to {folder}.' },
  NO_ENTRY: { message: 'plugin "{plugin}": {target} has no entry file ({reason})', fix: 'Point `exports` in its package.json to the built file, or add an index.js or index.ts.' },
  PACKAGE: { message: 'plugin "{plugin}": {target} cannot be read: {reason}', fix: 'Correct this package.json.' },
  PEER: { message: 'plugin "{plugin}" is made for backplane {range}, but this is {version}', fix: 'Install a release of "{plugin}" for {version}, or a backplane in {range}.' },
  COMMONJS: { message: 'plugin "{plugin}": {target} is a CommonJS module', fix: 'Plugins are ES modules: put "type": "module" into its package.json and use import and export.' },
  SYNTAX: { message: 'plugin "{plugin}": {target} is not valid: {reason}', fix: 'Correct the file at this place.' },
  IMPORT: { message: 'plugin "{plugin}" imports what is not there: {reason}', fix: '{advice}' },
  THREW: { message: 'plugin "{plugin}" threw while it was loaded: {reason}', fix: 'Correct the module, or mark the plugin `optional: true`.' },
  NO_DEFAULT: { message: 'plugin "{plugin}": {target} has no default export', fix: 'Write `export default definePlugin(…)` there.' },
  NOT_A_PLUGIN: { message: 'plugin "{plugin}": the default export of {target} is no plugin: {reason}', fix: 'Write `export default definePlugin(…)` there.' },
})

export interface Manifest { readonly file: string; readonly firstParty: boolean; readonly version?: string }
/** A config file and its plugins, read but not run. */
export interface Deployment {
  readonly settings: Settings
  readonly environment: string
  /** In config order; with `error` when it could not be loaded or its settings are wrong. */
  readonly entries: readonly PluginEntry[]
  /** All that would keep this deployment from starting, but for the graph, which `Runtime.check` knows. */
  readonly problems: readonly BackplaneError[]
  /** Said once; nothing that keeps it from starting. */
  readonly warnings: readonly string[]
  readonly disabled: readonly string[]
  /** Absolute paths of all layers that exist or would be read if they did. */
  readonly files: readonly string[]
  readonly manifest: ReadonlyMap<string, Manifest>
  /** Of the environment; those of .env are not among them. */
  readonly variables: readonly UsedVariable[]
  /** Where a setting stands, or what it would stand in. */
  originOf(path: readonly string[]): Origin | undefined
  /** Every setting, with defaults, secrets masked. */
  effective(): { path: string; value: unknown; origin: Origin }[]
  offers(service: string): readonly string[]
  schema(): object
}
export interface LoadOptions {
  readonly cwd: string
  readonly env: Readonly<Record<string, string | undefined>>
  readonly configFile?: string
  /** What `--roles` says. */
  readonly roles?: string
  /** Instances whose code is to be read again. */
  readonly reload?: ReadonlySet<string>
}

interface Found { readonly file: string; readonly firstParty: boolean; readonly folder: string; readonly manifest?: Package }
/** One plugin of the config on its way from a name to an entry. */
interface Candidate {
  readonly name: string
  readonly use: string
  /** Where a relative path starts. */
  readonly folder: string
  readonly optional: boolean
  readonly at: Origin
  readonly problems: BackplaneError[]
  readonly report: (error: BackplaneError) => void
  found?: Found
  plugin?: Plugin
}

/** Reads the config and loads its plugins. Never throws for the user's mistakes: they are in `problems`, or in `error` of an entry. */
export async function loadDeployment({ cwd, env, configFile, roles, reload = new Set() }: LoadOptions): Promise<Deployment> {
  const config = new Config(cwd, ROOT, env)
  await config.read(configFile)
  config.applyVariables()
  if (roles !== undefined) config.applyOption('--roles', ['runtime', 'roles'], roles)
  for (const key of ['runtime', 'log']) await config.resolve([key], config.report)
  const settings = config.settings()
  const { candidates, disabled } = await candidatesOf(config)
  for (const each of candidates) if (!each.problems.length) await attempt(each, () => { each.found = locate(each, config) })
  const found = candidates.flatMap(each => each.found ?? [])
  await prepare(found.some(({ firstParty }) => !firstParty) || reload.size > 0, found.some(({ file }) => /\.[cm]?ts$/.test(file)))
  const warnings = [...config.warnings]
  for (const each of candidates) if (each.found) {
    const { file } = each.found
    await attempt(each, async () => { each.plugin = await load(each, each.found!, config, reload.has(each.name)) })
    if (!reload.has(each.name) || warned) continue
    warned = true
    warnings.push(`"${each.name}" was loaded again from ${config.shown(file)}; the code before stays in memory, since Node never evicts a module: restart now and then`)
  }
  if (!candidates.length) {
    const off = disabled.length ? ` (turned off: ${disabled.join(', ')})` : ''
    warnings.push(`no plugin is configured${off}, so nothing runs: name some under "plugins:" in ${[...config.files].filter(file => existsSync(file)).map(file => config.shown(file)).join(' or ') || 'a config file'}`)
  }
  const schemas = new Map<string, JsonSchema | undefined>()
  for (const each of candidates) if (each.plugin) {
    schemas.set(each.name, each.plugin.config ? jsonSchemaOf(each.plugin.config) : NOTHING)
    await checkSettings(each, config, schemas.get(each.name), candidates)
  }
  for (const { optional, problems } of candidates) if (!optional) for (const problem of problems) config.report(problem)
  const offered = await offersOf(candidates)
  return {
    settings, disabled, warnings,
    environment: config.environment,
    problems: config.problems,
    entries: candidates.map(({ name, plugin, optional, problems: [error] }) =>
      ({ name, plugin: plugin ?? absent(name), optional, config: valueOf(find(config.tree, ['plugins', name, 'config'])), ...(error && { error, phase: plugin ? 'config' as const : 'load' as const }) })),
    files: [...config.files],
    variables: config.used(),
    manifest: new Map(candidates.flatMap(({ name, found }) => (found
      ? [[name, { file: found.file, firstParty: found.firstParty, ...(found.manifest?.version !== undefined && { version: found.manifest.version }) }] as const] : []))),
    originOf: path => originAt(config, path),
    effective: () => effective(config, settings, schemas),
    offers: service => offered.get(service) ?? [],
    schema: () => schemaOf(schemas),
  }
}
let warned = false

async function attempt(candidate: Candidate, work: () => void | Promise<void>): Promise<void> {
  try { await work() } catch (error) {
    if (!(error instanceof BackplaneError)) throw error
    // An error that knows no better place stands where the config names the plugin.
    const { file, line, column } = candidate.at
    candidate.report(Object.assign(error, { details: { file, line, column, plugin: candidate.name, path: `plugins.${candidate.name}`, ...error.details } }))
  }
}

/** The entries of `plugins`, each checked for its shape. */
async function candidatesOf(config: Config): Promise<{ candidates: Candidate[]; disabled: string[] }> {
  const candidates: Candidate[] = []
  const disabled: string[] = []
  const json = jsonSchemaOf(entrySchema)
  const plugins = find(config.tree, ['plugins'])
  for (const [name, node] of plugins?.is === 'map' ? plugins.entries : []) {
    const path = ['plugins', name]
    if (node.is === 'leaf' && node.value === false) { disabled.push(name); continue }
    const shape = (at: readonly string[], tree: Tree, expected: string) =>
      config.mistake(ConfigErrors.SHAPE, at, tree.at, { reason: 'these are no settings', expected, got: show(valueOf(tree)) }, report)
    const problems: BackplaneError[] = []
    const report = (error: BackplaneError) => void problems.push(error)
    const candidate = (use: string, at: Place, optional: boolean) => candidates.push({ name, use, folder: at.folder, optional, at, problems, report })
    if (node.is !== 'map') { shape(path, node, 'false, or a map with use, optional and config'); candidate(name, node.at, false); continue }
    for (const key of ['use', 'optional']) await config.resolve([...path, key], report)
    const isolation = node.entries.get('isolation')
    if (isolation) config.mistake(ConfigErrors.ISOLATION, [...path, 'isolation'], isolation.at, { expected: 'no such key', got: show(valueOf(isolation)) }, report)
    const checked = config.check(path, entrySchema, json, report)
    const [use, settings] = [checked && node.entries.get('use'), node.entries.get('config')]
    if (settings && settings.is !== 'map') shape([...path, 'config'], settings, 'a map of settings')
    candidate(use ? String(valueOf(use)) : name, (use ?? node).at, valueOf(node.entries.get('optional')) === true)
  }
  return { candidates, disabled }
}

async function checkSettings({ name, plugin, report }: Candidate, config: Config, json: JsonSchema | undefined, all: readonly Candidate[]): Promise<void> {
  const path = ['plugins', name, 'config']
  // A short name such as PORT means the instance of that name, or else the only one of that plugin.
  const only = !all.some(each => each.name === plugin!.name) && all.filter(each => each.plugin?.name === plugin!.name).length === 1
  config.applyPluginVariables(name, plugin!.name, json, only, report)
  await config.resolve(path, report)
  const tree = find(config.tree, path)
  if (!tree || tree.is === 'map') config.check(path, plugin!.config ?? ANYTHING, json, report, name)
}
/** Of a plugin that declares no settings. */
const NOTHING: JsonSchema = { type: 'object', properties: {}, additionalProperties: false }
const ANYTHING: StandardSchemaV1 = { '~standard': { version: 1, vendor: 'backplane', validate: value => ({ value }) } }
const absent = (name: string): Plugin => definePlugin({ name, setup() {} })

function locate({ name, use, folder }: Candidate, config: Config): Found {
  if (!use.trim() || /[\0-\x1f]/.test(use) || use === '__proto__') throw LoaderErrors.NAME({ name: use, expected: 'a name, a package or a path', got: JSON.stringify(use) })
  if (/^(\.{0,2}\/|file:)/.test(use) || use === '.' || use === '..') {
    const target = use.startsWith('file:') ? fileURLToPath(use) : resolve(folder, use)
    const details = { plugin: name, target: config.shown(target), folder: config.shown(folder), expected: 'a file or a folder', got: 'nothing' }
    if (!existsSync(target)) throw LoaderErrors.NOT_FOUND(details)
    if (!statSync(target).isDirectory()) return { file: realpathSync(target), firstParty: false, folder: dirname(target) }
    return packageAt(name, target, '.', config)
  }
  const file = join(BASE, 'plugins', use, INDEX)
  if (!use.includes('/') && existsSync(file)) return { file, firstParty: true, folder: dirname(file), manifest: own }
  const [, id, rest] = /^((?:@[^/]+\/)?[^/]+)(\/.*)?$/.exec(use) ?? []
  for (const from of id ? [folder, config.cwd] : []) {
    for (let at = from; ; at = dirname(at)) {
      const candidate = join(at, 'node_modules', id!)
      if (existsSync(join(candidate, 'package.json'))) return packageAt(name, candidate, `.${rest ?? ''}`, config)
      if (at === dirname(at)) break
    }
  }
  const known = firstParty()
  const expected = nearest(use, known).join(' or ') || 'a first-party plugin, a package or a path'
  throw LoaderErrors.UNKNOWN({ name: use, advice: didYouMean(use, known), expected, got: use })
}

/** The names of the plugins that come with Backplane. */
export function firstParty(): string[] {
  const folder = join(BASE, 'plugins')
  return existsSync(folder) ? readdirSync(folder).filter(name => existsSync(join(folder, name, INDEX))).sort() : []
}

function packageAt(plugin: string, given: string, subpath: string, config: Config): Found {
  const folder = realpathSync(given)
  const file = join(folder, 'package.json')
  let manifest: Package | undefined
  if (existsSync(file)) {
    try { manifest = readJson(file) as Package } catch (cause) {
      const target = config.shown(file)
      throw LoaderErrors.PACKAGE({ plugin, target, reason: reasonOf(cause), file: target, line: 0, column: 0, expected: 'a JSON object', got: 'something else' }, { cause })
    }
  }
  const none = (reason: string) => LoaderErrors.NO_ENTRY({ plugin, target: config.shown(folder), reason, expected: 'an entry file', got: reason })
  const named = entryOf(manifest?.exports, subpath) ?? (manifest?.exports === undefined && subpath === '.' ? manifest?.main : undefined)
  if (named === undefined && manifest?.exports !== undefined) throw none(`its exports do not have "${subpath}" for import`)
  const choices = named === undefined ? (subpath === '.' ? ['index.js', 'index.mjs', 'index.ts'] : [subpath]) : [named]
  const entry = choices.map(choice => join(folder, choice)).find(each => each.startsWith(folder + sep) && existsSync(each) && statSync(each).isFile())
  if (!entry) throw none(`${choices.join(', ')} ${choices.length > 1 ? 'do' : 'does'} not exist`)
  return { file: entry, firstParty: false, folder, manifest }
}

function entryOf(exports: unknown, subpath: string): string | undefined {
  if (typeof exports === 'string') return subpath === '.' ? exports : undefined
  if (Array.isArray(exports)) { for (const each of exports) { const entry = entryOf(each, subpath); if (entry) return entry } return undefined }
  if (typeof exports !== 'object' || exports === null) return undefined
  const map = exports as Record<string, unknown>
  if (Object.keys(map).some(key => key.startsWith('.'))) return subpath in map ? entryOf(map[subpath], '.') : undefined
  for (const [condition, target] of Object.entries(map)) {
    const entry = ['import', 'node', 'default', 'module-sync'].includes(condition) ? entryOf(target, subpath) : undefined
    if (entry) return entry
  }
  return undefined
}

/** How a file says that it is an ES module. */
const MODULE = /^\s*(?:import|export)\b/m
/** Answers `backplane` and `backplane/…` from anywhere with the host's own files, so that there is one copy of every ref. */
const HOOK = `
import { readFileSync } from 'node:fs'
let host
const plugins = new Set()
export function initialize(data) { host = data }
export async function resolve(specifier, context, next) {
  if (specifier === 'backplane' || specifier.startsWith('backplane/')) {
    const wanted = '.' + specifier.slice(9)
    for (const { before, after, target } of host.entries) {
      if (after === undefined ? wanted !== before : !(wanted.startsWith(before) && wanted.endsWith(after) && wanted.length > before.length + after.length)) continue
      return next(after === undefined ? target : target.replace('*', wanted.slice(before.length, wanted.length - after.length)), context)
    }
    throw Object.assign(new Error('backplane has no "' + specifier + '"; it has ' + host.names.join(', ')), { code: 'ERR_PACKAGE_PATH_NOT_EXPORTED' })
  }
  // A plugin that brings no zod of its own takes the host's.
  const found = await next(specifier, context).catch(error => {
    if (specifier === 'zod' && error?.code === 'ERR_MODULE_NOT_FOUND') return next(specifier, { ...context, parentURL: host.base })
    throw error
  })
  const parent = context.parentURL ?? ''
  const beside = /^(\\.{0,2}\\/|#|file:)/.test(specifier)
  // Where no package.json says "module", tsx marks the URL for its loading as CommonJS, and the imports of such a file would pass us by.
  const file = found.url.replace(/(%3F|\\?)tsx-.*$/, '')
  const home = url => url.lastIndexOf('/node_modules/')
  const reached = parent === host.loader || (beside && plugins.has(parent) && home(file) === home(parent))
  if (!file.startsWith('file:') || file.startsWith(host.base) || !reached) return found
  const query = beside && !file.includes('?') ? /\\?backplane-load=\\d+/.exec(parent)?.[0] ?? '' : ''
  const module = /\\.tsx?(\\?|$)/.test(file) || (/\\.js(\\?|$)/.test(file) && esm(file))
  const url = (module ? file : found.url) + query
  plugins.add(url)
  return { ...found, url, ...(module && { format: 'module' }) }
}
function esm(url) { try { return /${MODULE.source}/m.test(readFileSync(new URL(url), 'utf8')) } catch { return false } }`
let hooked = false
let typescript = SOURCE

/**
 * Makes plugins from outside loadable in this process. tsx comes first, so that our answers are asked for before its own;
 * registering our hook a second time, after a late tsx, changes nothing else.
 */
export async function prepare(outside: boolean, ts: boolean): Promise<void> {
  if (ts && !typescript) {
    typescript = true
    hooked = false
    const { register: registerTsx } = await import('tsx/esm/api')
    registerTsx()
  }
  if (!outside || hooked) return
  hooked = true
  const exports = Object.entries((own.exports ?? {}) as Record<string, unknown>).flatMap(([key, value]) => {
    const target = typeof value === 'string' ? value : entryOf(value, '.')
    if (target === undefined) return []
    const file = target.startsWith('./dist/') ? join(BASE, target.slice(7).replace(/\.js$/, SOURCE ? '.ts' : '.js')) : join(ROOT, target)
    const [before, after] = key.split('*')
    return [{ before, after, target: pathToFileURL(file).href }]
  })
  const names = Object.keys((own.exports ?? {}) as object).map(key => `backplane${key.slice(1)}`)
  register(`data:text/javascript,${encodeURIComponent(HOOK)}`, { data: { entries: exports, names, base: pathToFileURL(BASE + sep).href, loader: import.meta.url } })
}

/** Which reading of a file is the last one, and whether it failed: Node keeps failures too. */
const readings = new Map<string, { count: number; failed: boolean }>()

async function load({ name: plugin }: Candidate, { file, firstParty, folder, manifest }: Found, config: Config, again: boolean): Promise<Plugin> {
  const target = config.shown(file)
  const range = manifest?.peerDependencies?.['backplane']
  if (range !== undefined && satisfies(host.version, range) === false) {
    throw LoaderErrors.PEER({ plugin, range, version: host.version, expected: `backplane ${range}`, got: host.version })
  }
  if (!firstParty && isCommonJs(file)) throw LoaderErrors.COMMONJS({ plugin, target, file: target, line: 1, column: 1, expected: 'an ES module', got: 'CommonJS' })
  const reading = readings.get(file) ?? { count: 0, failed: false }
  if (again || reading.failed) { reading.count++; await prepare(true, false) }
  readings.set(file, reading)
  reading.failed = true
  let module: Record<string, unknown>
  const url = pathToFileURL(file).href + (reading.count ? `?backplane-load=${reading.count}` : '')
  try { module = await import(url) as Record<string, unknown> } catch (cause) { throw importError(plugin, file, folder, cause, config) }
  reading.failed = false
  const exported = module['default']
  const place = { plugin, target, file: target, line: 1, column: 1 }
  if (exported === undefined) throw LoaderErrors.NO_DEFAULT({ ...place, expected: 'a default export', got: Object.keys(module).join(', ') || 'no exports' })
  const reason = whyNot(exported)
  if (reason) throw LoaderErrors.NOT_A_PLUGIN({ ...place, reason, expected: 'definePlugin(…)', got: reason })
  return exported as Plugin
}

function whyNot(value: unknown): string | undefined {
  if (typeof value !== 'object' || value === null) return `it is ${typeof value === 'function' ? 'a function' : show(value)}`
  const it = value as Partial<Record<keyof Plugin, any>>
  if (typeof it.name !== 'string' || !it.name) return 'it has no name'
  if (typeof it.setup !== 'function') return 'it has no setup function'
  if (it.config !== undefined && typeof it.config?.['~standard']?.validate !== 'function') return 'its config is no Standard Schema'
  for (const [field, kinds] of [['uses', ['service', 'live', 'settled']], ['provides', ['service']], ['contributes', ['point']], ['guards', ['hook']]] as const) {
    if (typeof it[field] !== 'object' || it[field] === null || Array.isArray(it[field]) !== (field !== 'uses')) return `it has no ${field}, so it was not made by definePlugin`
    for (const [key, ref] of Object.entries<any>(it[field])) {
      if (!(kinds as readonly string[]).includes(ref?.is)) return `${field}.${key} is ${ref === undefined ? 'undefined: is the import right?' : `no ${kinds.join(' or ')}`}`
    }
  }
  return undefined
}

/** As Node decides it; but TypeScript is always an ES module unless its name says otherwise. */
function isCommonJs(file: string): boolean {
  if (/\.c[jt]s$/.test(file)) return true
  if (!file.endsWith('.js')) return false
  for (let at = dirname(file); ; at = dirname(at)) {
    const manifest = join(at, 'package.json')
    if (existsSync(manifest)) {
      const type = (() => { try { return (readJson(manifest) as Package).type } catch { return undefined } })()
      if (type === 'module') return false
      if (type === 'commonjs') return true
      break
    }
    if (at === dirname(at)) break
  }
  return !MODULE.test(readFileSync(file, 'utf8'))
}

function importError(plugin: string, file: string, folder: string, cause: unknown, config: Config): BackplaneError {
  const reason = reasonOf(cause).split('\n')[0]!
  const { code, stack = '' } = cause as NodeJS.ErrnoException
  const place = placeOf(stack.slice(0, stack.indexOf('\n')))
  const where = (at: { file: string; line: number; column: number } | undefined) => at && { file: config.shown(at.file), line: at.line, column: at.column }
  if (code === 'ERR_MODULE_NOT_FOUND' || code === 'ERR_PACKAGE_PATH_NOT_EXPORTED' || code === 'ERR_UNSUPPORTED_DIR_IMPORT') {
    const advice = /Cannot find package/.test(reason) ? `Install it: run \`npm install\` in ${config.shown(folder)}.` : 'Correct the import.'
    const details = { plugin, reason: reason.replaceAll('file://', ''), advice, expected: 'a module that exists', got: reason }
    return LoaderErrors.IMPORT({ ...details, ...where(importerOf(reason, file)) }, { cause })
  }
  if (cause instanceof SyntaxError && place) {
    const details = { plugin, reason, advice: 'Import a name that is exported there.', expected: 'a name that is exported', got: reason }
    return LoaderErrors.IMPORT({ ...details, ...where(place) }, { cause })
  }
  const syntax = cause instanceof SyntaxError || /Transform failed/.test(reason) ? syntaxAt(file) : undefined
  if (syntax || cause instanceof SyntaxError) {
    const { text, ...at } = syntax ?? { file, line: 0, column: 0, text: reason }
    const details = { plugin, target: config.shown(at.file), reason: text, expected: 'JavaScript or TypeScript', got: text }
    return LoaderErrors.SYNTAX({ ...details, ...where(at) }, { cause })
  }
  const frame = stack.split('\n').slice(1).map(placeOf).find(each => each && !/\/node_modules\/(tsx|esbuild)\//.test(each.file))
  return LoaderErrors.THREW({ plugin, reason, expected: 'a module that loads', got: reason, ...where(frame) }, { cause })
}

function placeOf(line: string): { file: string; line: number; column: number } | undefined {
  const match = /(?:file:\/\/)?(\/[^\s()?]+?)(?:\?[^\s():]*)?:(\d+)(?::(\d+))?\)?$/.exec(line.trim())
  return match ? { file: decodeURI(match[1]!), line: Number(match[2]), column: Number(match[3] ?? 1) } : undefined
}

/** Which line imports the thing that was not found. */
function importerOf(reason: string, file: string): Origin | undefined {
  const importer = /imported from (?:file:\/\/)?(\/[^?\s]+)/.exec(reason)?.[1] ?? file
  const missing = /'([^']+)'|"([^"]+)"/.exec(reason)
  const name = (missing?.[1] ?? missing?.[2] ?? '').split('/').at(-1)?.replace(/\.[cm]?[jt]s$/, '')
  if (!name || !existsSync(importer)) return undefined
  const line = readFileSync(importer, 'utf8').split('\n').findIndex(each => /from|import/.test(each) && each.includes(name)) + 1
  return { file: importer, line, column: 1 }
}

/** V8 does not tell where a module is broken; esbuild, which tsx brings, does. */
function syntaxAt(file: string): { file: string; line: number; column: number; text: string } | undefined {
  try {
    const esbuild = createRequire(createRequire(import.meta.url).resolve('tsx/package.json'))('esbuild') as { buildSync(options: object): void }
    esbuild.buildSync({ entryPoints: [file], absWorkingDir: '/', bundle: true, packages: 'external', platform: 'node', format: 'esm', write: false, logLevel: 'silent' })
  } catch (error) {
    const first = (error as { errors?: { text: string; location: { file: string; line: number; column: number } | null }[] }).errors?.find(each => each.location)
    if (first?.location) return { file: resolve('/', first.location.file), line: first.location.line, column: first.location.column + 1, text: first.text }
  }
  return undefined
}

/** Which known plugins provide a service that nothing here provides. Others are loaded only then. */
async function offersOf(candidates: readonly Candidate[]): Promise<Map<string, string[]>> {
  const plugins = candidates.flatMap(({ plugin }) => plugin ?? [])
  const provided = new Set(plugins.flatMap(plugin => plugin.provides.map(ref => ref.id)))
  const missing = plugins.some(plugin => Object.values(plugin.uses).some(use => use.is === 'service' && use.id !== 'core.host' && !provided.has(use.id)))
  const offered = new Map<string, string[]>()
  const add = (name: string, plugin: Plugin) => { for (const { id } of plugin.provides) offered.set(id, [...(offered.get(id) ?? []), name]) }
  for (const { name, plugin } of candidates) if (plugin) add(name, plugin)
  for (const name of missing ? firstParty() : []) {
    if (candidates.some(each => each.found?.firstParty && each.use === name)) continue
    try {
      const { default: plugin } = await import(pathToFileURL(join(BASE, 'plugins', name, INDEX)).href) as { default: unknown }
      if (!whyNot(plugin)) add(name, plugin as Plugin)
    } catch { /* One that does not load offers nothing. */ }
  }
  return offered
}

function originAt(config: Config, path: readonly string[]): Origin | undefined {
  const node = closest(config.tree, path)
  return node && node !== config.tree ? { file: node.at.file, line: node.at.line, column: node.at.column } : undefined
}

const masked = (value: unknown, path: readonly string[]): unknown => (value instanceof Secret ? String(value) : conceal(value, path))

function effective(config: Config, settings: Settings, schemas: ReadonlyMap<string, JsonSchema | undefined>): { path: string; value: unknown; origin: Origin }[] {
  const rows = [...leaves(config.tree)].map(({ path, node: { value, at: { file, line, column } } }) => ({ path: path.join('.'), value: masked(value, path), origin: { file, line, column } }))
  const preset = (path: readonly string[], schema: JsonSchema | undefined): void => {
    for (const [key, child] of variants(schema).flatMap(each => Object.entries(each.properties ?? {}))) {
      const at = [...path, key]
      const node = find(config.tree, at)
      if (node?.is !== 'map' && node) continue
      if (child.properties) preset(at, child)
      else if (!node && child['default'] !== undefined && key !== 'plugins') rows.push({ path: at.join('.'), value: child['default'], origin: { file: 'default', line: 0, column: 0 } })
    }
  }
  preset([], jsonSchemaOf(settingsSchema))
  for (const [name, schema] of schemas) preset(['plugins', name, 'config'], schema)
  return rows.map(row => (row.path === 'runtime.dataDir' ? { ...row, value: settings.dataDir } : row))
}

function schemaOf(schemas: ReadonlyMap<string, JsonSchema | undefined>): object {
  const entry = jsonSchemaOf(entrySchema)!
  const { isolation: _, ...properties } = entry.properties!
  const one = (config: JsonSchema) => ({ anyOf: [{ const: false }, { type: 'null' }, { ...entry, $schema: undefined, properties: { ...properties, config } }] })
  const known = [...schemas].map(([name, schema]) => {
    const { $schema: _dialect, ...rest } = schema ?? {}
    // With an id of its own, the references inside it keep pointing inside it.
    return [name, one({ ...withReferences(rest), ...('$defs' in rest && { $id: `backplane:plugins/${name}` }) })]
  })
  const base = jsonSchemaOf(settingsSchema)!
  return JSON.parse(JSON.stringify({
    ...base, title: 'Backplane configuration',
    properties: {
      runtime: withReferences(base.properties!['runtime']!), log: withReferences(base.properties!['log']!),
      plugins: { type: 'object', description: base.properties!['plugins']!['description'], properties: Object.fromEntries(known), additionalProperties: one({ type: 'object' }) },
    },
  })) as object
}

function readJson(file: string): object {
  const value: unknown = JSON.parse(readFileSync(file, 'utf8'))
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error('it is no JSON object')
  return value
}

/** One mistake, ready to be shown: `file:line:column  path  message`. */
export interface ProblemRow {
  readonly code: string
  readonly message: string
  readonly fix: string
  readonly file?: string
  readonly line?: number
  readonly column?: number
  readonly path?: string
  readonly expected?: string
  readonly got?: string
}

/**
 * Rows for an error, an array of them, or a BootError, each with the place of its plugin or setting, none twice, in the order of the files.
 * For one report of everything: `explain(deployment, [...deployment.problems, error])`.
 */
export function explain(deployment: Deployment, error: unknown): ProblemRow[] {
  const flat = (each: unknown): unknown[] => {
    const inside = each instanceof AggregateError ? each.errors : each
    return Array.isArray(inside) ? inside.flatMap(flat) : each === undefined ? [] : [each]
  }
  const errors = [...new Set(flat(error))]
  const broken = deployment.entries.flatMap(entry => (entry.error ? entry.plugin.provides.map(ref => ref.id) : []))
  // Whoever needs the service of a plugin that is broken itself has no mistake of its own.
  return errors.filter(each => !(ServiceErrors.MISSING.is(each) && broken.includes(String(each.details['service'])))).map(each => rowOf(deployment, each)).sort((a, b) => {
    const rank = ({ file }: ProblemRow) => deployment.files.findIndex(known => file !== undefined && known.endsWith(file))
    return rank(a) - rank(b) || (a.line ?? 0) - (b.line ?? 0) || (a.column ?? 0) - (b.column ?? 0)
  })
}

function rowOf(deployment: Deployment, error: unknown): ProblemRow {
  if (!(error instanceof BackplaneError)) return { code: 'INTERNAL', message: reasonOf(error), fix: 'This is a defect of Backplane or of a plugin; please report it with its stack.' }
  const { code, message, fix, details } = error
  const text = (key: string) => (details[key] === undefined ? undefined : String(details[key]))
  const plugin = text('plugin') ?? text('second') ?? (code === ServiceErrors.CYCLE.code ? text('path')?.split(' -> ')[0] : undefined)
  const setting = PluginErrors.CONFIG_INVALID.is(error) && text('path') ? text('path')!.split('.') : undefined
  const steps = plugin === undefined ? undefined : ['plugins', plugin, ...(setting ? ['config', ...setting] : [])]
  const origin = typeof details['file'] === 'string' ? details as unknown as Origin : steps && deployment.originOf(steps)
  const own = /^(CONFIG|LOADER)_/.test(code) ? text('path') : undefined
  const extra = code === ServiceErrors.MISSING.code ? { expected: `a plugin that provides ${text('service')}`, got: 'none' }
    : code === ServiceErrors.VERSION.code ? { expected: `version ${text('wanted')}`, got: `version ${text('found')}` }
      : code === ServiceErrors.DUPLICATE.code ? { expected: `one provider of ${text('service')}`, got: `${text('first')} and ${text('second')}` }
        : code === ServiceErrors.CYCLE.code ? { expected: 'no circle', got: text('path') } : { expected: text('expected'), got: text('got') }
  return JSON.parse(JSON.stringify({
    code, message, fix, ...(origin && { file: origin.file, line: origin.line, column: origin.column }), path: own ?? steps?.join('.'), ...extra,
  })) as ProblemRow
}
