import { createHash, randomUUID } from 'node:crypto'
import pg from 'pg'
import type { Client, ClientConfig, PoolClient, QueryConfig } from 'pg'
import type { BackplaneError, Clock, Logger } from '#core'
import { DatabaseErrors, type ColumnType, type ManyStatement, type Migration, type Statement, type Tx } from '#contracts/database'
import type { Ran } from './builder.ts'
import type { PostgresSettings } from './config.ts'
import { arraysOf, unnested } from './postgres-arrays.ts'
import { Absence } from './postgres-absence.ts'
import { Connections } from './postgres-connections.ts'
import { errorOf, isAway, isLost, stateOf } from './postgres-error.ts'
import { types } from './postgres-types.ts'
import { numbered } from './placeholders.ts'
import { checked, type MigrateMode } from './migrator.ts'
import { CommonDatabase, OpenTx, refuseControl } from './transaction.ts'
import { bindable } from './values.ts'

const ATTEMPTS = 6
/** Serialization failure, deadlock, and a prepared statement whose table was altered: nothing was kept, so the work may be run again. */
const AGAIN = /^(40001|40P01|0A000)$/
/** What is a transaction of its own when it stands alone. */
const WRITES = /\b(insert|update|delete)\b/i
/** How long an answer may be late before the connection is taken for dead, in addition to the time of the statement. */
const LATE_MS = 5_000
const FOREVER_MS = 2 ** 31 - 1
/** At a start nobody waits longer for a server that does not answer. */
const REACH_MS = 5_000

const sleep = (ms: number) => new Promise(resolve => setTimeout(resolve, ms))
const nameOf = (sql: string) => `bp_${createHash('sha256').update(sql).digest('hex').slice(0, 24)}`

interface Prepared { readonly text: string; readonly name?: string }

async function ask(client: Pick<PoolClient, 'query'>, { text, name }: Prepared, params: readonly unknown[], lateMs?: number): Promise<Ran> {
  // Without `extended` a text without parameters might hold several statements.
  const query = { text, name, values: bindable(params), types, queryMode: 'extended', query_timeout: lateMs }
  const { rows, rowCount, command, fields } = await client.query(query as QueryConfig)
  // The sum of integers is `numeric` without a precision; a column that was declared as a decimal has one.
  const sums = fields.filter(field => field.dataTypeID === pg.types.builtins.NUMERIC && field.dataTypeModifier === -1)
  for (const { name: column } of sums) for (const row of rows) if (row[column] !== null) row[column] = Number(row[column])
  return { rows: fields.length ? rows : undefined, changes: rowCount ?? 0, command }
}

class PostgresTx extends OpenTx {
  readonly dialect = 'postgres'
  /** SQLSTATE of the first statement that failed. */
  state: string | undefined
  lost = false
  /** For migrations: a statement takes as long as it takes. */
  unbounded = false
  #unanswered = 0
  #last: Promise<unknown> = Promise.resolve()
  constructor(readonly client: PoolClient, readonly database: PostgresDatabase) { super() }

  execute(sql: string, params: readonly unknown[]): Promise<Ran> { return this.perform({ text: sql }, params) }

  async perform(prepared: Prepared, params: readonly unknown[]): Promise<Ran> {
    this.expectOpen()
    return this.#enqueue(async () => {
      this.expectSound()
      refuseControl(prepared.text)
      // Those that went out before it are answered first.
      const lateMs = this.database.lateMs * ++this.#unanswered
      try { return await ask(this.client, prepared, params, this.unbounded ? FOREVER_MS : Math.min(lateMs, FOREVER_MS)) } catch (error) {
        this.note(error)
        // What the server refuses since another one failed is no failure of its own.
        this.expectSound()
        throw this.failed(errorOf(error))
      } finally { this.#unanswered-- }
    })
  }

  note(error: unknown): void {
    this.state ??= stateOf(error)
    this.lost ||= isLost(error)
  }

  protected async control(sql: string): Promise<void> {
    await this.#enqueue(async () => {
      try { await this.client.query(sql) } catch (error) {
        this.note(error)
        throw this.failed(errorOf(error))
      }
    })
  }

  protected override forgive(): void {
    super.forgive()
    this.state = undefined
  }

  override async settled(): Promise<void> { await this.#last.catch(() => {}) }

  // What is asked at the same time goes out together, and is answered in that order.
  #enqueue<T>(work: () => Promise<T>): Promise<T> {
    const done = work()
    // Of nothing: with its result each would keep those of all before it.
    this.#last = Promise.allSettled([this.#last, done]).then(() => {})
    return done
  }
}

/** Where PostgreSQL is and who we are there, read from its address. Throws DATABASE_DIALECT, never with the address in it. */
export function settingsOf(url: string): Pick<Client, 'host' | 'port' | 'user' | 'database' | 'password'> & Pick<ClientConfig, 'ssl'> {
  try {
    const { host, port, user, database, password, ssl } = new pg.Client({ connectionString: url }) as Client & { ssl: ClientConfig['ssl'] }
    return { host, port, user, database, password, ssl }
  } catch {
    // The error that was thrown holds the address, and so the password.
    throw DatabaseErrors.DIALECT({ url: 'postgres://…', reason: 'it is not of the form postgres://user:password@host:port/database' })
  }
}

