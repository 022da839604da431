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

export type ColumnType = 'text' | 'bigint'
/** A hot statement over many rows at once, in order, in a few round trips. */
export interface ManyStatement<Row = Record<string, unknown>> {
  all(rows: readonly (readonly unknown[])[], tx: Tx): Promise<Row[]>
  run(rows: readonly (readonly unknown[])[], tx: Tx): Promise<number>
}

export interface Migration {
  /** Sorts and names it: `0001-jobs`. Never changed once released. */
  readonly name: string
  /** Builds on both dialects. Must leave the schema usable for the release before. */
  up(schema: Knex, dialect: Dialect): Promise<void>
}

/**
 * The one database. Columns hold the same types on both dialects: text (without U+0000), integer (safe range), boolean as 0 or 1,
 * time as integer milliseconds since the epoch, JSON as text, floating point, bytes as Buffer. Money is integers: a decimal is text
 * on PostgreSQL and a float on SQLite. Ask for the ids of new rows with RETURNING.
 */
export interface Database {
  readonly dialect: Dialect
  /**
   * Builds queries: inside `tx`, or on the reading connections. Rejects with DATABASE_OUTSIDE_TX when called without `tx`
   * while this flow of control has one open, and writes without one are single statements of their own.
   */
  knex(tx?: Tx): Knex
  /**
   * Runs `work` in a transaction (SQLite: BEGIN IMMEDIATE, grouped with its neighbours, at most 5 s or DATABASE_TX_TIMEOUT;
   * PostgreSQL: READ COMMITTED). Rejects as `work` does, after rolling back. A failed statement ends it: what may fail goes into `knex(tx).transaction(…)`, which undoes only itself. After a
   * deadlock `work` is run again, so it acts through `tx` and `tx.afterCommit` alone.
   */
  transaction<T>(work: (tx: Tx) => Promise<T>): Promise<T>
  prepare<Row = Record<string, unknown>>(sql: string): Statement<Row>
  /** `:rows` in it stands for `(?, ?), (?, ?) …`, as VALUES takes them: `INSERT … VALUES :rows`, `UPDATE … FROM (VALUES :rows) AS given WHERE … = given.column1`. */
  prepareMany<Row = Record<string, unknown>>(sql: string, types: readonly ColumnType[]): ManyStatement<Row>
  /**
   * Brings the tables of one plugin up to date, under a lock; the first thing in its setup. Extends the set-up deadline to 10 minutes. While PostgreSQL is
   * away at the start of a server it resolves at once: then this is owed, and until it is done everything else rejects with what keeps it from that,
   * retryable (DATABASE_UNAVAILABLE, say). So whoever reads or writes in its setup or start() must be able to do that later.
   */
  migrate(owner: string, migrations: readonly Migration[]): Promise<void>
}
export const Database = defineService<Database>('database.database')

export interface CopyOptions {
  /** Overwrites a backup file that is there; restores although a server seems to run. */
  readonly force?: boolean
  readonly signal?: AbortSignal
  /** Between 0 and 1; only where it is known. */
  progress?(done: number): void
}

/** What an operator does with the whole database, from the command line. */
export interface DatabaseAdmin {
  /** The migrations that this process ran. */
  migrated(): readonly { readonly owner: string; readonly name: string }[]
  /** A consistent copy in one new file, taken while others write, and checked. */
  backup(file: string, options?: CopyOptions): Promise<{ readonly bytes: number }>
  /** Puts a backup in the place of what is there. This process can't use the database afterwards. Rejects with DATABASE_IN_USE, DATABASE_BACKUP_INVALID. */
  restore(file: string, options?: CopyOptions): Promise<{ /** Where what was there is kept. */ readonly kept?: string }>
}
export const DatabaseAdmin = defineService<DatabaseAdmin>('database.admin')

