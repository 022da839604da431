import { AsyncLocalStorage } from 'node:async_hooks'
import type { Knex } from 'knex'
import { extendDeadline, type Logger } from '#core'
import { DatabaseErrors, type ColumnType, type Database, type Dialect, type ManyStatement, type Migration, type Statement, type Tx } from '#contracts/database'
import { knexOf, type Executor, type Ran } from './builder.ts'
import { manyOf } from './many.ts'
import { migrate, type Migrated, type MigrateMode } from './migrator.ts'

export const MIGRATION_MS = 600_000
const CONTROL = /^\s*(begin|commit|end|rollback|savepoint|release|attach|detach|abort|start\s+transaction)\b/i

/** Only Database.transaction() opens and ends transactions. */
export function refuseControl(sql: string): void {
  if (CONTROL.test(sql)) throw new TypeError('transactions are opened and ended by Database.transaction() alone')
}

/** One transaction while it is open; the executor of the statements in it. */
export abstract class OpenTx implements Tx, Executor {
  abstract readonly dialect: Dialect
  open = true
  /** What the first failed statement threw: from then on nothing of the transaction can be kept, in PostgreSQL and so in SQLite too. */
  #failure: { readonly cause: unknown } | undefined
  #savepoints = 0
  readonly #after: (() => unknown)[] = []

  abstract execute(sql: string, params: readonly unknown[]): Ran | Promise<Ran>
  protected abstract control(sql: string): void | Promise<void>
  /** Settles when every statement that was begun has ended. */
  settled(): void | Promise<void> {}

  afterCommit(run: () => unknown): void { this.expectOpen(); this.#after.push(run) }
  expectOpen(): void { if (!this.open) throw DatabaseErrors.TX_ENDED() }
  expectSound(): void { if (this.#failure) throw DatabaseErrors.TX_FAILED({}, this.#failure) }

  /** Notes that a statement failed, and gives the error back. */
  failed<E>(cause: E): E {
    this.#failure ??= { cause }
    return cause
  }

  /** What failed was undone. */
  protected forgive(): void { this.#failure = undefined }

  async nested<T>(work: () => Promise<T>): Promise<T> {
    this.expectOpen()
    this.expectSound()
    const name = `nested_${++this.#savepoints}`
    await this.control(`SAVEPOINT ${name}`)
    try {
      const value = await work()
      this.expectOpen()
      this.expectSound()
      await this.control(`RELEASE SAVEPOINT ${name}`)
      return value
    } catch (error) {
      if (this.open) {
        await this.control(`ROLLBACK TO SAVEPOINT ${name}`)
        await this.control(`RELEASE SAVEPOINT ${name}`)
        this.forgive()
      }
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

/** What both dialects have in common; a dialect says how a transaction is made and how a statement on its own is run. */
export abstract class CommonDatabase implements Database, Executor {
  abstract readonly dialect: Dialect
  readonly migrated: Migrated[] = []
  // For telling a mistake, never for finding the transaction: that is handed on as `tx`.
  readonly #inside = new AsyncLocalStorage<OpenTx>()
  protected closed = false
  constructor(readonly log: Logger, readonly migrateMode: MigrateMode = 'auto') {}

  abstract transaction<T>(work: (tx: Tx) => Promise<T>): Promise<T>
  abstract execute(sql: string, params: readonly unknown[]): Promise<Ran>
  abstract prepare<Row = Record<string, unknown>>(sql: string): Statement<Row>
  /** Throws DATABASE_TX_ENDED unless it is an open transaction of this database. */
  protected abstract of(tx: Tx): OpenTx
  /** Holds until the end of `tx`: one process at a time migrates the tables of one plugin. */
  abstract lockMigrations(owner: string, tx: Tx): Promise<void>

  prepareMany<Row = Record<string, unknown>>(sql: string, types: readonly ColumnType[]): ManyStatement<Row> {
    return manyOf(each => this.prepare<Row>(each), sql, types)
  }

  knex(tx?: Tx): Knex {
    if (!tx) this.expectOutside()
    return knexOf(tx ? this.of(tx) : this)
  }

  async migrate(owner: string, migrations: readonly Migration[]): Promise<void> {
    extendDeadline(MIGRATION_MS)
    this.migrated.push(...await migrate(this, owner, migrations, this.migrateMode))
  }

  nested<T>(): Promise<T> { return Promise.reject(new TypeError('use Database.transaction(work)')) }

  /** Runs `work` in `tx`, and closes it. */
  protected async run<T>(tx: OpenTx, work: (tx: Tx) => Promise<T>): Promise<T> {
    let value: T
    try { value = await this.#inside.run(tx, () => work(tx)) } finally {
      tx.open = false
      await tx.settled()
    }
    tx.expectSound()
    return value
  }

  protected statement<Row>(execute: (params: readonly unknown[], tx?: Tx) => Promise<Ran>): Statement<Row> {
    return {
      all: async (params, tx) => ((await execute(params, tx)).rows ?? []) as Row[],
      get: async (params, tx) => (await execute(params, tx)).rows?.[0] as Row | undefined,
      run: async (params, tx) => (await execute(params, tx)).changes,
    }
  }

  protected expectOutside(): void {
    if (this.#inside.getStore()?.open) throw DatabaseErrors.OUTSIDE_TX()
    if (this.closed) throw DatabaseErrors.UNAVAILABLE({ reason: 'it was closed' })
  }
}
