import type { Knex } from 'knex'
import { defineErrors, defineService } from '#core'

export type Dialect = 'sqlite' | 'postgres'

/** An open transaction. Opaque: hand it to contract methods and to `Database`; it dies with the transaction. Local. */
export interface Tx {
  /** Runs after COMMIT, outside the transaction, in order; never on roll-back. What it throws is logged. */
  afterCommit(run: () => unknown): void
}

/** A hot statement, prepared once. `?` marks a parameter in both dialects. With `tx` it runs inside it. */
export interface Statement<Row = Record<string, unknown>> {
  all(params: readonly unknown[], tx?: Tx): Promise<Row[]>
  get(params: readonly unknown[], tx?: Tx): Promise<Row | undefined>
  /** Resolves to how many rows changed. */
  run(params: readonly unknown[], tx?: Tx): Promise<number>
}

export interface Migration {
  /** Sorts and names it: `0001-jobs`. Never changed once released. */
  readonly name: string
  /** Builds on both dialects. Must leave the schema usable for the release before. */
  up(schema: Knex, dialect: Dialect): Promise<void>
}

/**
 * The one database. Columns hold the same types on both dialects: text, integer (safe range), boolean as 0 or 1,
 * time as integer milliseconds since the epoch, JSON as text.
 */
export interface Database {
  readonly dialect: Dialect
  /**
   * Builds queries: inside `tx`, or on the reading connections. Rejects with DATABASE_OUTSIDE_TX when called without `tx`
   * while this flow of control has one open, and writes without one are single statements of their own.
   */
  knex(tx?: Tx): Knex
  /** Runs `work` in a transaction (SQLite: BEGIN IMMEDIATE, grouped with its neighbours; retried while busy). Rejects as `work` does, after rolling back. */
  transaction<T>(work: (tx: Tx) => Promise<T>): Promise<T>
  prepare<Row = Record<string, unknown>>(sql: string): Statement<Row>
  /** Brings the tables of one plugin up to date, under a lock; the first thing in its setup. Extends the set-up deadline to 10 minutes. */
  migrate(owner: string, migrations: readonly Migration[]): Promise<void>
}
export const Database = defineService<Database>('database.database')

export const DatabaseErrors = defineErrors('DATABASE', {
  UNAVAILABLE: { message: 'the database does not answer: {reason}', fix: 'See `backplane health database`; the operation may be tried again.', status: 503, retryable: true },
  OUTSIDE_TX: { message: 'the database was used outside the transaction that is open here', fix: 'Hand `tx` on to the method, or do it in tx.afterCommit().' },
  TX_ENDED: { message: 'a transaction was used after it had ended', fix: 'Await everything that uses `tx` inside transaction().' },
  BUSY: { message: 'the database was locked for {ms} ms', fix: 'Try again; more than four processes need PostgreSQL.', status: 503, retryable: true },
  MIGRATION_FAILED: { message: 'migration "{name}" of plugin "{owner}" failed: {reason}', fix: 'Nothing of it was kept. Correct the cause and start again.' },
  MIGRATION_CHANGED: { message: 'plugin "{owner}" was migrated to "{found}", which this release does not know', fix: 'Run the release that made it, or a newer one.' },
  DIALECT: { message: 'the database address "{url}" is not understood: {reason}', fix: 'Leave it out for SQLite in the data folder.' },
  TOO_MANY_PROCESSES: { message: '{count} processes have {file} open already', fix: 'At most four share one SQLite file; use PostgreSQL (DATABASE_URL) for more.' },
})