/** What PostgreSQL's NOTIFY carries to all that listen. For `cluster`: everybody else uses its `Broadcast`. Local. */
export interface DatabaseChannels {
  /**
   * On a connection of its own, which comes back by itself, in a server also if it could not be made at first; what is sent meanwhile is missed.
   * Resolves to nothing on a database that has no such thing.
   * Send with `SELECT pg_notify(channel, message)`.
   */
  listen(channel: string, heard: (message: string) => void): Promise<DatabaseListener | undefined>
}
export interface DatabaseListener extends AsyncDisposable {
  /** Is it connected now? */
  readonly connected: boolean
}
export const DatabaseChannels = defineService<DatabaseChannels>('database.channels')

export const DatabaseErrors = defineErrors('DATABASE', {
  UNAVAILABLE: {
    message: 'the database does not answer: {reason}', status: 503, retryable: true,
    fix: 'See that PostgreSQL runs and that DATABASE_URL has its address, user, password and name, or that the SQLite file can be read and written. The operation may be tried again.',
  },
  IN_DOUBT: {
    message: 'the database did not say whether this was kept', status: 504, retryable: true, expose: true,
    fix: 'Look whether it is there, or send it again: with the same Idempotency-Key it is not done twice.',
  },
  OUTSIDE_TX: { message: 'the database was used outside the transaction that is open here', fix: 'Hand `tx` on to the method, or do it in tx.afterCommit().' },
  TX_ENDED: { message: 'a transaction was used after it had ended', fix: 'Await everything that uses `tx` inside transaction().' },
  TX_TIMEOUT: {
    message: 'a transaction was open for more than {ms} ms, so nothing of it is kept', status: 503, retryable: true,
    fix: 'Do what takes long, such as a call over the network, before transaction(); database.sqlite.transactionMs is the limit.',
  },
  TX_FAILED: {
    message: 'a statement of this transaction failed, so nothing of it is kept', fix: 'Let it fail, or put what may fail into knex(tx).transaction(…), which undoes only itself.',
  },
  CONSTRAINT: { message: 'a {kind} rule of the database refused this: {reason}', fix: 'Correct what is written, or write it with ON CONFLICT.', status: 409 },
  VALUE: { message: 'a value can not be stored: {reason}', fix: 'Send text without U+0000, and numbers that their column can hold.', status: 400, expose: true },
  BUSY: { message: 'the database was locked for {ms} ms', fix: 'Try again; more than four processes need PostgreSQL.', status: 503, retryable: true },
  MIGRATION_FAILED: {
    message: 'migration "{name}" of plugin "{owner}" failed: {reason}', status: 503, retryable: true,
    fix: 'Nothing of it was kept. Correct the cause and start again.',
  },
  MIGRATION_CHANGED: { message: 'plugin "{owner}" was migrated by "{found}", and this release has another history', fix: 'Run the release that made it, or a newer one.', status: 503, retryable: true },
  MIGRATIONS_PENDING: { message: 'plugin "{owner}" has migrations that did not run yet: {names}', fix: 'Run `backplane migrate`, or set database.migrate to auto.', status: 503, retryable: true },
  BACKUP_FAILED: { message: 'the backup was not made: {reason}', fix: 'Nothing was left behind. Correct the cause and run it again.' },
  BACKUP_INVALID: { message: '{file} is not a backup of this database: {reason}', fix: 'Name a file that `backplane database backup` made on the same kind of database.' },
  RESTORE_FAILED: { message: 'the backup was not restored: {reason}', fix: 'The database is as it was. Correct the cause and run it again.' },
  IN_USE: { message: 'the database is in use: {reason}', fix: 'Stop every Backplane process that uses it, then run it again.' },
  TOOL_MISSING: { message: '{tool} was not found', fix: 'Install the PostgreSQL client programs (Debian: postgresql-client) of the server\'s version or newer.' },
  DIALECT: { message: 'the database address "{url}" is not understood: {reason}', fix: 'Leave it out for SQLite in the data folder.' },
  TOO_MANY_PROCESSES: { message: '{count} processes have {file} open already', fix: 'At most four share one SQLite file; use PostgreSQL (DATABASE_URL) for more.' },
})
