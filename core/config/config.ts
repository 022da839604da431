import { readFile, stat } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { dirname, isAbsolute, join, relative, resolve } from 'node:path'
import { parseEnv } from 'node:util'
import type { StandardSchemaV1 } from '@standard-schema/spec'
import { parseDocument, isScalar } from 'yaml'
import { z } from 'zod'
import { reasonOf, type BackplaneError } from '../errors.ts'
import type { Level } from '../plugin.ts'
import { ROLES, type Role } from '../runtime.ts'
import { Secret, type SecretPart } from '../secret.ts'
import { conceal } from './conceal.ts'
import { ConfigErrors } from './mistakes.ts'
import { didYouMean, nearest } from '../schema/nearest.ts'
import { holdsPassword, parseReferences, soundsSecret, type Reference } from './reference.ts'
import { reasonFor } from '../schema/issues.ts'
import { childrenOf, describe, jsonSchemaOf, keysOf, schemasAt, variants, type JsonSchema } from '../schema/schema.ts'
import { closest, emptyMap, find, leaf, leaves, merge, parseYaml, valueOf, type Leaf, type MapTree, type Origin, type Place, type Scalar, type Tree } from './tree.ts'

export { ConfigErrors } from './mistakes.ts'
export type { Origin } from './tree.ts'

type Report = (error: BackplaneError) => void
/** What a part of a text became; `secret` names a value that must not be shown. */
interface Piece { readonly value: SecretPart; readonly secret?: string }
type Env = Readonly<Record<string, string | undefined>>
export type Path = readonly string[]
/** Without `value` it was not set, or is `secret`. */
export interface UsedVariable { readonly name: string; readonly value?: string; readonly secret?: boolean }

const roles = z.array(z.enum([...ROLES, 'all']))
function notRoles({ input }: { readonly input?: unknown }): string {
  const known = [...ROLES, 'all']
  const odd = (Array.isArray(input) ? input : String(input ?? '').split(',')).map(each => String(each).trim()).find(each => !known.includes(each as Role))
  return odd ? `there is no role "${odd.slice(0, 60)}". ${didYouMean(odd, known)}` : `not ${known.join(', ')}, or a list of these`
}
/** What a config file may say besides `plugins`. Times in milliseconds. */
export const settingsSchema = z.strictObject({
  runtime: z.strictObject({
    dataDir: z.string().min(1).default('data').describe('Where everything that is kept on disk belongs; relative to the working directory.'),
    roles: z.union([roles.min(1), z.string().transform(text => text.split(',').map(name => name.trim())).pipe(roles)], { error: notRoles })
      .default(['all']).describe('What this process does: api, worker, scheduler, or all. As a text, with commas.'),
    graceMs: z.int().min(100).max(3_600_000).default(30_000).describe('How long a stop may take in all, in milliseconds.'),
    timeouts: z.strictObject({
      setup: z.int().min(1).max(3_600_000).default(10_000).describe('For the setup of one plugin, in milliseconds.'),
      start: z.int().min(1).max(3_600_000).default(30_000).describe('For the start of one plugin, in milliseconds.'),
      hook: z.int().min(1).max(600_000).default(5_000).describe('For one handler of a hook that sets no time of its own, in milliseconds.'),
    }).prefault({}),
  }).prefault({}),
  log: z.strictObject({
    level: z.enum(['debug', 'info', 'warn', 'error']).default('info').describe('The least that is logged.'),
    format: z.enum(['auto', 'json', 'pretty']).default('auto').describe('`auto` is pretty on a terminal and JSON lines elsewhere.'),
  }).prefault({}),
  plugins: z.record(z.string(), z.unknown()).default({}).describe('Name of an instance: its settings, or false to leave it out.'),
})
export const entrySchema = z.strictObject({
  use: z.string().min(1).optional().describe('Which plugin: the name of a first-party one, an npm package, or a path. Without it, the instance name says so.'),
  optional: z.boolean().optional().describe('May fail; the others then go on without it.'),
  isolation: z.unknown().optional(),
  config: z.unknown().optional().describe('The settings of the plugin.'),
})

