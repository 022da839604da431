import { createRequire } from 'node:module'
import type { Knex } from 'knex'

/** Runs one statement somewhere; `rows` is what it returned, if it returns any. */
export interface Executor {
  execute(sql: string, params: readonly unknown[]): Ran | Promise<Ran>
  /** What knex.transaction() does here. */
  nested<T>(work: () => Promise<T>): Promise<T>
}
export interface Ran { readonly rows: unknown[] | undefined; readonly changes: number; readonly lastId: number | bigint | undefined }

interface Query { sql: string; bindings?: readonly unknown[]; response?: unknown; context?: unknown }
type KnexFactory = (config: Record<string, unknown>) => Knex

// knex takes 140 ms to import: only when the database is set up.
let classes: { knex: KnexFactory; client: (executor: Executor) => unknown } | undefined
function load() {
  if (classes) return classes
  const require = createRequire(import.meta.url)
  const Base = require('knex/lib/dialects/better-sqlite3/index.js') as new (config: unknown) => any
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
      const { rows, changes, lastId } = await executor.execute(query.sql, query.bindings ?? [])
      query.response = rows ?? { changes, lastInsertRowid: lastId }
      query.context = { lastID: lastId, changes }
      return query
    }
  }
  return (classes = { knex, client })
}

const built = new WeakMap<Executor, Knex>()
/** A query builder whose statements go to `executor`; it has no pool and nothing to close. */
export function knexOf(executor: Executor): Knex {
  let knex = built.get(executor)
  if (!knex) {
    const { knex: create, client } = load()
    // With the bindings an error's message would hold what users wrote.
    built.set(executor, (knex = create({ client: client(executor), useNullAsDefault: true, compileSqlOnError: false })))
  }
  return knex
}
