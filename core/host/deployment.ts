import { existsSync } from 'node:fs'
import { mkdir, stat } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { BootError, reasonOf } from '../errors.ts'
import { nameOf, planFor, unitOf, type Plan, type PluginEntry } from '../plan.ts'
import { Host } from '../runtime.ts'
import { explain, type Deployment, type ProblemRow } from './loader.ts'
import { HostErrors } from './world.ts'

const nobody = { read: () => Promise.reject(new TypeError('a check reads no secrets')), watch: () => () => {} }

/** The order and edges of a deployment, with no setup run. Throws a BootError. */
export function planOf(entries: readonly PluginEntry[], offers?: (service: string) => readonly string[]): Plan {
  return planFor(entries, { outside: new Set([Host.slot]), offers, unitOf: entry => unitOf(entry, nobody), kept: () => undefined, runs: () => false })
}

/** Every reason why this deployment can't run. Runs no setup. */
export function problemsOf(deployment: Deployment): ProblemRow[] {
  const errors: unknown[] = [...deployment.problems]
  try { planOf(deployment.entries, deployment.offers) } catch (error) {
    if (!(error instanceof BootError)) throw error
    errors.push(error)
  }
  return explain(deployment, errors)
}

/** One mistake, as `file:line:column  path  message` with what to do about it. */
export function problemText({ file, line, column, path, message, expected, got, fix }: ProblemRow): string {
  const place = file && (line ? `${file}:${line}:${column ?? 1}` : file)
  const known = [path, place].find(each => each && message.startsWith(`${each}: `))
  const said = known ? message.slice(known.length + 2) : message
  const detail = Object.entries({ expected, got, fix }).flatMap(([key, value]) => (value === undefined ? [] : [`    ${key}: ${value}`]))
  return [[place, path, said].filter(Boolean).join('  '), ...detail].join('\n')
}

export const problemsText = (rows: readonly ProblemRow[]): string =>
  `${rows.length === 1 ? '1 problem' : `${rows.length} problems`} in the configuration:\n\n${rows.map(problemText).join('\n\n')}\n`

/** What a command of `names` needs to be set up: providers, all that contribute to what these own, and every guard, since no veto may be missed. */
export function neededFor(names: readonly string[], entries: readonly PluginEntry[]): PluginEntry[] {
  const taken = new Set([...names, ...entries.filter(({ plugin }) => plugin.guards.length).map(nameOf)])
  for (let before = -1; before !== taken.size;) {
    before = taken.size
    const inside = entries.filter(entry => taken.has(nameOf(entry)))
    const wanted = new Set(inside.flatMap(({ plugin }) => Object.values(plugin.uses).flatMap(use => (use.is === 'settled' ? [] : [(use.is === 'live' ? use.ref : use).slot]))))
    const read = new Set(inside.flatMap(({ plugin }) => Object.values(plugin.uses).flatMap(use => (use.is === 'settled' ? [use.point.slot] : []))))
    // Who provides a service owns the points beside it, whatever its own name is.
    const owned = inside.flatMap(({ plugin }) => [`${plugin.name}.`, ...plugin.provides.map(({ id }) => id.slice(0, id.indexOf('.') + 1) || `${id}.`)])
    const ours = (id: string) => owned.some(owner => id.startsWith(owner))
    for (const entry of entries) {
      const { provides, contributes } = entry.plugin
      if (provides.some(ref => wanted.has(ref.slot)) || contributes.some(ref => read.has(ref.slot) || ours(ref.id))) taken.add(nameOf(entry))
    }
  }
  return entries.filter(entry => taken.has(nameOf(entry)))
}

/** Makes the data directory, for this user alone. */
export async function makeDataDir(folder: string): Promise<void> {
  try { await makeFolder(folder) } catch (cause) { throw HostErrors.DATA_DIR({ folder, reason: reasonOf(cause) }, { cause }) }
}

/** Level by level: where a parent answers ENOENT though it is there, as below /proc, Node's recursive mkdir never ends. */
async function makeFolder(folder: string): Promise<void> {
  const missing: string[] = []
  let at = resolve(folder)
  for (; dirname(at) !== at && !existsSync(at); at = dirname(at)) missing.unshift(at)
  for (const each of missing) await mkdir(each, { mode: 0o700 }).catch((error: NodeJS.ErrnoException) => { if (error.code !== 'EEXIST') throw error })
  if (!(await stat(folder)).isDirectory()) throw new Error('it is no folder')
}
