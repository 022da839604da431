import { DatabaseErrors } from '#contracts/database'

function one(value: unknown): unknown {
  switch (typeof value) {
    case 'boolean': return Number(value)
    case 'undefined': return null
    case 'number':
      if (!Number.isFinite(value)) throw DatabaseErrors.VALUE({ reason: `${value} is no number that can be kept` })
      return value
    case 'bigint':
      if (BigInt.asIntN(54, value) !== value) throw DatabaseErrors.VALUE({ reason: 'it is an integer beyond the safe range' })
      return Number(value)
    case 'string':
      // PostgreSQL has no such text; what SQLite takes must not fail on the way to it.
      if (value.includes('\0')) throw DatabaseErrors.VALUE({ reason: 'the text holds the character U+0000' })
      return value
    case 'object':
      if (value === null || ArrayBuffer.isView(value)) return value
      if (value instanceof Date) return one(value.getTime())
  }
  throw new TypeError(`a parameter is of type ${Array.isArray(value) ? 'array' : typeof value}: write JSON as text`)
}

/** Parameters as both dialects take them. Throws DATABASE_VALUE for what one of them could not keep. */
export const bindable = (params: readonly unknown[]): unknown[] => params.map(one)
