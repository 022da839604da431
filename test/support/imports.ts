import { tokenize } from '../../scripts/format.mjs'

export interface Import {
  readonly name: string
  readonly line: number
  /** What stands before `from`: names, or nothing. */
  readonly clause: string
  /** Leaves nothing at run time. */
  readonly typeOnly: boolean
  /** `import()`: loaded when it is come to. */
  readonly lazy: boolean
}

/** The text with comments and literals blanked, so that a word found in it is code; every index stays. */
export function codeOf(text: string): string {
  return tokenize(text).map(({ kind, from, to }) => (kind === 'code' ? text.slice(from, to) : text.slice(from, to).replace(/[^\n]/g, ' '))).join('')
}

/** Lines that are neither blank nor comment alone. */
export function linesOfCode(text: string): number {
  const bare = tokenize(text).map(({ kind, from, to }) => (kind === 'comment' ? text.slice(from, to).replace(/[^\n]/g, ' ') : text.slice(from, to))).join('')
  return bare.split('\n').filter(line => line.trim() !== '').length
}

/** Every module that a source names: import, export … from, import(), require(), import.meta.resolve(). */
export function importsOf(text: string): Import[] {
  const code = codeOf(text)
  return tokenize(text).flatMap(({ kind, from, to }): Import[] => {
    if (kind !== 'single' && kind !== 'double' && kind !== 'template') return []
    const before = code.slice(0, from).trimEnd()
    const found = { name: text.slice(from + 1, to - 1), clause: '', line: text.slice(0, from).split('\n').length }
    const call = /(typeof\s+)?(?:\bimport|\brequire(?:\.resolve)?|\bimport\.meta\.resolve)\s*\($/.exec(before)
    if (call) return [{ ...found, typeOnly: call[1] !== undefined, lazy: true }]
    if (/(^|[^.\w$])import$/.test(before)) return [{ ...found, typeOnly: false, lazy: false }]
    if (!/\bfrom$/.test(before)) return []
    const start = [...before.matchAll(/(?<![.\w$])(?:import|export)\b/g)].at(-1)
    const statement = start && /^(?:import|export)(\s+type\b(?!\s*(?:,|from\b)))?[\w$\s{},*]*\bfrom$/.exec(before.slice(start.index))
    return statement ? [{ ...found, clause: statement[0], typeOnly: statement[1] !== undefined, lazy: false }] : []
  })
}
