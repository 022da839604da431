import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import Sqlite from 'better-sqlite3'
import { BackplaneError, Deadline, reasonOf, SystemClock, type Logger } from '#core'
import { DatabaseErrors, type Statement, type Tx } from '#contracts/database'
import type { Ran } from './builder.ts'
import type { MigrateMode } from './migrator.ts'
import { CommonDatabase, MIGRATION_MS, OpenTx, refuseControl } from './transaction.ts'
import { bindable } from './values.ts'
import { takeSeat } from './seat.ts'
import { patiently, Writer } from './writer.ts'

const CACHED = 1_000

/** The database can't be used at all, whatever was asked of it. */
const BROKEN = /^SQLITE_(FULL|IOERR|CANTOPEN|READONLY|CORRUPT|NOTADB|NOMEM|PROTOCOL)/
const RULES: Readonly<Record<string, string>> = {
  SQLITE_CONSTRAINT_UNIQUE: 'unique', SQLITE_CONSTRAINT_PRIMARYKEY: 'unique', SQLITE_CONSTRAINT_FOREIGNKEY: 'foreign key',
  SQLITE_CONSTRAINT_NOTNULL: 'not-null', SQLITE_CONSTRAINT_CHECK: 'check',
}
function told(error: unknown): unknown {
  if (error instanceof BackplaneError) return error
  const code = String((error as { code?: unknown } | undefined)?.code)
  if (BROKEN.test(code)) return DatabaseErrors.UNAVAILABLE({ reason: reasonOf(error) }, { cause: error })
  if (RULES[code]) return DatabaseErrors.CONSTRAINT({ kind: RULES[code], reason: reasonOf(error) }, { cause: error })
  return error
}

/** Connection and its prepared statements. */
class Connection {
  #cache = new Map<string, Sqlite.Statement>()
  constructor(readonly db: Sqlite.Database) {}

