import type BetterSqlite3 from 'better-sqlite3'
import { reasonOf } from '#core'
import { DatabaseErrors } from '#contracts/database'

const BUSY_MS = 5_000
/** Bounds of a group: what comes later waits for the next COMMIT, so that other processes get their turn. */
const GROUP = { members: 500, ms: 10 }

/** One who waits for the connection. */
interface Member {
  readonly since: number
  /** One statement undoes itself when it fails; only more than one needs a savepoint. */
  readonly single: boolean
  /** Does its work on the connection; resolves, or rejects for a roll-back of this member alone. */
  run(): unknown
  /** Its work is on disk. */
  kept(value: unknown): void
  failed(error: unknown): void
}

interface Deferred<T> { readonly promise: Promise<T>; resolve(value: T): void; reject(error: unknown): void }
const defer = <T>(): Deferred<T> => {
  let settle!: Omit<Deferred<T>, 'promise'>
  const promise = new Promise<T>((resolve, reject) => { settle = { resolve, reject } })
  return { promise, ...settle }
}

export const isBusy = (error: unknown): boolean => String((error as { code?: unknown } | undefined)?.code).startsWith('SQLITE_BUSY')

/** Tries again while another process has the lock, at random moments so that the waiting ones do not move in step. */
export async function patiently<T>(work: () => T, ms = BUSY_MS): Promise<T> {
  for (const from = performance.now(); ;) {
    try { return work() } catch (error) {
      if (!isBusy(error)) throw error
      if (performance.now() - from > ms) throw DatabaseErrors.BUSY({ ms }, { cause: error })
    }
    await new Promise(resolve => setTimeout(resolve, 2 + Math.random() * 20))
  }
}

/**
 * The one connection that writes. Those who wait are run one after another inside one BEGIN IMMEDIATE, each under its own SAVEPOINT,
 * and hear of success after the COMMIT: one fsync for all of them.
 */
export class Writer {
  #queue: Member[] = []
  #pumping: Promise<void> | undefined
  readonly #sql: Record<'begin' | 'commit' | 'save' | 'undo' | 'release' | 'rollback', BetterSqlite3.Statement>

  constructor(readonly db: BetterSqlite3.Database) {
    this.#sql = {
      begin: db.prepare('BEGIN IMMEDIATE'), commit: db.prepare('COMMIT'), rollback: db.prepare('ROLLBACK'),
      save: db.prepare('SAVEPOINT member'), undo: db.prepare('ROLLBACK TO member'), release: db.prepare('RELEASE member'),
    }
  }

  get waiting(): number { return this.#queue.length }

  /** One statement, as a member of the next group. */
  run<T>(statement: () => T): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#add({ since: performance.now(), single: true, run: statement, kept: resolve as (value: unknown) => void, failed: reject })
    })
  }

  /** Work that may await: `work` is called when it is its turn, in the caller's own async context. */
  async transaction<T>(work: () => Promise<T>): Promise<T> {
    const turn = defer<void>()
    const over = defer<T>()
    const kept = defer<void>()
    this.#add({
      since: performance.now(), single: false,
      run: () => { turn.resolve(); return over.promise },
      kept: () => kept.resolve(),
      failed: error => { turn.reject(error); kept.reject(error) },
    })
    kept.promise.catch(() => {})
    await turn.promise
    work().then(over.resolve, over.reject)
    await kept.promise
    return over.promise
  }

  /** Settles when nobody waits any more. */
  async idle(): Promise<void> { while (this.#pumping) await this.#pumping }

  #add(member: Member): void {
    this.#queue.push(member)
    this.#pumping ??= this.#pump()
  }

  async #pump(): Promise<void> {
    while (this.#queue.length) {
      // Those who were just answered may bring more, and the loop must breathe between two fsyncs.
      await new Promise(resolve => setImmediate(resolve))
      const from = performance.now()
      try { await patiently(() => this.#sql.begin.run()) } catch (error) {
        const waited = this.#queue.filter(member => member.since <= from)
        this.#queue = this.#queue.filter(member => member.since > from)
        for (const member of waited) member.failed(error)
        continue
      }
      await this.#group()
    }
    // Here and not in a later turn: who comes in between would wait for ever.
    this.#pumping = undefined
  }

  async #group(): Promise<void> {
    const done: { member: Member; value: unknown }[] = []
    const until = performance.now() + GROUP.ms
    try {
      for (let count = 0; this.#queue.length && count < GROUP.members && (count === 0 || performance.now() < until); count++) {
        const member = this.#queue.shift()!
        try {
          if (!member.single) this.#sql.save.run()
          const running = member.run()
          const value = running instanceof Promise ? await running : running
          if (!member.single) this.#sql.release.run()
          done.push({ member, value })
        } catch (error) {
          // A full disk, for one, makes SQLite roll back the whole transaction: then nobody's work was kept.
          if (this.db.inTransaction && !member.single) {
            this.#sql.undo.run()
            this.#sql.release.run()
          }
          member.failed(error)
          if (!this.db.inTransaction) throw error
        }
      }
      await patiently(() => this.#sql.commit.run())
    } catch (error) {
      if (this.db.inTransaction) this.#sql.rollback.run()
      for (const { member } of done) member.failed(DatabaseErrors.UNAVAILABLE({ reason: reasonOf(error) }, { cause: error }))
      return
    }
    for (const { member, value } of done) member.kept(value)
  }
}
