import { existsSync } from 'node:fs'
import { mkdir, readFile, readdir, writeFile } from 'node:fs/promises'
import { dirname, join, relative, resolve } from 'node:path'
import { firstParty, host } from '../host/loader.ts'
import { didYouMean } from '../schema/nearest.ts'
import { HostErrors } from '../host/world.ts'

const TEMPLATES = join(host.root, 'scripts/create-plugin/templates')
/** What every kind has. */
const SHARED = 'shared'

export async function kinds(): Promise<string[]> {
  return (await readdir(TEMPLATES, { withFileTypes: true })).flatMap(each => (each.isDirectory() && each.name !== SHARED ? [each.name] : [])).sort()
}

export interface NewPlugin { readonly name: string; readonly kind: string; readonly folder: string }

/** Writes a plugin with a test that passes at once. Returns its files. Overwrites nothing. */
export async function createPlugin({ name, kind, folder }: NewPlugin): Promise<string[]> {
  const known = await kinds()
  if (!known.includes(kind)) throw HostErrors.KIND({ kind, advice: didYouMean(kind, known) })
  const reason = !/^[a-z][a-z0-9]*(-[a-z0-9]+)*$/.test(name) || name.length > 60 ? 'it has other characters than it may'
    : name === 'backplane' || firstParty().includes(name) || existsSync(join(host.base, 'plugins', name)) ? 'Backplane has one of that name' : undefined
  if (reason) throw HostErrors.PLUGIN_NAME({ name, reason })
  const found = await readdir(folder).catch((error: NodeJS.ErrnoException) => { if (error.code === 'ENOENT') return []; throw HostErrors.FOLDER_IN_USE({ folder, what: ', and no folder' }) })
  if (found.length) throw HostErrors.FOLDER_IN_USE({ folder, what: ', with files in it' })
  const values: Readonly<Record<string, string>> = {
    name, Name: name.replace(/(^|-)(\w)/g, (_, _dash, letter: string) => letter.toUpperCase()),
    version: host.version.split('.').slice(0, 2).join('.'),
  }
  const written: string[] = []
  for (const source of [SHARED, kind]) {
    for (const entry of await readdir(join(TEMPLATES, source), { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue
      const file = join(entry.parentPath, entry.name)
      const target = resolve(folder, relative(join(TEMPLATES, source), file))
      await mkdir(dirname(target), { recursive: true })
      await writeFile(target, (await readFile(file, 'utf8')).replace(/\{\{(\w+)\}\}/g, (hole, key: string) => values[key] ?? hole), { flag: 'wx' })
      written.push(target)
    }
  }
  return written.sort()
}
