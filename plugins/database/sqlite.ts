import { AsyncLocalStorage } from 'node:async_hooks'
import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import Sqlite from 'better-sqlite3'
import type { Knex } from 'knex'
import { extendDeadline, reasonOf, type Logger } from '#core'
import { DatabaseErrors, type Database, type Migration, type Statement, type Tx } from '#contracts/database'
import { knexOf, type Executor, type Ran } from './builder.ts'
import { migrate } from './migrator.ts'
import { patiently, Writer } from './writer.ts'

const CACHED = 1_000
const CONTROL = /^\s*(begin|commit|end|rollback|savepoint|release|attach|detach)\b/i
const MIGRATION_MS = 600_000

/** The database can't be used at all, whatever was asked of it. */
const BROKEN = /^SQLITE_(FULL|IOERR|CANTOPEN|READONLY|CORRUPT|NOTADB|NOMEM|PROTOCOL)/
const told = (error: unknown): unknown =>
  (BROKEN.test(String((error as { code?: unknown } | undefined)?.code)) ? DatabaseErrors.UNAVAILABLE({ reason: reasonOf(error) }, { cause: error }) : error)

const bindable = (params: readonly unknown[]): unknown[] =>
  params.map(param => (typeof param === 'boolean' ? Number(param) : param instanceof Date ? param.getTime() : param === undefined ? null : param))

/** Connection and its prepared statements. */
class Connection {
  #cache = new Map<string, Sqlite.Statement>()
  constructor(readonly db: Sqlite.Database) {}

  prepare(sql: string): Sqlite.Statement {
    let statement = this.#cache.get(sql)
    if (!statement) {
      if (CONTROL.test(sql)) throw new TypeError('transactions are opened and ended by Database.transaction() alone')
      if (this.#cache.size >= CACHED) this.#cache.clear()
      this.#cache.set(sql, (statement = this.db.prepare(sql)))
    }
    return statement
  }

  execute(sql: string, params: readonly unknown[]): Ran {
    const statement = this.prepare(sql)
    if (statement.reader) {
      const rows = statement.all(...bindable(params))
      return { rows, changes: rows.length, lastId: undefined }
    }
    const { changes, lastInsertRowid } = statement.run(...bindable(params))
    return { rows: undefined, changes, lastId: lastInsertRowid }
  }
}

/** One transaction while it is open; the executor of the statements in it. */
class OpenTx implements Tx, Executor {
  open = true
  #savepoints = 0
  readonly #after: (() => unknown)[] = []
  constructor(readonly connection: Connection) {}

  afterCommit(run: () => unknown): void { this.expectOpen(); this.#after.push(run) }
  expectOpen(): void { if (!this.open) throw DatabaseErrors.TX_ENDED() }

  execute(sql: string, params: readonly unknown[]): Ran {
    this.expectOpen()
    return this.connection.execute(sql, params)
  }

  async nested<T>(work: () => Promise<T>): Promise<T> {
    this.expectOpen()
    const { db } = this.connection
    const name = `nested_${++this.#savepoints}`
    db.exec(`SAVEPOINT ${name}`)
    try {
      const value = await work()
      this.expectOpen()
      db.exec(`RELEASE ${name}`)
      return value
    } catch (error) {
      if (this.open) db.exec(`ROLLBACK TO ${name}; RELEASE ${name}`)
      throw error
    }
  }

  committed(log: Logger): void {
    const failed = (error: unknown) => log.error('work after a commit failed', { err: error })
    for (const run of this.#after) {
      try { Promise.resolve(run()).catch(failed) } catch (error) { failed(error) }
    }
  }
}

/** `Database` on one SQLite file: one connection writes, another one reads, and neither waits for the other. */
export class SqliteDatabase implements Database, Executor {
  readonly dialect = 'sqlite'
  // For telling a mistake, never for finding the transaction: that is handed on as `tx`.
  readonly #inside = new AsyncLocalStorage<OpenTx>()
  readonly #reader: Connection
  readonly #writing: Connection
  readonly #writer: Writer
  #closed = false