  prepare(sql: string): Sqlite.Statement {
    let statement = this.#cache.get(sql)
    if (!statement) {
      refuseControl(sql)
      if (this.#cache.size >= CACHED) this.#cache.clear()
      this.#cache.set(sql, (statement = this.db.prepare(sql)))
    }
    return statement
  }

  known(sql: string): Sqlite.Statement | undefined { return this.#cache.get(sql) }

  execute(sql: string, params: readonly unknown[]): Ran {
    const statement = this.prepare(sql)
    if (statement.reader) {
      const rows = statement.all(...bindable(params))
      return { rows, changes: rows.length }
    }
    const { changes, lastInsertRowid } = statement.run(...bindable(params))
    return { rows: undefined, changes, lastId: lastInsertRowid }
  }
}

class Limit extends Deadline {
  constructor(readonly expire: () => void) { super() }
}

class SqliteTx extends OpenTx {
  readonly dialect = 'sqlite'
  /** Set when its turn comes. */
  limit: Limit | undefined
  constructor(readonly connection: Connection) { super() }

  execute(sql: string, params: readonly unknown[]): Ran {
    this.expectOpen()
    this.expectSound()
    try { return this.connection.execute(sql, params) } catch (error) { throw this.failed(told(error)) }
  }

  protected control(sql: string): void { this.connection.db.exec(sql) }
}

export interface SqliteOptions {
  readonly migrateMode?: MigrateMode
  /** Stays, and so counts among those that may share the file; a command does not. */
  readonly server?: boolean
  /** How long a transaction may stay open, in milliseconds. */
  readonly transactionMs?: number
}

/** `Database` on one SQLite file: one connection writes, another one reads, and neither waits for the other. */
export class SqliteDatabase extends CommonDatabase {
  readonly dialect = 'sqlite'
  readonly #reader: Connection
  readonly #writing: Connection
  readonly #writer: Writer
  readonly #seat: { close(): unknown } | undefined
  // Of real time, whatever the clock of a test says: what is limited is real work.
  readonly #deadlines = new SystemClock().deadlines
  readonly #transactionMs: number

  private constructor(
    readonly file: string, log: Logger, { migrateMode, transactionMs = 5_000 }: SqliteOptions,
    reader: Sqlite.Database, writer: Sqlite.Database, seat: { close(): unknown } | undefined,
  ) {
    super(log, migrateMode)
    this.#reader = new Connection(reader)
    this.#writing = new Connection(writer)
    this.#writer = new Writer(writer)
    this.#seat = seat
    this.#transactionMs = transactionMs
  }

  /**
   * Makes the file and its folder if they are missing. Rejects with DATABASE_UNAVAILABLE, DATABASE_BUSY or, for a `server`,
   * DATABASE_TOO_MANY_PROCESSES.
   */
  static async open(file: string, log: Logger, options: SqliteOptions = {}): Promise<SqliteDatabase> {
    const { server = false } = options
    const opened: { close(): unknown }[] = []
    // busy_timeout blocks the event loop: it is only for the moment that a COMMIT elsewhere takes.
    const open = (how: Sqlite.Options) => {
      const db = new Sqlite(file, { timeout: 10, ...how })
      opened.push(db)
      return db
    }
    try {
      mkdirSync(dirname(file), { recursive: true })
      if (server) opened.push(await takeSeat(file))
      const seat = opened[0]
      const writer = open({})
      await patiently(() => writer.pragma('journal_mode = WAL'))
      for (const pragma of ['synchronous = FULL', 'foreign_keys = ON']) await patiently(() => writer.pragma(pragma))
      const reader = open({ readonly: true })
      return new SqliteDatabase(file, log, options, reader, writer, server ? seat : undefined)
    } catch (error) {
      for (const db of opened) db.close()
      if (error instanceof BackplaneError) throw error
      throw DatabaseErrors.UNAVAILABLE({ reason: `${file}: ${reasonOf(error)}` }, { cause: error })
    }
  }

  /** Transactions and writes that wait for their turn. */
  get waiting(): number { return this.#writer.waiting }

  async transaction<T>(work: (tx: Tx) => Promise<T>): Promise<T> {
    this.expectOutside()
    const tx = new SqliteTx(this.#writing)
    const value = await this.#told(this.#writer.transaction(() => this.#limited(tx, work)))
    tx.committed(this.log)
    return value
  }

  /** All other writers wait for an open transaction: it ends when its time is up, whatever its work does. */
  #limited<T>(tx: SqliteTx, work: (tx: Tx) => Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const ms = this.#transactionMs
      const limit = tx.limit = new Limit(() => { tx.open = false; reject(DatabaseErrors.TX_TIMEOUT({ ms })) })
      this.#deadlines.arm(limit, ms)
      this.run(tx, work).finally(() => this.#deadlines.disarm(limit)).then(resolve, reject)
    })
  }

  prepare<Row = Record<string, unknown>>(sql: string): Statement<Row> {
    let writes: boolean | undefined
    return this.statement(async (params, tx) => {
      if (tx) return this.of(tx).execute(sql, params)
      // A hot statement that is known to write goes to the writer by the shortest way.
      if (!writes) return this.execute(sql, params).finally(() => { writes = this.#reader.known(sql)?.readonly === false })
      this.expectOutside()
      return this.#write(sql, params)
    })
  }

  /** BEGIN IMMEDIATE is the lock. */
  async lockMigrations(_owner: string, tx: Tx): Promise<void> { this.#deadlines.arm(this.of(tx).limit!, MIGRATION_MS) }

  /** One statement on its own: reads have their connection, writes join the next group. */
  async execute(sql: string, params: readonly unknown[]): Promise<Ran> {
    this.expectOutside()
    return this.#told(patiently(() => this.#reader.prepare(sql)).then(statement =>
      (statement.readonly ? patiently(() => this.#reader.execute(sql, params)) : this.#write(sql, params))))
  }

  #write(sql: string, params: readonly unknown[]): Promise<Ran> {
    return this.#writer.run(() => { try { return this.#writing.execute(sql, params) } catch (error) { throw told(error) } })
  }

  /** Waits for what was begun, then closes the file. */
  async close(): Promise<void> {
    if (this.closed) return
    this.closed = true
    await this.#writer.idle()
    this.#deadlines.stop()
    this.#reader.db.close()
    this.#writing.db.close()
    this.#seat?.close()
  }

  protected of(tx: Tx): SqliteTx {
    if (!(tx instanceof SqliteTx) || tx.connection !== this.#writing) throw DatabaseErrors.TX_ENDED()
    tx.expectOpen()
    return tx
  }

  async #told<T>(work: Promise<T>): Promise<T> { try { return await work } catch (error) { throw told(error) } }
}
