import type { ColumnType } from '#contracts/database'
import { bindable } from './values.ts'

/**
 * The rows as one array for each column, so that the statement is the same for any number of them. With a limit that the planner does not know it
 * thinks of one row, and looks up each by its index. Without it, a plan made while a table is small reads all of it, and stays when it has grown.
 */
export function unnested(sql: string, types: readonly ColumnType[]): string {
  const columns = types.map((_, at) => `column${at + 1}`).join(', ')
  const arrays = types.map(type => `CAST(? AS ${type}[])`).join(', ')
  return sql.replace(/VALUES\s+:rows/i, `SELECT ${columns} FROM unnest(${arrays}) AS rows (${columns}) LIMIT ?`)
}

/** An array as PostgreSQL reads one from text. */
export function arraysOf(rows: readonly (readonly unknown[])[], width: number): (string | number)[] {
  const columns = Array.from({ length: width }, (): string[] => [])
  for (const row of rows) {
    if (row.length !== width) throw new TypeError(`a row has ${row.length} values, not ${width}`)
    for (const [at, value] of bindable(row).entries()) columns[at]!.push(elementOf(value))
  }
  return [...columns.map(elements => `{${elements.join(',')}}`), rows.length]
}

function elementOf(value: unknown): string {
  if (value === null) return 'NULL'
  if (typeof value === 'number') return String(value)
  // Bytes have no place in a column of text or integers.
  if (typeof value !== 'string') throw new TypeError('a value of many rows is a text, an integer or null')
  return `"${value.replace(/["\\]/g, '\\$&')}"`
}