export interface Settings {
  /** Absolute. */
  readonly dataDir: string
  readonly roles: readonly Role[]
  readonly graceMs: number
  readonly timeouts: { readonly setup: number; readonly start: number; readonly hook: number }
  readonly log: { readonly level: Level; readonly format: 'auto' | 'json' | 'pretty' }
}

interface Variable { readonly name: string; readonly path: string; readonly secret: boolean; readonly summary: string; readonly dangerous?: true }
/** The short names that people know from elsewhere. `plugins.http` means the instance of the plugin `http`. */
export const variables: readonly Variable[] = [
  { name: 'PORT', path: 'plugins.http.config.port', secret: false, summary: 'Port that the server listens on.' },
  { name: 'HOST', path: 'plugins.http.config.host', secret: false, summary: 'Address that the server listens on.' },
  { name: 'MAX_CONCURRENT_REQUESTS', path: 'plugins.http.config.maxConcurrentRequests', secret: false, summary: 'Requests that are worked on at the same time; more are answered with 503.' },
  { name: 'REQUEST_TIMEOUT', path: 'plugins.http.config.requestTimeoutMs', secret: false, summary: 'Milliseconds that a request may take.' },
  { name: 'DATA_DIR', path: 'runtime.dataDir', secret: false, summary: 'Where everything that is kept on disk belongs.' },
  { name: 'BACKPLANE_ROLES', path: 'runtime.roles', secret: false, summary: 'What this process does: `api`, `worker`, `scheduler`, with commas between them, or `all`.' },
  { name: 'LOG_LEVEL', path: 'log.level', secret: false, summary: 'debug, info, warn or error.' },
  { name: 'DATABASE_URL', path: 'plugins.database.config.url', secret: true, dangerous: true, summary: 'The database; without it, SQLite in the data directory.' },
  { name: 'OPENAI_API_KEY', path: 'plugins.models.config.providers.openai.api_key', secret: true, summary: 'Key for the models of OpenAI.' },
  { name: 'ANTHROPIC_API_KEY', path: 'plugins.models.config.providers.anthropic.api_key', secret: true, summary: 'Key for the models of Anthropic.' },
  { name: 'GOOGLE_API_KEY', path: 'plugins.models.config.providers.google.api_key', secret: true, summary: 'Key for the models of Google.' },
  { name: 'GROQ_API_KEY', path: 'plugins.models.config.providers.groq.api_key', secret: true, summary: 'Key for the models at Groq.' },
  { name: 'XAI_API_KEY', path: 'plugins.models.config.providers.xai.api_key', secret: true, summary: 'Key for the models of xAI.' },
  { name: 'REDIS_URL', path: 'plugins.redis.config.url', secret: true, dangerous: true, summary: 'Redis, for the plugins that use it.' },
]

const MAX_FILE = 1_000_000
const MAX_REFERENCED = 64_000
const PREFIX = /^BACKPLANE__/i
/** Others begin like ours: Kubernetes sets BACKPLANE_PORT for a service of this name. */
const SINGLE = /^BACKPLANE_(plugins|runtime|log)_/i

/** One reading of all layers, and every mistake that was found in them. */
export class Config {
  readonly problems: BackplaneError[] = []
  readonly warnings: string[] = []
  /** What watch looks at. */
  readonly files = new Set<string>()
  /** Where first-party settings stand, and where a relative path starts. */
  readonly environment: string
  readonly env: Record<string, string | undefined>
  readonly #origins = new Map<string, Origin>()
  tree: MapTree
  /** Variables that were looked at, other than by .env, and where their values went. */
  readonly consulted = new Map<string, Path | undefined>()
  /** BACKPLANE__ variables that are meant for the settings of a plugin, by its instance name. */
  readonly waiting = new Map<string, { variable: string; rest: Path; text: string }[]>()

