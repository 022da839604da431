import pg from 'pg'

type Parse = (value: string) => unknown
const { builtins } = pg.types

const number: Parse = value => Number(value)
const text: Parse = value => value
/** Milliseconds since the epoch. A time without a zone is UTC. */
const time = (zone: string): Parse => value => (/infinity/.test(value) ? null : Date.parse(`${value.replace(' ', 'T')}${zone}`))

const { INT2, INT4, INT8, OID, FLOAT4, FLOAT8, BOOL, NUMERIC, TIMESTAMP, TIMESTAMPTZ, DATE, BYTEA } = builtins
const PARSERS = new Map<number, Parse>([
  ...[INT2, INT4, INT8, OID, FLOAT4, FLOAT8].map(each => [each, number] as const),
  [BOOL, value => (value === 't' ? 1 : 0)],
  [NUMERIC, text],
  [TIMESTAMP, time('Z')], [DATE, time('T00:00:00Z')],
  // PostgreSQL writes `+00`, which is no zone to Date.parse.
  [TIMESTAMPTZ, value => time('')(value.replace(/([+-]\d\d)$/, '$1:00'))],
  [BYTEA, pg.types.getTypeParser(BYTEA) as Parse],
])

/** How columns are read: as SQLite would give them. What has no entry is text, JSON too. */
export const types = { getTypeParser: (oid: number) => PARSERS.get(oid) ?? text }
