import { BackplaneError, reasonOf, type Clock, type Logger } from '#core'
import { DatabaseErrors, type Migration } from '#contracts/database'
import type { Migrated } from './migrator.ts'

const RETRY = { first: 100, most: 1_000 }
/** Until a migration that failed is tried again: an operator may mend that. */
const MENDED_MS = 5_000

/** One connection, for what is owed. */
export interface Visit {
  readonly migrated: readonly Migrated[]
  migrate(owner: string, migrations: readonly Migration[]): Promise<void>
  close(): Promise<void>
}
export interface AbsenceDeps {
  readonly clock: Clock
  readonly log: Logger
  /** Host, port and name, never with the password. */
  readonly where: string
  /** Rejects while the server is away. */
  connect(): Promise<Visit>
  /** It is there, and nothing is owed. */
  over(migrated: readonly Migrated[]): void
}
interface Owed { readonly owner: string; readonly migrations: readonly Migration[] }

/** A server that is away while plugins are set up: it is waited for, and the migrations that they ask for meanwhile are owed, in order. */
export class Absence {
  readonly #owed: Owed[] = []
  readonly #migrated: Migrated[] = []
  readonly #told = new Set<string>()
  readonly #from = performance.now()
  #failures = 0
  #closed = false
  #visiting: Promise<void> | undefined
  #cancel = () => {}

  /** `problem` is what everybody is answered until it is over. */
  constructor(readonly deps: AbsenceDeps, public problem: BackplaneError) {
    this.#tell()
    this.#later(RETRY.first)
  }

  owe(owner: string, migrations: readonly Migration[]): void { this.#owed.push({ owner, migrations }) }

  async close(): Promise<void> {
    this.#closed = true
    this.#cancel()
    await this.#visiting
  }

  #later(ms: number): void {
    if (this.#closed) return
    this.#cancel = this.deps.clock.after(ms * (0.75 + Math.random() / 4), () => { this.#visiting = this.#visit() })
  }

  async #visit(): Promise<void> {
    try {
      const visit = await this.deps.connect()
      try { await this.#pay(visit) } finally { await visit.close() }
    } catch (error) {
      this.problem = error instanceof BackplaneError ? error : DatabaseErrors.UNAVAILABLE({ reason: reasonOf(error) })
      this.#tell()
      return this.#later(DatabaseErrors.UNAVAILABLE.is(error) ? Math.min(RETRY.first * 2 ** this.#failures++, RETRY.most) : MENDED_MS)
    }
    if (this.#closed) return
    // Owed while the connection was being closed.
    if (this.#owed.length) return this.#later(0)
    this.deps.log.info('PostgreSQL is there: what waited for it goes on', { where: this.deps.where, waited_ms: Math.round(performance.now() - this.#from), migrations: this.#migrated.length })
    this.deps.over(this.#migrated)
  }

  async #pay(visit: Visit): Promise<void> {
    for (let next = this.#owed[0]; next && !this.#closed; next = this.#owed[0]) {
      await visit.migrate(next.owner, next.migrations)
      this.#owed.shift()
    }
    this.#migrated.push(...visit.migrated)
  }

  /** Again, for whoever looks at a terminal where much was said since. */
  remind(): void {
    this.#told.clear()
    this.#tell()
  }

  /** Each reason once: an operator has to see what to do, and not to count. */
  #tell(): void {
    const { code, message, fix } = this.problem
    if (this.#told.has(message)) return
    this.#told.add(message)
    const { log, where } = this.deps
    if (code !== DatabaseErrors.UNAVAILABLE.code) return log.error(`PostgreSQL is there, and can't be used yet: ${message}`, { where, code, fix })
    log.error(`this process waits for PostgreSQL at ${where}: ${message}`, { code, fix: 'Start PostgreSQL there, or correct DATABASE_URL (plugins.database.config.url); what needs it is answered 503 until then.' })
  }
}
