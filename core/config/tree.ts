import { LineCounter, isAlias, isMap, isScalar, isSeq, parseDocument, type Document, type Node, type Pair } from 'yaml'
import type { BackplaneError } from '../errors.ts'
import { ConfigErrors } from './mistakes.ts'

/** Where a value was written. For a variable, `file` is `environment variable PORT` and `line` is 0. */
export interface Origin { readonly file: string; readonly line: number; readonly column: number }
export type Scalar = string | number | boolean | null
/** Where to look for what a value refers to by a relative path. */
export interface Place extends Origin { readonly folder: string }
export interface Leaf {
  readonly is: 'leaf'
  readonly at: Place
  /** A scalar, or the Secret handle that it became. */
  value: unknown
  /** Other readings of a text from outside the file, in the order to try them: `8080` may be a number, a text or a secret. */
  others?: (() => unknown)[]
  /** Holds no references: it came from where people don't write them. */
  readonly literal?: boolean
}
export interface MapTree { readonly is: 'map'; readonly at: Place; readonly entries: Map<string, Tree> }
export interface ListTree { readonly is: 'list'; readonly at: Place; readonly items: Tree[] }
export type Tree = Leaf | MapTree | ListTree

export const leaf = (value: unknown, at: Place, more: Partial<Leaf> = {}): Leaf => ({ is: 'leaf', value, at, ...more })
export const emptyMap = (at: Place): MapTree => ({ is: 'map', at, entries: new Map() })

const MAX_NODES = 20_000
const MAX_DEPTH = 60

/** Reads one YAML file into values that know where they stand. What cannot be read is reported and left out. */
export function parseYaml(text: string, file: string, folder: string, report: (error: BackplaneError) => void): Tree | undefined {
  const lines = new LineCounter()
  const place = (offset: number): Place => { const { line, col } = lines.linePos(offset); return { file, folder, line, column: col } }
  const wrong = (offset: number, reason: string, expected: string, fix: string) => {
    const { line, column } = place(offset)
    report(ConfigErrors.SYNTAX({ file, line, column, reason, expected, got: reason, advice: fix }))
  }
  let document: Document.Parsed
  try { document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true, schema: 'core', stringKeys: false }) } catch (error) {
    wrong(0, error instanceof Error ? error.message : String(error), 'YAML', 'Correct the file.')
    return undefined
  }
  for (const { code, message, pos } of [...document.errors, ...document.warnings]) {
    const [expected, fix] = ADVICE[code] ?? ['YAML', 'Correct the file at this place.']
    wrong(pos[0], message, expected, fix)
  }
  if (document.errors.length || document.warnings.length) return undefined
  let count = 0
  const walk = (node: Node | null, at: Place | undefined, depth: number): Tree | undefined => {
    const offset = node?.range?.[0] ?? 0
    if (++count > MAX_NODES || depth > MAX_DEPTH) {
      if (count !== Infinity) wrong(offset, 'it unfolds into too much', `at most ${MAX_NODES} values, ${MAX_DEPTH} deep`, 'Write the values out instead of nesting aliases.')
      count = Infinity
      return undefined
    }
    if (isAlias(node)) {
      const target = node.resolve(document)
      if (target) return walk(target as Node, at, depth + 1)
      wrong(offset, `alias "*${node.source}" points to nothing above it`, 'the name of an anchor', 'Write the value itself, or put the anchor before it.')
      return undefined
    }
    if (isMap(node)) {
      const entries = new Map<string, Tree>()
      for (const { key, value } of node.items as Pair<Node, Node | null>[]) {
        if (!isScalar(key)) { wrong(key?.range?.[0] ?? offset, 'a key must be a plain name', 'a name', 'Write a name before the colon.'); continue }
        const name = typeof key.value === 'string' ? key.value : (key.source ?? String(key.value))
        const here = place(key.range![0])
        if (name === '<<') { wrong(key.range![0], 'merge keys (`<<`) are not read', 'the settings themselves', 'Write the settings out; an alias for a whole value, such as `other: *first`, may stay.'); continue }
        if (entries.has(name)) { wrong(key.range![0], `"${name}" stands here twice`, 'each key once', 'Keep one of the two.'); continue }
        const child = value === null ? leaf(null, here) : walk(value, isScalar(value) && (value.source || value.value !== null) ? undefined : here, depth + 1)
        if (child) entries.set(name, child)
      }
      return { is: 'map', at: at ?? place(offset), entries }
    }
    if (isSeq(node)) {
      const items = (node.items as Node[]).flatMap(item => walk(item, undefined, depth + 1) ?? [])
      return { is: 'list', at: at ?? place(offset), items }
    }
    const value = isScalar(node) ? node.value : null
    if (typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value)) {
      wrong(offset, `${isScalar(node) ? node.source : value} is too large to be kept exactly as a number`, 'at most 9007199254740991', 'Put it between quotes.')
      return undefined
    }
    return leaf(value, at ?? place(offset))
  }
  const tree = document.contents ? walk(document.contents, place(document.contents.range[0]), 0) : undefined
  return count === Infinity ? undefined : tree
}