export interface PostgresOptions extends Partial<PostgresSettings> {
  /** Asked again for each connection, so that a rotated password is used from the next one on. */
  address(): Promise<string>
  readonly migrateMode?: MigrateMode
  /** Of a server: it looks whether PostgreSQL lives, and waits for one that is away; what is migrated meanwhile is owed. */
  readonly clock?: Clock
  /** Of one that starts: from the beginning. Else only for one that was there. */
  readonly waits?: boolean
}

/** `Database` on PostgreSQL: a pool of connections, each transaction on one of them. */
export class PostgresDatabase extends CommonDatabase {
  readonly dialect = 'postgres'
  readonly #connections: Connections
  /** By which the server tells our connections from those of other processes. */
  readonly connectionName = `backplane ${randomUUID()}`
  readonly #begun = new Set<Promise<unknown>>()
  readonly #where: string
  /** When a statement must be answered. */
  readonly lateMs: number
  #absence: Absence | undefined
  #mayWait: boolean

  private constructor(readonly options: PostgresOptions, log: Logger, config: ClientConfig) {
    super(log, options.migrateMode)
    this.#where = `${config.host}:${config.port}/${config.database}`
    const { poolMax = 10, acquireMs = 5_000, idleMs = 30_000, statementMs = 30_000, poolMin = 0, silentMs = 1_000, clock } = options
    this.lateMs = statementMs + LATE_MS
    this.#mayWait = options.waits ?? false
    const pool = {
      ...config, min: poolMin, max: poolMax, connectionTimeoutMillis: acquireMs, idleTimeoutMillis: idleMs,
      statement_timeout: statementMs, query_timeout: this.lateMs, idle_in_transaction_session_timeout: statementMs * 2,
      application_name: this.connectionName, keepAlive: true, pipeline: true,
    }
    this.#connections = new Connections({ config: pool, log, silentMs: clock && silentMs, silent: error => void this.#waits(errorOf(error)) })
  }

  /** Connects once. Rejects with DATABASE_UNAVAILABLE or DATABASE_DIALECT; one that `waits` only for what waiting does not mend. */
  static async open(options: PostgresOptions, log: Logger): Promise<PostgresDatabase> {
    const { password, ...where } = settingsOf(await options.address())
    const current = async () => (settingsOf(await options.address()).password as string | null) ?? ''
    const database = new PostgresDatabase(options, log, { ...where, ...(password ? { password: current } : {}) } as ClientConfig)
    try { await database.#reach() } catch (error) {
      const problem = errorOf(error)
      if (isAway(error) && database.#waits(problem)) return database
      await database.close()
      throw problem
    }
    database.#mayWait = options.waits !== undefined
    return database
  }

  async #reach(): Promise<void> {
    const client = await this.#connections.acquire()
    // A pooler in between answers although the server is away.
    try { await ask(client, { text: 'SELECT 1' }, [], REACH_MS) } catch (error) {
      this.#connections.release(client, true)
      throw error
    }
    this.#connections.release(client)
  }

