import { readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import type { ErrorMaker, ErrorShape } from '#core'
import { walk } from '../bootstrap.mjs'

export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
export const read = (path: string): string => readFileSync(join(root, path), 'utf8')
export const load = (path: string): Promise<Record<string, unknown>> => import(pathToFileURL(join(root, path)).href)
export const sources = (...folders: string[]): string[] =>
  folders.flatMap(folder => walk(join(root, folder), name => name === 'node_modules')).map(file => relative(root, file)).filter(file => file.endsWith('.ts'))

export type Row = ErrorMaker<string, ErrorShape>
export interface Table { readonly owner: string; readonly file: string; readonly rows: readonly Row[] }

const isRow = (value: unknown): value is Row => typeof value === 'function' && 'code' in value && 'shape' in value
const isTable = (value: unknown): value is Record<string, Row> =>
  typeof value === 'object' && value !== null && Object.values(value).length > 0 && Object.values(value).every(isRow)

/** Every error table of the core, the host and the plugins. Throws if a file makes one that it does not export. */
export async function errorTables(): Promise<Table[]> {
  const tables = new Map<string, Table>()
  for (const file of sources('core', 'plugins')) {
    const owners = [...read(file).matchAll(/\bdefineErrors\(\s*'([A-Z_]+)'/g)].map(match => match[1]!).filter(owner => !isExample(file, owner))
    if (!owners.length) continue
    const found = Object.values(await load(file)).filter(isTable)
    for (const owner of owners) {
      const table = found.find(each => Object.entries(each).every(([key, row]) => row.code === `${owner}_${key}`))
      if (!table) throw new Error(`${file}: the error table ${owner} is not exported`)
      if (tables.has(owner)) throw new Error(`${file}: the error table ${owner} is also in ${tables.get(owner)!.file}`)
      tables.set(owner, { owner, file, rows: Object.values(table) })
    }
  }
  return [...tables.values()].toSorted((a, b) => (a.owner < b.owner ? -1 : 1))
}

/** The docstring of defineErrors itself shows one. */
const isExample = (file: string, owner: string): boolean => file === 'core/errors.ts' && owner === 'SECRETS'

/** The names between braces, each once. */
export const holesOf = (shape: ErrorShape): string[] =>
  [...new Set([...`${shape.message} ${shape.fix}`.matchAll(/\{(\w+)\}/g)].map(match => match[1]!))]
