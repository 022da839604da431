import type { ColumnType, ManyStatement, Statement } from '#contracts/database'

/** Rows of one statement. Few sizes, so that few statements are kept; and bounded, since the event loop stands still for each. */
const SIZES = [64, 32, 16, 8, 4, 2, 1]

/** One statement for each size, with `:rows` written out. */
export function manyOf<Row>(prepare: (sql: string) => Statement<Row>, sql: string, types: readonly ColumnType[]): ManyStatement<Row> {
  // The first row tells the types of all: PostgreSQL takes a bare parameter for text.
  const first = `(${types.map(type => `CAST(? AS ${type})`).join(', ')})`
  const next = `(${types.map(() => '?').join(', ')})`
  const written = (size: number) => [first, ...new Array<string>(size - 1).fill(next)].join(', ')
  const statements = SIZES.map(size => ({ size, statement: prepare(sql.replace(':rows', written(size))) }))
  type Ask<T> = (statement: Statement<Row>, params: readonly unknown[]) => Promise<T>
  const chunked = async <T>(rows: readonly (readonly unknown[])[], ask: Ask<T>): Promise<T[]> => {
    const answers: T[] = []
    for (let at = 0; at < rows.length;) {
      const { size, statement } = statements.find(each => each.size <= rows.length - at)!
      answers.push(await ask(statement, size === 1 ? rows[at]! : joined(rows, at, size)))
      at += size
    }
    return answers
  }
  return {
    all: async (rows, tx) => (await chunked(rows, (statement, params) => statement.all(params, tx))).flat(),
    run: async (rows, tx) => (await chunked(rows, (statement, params) => statement.run(params, tx))).reduce((sum, each) => sum + each, 0),
  }
}

// flat() is several times slower, and this is done for each row that is written.
function joined(rows: readonly (readonly unknown[])[], from: number, count: number): unknown[] {
  const all: unknown[] = []
  for (let at = from; at < from + count; at++) for (const value of rows[at]!) all.push(value)
  return all
}