  /** Waits from now on, if it may. */
  #waits(problem: unknown): boolean {
    const { options: { clock, waits: _waits, ...options }, log } = this
    if (!clock || !this.#mayWait || this.closed || !(DatabaseErrors.UNAVAILABLE.is(problem) || DatabaseErrors.IN_DOUBT.is(problem))) return false
    const acquireMs = Math.min(options.acquireMs ?? REACH_MS, REACH_MS)
    // It has more patience than those who are refused meanwhile.
    const visitor = { ...options, clock, poolMin: 0, poolMax: 1, acquireMs, silentMs: REACH_MS }
    this.#absence ??= new Absence({
      clock, log, where: this.#where, connect: () => PostgresDatabase.open(visitor, log),
      over: migrated => { this.#absence = undefined; this.migrated.push(...migrated) },
    }, problem)
    return true
  }

  /** Why nothing can be asked of it now: the server is away, or what was owed to it could not be done. */
  get problem(): BackplaneError | undefined { return this.#absence?.problem }

  /** Says again what it waits for, if it does. */
  remind(): void { this.#absence?.remind() }

  override async migrate(owner: string, migrations: readonly Migration[]): Promise<void> {
    try { if (!this.#absence) return await super.migrate(owner, migrations) } catch (error) { if (!this.#waits(error)) throw error }
    this.#absence?.owe(owner, checked(owner, migrations))
  }

  /** Figures of the pool. */
  get pool() { return this.#connections.figures }

  async transaction<T>(work: (tx: Tx) => Promise<T>): Promise<T> {
    this.expectOutside()
    return this.#track(this.#retried(work))
  }

  async #retried<T>(work: (tx: Tx) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      const { outcome, again } = await this.#attempt(work)
      if (!again || attempt === ATTEMPTS) return outcome()
      await sleep(Math.random() * 10 * 2 ** attempt)
    }
  }

  async #attempt<T>(work: (tx: Tx) => Promise<T>): Promise<{ outcome: () => T; again: boolean }> {
    const client = await this.#acquire()
    const tx = new PostgresTx(client, this)
    let step: 'begin' | 'work' | 'commit' = 'begin'
    try {
      await client.query('BEGIN ISOLATION LEVEL READ COMMITTED')
      step = 'work'
      const value = await this.run(tx, work)
      step = 'commit'
      // A transaction in which a statement failed answers COMMIT with ROLLBACK, and calls it a success.
      if ((await client.query('COMMIT')).command !== 'COMMIT') throw DatabaseErrors.TX_FAILED()
      this.#connections.release(client)
      tx.committed(this.log)
      return { outcome: () => value, again: false }
    } catch (error) {
      if (step !== 'work') tx.note(error)
      if (!tx.lost) await client.query('ROLLBACK').catch(failed => tx.note(failed))
      // A statement that was prepared for what a table was before is no good any more.
      this.#connections.release(client, tx.lost || tx.state === '0A000')
      const unknown = step === 'commit' && tx.lost
      const again = unknown ? false : step === 'begin' ? tx.lost : AGAIN.test(tx.state ?? '')
      const told = unknown ? DatabaseErrors.IN_DOUBT() : step === 'work' ? error : errorOf(error)
      return { outcome: () => { throw told }, again }
    }
  }

  async execute(sql: string, params: readonly unknown[]): Promise<Ran> { return this.#single({ text: sql }, params) }

  prepare<Row = Record<string, unknown>>(sql: string): Statement<Row> {
    const text = numbered(sql)
    const prepared = { text, name: nameOf(text) }
    return this.statement((params, tx) => (tx ? this.#run(prepared, params, tx) : this.#single(prepared, params)))
  }
  /** One statement for any number of rows: what it costs here is its round trip. */
  override prepareMany<Row = Record<string, unknown>>(sql: string, types: readonly ColumnType[]): ManyStatement<Row> {
    const statement = this.prepare<Row>(unnested(sql, types))
    return {
      all: async (rows, tx) => (rows.length ? statement.all(arraysOf(rows, types.length), tx) : []),
      run: async (rows, tx) => (rows.length ? statement.run(arraysOf(rows, types.length), tx) : 0),
    }
  }
  async #run(prepared: Prepared, params: readonly unknown[], tx: Tx): Promise<Ran> { return this.of(tx).perform(prepared, params) }

  async #single(prepared: Prepared, params: readonly unknown[]): Promise<Ran> {
    this.expectOutside()
    refuseControl(prepared.text)
    return this.#track(this.#alone(prepared, params))
  }

  async #alone(prepared: Prepared, params: readonly unknown[]): Promise<Ran> {
    for (let attempt = 1; ; attempt++) {
      const client = await this.#acquire()
      try {
        const ran = await ask(client, prepared, params)
        this.#connections.release(client)
        return ran
      } catch (error) {
        const state = stateOf(error) ?? ''
        this.#connections.release(client, isLost(error) || state === '0A000')
        // It went out, and the server said neither yes nor no.
        if (!state && isLost(error) && WRITES.test(prepared.text)) throw DatabaseErrors.IN_DOUBT()
        if (!AGAIN.test(state) || attempt === ATTEMPTS) throw errorOf(error)
      }
      await sleep(Math.random() * 10 * 2 ** attempt)
    }
  }

  async lockMigrations(owner: string, tx: Tx): Promise<void> {
    const key = createHash('sha256').update(`backplane.migrations.${owner}`).digest().readBigInt64BE()
    const open = this.of(tx)
    open.unbounded = true
    for (const setting of ['statement_timeout', 'idle_in_transaction_session_timeout']) await open.execute(`SET LOCAL ${setting} = 0`, [])
    // As text: the key has more digits than a number can keep.
    await open.execute('SELECT pg_advisory_xact_lock(CAST($1 AS bigint))', [String(key)])
  }

  /** How many connections other processes of Backplane have to this database. */
  async others(): Promise<number> {
    const { rows } = await this.execute(
      'SELECT count(*) AS count FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE $1 AND application_name <> $2', ['backplane %', this.connectionName])
    return (rows as [{ count: number }])[0].count
  }

  /** Waits for what was begun, then closes the connections. */
  async close(): Promise<void> {
    if (this.closed) return
    this.closed = true
    await this.#absence?.close()
    while (this.#begun.size) await Promise.allSettled(this.#begun)
    await this.#connections.end()
  }

  protected of(tx: Tx): PostgresTx {
    if (!(tx instanceof PostgresTx) || tx.database !== this) throw DatabaseErrors.TX_ENDED()
    tx.expectOpen()
    return tx
  }

  async #acquire(): Promise<PoolClient> {
    if (this.problem) throw this.problem
    try { return await this.#connections.acquire() } catch (error) { throw errorOf(error) }
  }

  async #track<T>(work: Promise<T>): Promise<T> {
    this.#begun.add(work)
    try { return await work } finally { this.#begun.delete(work) }
  }
}
