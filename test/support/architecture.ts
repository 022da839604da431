import { dirname, normalize } from 'node:path/posix'
import { codeOf, importsOf, linesOfCode, type Import } from './imports.ts'

/** Path (from the root, with `/`) to text. */
export type Sources = ReadonlyMap<string, string>

const node = (name: string) => name.startsWith('node:')
const contract = (name: string) => name.startsWith('#contracts/')
const bare = (name: string) => !/^[.#/]|^node:|^backplane(\/|$)/.test(name)
const types = (...names: string[]) => ({ name, typeOnly }: Import) => typeOnly && names.includes(name)
/** Of the process around the wiring. */
const around = (target: string) => /^core\/(host|config|cli)\//.test(target)
const below = (folder: string, path: string) => path.startsWith(`${folder}/`)

interface Rule {
  readonly of: RegExp
  readonly why: string
  /** `target` is where a relative name leads, from the root. */
  may(found: Import, target: string | undefined, file: string): boolean
}

/** Who may import whom: the first rule that fits a file decides. The table of docs/architecture.md, as a program. */
const rules: readonly Rule[] = [
  {
    of: /^core\/config\//, why: 'config may import the wiring, itself, node:, yaml and zod',
    may: (found, target) => {
      if (target !== undefined) return below('core', target) && !['testing', 'host', 'cli'].some(folder => below(`core/${folder}`, target))
      return node(found.name) || ['yaml', 'zod'].includes(found.name) || types('@standard-schema/spec')(found)
    },
  },
  {
    of: /^core\/(host|cli)\//, why: 'the host and the CLI may import the core, node:, commander, zod, and lazily tsx/esm/api',
    may: (found, target) => {
      if (target !== undefined) return below('core', target) && !below('core/testing', target)
      return node(found.name) || ['commander', 'zod'].includes(found.name)
        || (found.name === 'tsx/esm/api' && (found.lazy || found.typeOnly)) || types('@standard-schema/spec')(found)
    },
  },
  {
    of: /^core\/testing\//, why: 'the test kit may import the core and node:',
    may: (found, target) => (target !== undefined ? below('core', target) && !around(target) : node(found.name) || types('@standard-schema/spec')(found)),
  },
  {
    of: /^core\//, why: 'the core may import itself, node:, types of @standard-schema/spec, and awilix in services.ts (its types in context.ts and plugin.ts)',
    may: (found, target, file) => {
      if (target !== undefined) return below('core', target) && !below('core/testing', target) && (!around(target) || found.typeOnly)
      if (found.name === 'awilix') return ['core/services.ts', 'core/context.ts'].includes(file) || (file === 'core/plugin.ts' && found.typeOnly)
      return node(found.name) || types('@standard-schema/spec')(found)
    },
  },
  {
    of: /^plugins\/[^/]+\/contract\.ts$/, why: 'a contract may import #core, #contracts/*, and types of knex, ioredis, @opentelemetry/api, @ai-sdk/provider, node:',
    may: found => found.name === '#core' || contract(found.name) || (found.typeOnly && node(found.name))
      || types('knex', 'ioredis', '@opentelemetry/api', '@ai-sdk/provider')(found),
  },
  {
    of: /^plugins\/[^/]+\/conformance\.ts$/, why: 'a conformance suite may import #core/testing, #contracts/*, node:assert',
    may: found => found.name === '#core/testing' || contract(found.name) || /^node:assert(\/strict)?$/.test(found.name) || (found.typeOnly && found.name === '#core'),
  },
  {
    of: /^plugins\//, why: 'a plugin may import #core, #contracts/*, its own files, node:, npm packages; never another plugin\'s inside',
    may: ({ name }, target, file) =>
      target !== undefined ? below(file.split('/').slice(0, 2).join('/'), target) : name === '#core' || contract(name) || node(name) || bare(name),
  },
  {
    of: /^test\/plugins\/jobs\/walk/, why: 'the walks may import what is public, and the inside of the plugins that write jobs and carry them',
    may: (_, target) => target === undefined || isPublic(target) || ['jobs', 'schedules', 'queue-bullmq', 'redis'].some(name => below(`plugins/${name}`, target)),
  },
  {
    of: /^test\/plugins\/[^/]+\//, why: 'a plugin\'s tests may import what is public, and the inside of that plugin alone',
    may: (found, target, file) => target === undefined || isPublic(target) || below(`plugins/${file.split('/')[2]}`, target),
  },
  {
    of: /^test\/core\//, why: 'tests of the core may import what is public, and the inside of the core',
    may: (_, target) => target === undefined || isPublic(target) || below('core', target),
  },
  { of: /^(test|scripts)\//, why: 'tests and scripts may import what is public', may: (_, target) => target === undefined || isPublic(target) },
]

const isPublic = (target: string): boolean =>
  /^(test|scripts|dist|node_modules)\//.test(target) || /^core\/(index|testing\/index|(host|config|schema|cli)\/[^/]+)\.ts$/.test(target)
  || /^plugins\/[^/]+\/(index|contract|conformance|config)\.ts$/.test(target)

/** Of `process`, what changes it or tells where it runs; measuring (memoryUsage, hrtime …) is free. */
const NAMES = 'env|argv|argv0|execArgv|on|once|off|addListener|removeListener|prependListener|exit|exitCode|kill|abort|chdir|stdin|stdout|stderr|title|umask'
const AMBIENT = new RegExp(String.raw`(?<![.\w$])process\s*(?:\.|\?\.)\s*(${NAMES})\b|(?<![.\w$])process\s*\[`, 'g')
/** Named imports of what is free are fine; the whole object is not. */
const HANDED = new RegExp(String.raw`^(?!import\s*\{)|\{(?:[^}]*,)?\s*(${NAMES})\b`)

/** Every way in which the sources break the architecture, one line each. */
export function violations(sources: Sources): string[] {
  const ofFile = (file: string, text: string) =>
    [...importViolations(file, text), ...ambientViolations(file, text), ...shapeViolations(file, text, sources)]
  return [...sources].flatMap(([file, text]) => ofFile(file, text)).concat(cycleViolations(sources), idViolations(sources))
}

function importViolations(file: string, text: string): string[] {
  const rule = rules.find(({ of }) => of.test(file))
  if (!rule) return [`${file}: no rule says what it may import`]
  return importsOf(text).flatMap(found => {
    const target = /^\.\.?(\/|$)/.test(found.name) ? normalize(`${dirname(file)}/${found.name}`) : undefined
    return rule.may(found, target, file) ? [] : [`${file}:${found.line}: imports '${found.name}'; ${rule.why}`]
  })
}

/** A `…-child.ts` is what a process of its own runs first. */
const MAINS = /^(?:core\/host\/main|plugins\/[^/]+\/[^/]+-child)\.ts$/

function ambientViolations(file: string, text: string): string[] {
  if (!/^(core|plugins)\//.test(file) || MAINS.test(file)) return []
  const code = codeOf(text)
  const found = [...code.matchAll(AMBIENT)].map(match => ({ at: match.index, what: match[0].replace(/\s/g, '') }))
  const imported = importsOf(text).filter(({ name, typeOnly, clause }) => /^(node:)?process$/.test(name) && !typeOnly && HANDED.test(clause))
    .map(({ line }) => `${file}:${line}: imports process; only core/host/main.ts may`)
  return [...imported, ...found.map(({ at, what }) => `${file}:${code.slice(0, at).split('\n').length}: reads ${what}; only core/host/main.ts may`)]
}

function shapeViolations(file: string, text: string, sources: Sources): string[] {
  const out: string[] = []
  const lines = text.trimEnd().split('\n').length
  if (/^plugins\/[^/]+\/contract\.ts$/.test(file) && lines > 150) out.push(`${file}: ${lines} lines, of at most 150 in a contract`)
  const name = /^plugins\/([^/]+)\/index\.ts$/.exec(file)?.[1]
  if (name === undefined) {
    if (/^(core|plugins)\//.test(file) && !file.endsWith('/commands.ts') && /(?<![.\w$])export\s+default\b/.test(codeOf(text))) {
      out.push(`${file}: has a default export; only a plugin's index.ts and commands.ts do`)
    }
    return out
  }
  if (lines >= 80) out.push(`${file}: ${lines} lines; wiring stays below 80`)
  if (!sources.has(`plugins/${name}/README.md`)) out.push(`plugins/${name}: has no README.md`)
  if (/(?<![.\w$])config\s*[,:]/.test(codeOf(text)) && !sources.has(`plugins/${name}/config.ts`)) out.push(`plugins/${name}: has config, but no config.ts`)
  return out
}

/** Contracts in a circle can't be read, or replaced, one at a time. Types count too. */
function cycleViolations(sources: Sources): string[] {
  const edges = new Map<string, string[]>()
  for (const [file, text] of sources) {
    const name = /^plugins\/([^/]+)\/contract\.ts$/.exec(file)?.[1]
    if (name !== undefined) edges.set(name, importsOf(text).filter(({ name: each }) => contract(each)).map(({ name: each }) => each.slice('#contracts/'.length)))
  }
  const done = new Set<string>()
  const cycles: string[] = []
  const visit = (name: string, path: readonly string[]): void => {
    if (path.includes(name)) { cycles.push(`contracts import each other in a circle: ${[...path.slice(path.indexOf(name)), name].join(' -> ')}`); return }
    if (done.has(name)) return
    for (const next of edges.get(name) ?? []) visit(next, [...path, name])
    done.add(name)
  }
  for (const name of edges.keys()) visit(name, [])
  return cycles
}

/** The ids of all refs, with where they are defined. */
export function refsOf(sources: Sources): { id: string; file: string }[] {
  return [...sources].filter(([file]) => /^(core|plugins)\//.test(file)).flatMap(([file, text]) =>
    [...text.matchAll(/\b(?:defineService|definePoint|defineHook\s*\.\s*\w+)(?:<(?:[^()]|\([^()]*\))*?>)?\(\s*'([^']+)'(?:\s*,\s*\{[^}]*\bversion:\s*(\d+))?/g)]
      .map(match => ({ id: `${match[1]}@${match[2] ?? 1}`, file })))
}

function idViolations(sources: Sources): string[] {
  const first = new Map<string, string>()
  return refsOf(sources).flatMap(({ id, file }) => {
    const before = first.get(id)
    first.set(id, before ?? file)
    return before === undefined ? [] : [`${file}: the id ${id} is taken by ${before}`]
  })
}

/** Lines of code (neither blank nor comment) and raw lines of the files that `of` matches. */
export function size(sources: Sources, of: RegExp): { code: number; raw: number } {
  const texts = [...sources].filter(([file]) => of.test(file)).map(([, text]) => text)
  return { code: texts.reduce((sum, text) => sum + linesOfCode(text), 0), raw: texts.reduce((sum, text) => sum + text.trimEnd().split('\n').length, 0) }
}