  constructor(readonly cwd: string, readonly hostFolder: string, env: Env) {
    this.env = { ...env }
    for (const name of ['BACKPLANE_ENV', 'NODE_ENV']) this.consulted.set(name, undefined)
    this.environment = env['BACKPLANE_ENV'] || env['NODE_ENV'] || 'development'
    this.tree = emptyMap({ file: 'config', folder: cwd, line: 1, column: 1 })
  }

  readonly report = (error: BackplaneError): void => void this.problems.push(error)

  /** A file as people would write it. */
  shown(file: string): string { const short = relative(this.cwd, file); return short && !short.startsWith('..') && !isAbsolute(short) ? short : file }

  async read(configFile?: string): Promise<void> {
    const own = join(this.cwd, 'config')
    this.files.add(join(own, 'default.yaml'))
    const folder = existsSync(join(own, 'default.yaml')) ? own : join(this.hostFolder, 'config')
    if (this.environment === 'development') await this.#readDotEnv()
    const layers = [join(folder, 'default.yaml')]
    const variable = this.env['BACKPLANE_ENV'] ? 'BACKPLANE_ENV' : 'NODE_ENV'
    if (/^[A-Za-z0-9][\w.-]*$/.test(this.environment)) {
      const file = join(folder, `${this.environment}.yaml`)
      layers.push(file)
      const expected = ['development', 'production', 'test']
      if (variable === 'BACKPLANE_ENV' && !expected.includes(this.environment) && !existsSync(file)) {
        const advice = `${didYouMean(this.environment, expected)} Or write ${this.shown(file)}.`
        this.#badEnvironment(variable, `but there is no ${this.shown(file)}`, advice, `a name with a file in ${this.shown(folder)}`)
      }
    } else this.#badEnvironment(variable, 'which is no name for a file', 'Use letters, digits, dots and dashes, such as production.', 'letters, digits, dots and dashes')
    const named = configFile === undefined ? undefined : resolve(this.cwd, configFile)
    if (named !== undefined) layers.push(named)
    for (const file of layers) {
      this.files.add(file)
      const text = await this.#readLayer(file, file === named)
      if (text === undefined) continue
      const layer = parseYaml(text, this.shown(file), dirname(file), this.report)
      if (!layer || (layer.is === 'leaf' && layer.value === null)) continue
      if (layer.is !== 'map') {
        const details = { reason: 'it holds no settings', expected: 'a map with runtime, log and plugins', got: show(valueOf(layer)) }
        this.mistake(ConfigErrors.SHAPE, [], layer.at, details)
        continue
      }
      this.tree = merge(this.tree, layer, ([section, key, ...below], node) => {
        if (section !== 'plugins' || key === undefined || below.length) return
        const advice = `Write \`${key}: {}\` for a plugin without settings, or \`${key}: false\` to leave it out.`
        this.mistake(ConfigErrors.NOTHING_TO_REMOVE, [section, key], node.at, { key, expected: '{}, false or settings', got: 'nothing', advice })
      }) as MapTree
    }
  }

  #badEnvironment(variable: string, reason: string, advice: string, expected: string): void {
    const name = this.environment
    this.mistake(ConfigErrors.ENVIRONMENT, [variable], this.#placeOf(variable), { variable, name, reason, advice, expected, got: name })
  }

