import { createRequire } from 'node:module'
import type { Knex } from 'knex'
import { BackplaneError } from '#core'
import type { Dialect } from '#contracts/database'

/** Runs one statement somewhere; `rows` is what it returned, if it returns any. */
export interface Executor {
  readonly dialect: Dialect
  execute(sql: string, params: readonly unknown[]): Ran | Promise<Ran>
  /** What knex.transaction() does here. */
  nested<T>(work: () => Promise<T>): Promise<T>
}
export interface Ran {
  readonly rows: unknown[] | undefined
  readonly changes: number
  readonly lastId?: number | bigint
  /** What PostgreSQL says it did: `SELECT`, `INSERT` … */
  readonly command?: string
}

interface Query { sql: string; bindings?: readonly unknown[]; method?: string; output?: unknown; response?: unknown; context?: unknown }
type KnexFactory = (config: Record<string, unknown>) => Knex

const BASES: Readonly<Record<Dialect, string>> = { sqlite: 'knex/lib/dialects/better-sqlite3/index.js', postgres: 'knex/lib/dialects/postgres/index.js' }

function answer(query: Query, dialect: Dialect, { rows, changes, lastId, command }: Ran): Query {
  const done = { changes, lastInsertRowid: lastId }
  // knex hands PostgreSQL's whole result to those who ask with raw(), and SQLite's rows: here it is the rows for both.
  if (dialect === 'sqlite' || (query.method === 'raw' && !query.output)) query.response = rows ?? done
  else query.response = { rows: rows ?? [], rowCount: changes, command }
  query.context = { lastID: lastId, changes }
  return query
}

/** knex puts the statement before the message of an error; those of ours may be shown to people outside. */
function keepMessage(error: unknown): unknown {
  if (error instanceof BackplaneError) {
    const { message } = error
    Object.defineProperty(error, 'message', { get: () => message, set() {}, configurable: true })
  }
  return error
}

const classes = new Map<Dialect, { knex: KnexFactory; client: (executor: Executor) => unknown }>()
// knex takes 140 ms to import: only when the database is set up.
function load(dialect: Dialect) {
  let loaded = classes.get(dialect)
  if (loaded) return loaded
  const require = createRequire(import.meta.url)
  const Base = require(BASES[dialect]) as new (config: unknown) => any
  const knex = require('knex') as KnexFactory
  const client = (executor: Executor) => class extends Base {
    acquireConnection() { return Promise.resolve({}) }
    releaseConnection() { return Promise.resolve() }
    transaction(work: unknown) {
      if (typeof work !== 'function') return Promise.reject(new TypeError('use Database.transaction(work)'))
      return executor.nested(() => Promise.resolve(work(knexOf(executor))))
    }
    async _query(_connection: unknown, query: Query) {
      if (!query.sql) throw new TypeError('the query is empty')
      try { return answer(query, dialect, await executor.execute(query.sql, query.bindings ?? [])) } catch (error) { throw keepMessage(error) }
    }
    _stream() { return Promise.reject(new TypeError('rows are not streamed here: read them in pages')) }
  }
  classes.set(dialect, (loaded = { knex, client }))
  return loaded
}

const built = new WeakMap<Executor, Knex>()
/** A query builder whose statements go to `executor`; it has no pool and nothing to close. */
export function knexOf(executor: Executor): Knex {
  let knex = built.get(executor)
  if (!knex) {
    const { knex: create, client } = load(executor.dialect)
    // With the bindings an error's message would hold what users wrote.
    built.set(executor, (knex = create({ client: client(executor), useNullAsDefault: true, compileSqlOnError: false })))
  }
  return knex
}
