import { hostname } from 'node:os'
import { pid } from 'node:process'
import { reasonOf, type Clock, type Logger, type Role } from '#core'
import type { Instance, Instances } from '#contracts/cluster'
import type { Database, Statement } from '#contracts/database'
import { nowOf } from './clock.ts'
import { instruments } from './instruments.ts'

/** Heartbeats in silence after which a process is gone, and after which its row is removed. */
const GONE = 3
const REMOVED = 100
/** Heartbeats between two looks for such rows. */
const SWEEP = 30

export interface InstancesDeps {
  readonly database: Database
  readonly clock: Clock
  readonly log: Logger
  readonly id: string
  readonly version: string
  readonly roles: readonly Role[]
  readonly heartbeatMs: number
}
type Row = Omit<Instance, 'roles'> & { readonly roles: string }

/** A row for each process, which its own heartbeat keeps young, by the clock of the database. */
export class InstanceTable implements Instances {
  readonly #beat: Statement
  readonly #alive: Statement<Row>
  readonly #others: Statement<{ count: number }>
  readonly #leave: Statement
  readonly #sweep: Statement
  #beating: Promise<void> | undefined
  #left = false
  #failing = false
  #beats = 0
  #cancel = () => {}
  /** When the last heartbeat was written, by performance.now(). */
  beatAt: number | undefined

  constructor(readonly deps: InstancesDeps) {
    const { database, heartbeatMs } = deps
    const now = nowOf(database.dialect)
    this.#beat = database.prepare(
      `INSERT INTO cluster_instances (id, roles, version, hostname, pid, started_at, seen_at) VALUES (?, ?, ?, ?, ?, ${now}, ${now})
       ON CONFLICT (id) DO UPDATE SET seen_at = ${now}`)
    this.#alive = database.prepare(`SELECT * FROM cluster_instances WHERE seen_at > ${now} - ${GONE * heartbeatMs} ORDER BY started_at, id`)
    this.#others = database.prepare(`SELECT count(*) AS count FROM cluster_instances WHERE id <> ? AND seen_at > ${now} - ${GONE * heartbeatMs}`)
    this.#leave = database.prepare('DELETE FROM cluster_instances WHERE id = ?')
    this.#sweep = database.prepare(`DELETE FROM cluster_instances WHERE seen_at < ${now} - ${REMOVED * heartbeatMs}`)
  }

  /** While the database is away it is the next heartbeat that can be written. */
  async join(): Promise<void> {
    await this.#tick()
    this.#cancel = this.deps.clock.every(this.deps.heartbeatMs, () => this.#tick())
  }

  /** Says goodbye, so that nobody waits for three heartbeats. */
  async leave(): Promise<void> {
    if (this.#left) return
    this.#left = true
    this.#cancel()
    await this.#beating
    try { await this.#leave.run([this.deps.id]) } catch (error) {
      this.deps.log.warn('this process could not take its leave: the others take it for gone after three heartbeats', { reason: reasonOf(error) })
    }
  }

  async list(): Promise<readonly Instance[]> {
    const rows = await this.#alive.all([])
    return rows.map(({ roles, ...row }) => ({ ...row, roles: JSON.parse(roles) as Role[] }))
  }

  /** Are other processes alive? */
  async others(): Promise<boolean> { return (await this.#others.get([this.deps.id]))!.count > 0 }

  #tick(): Promise<void> | undefined {
    if (this.#left) return undefined
    return (this.#beating ??= this.#write().then(
      () => { this.#failing = false },
      error => {
        if (!this.#failing) this.deps.log.warn('the heartbeat could not be written', { reason: reasonOf(error) })
        this.#failing = true
      }).finally(() => { this.#beating = undefined }))
  }

  async #write(): Promise<void> {
    const { id, roles, version } = this.deps
    await this.#beat.run([id, JSON.stringify(roles), version, hostname(), pid])
    this.beatAt = performance.now()
    if (this.#beats++ % SWEEP === 0) await this.#sweep.run([])
    instruments.instances.set((await this.#alive.all([])).length)
  }
}