  async #readLayer(file: string, needed: boolean): Promise<string | undefined> {
    const details = { file: this.shown(file), line: 0, column: 0, folder: this.cwd, expected: 'a readable YAML file in UTF-8' }
    const text = await readText(file, MAX_FILE)
    if ('text' in text) return text.text
    if (!text.missing) this.report(ConfigErrors.FILE_UNREADABLE({ ...details, reason: text.reason, got: text.reason }))
    else if (needed) this.report(ConfigErrors.FILE_MISSING({ ...details, got: 'nothing' }))
    return undefined
  }

  /** In development only, and never over a real variable. */
  async #readDotEnv(): Promise<void> {
    const file = join(this.cwd, '.env')
    this.files.add(file)
    const text = await this.#readLayer(file, false)
    if (text === undefined) return
    for (const [name, value] of Object.entries(parseEnv(text))) {
      if (this.env[name] !== undefined) continue
      this.env[name] = value
      const line = text.split('\n').findIndex(each => new RegExp(`^\\s*(export\\s+)?${escape(name)}\\s*=`).test(each)) + 1
      this.#origins.set(name, { file: this.shown(file), line, column: 1 })
    }
  }

  /** Those that whoever reads these files again must have; no value of a secret. */
  used(): UsedVariable[] {
    return [...this.consulted].filter(([name]) => !this.#origins.has(name)).map(([name, path]) => {
      const value = this.env[name]
      const node = path && find(this.tree, path)
      const secret = value !== undefined && (soundsSecret(name) || holdsPassword(value) || (node?.is === 'leaf' && node.value instanceof Secret))
      return { name, ...(secret ? { secret } : value !== undefined && { value }) }
    })
  }

  #placeOf(variable: string): Place { return { ...(this.#origins.get(variable) ?? { file: `environment variable ${variable}`, line: 0, column: 0 }), folder: this.cwd } }

  /** Reports something about one place; `got` never shows a value that may be secret. */
  mistake(
    make: (details: any) => BackplaneError, path: readonly PropertyKey[], at: Origin | undefined, details: Readonly<Record<string, unknown>>, report = this.report,
  ): void {
    report(make({ path: path.map(String).join('.') || 'the file', ...(at && { file: at.file, line: at.line, column: at.column }), ...details }))
  }

  /** What an option of the command line says, over all layers. */
  applyOption(option: string, path: Path, text: string): void {
    this.set(path, { ...this.fromVariable(option, text), at: { file: `option ${option}`, line: 0, column: 0, folder: this.cwd } })
  }

  set(path: Path, value: Leaf): void {
    let at = this.tree
    for (const step of path.slice(0, -1)) {
      let next = at.entries.get(step)
      if (next?.is !== 'map') at.entries.set(step, (next = emptyMap(value.at)))
      at = next
    }
    const key = path[path.length - 1]!
    if (value.value === null) at.entries.delete(key)
    else at.entries.set(key, value)
  }

  /** BACKPLANE__ variables, but for the settings of plugins, which wait for the schema that knows them. */
  applyVariables(): void {
    const root = jsonSchemaOf(settingsSchema)
    const entry = jsonSchemaOf(entrySchema)!
    for (const [variable, text] of Object.entries(this.env)) {
      if (text !== undefined && SINGLE.test(variable) && !PREFIX.test(variable)) {
        const meant = variable.replace(/^BACKPLANE_/i, '').split('_')
        this.warnings.push(`${variable} is not read: two underscores part the levels of a setting, as in ${['BACKPLANE', ...meant].join('__')}`)
      }
      if (!PREFIX.test(variable) || text === undefined) continue
      const steps = variable.replace(PREFIX, '').split('__')
      const later = steps.length > 3 && normal(steps[0]!) === 'plugins' && normal(steps[2]!) === 'config'
      const plugins = find(this.tree, ['plugins'])
      const path = this.#match(variable, later ? steps.slice(0, 2) : steps, path => {
        if (path[0] !== 'plugins') return { known: keysOf(schemasAt(root, path)) }
        if (path.length === 1) return { known: plugins?.is === 'map' ? [...plugins.entries.keys()] : [] }
        return { known: path.length === 2 ? keysOf([entry]) : [] }
      })
      if (!path) continue
      if (later) this.waiting.set(path[1]!, [...(this.waiting.get(path[1]!) ?? []), { variable, rest: steps.slice(3), text }])
      else this.set(path, this.fromVariable(variable, text))
      if (!later) this.consulted.set(variable, path)
    }
    for (const { name, path, secret } of variables) if (!path.startsWith('plugins.')) this.#applyShort(name, path.split('.'), secret)
  }

  #applyShort(name: string, path: Path, secret: boolean): void {
    const text = this.env[name]
    this.consulted.set(name, path)
    // Empty is unset: compose files pass on variables that nobody set. And the long name is the more precise one.
    if (!text || find(this.tree, path)?.at.file.startsWith('environment variable BACKPLANE__')) return
    this.set(path, secret ? leaf(Secret.of(name, text), this.#placeOf(name), { literal: true }) : { ...this.fromVariable(name, text), literal: true })
  }

  /** The short names and the waiting variables of one plugin, now that its schema is known. */
  applyPluginVariables(instance: string, plugin: string, schema: JsonSchema | undefined, only: boolean, report: Report): void {
    const base = ['plugins', instance, 'config']
    const known = (path: Path) => {
      const schemas = schemasAt(schema, path)
      const here = find(this.tree, [...base, ...path])
      return { known: [...new Set([...keysOf(schemas), ...(here?.is === 'map' ? here.entries.keys() : [])])], open: (childrenOf(schemas, undefined, schema) ?? []).length > 0 }
    }
    for (const { variable, rest, text } of this.waiting.get(instance) ?? []) {
      const path = this.#match(variable, rest, known, base, report)
      if (path) this.set([...base, ...path], this.fromVariable(variable, text))
      this.consulted.set(variable, path && [...base, ...path])
    }
    for (const { name, path, secret, dangerous } of variables) {
      const steps = path.split('.')
      if (steps[0] !== 'plugins' || !this.env[name] || !(steps[1] === instance || (steps[1] === plugin && only))) continue
      const rest = steps.slice(3)
      if (schemasAt(schema, rest).length) this.#applyShort(name, [...base, ...rest], secret)
      else if (dangerous) {
        const details = { variable: name, plugin: instance, setting: rest.join('.'), expected: 'no such variable', got: 'a value (not shown)' }
        this.mistake(ConfigErrors.VARIABLE_UNUSED, [...base, ...rest], this.#placeOf(name), details, report)
      }
    }
  }

  #match(variable: string, steps: Path, children: (path: Path) => { known: readonly string[]; open?: boolean }, base: Path = [], report = this.report): Path | undefined {
    let found: Path[] = [[]]
    for (const [at, step] of steps.entries()) {
      const next = found.flatMap(path => {
        const { known, open } = children(path)
        const exact = [...new Set(known)].filter(key => normal(key) === normal(step))
        return (exact.length ? exact : open && step ? [step] : []).map(key => [...path, key])
      })
      if (!next.length) {
        const names = found.flatMap(path => children(path).known.map(key => ['BACKPLANE', ...base, ...path, key].join('__')))
        const close = nearest(step, found.flatMap(path => children(path).known))
        const near = names.filter(name => close.some(key => name.endsWith(`__${key}`)))
        const where = [...base, ...found[0]!].join('.') || 'the config'
        const guess = this.#guessed(variable, steps, at, base)
        const advice = guess ?? (near.length ? `Did you mean ${near.join(' or ')}?` : names.length ? `Known here: ${names.slice(0, 20).join(', ')}.`
          : `Nothing is known below ${where}; unset it, or add what it is for to a config file.`)
        const details = { variable, advice, expected: near.join(' or ') || `a setting of ${where}`, got: variable }
        this.mistake(ConfigErrors.VARIABLE_UNKNOWN, [...base, ...steps.slice(0, at + 1)], this.#placeOf(variable), details, report)
        return undefined
      }
      found = next
    }
    if (found.length === 1) return found[0]
    const matches = found.map(path => [...base, ...path].join('.')).join(', ')
    const details = { variable, matches, expected: 'a name for one setting', got: variable }
    this.mistake(ConfigErrors.VARIABLE_AMBIGUOUS, [...base, ...found[0]!], this.#placeOf(variable), details, report)
    return undefined
  }

  /** What was meant by one underscore for two, or by a setting of a plugin without the `config` before it. */
  #guessed(variable: string, steps: Path, at: number, base: Path): string | undefined {
    const written = (path: Path) => ['BACKPLANE', ...path].join('__')
    if (at === 0 && !base.length && SINGLE.test(`BACKPLANE_${steps[0]}`)) return `Two underscores part the levels: ${written(steps.flatMap(step => step.split('_')))}, or like it.`
    if (at === 2 && !base.length && steps[0]!.toLowerCase() === 'plugins') return `Settings of a plugin stand under config: ${written([...steps.slice(0, 2), 'config', ...steps.slice(2)])}.`
    return undefined
  }

  fromVariable(name: string, text: string): Leaf {
    const scalar = scalarOf(text)
    const others = [() => text, () => Secret.of(name, text)]
    return leaf(scalar, this.#placeOf(name), { others: scalar === text ? others.slice(1) : others })
  }

  /** Looks up every reference below `path`. What can't be found is reported to `report`. */
  async resolve(path: Path, report: Report): Promise<void> {
    for (const { path: rest, node } of leaves(find(this.tree, path), path)) {
      if (typeof node.value !== 'string' || node.literal || !node.value.includes('${')) continue
      const parts = parseReferences(node.value)
      if ('reason' in parts) { this.mistake(ConfigErrors.REFERENCE, rest, node.at, { ...parts, got: parts.source }, report); continue }
      const found = await Promise.all(parts.map(part => (typeof part === 'string' ? { value: part } : this.#lookUp(part, rest, node.at, report))))
      if (found.includes(undefined)) { node.value = undefined; continue }
      const pieces = found as Piece[]
      const names = pieces.flatMap(({ value, secret }) => (typeof value === 'string' ? secret ?? [] : value.secret))
      if (names.length) { node.value = new Secret(pieces.map(piece => piece.value), undefined, names.join(',')); node.others = []; continue }
      const text = pieces.map(piece => piece.value).join('')
      node.value = text
      const only = parts.length === 1 ? parts[0] : undefined
      const scalar = only && typeof only !== 'string' ? scalarOf(text) : text
      const name = parts.flatMap(part => (typeof part === 'string' ? [] : [part.name])).join(',')
      node.others = name ? [...(scalar === text || scalar === null ? [] : [() => scalar]), () => Secret.of(name, text)] : []
    }
  }

  async #lookUp({ kind, name, fallback }: Reference, path: Path, at: Place, report: Report): Promise<Piece | undefined> {
    if (kind === 'secret') return { value: { secret: name } }
    if (kind === 'env') {
      this.consulted.set(name, path)
      const value = fallback === undefined ? this.env[name] : this.env[name] || fallback
      if (value !== undefined) return soundsSecret(name) || holdsPassword(value) ? { value, secret: name } : { value }
      const advice = `Set ${name}, or give a default: \${env:${name}:-value}.`
      this.mistake(ConfigErrors.VARIABLE_MISSING, path, at, { name, expected: `the environment variable ${name}`, got: 'nothing', advice }, report)
      return undefined
    }
    const file = resolve(at.folder, name)
    this.files.add(file)
    const text = await readText(file, MAX_REFERENCED)
    if ('text' in text) return { value: text.text.replace(/\r?\n$/, '') }
    const details = { target: this.shown(file), folder: at.folder, reason: text.reason, expected: 'a text file of at most 64 kB', got: text.reason }
    this.mistake(ConfigErrors.FILE_REFERENCE, path, at, details, report)
    return undefined
  }

  /** Checks what stands at `path` against a schema, and reports every mistake with its place. Returns the checked value, if there was none. */
  check(path: Path, schema: StandardSchemaV1, json: JsonSchema | undefined, report: Report, plugin?: string): { value: unknown } | undefined {
    const tree = find(this.tree, path)
    const run = () => schema['~standard'].validate(valueOf(tree) ?? {}) as StandardSchemaV1.Result<unknown>
    const first = new Map<string, { issue: StandardSchemaV1.Issue; value: unknown }>()
    let result = run()
    for (let round = 0; round < 4 && result.issues; round++) {
      let again = false
      for (const issue of result.issues) {
        const steps = stepsOf(issue)
        const node = find(tree, steps)
        const key = JSON.stringify(steps.map(String))
        if (!first.has(key)) first.set(key, { issue, value: node?.is === 'leaf' ? node.value : undefined })
        const other = node?.is === 'leaf' ? node.others?.shift() : undefined
        if (other) { (node as Leaf).value = other(); again = true }
      }
      if (!again) break
      result = run()
    }
    let bad = false
    const tell: typeof this.mistake = (make, at, origin, details) => {
      bad = true
      this.mistake(make, at, origin, { ...details, ...(plugin !== undefined && { plugin }) }, report)
    }
    const unknown = (at: readonly PropertyKey[], key: string, known: readonly string[]) => {
      const expected = nearest(key, known).join(' or ') || known.join(', ') || 'no setting'
      const inside = path[0] === 'plugins' && path.length === 2 && !at.length && !nearest(key, known).length
      const advice = `${didYouMean(key, known)}${inside ? ` Settings of a plugin stand under \`config:\` (config.${key}).` : ''}`
      tell(ConfigErrors.UNKNOWN_KEY, [...path, ...at, key], closest(tree, [...at, key])?.at, { key, advice, expected, got: key })
    }
    const told = new Set<string>()
    for (const { at, key, known } of json ? unknownKeys(tree, variants(json), json) : []) { told.add(JSON.stringify([...at, key])); unknown(at, key, known) }
    for (const raw of result.issues ?? []) {
      const steps = stepsOf(raw)
      const node = find(tree, steps)
      const { issue, value } = first.get(JSON.stringify(steps.map(String))) ?? { issue: raw, value: node?.is === 'leaf' ? node.value : undefined }
      if (node?.is === 'leaf' && value === undefined) continue
      const keys = (raw as { keys?: unknown }).keys
      if ((raw as { code?: unknown }).code === 'unrecognized_keys' && Array.isArray(keys)) {
        for (const key of keys) if (!told.has(JSON.stringify([...steps.map(String), key]))) unknown(steps, String(key), keysOf(schemasAt(json, steps)))
        bad = true
        continue
      }
      const full = [...path, ...steps]
      const at = node?.at ?? closest(tree, steps)?.at ?? closest(this.tree, full)?.at
      const { code, issues: [wrong] = [] } = raw as { code?: unknown; issues?: { message: string }[] }
      if (code === 'invalid_key' && wrong) {
        tell(ConfigErrors.SETTING, full, at, { reason: wrong.message, expected: 'another name', got: show(String(steps.at(-1))) })
        continue
      }
      // What the schema's own check says is not mended by writing what fits its outline already.
      const own = code === 'custom' && issue.message !== 'Invalid input' && node !== undefined
      const expected = own ? 'another value' : describe(schemasAt(json, steps)) || issue.message.replace(/^Invalid input: expected /, '').replace(/, received.*$/, '')
      if (value instanceof Secret) tell(ConfigErrors.SECRET_REFUSED, full, at, { source: String(value), expected: `${expected}, not a secret`, got: String(value) })
      else if (node?.is === 'leaf' && typeof value === 'string' && this.#wantsSecret(schema, tree!, node, steps)) {
        tell(ConfigErrors.SECRET_PLAIN, full, at, { expected: 'a reference to a secret', got: 'a plain text (not shown)', advice: 'Use ${env:NAME} or ${secret:name}.' })
        node.value = Secret.of(full.join('.'), value)
      } else {
        const got = node === undefined ? 'nothing' : show(conceal(node.is === 'leaf' ? value : valueOf(node), full.map(String)))
        tell(ConfigErrors.SETTING, full, at, { reason: node === undefined ? 'is missing' : reasonFor(issue, steps, node.is === 'leaf' ? value : valueOf(node), json), expected: expected || 'a valid value', got })
      }
    }
    if (result.issues || bad) return undefined
    for (const { path: at, node } of leaves(tree)) {
      if (!(node.value instanceof Secret) || typeof at.reduce<any>((value, step) => value?.[step], result.value) !== 'string') continue
      tell(ConfigErrors.SECRET_REFUSED, [...path, ...at], node.at, { source: String(node.value), expected: 'no secret', got: String(node.value) })
    }
    return bad ? undefined : { value: result.value }
  }

  /** Would a handle be taken where this text stands? Asked of the schema itself, so that it works for any library. */
  #wantsSecret(schema: StandardSchemaV1, tree: Tree, node: Leaf, steps: readonly PropertyKey[]): boolean {
    const { value } = node
    node.value = Secret.of('probe', 'probe')
    const result = schema['~standard'].validate(valueOf(tree)) as StandardSchemaV1.Result<unknown>
    node.value = value
    return !result.issues?.some(issue => stepsOf(issue).join('\0') === steps.join('\0'))
  }

  settings(): Settings {
    const json = jsonSchemaOf(settingsSchema)
    const checked = this.check([], settingsSchema, json, this.report)
    const { runtime, log } = (checked?.value ?? settingsSchema.parse({})) as z.infer<typeof settingsSchema>
    const roles = ROLES.filter(each => runtime.roles.includes('all') || runtime.roles.includes(each))
    return { dataDir: resolve(this.cwd, runtime.dataDir), roles, graceMs: runtime.graceMs, timeouts: runtime.timeouts, log }
  }
}

function* unknownKeys(tree: Tree | undefined, schemas: readonly JsonSchema[], root: JsonSchema, at: Path = []): Generator<{ at: Path; key: string; known: string[] }> {
  if (tree?.is === 'list') {
    const items = schemas.flatMap(each => variants(each.items, root))
    for (const [index, item] of tree.items.entries()) yield* unknownKeys(item, items, root, [...at, String(index)])
  }
  if (tree?.is !== 'map') return
  for (const [key, child] of tree.entries) {
    const below = childrenOf(schemas, key, root)
    if (below?.length === 0) yield { at, key, known: keysOf(schemas) }
    else if (below) yield* unknownKeys(child, below, root, [...at, key])
  }
}

const stepsOf = (issue: StandardSchemaV1.Issue): PropertyKey[] => (issue.path ?? []).map(part => (typeof part === 'object' ? part.key : part))
const normal = (name: string): string => name.toLowerCase().replace(/[-_]/g, '')
const escape = (text: string): string => text.replace(/[^\w]/g, '\\$&')

/** A text file, or why there is none. */
async function readText(file: string, limit: number): Promise<{ text: string } | { reason: string; missing: boolean }> {
  try {
    const info = await stat(file)
    if (!info.isFile()) return { reason: 'it is not a file', missing: false }
    if (info.size > limit) return { reason: `it has ${info.size} bytes`, missing: false }
    return { text: new TextDecoder('utf-8', { fatal: true }).decode(await readFile(file)) }
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException
    const reason = { ENOENT: 'there is no such file', ENOTDIR: 'there is no such file', EACCES: 'permission denied', ERR_ENCODING_INVALID_ENCODED_DATA: 'it is not UTF-8' }[code]
    return { reason: reason ?? reasonOf(error), missing: code === 'ENOENT' || code === 'ENOTDIR' }
  }
}

/** A short form of a value for an error. */
export function show(value: unknown): string {
  if (value === undefined || value === null) return 'nothing'
  if (value instanceof Secret) return String(value)
  if (typeof value === 'object') return Array.isArray(value) ? `a list of ${value.length}` : `a map with ${Object.keys(value).slice(0, 5).join(', ') || 'nothing'}`
  const text = JSON.stringify(value) ?? String(value)
  return text.length > 80 ? `${text.slice(0, 77)}…` : text
}

/** A text as YAML reads a single value: `9000`, `true`, `null`; anything else stays the text that it is. */
export function scalarOf(text: string): Scalar {
  if (text === '') return null
  try {
    const document = parseDocument(text, { schema: 'core', prettyErrors: false, logLevel: 'silent' })
    const { contents } = document
    if (document.errors.length || document.warnings.length || !isScalar(contents) || contents.anchor) return text
    const { value } = contents
    if (typeof value === 'string' && contents.type?.startsWith('QUOTE')) return value
    if (typeof value === 'number' && (!Number.isFinite(value) || (Number.isInteger(value) && !Number.isSafeInteger(value)))) return text
    return value === null || typeof value === 'number' || typeof value === 'boolean' ? value : text
  } catch { return text }
}