const ADVICE: Record<string, [expected: string, fix: string]> = {
  DUPLICATE_KEY: ['each key once', 'Keep one of the two.'],
  TAB_AS_INDENT: ['spaces', 'Replace the tab with spaces.'],
  BAD_INDENT: ['the indentation of its neighbours', 'Line it up with its neighbours, with spaces.'],
  TAG_RESOLVE_FAILED: ['a plain value', 'Remove the tag: nothing in a config file is evaluated.'],
  MULTIPLE_DOCS: ['one document', 'Remove the `---` between the two, and merge them.'],
  BAD_ALIAS: ['the name of an anchor', 'Put quotes around a value that begins with *.'],
  MISSING_CHAR: ['a closing character', 'Close the quote or bracket.'],
  BLOCK_AS_IMPLICIT_KEY: ['one `key: value` on each line', 'Put quotes around a value that contains a colon and a space.'],
}

/** Maps merge, lists and scalars replace, null removes. `lost` hears of a null with nothing below it. */
export function merge(below: Tree | undefined, above: Tree, lost: (path: readonly string[], node: Leaf) => void = () => {}, path: readonly string[] = []): Tree | undefined {
  if (above.is === 'leaf' && above.value === null) {
    if (below === undefined) lost(path, above)
    return undefined
  }
  if (above.is !== 'map') return above
  const base = below?.is === 'map' ? below : undefined
  const entries = new Map(base?.entries)
  for (const [key, node] of above.entries) {
    const merged = merge(entries.get(key), node, lost, [...path, key])
    if (merged) entries.set(key, merged)
    else entries.delete(key)
  }
  return { is: 'map', at: base?.at ?? above.at, entries }
}

/** The part of a tree at a path; numbers count list items. */
export function find(tree: Tree | undefined, path: readonly PropertyKey[]): Tree | undefined {
  let node = tree
  for (const step of path) node = node?.is === 'map' ? node.entries.get(String(step)) : node?.is === 'list' ? node.items[Number(step)] : undefined
  return node
}

/** What is there, or what it would stand in. */
export function closest(tree: Tree | undefined, path: readonly PropertyKey[]): Tree | undefined {
  for (let length = path.length; length >= 0; length--) { const node = find(tree, path.slice(0, length)); if (node) return node }
  return undefined
}

export function* leaves(tree: Tree | undefined, path: readonly string[] = []): Generator<{ path: readonly string[]; node: Leaf }> {
  if (tree?.is === 'leaf') yield { path, node: tree }
  else if (tree?.is === 'map') for (const [key, child] of tree.entries) yield* leaves(child, [...path, key])
  else if (tree) for (const [at, child] of tree.items.entries()) yield* leaves(child, [...path, String(at)])
}

export function valueOf(tree: Tree | undefined): unknown {
  if (!tree) return undefined
  if (tree.is === 'leaf') return tree.value
  if (tree.is === 'list') return tree.items.map(valueOf)
  return Object.fromEntries([...tree.entries].map(([key, child]) => [key, valueOf(child)]))
}