  private constructor(readonly file: string, readonly log: Logger, reader: Sqlite.Database, writer: Sqlite.Database) {
    this.#reader = new Connection(reader)
    this.#writing = new Connection(writer)
    this.#writer = new Writer(writer)
  }

  /** Makes the file and its folder if they are missing. Rejects with DATABASE_UNAVAILABLE or DATABASE_BUSY. */
  static async open(file: string, log: Logger): Promise<SqliteDatabase> {
    const opened: Sqlite.Database[] = []
    // busy_timeout blocks the event loop: it is only for the moment that a COMMIT elsewhere takes.
    const open = (options: Sqlite.Options) => {
      const db = new Sqlite(file, { timeout: 10, ...options })
      opened.push(db)
      return db
    }
    try {
      mkdirSync(dirname(file), { recursive: true })
      const writer = open({})
      await patiently(() => writer.pragma('journal_mode = WAL'))
      for (const pragma of ['synchronous = FULL', 'foreign_keys = ON']) await patiently(() => writer.pragma(pragma))
      const reader = open({ readonly: true })
      return new SqliteDatabase(file, log, reader, writer)
    } catch (error) {
      for (const db of opened) db.close()
      if (DatabaseErrors.BUSY.is(error)) throw error
      throw DatabaseErrors.UNAVAILABLE({ reason: `${file}: ${reasonOf(error)}` }, { cause: error })
    }
  }

  /** Transactions and writes that wait for their turn. */
  get waiting(): number { return this.#writer.waiting }

  knex(tx?: Tx): Knex {
    if (!tx) this.#expectOutside()
    return knexOf(tx ? this.#of(tx) : this)
  }

  async transaction<T>(work: (tx: Tx) => Promise<T>): Promise<T> {
    this.#expectOutside()
    const tx = new OpenTx(this.#writing)
    const value = await this.#told(this.#writer.transaction(async () => {
      try { return await this.#inside.run(tx, () => work(tx)) } finally { tx.open = false }
    }))
    tx.committed(this.log)
    return value
  }

  prepare<Row = Record<string, unknown>>(sql: string): Statement<Row> {
    const execute = async (params: readonly unknown[], tx?: Tx) => (tx ? this.#of(tx) : this).execute(sql, params)
    return {
      all: async (params, tx) => ((await execute(params, tx)).rows ?? []) as Row[],
      get: async (params, tx) => (await execute(params, tx)).rows?.[0] as Row | undefined,
      run: async (params, tx) => (await execute(params, tx)).changes,
    }
  }

  async migrate(owner: string, migrations: readonly Migration[]): Promise<void> {
    extendDeadline(MIGRATION_MS)
    await migrate(this, owner, migrations)
  }

  /** One statement on its own: reads have their connection, writes join the next group. */
  async execute(sql: string, params: readonly unknown[]): Promise<Ran> {
    this.#expectOutside()
    return this.#told(patiently(() => this.#reader.prepare(sql)).then(statement =>
      (statement.readonly ? patiently(() => this.#reader.execute(sql, params)) : this.#writer.run(() => this.#writing.execute(sql, params)))))
  }
  nested<T>(): Promise<T> { return Promise.reject(new TypeError('use Database.transaction(work)')) }

  /** Waits for what was begun, then closes the file. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await this.#writer.idle()
    this.#reader.db.close()
    this.#writing.db.close()
  }

  #expectOutside(): void {
    if (this.#inside.getStore()?.open) throw DatabaseErrors.OUTSIDE_TX()
    if (this.#closed) throw DatabaseErrors.UNAVAILABLE({ reason: 'it was closed' })
  }

  #of(tx: Tx): OpenTx {
    if (!(tx instanceof OpenTx) || tx.connection !== this.#writing) throw DatabaseErrors.TX_ENDED()
    tx.expectOpen()
    return tx
  }

  async #told<T>(work: Promise<T>): Promise<T> { try { return await work } catch (error) { throw told(error) } }
}
