import type { Clock } from '#core'
import type { Database, ManyStatement, Statement, Tx } from '#contracts/database'
import type { JobsConfig } from '../config.ts'
import type { JobRow } from '../tables/record.ts'
import type { JobStore } from '../tables/store.ts'

const MINUTE_MS = 60_000
/** A minute that is further ahead was counted by a clock that was wrong: nobody waits for it. */
const MINUTES_AHEAD = 5
/** Jobs that are let go in one transaction. */
const BATCH = 100
/** So many of a scope that were kept back one after another: those behind them are, too, as many at once as may be. */
const MANY = 20
const LINE = 500

interface Limit { readonly concurrency?: number | undefined; readonly per_minute?: number | undefined }
/** Something that is limited: `project:default`, `agent:math`. */
interface Scope { readonly name: string; readonly limit: Limit }
interface Running { readonly project_id: string; readonly agent: string | null; readonly count: number }
type Limited = Pick<JobRow, 'project_id' | 'agent'>

/** What a scope may still begin. */
class Room {
  constructor(public slots: number, public starts: number) {}
  get left(): number { return Math.max(0, Math.min(this.slots, this.starts)) }
  take(): void { this.slots--; this.starts-- }
}

export interface LimitsDeps {
  readonly database: Database
  readonly store: JobStore
  readonly clock: Clock
  readonly config: Pick<JobsConfig, 'limits'>
}

/**
 * How many jobs of a project or an agent run at once, and begin in a minute, in the whole deployment. Whoever claims counts in the transaction of the
 * claim, one after another by the row of the scope. A job that may not begin is kept back: the queue has it no more, until there is room for it.
 */
export class Limits {
  readonly #lock: ManyStatement<{ scope: string; started: number }>
  readonly #count: ManyStatement
  readonly #minute: Statement<{ minute: number; started: number }>
  readonly #running: Statement<Running>
  /** Is there any at all? */
  readonly any: boolean
  #releasing: Promise<void> | undefined
  #all = false
  readonly #scopes = new Set<string>()
  /** How many were kept back since one began. */
  readonly #turnedAway = new Map<string, number>()
  #clearing = false

  constructor(readonly deps: LimitsDeps) {
    const { database, config: { limits } } = deps
    this.any = Object.values(limits).some(each => Object.keys(each).length > 0)
    const another = `excluded.minute > job_limits.minute OR excluded.minute < job_limits.minute - ${MINUTES_AHEAD}`
    this.#lock = database.prepareMany(
      `INSERT INTO job_limits (scope, minute, started) VALUES :rows ON CONFLICT (scope) DO UPDATE SET
         started = CASE WHEN ${another} THEN 0 ELSE job_limits.started END, minute = CASE WHEN ${another} THEN excluded.minute ELSE job_limits.minute END
       RETURNING scope, started`, ['text', 'bigint', 'bigint'])
    this.#count = database.prepareMany(
      'UPDATE job_limits SET started = started + given.column2 FROM (VALUES :rows) AS given WHERE scope = given.column1', ['text', 'bigint'])
    this.#minute = database.prepare('SELECT minute, started FROM job_limits WHERE scope = ?')
    this.#running = database.prepare("SELECT project_id, agent, count(*) AS count FROM jobs WHERE status = 'running' GROUP BY project_id, agent")
  }

  /** Is there any limit that this job may come up against? */
  concern(job: Limited): boolean { return this.any && this.#scopesOf(job).length > 0 }

  /** Those that may begin in this transaction, in their order; the others are kept back. */
  async admit(rows: readonly JobRow[], tx: Tx): Promise<readonly JobRow[]> {
    if (!this.any) return rows
    const scopes = new Map(rows.flatMap(row => this.#scopesOf(row).map(scope => [scope.name, scope] as const)))
    if (!scopes.size) return rows
    const room = await this.#roomOf([...scopes.values()], tx)
    const started = new Map<string, number>()
    const back = new Map<string, string[]>()
    const first = new Map<string, number | undefined>()
    const fresh = rows.some(({ held_by }) => !held_by)
    for (const name of scopes.keys()) if (fresh && room.get(name)!.left) first.set(name, await this.deps.store.held.highest(name, tx))
    // Who was never kept back goes behind those that are: let go, they come to the end of the queue, and would never be before those who came later.
    const isBehind = ({ held_by, priority }: JobRow, name: string) => !held_by && (first.get(name) ?? -1) >= priority
    const admitted = rows.filter(row => {
      const mine = this.#scopesOf(row)
      const full = mine.find(({ name }) => !room.get(name)!.left || isBehind(row, name))
      if (full) { back.set(full.name, [...back.get(full.name) ?? [], row.id]); return false }
      for (const { name } of mine) { room.get(name)!.take(); started.set(name, (started.get(name) ?? 0) + 1) }
      return true
    })
    await this.#count.run([...started].sort(), tx)
    for (const [scope, ids] of back) await this.deps.store.held.keepBack(ids, scope, tx)
    for (const row of admitted) for (const { name } of this.#scopesOf(row)) this.#turnedAway.delete(name)
    for (const [scope, ids] of back) {
      const many = (this.#turnedAway.get(scope) ?? 0) + ids.length
      this.#turnedAway.set(scope, many)
      const { type } = rows.find(row => row.id === ids[0])!
      if (many >= MANY && !room.get(scope)!.left) tx.afterCommit(() => this.#clear(scope, type).catch(() => {}))
    }
    // Of the room that is left, and that was promised to one whom another limit keeps back.
    const free = [...[...back.keys()].filter(name => room.get(name)!.left), ...rows.flatMap(row => (admitted.includes(row) ? [] : row.held_by ?? []))]
    if (free.length) tx.afterCommit(() => this.release(free).catch(() => {}))
    return admitted
  }

  /** Jobs that were kept back and may have the places that these leave, the first of each scope; they are let go in `tx`, past the queue. */
  async heirs(left: readonly Limited[], room: number, tx: Tx): Promise<readonly JobRow[]> {
    const ids: string[] = []
    for (const [name, count] of [...this.#countOf(left)].sort()) {
      const { per_minute } = this.#limitOf(name)!
      const starts = per_minute === undefined ? Infinity : per_minute - await this.#startedOf(name, tx)
      const most = Math.min(count, starts, room - ids.length)
      if (most > 0) ids.push(...await this.deps.store.held.first(name, most, tx))
    }
    return ids.length ? this.deps.store.held.inherit(ids, tx) : []
  }

  /** Jobs have left `running`, or were let go and can't begin: others may in their place, unless those have begun. */
  freed(jobs: readonly Limited[], begun: readonly Limited[] = []): void {
    if (!this.any) return
    const taken = this.#countOf(begun)
    const names = [...this.#countOf(jobs)].flatMap(([name, count]) => (count > (taken.get(name) ?? 0) ? name : []))
    if (names.length) this.release(names).catch(() => {}) // The sweep does it then.
  }

  #countOf(jobs: readonly Limited[]): ReadonlyMap<string, number> {
    const counts = new Map<string, number>()
    for (const job of jobs) for (const { name } of this.#scopesOf(job)) counts.set(name, (counts.get(name) ?? 0) + 1)
    return counts
  }

  /** Gives the queue as many of those that these scopes, or all, kept back as there is room for, by priority and age. */
  release(scopes: readonly string[] | 'all' = 'all'): Promise<void> {
    if (scopes === 'all') this.#all = true
    else for (const name of scopes) this.#scopes.add(name)
    return (this.#releasing ??= this.#releaseAll().finally(() => { this.#releasing = undefined }))
  }

  async #releaseAll(): Promise<void> {
    const { store } = this.deps
    while (this.#all || this.#scopes.size) {
      const names = this.#all ? await store.held.scopes() : [...this.#scopes]
      this.#all = false
      this.#scopes.clear()
      for (const name of names) if (await store.held.any(name)) await this.#releaseSome(name)
    }
  }

  /** Jobs of a scope that is full leave the line, so that they hold up nobody behind them. */
  async #clear(scope: string, type: string): Promise<void> {
    if (this.#clearing) return
    this.#clearing = true
    const { store, database } = this.deps
    try {
      for (let found = MANY; found >= MANY;) {
        const ids = await store.held.inLine(scope, type, LINE)
        found = ids.length
        if (found) await database.transaction(tx => store.held.keepAway(ids, scope, tx))
      }
    } finally {
      this.#clearing = false
      this.#turnedAway.delete(scope)
    }
    await this.release([scope])
  }

  async #releaseSome(name: string): Promise<void> {
    const { store, database } = this.deps
    const limit = this.#limitOf(name)
    // Nobody limits it any more: all of them, by and by.
    const room = limit ? await this.#freeOf({ name, limit }) : BATCH
    if (room <= 0) return
    const ids = await store.held.first(name, Math.min(room, BATCH))
    await database.transaction(tx => store.held.letGo(ids, tx))
    if (!limit && ids.length === BATCH) this.#scopes.add(name)
  }

  /** Room that is not promised to jobs which the queue has already. Read without a lock: the claim has the last word. */
  async #freeOf({ name, limit }: Scope): Promise<number> {
    const left = roomOf(name, limit, await this.#startedOf(name), await this.#running.all([])).left
    return left > 0 ? left - await this.deps.store.held.promised(name, left) : 0
  }

  /** In this minute. */
  async #startedOf(scope: string, tx?: Tx): Promise<number> {
    const row = await this.#minute.get([scope], tx)
    const ahead = row ? row.minute - Math.floor(this.deps.clock.now() / MINUTE_MS) : -1
    return row && ahead >= 0 && ahead <= MINUTES_AHEAD ? row.started : 0
  }

  async #roomOf(scopes: readonly Scope[], tx: Tx): Promise<Map<string, Room>> {
    const minute = Math.floor(this.deps.clock.now() / MINUTE_MS)
    // All lock in one order, so that nobody waits in a circle.
    const names = scopes.map(({ name }) => name).sort()
    const started = new Map((await this.#lock.all(names.map(name => [name, minute, 0]), tx)).map(row => [row.scope, Number(row.started)]))
    const running = await this.#running.all([], tx)
    return new Map(scopes.map(({ name, limit }) => [name, roomOf(name, limit, started.get(name) ?? 0, running)]))
  }

  #scopesOf({ project_id, agent }: Limited): Scope[] {
    return [`project:${project_id}`, ...(agent === null ? [] : [`agent:${agent}`])].flatMap(name => {
      const limit = this.#limitOf(name)
      return limit ? [{ name, limit }] : []
    })
  }

  #limitOf(name: string): Limit | undefined {
    const { per_project, per_agent, projects, agents } = this.deps.config.limits
    const [all, own] = name.startsWith('project:') ? [per_project, ownOf(projects, name.slice(8))] : [per_agent, ownOf(agents, name.slice(6))]
    const { concurrency, per_minute } = { ...all, ...own }
    return concurrency === undefined && per_minute === undefined ? undefined : { concurrency, per_minute }
  }
}

const ownOf = (limits: Readonly<Record<string, Limit>>, name: string): Limit | undefined => (Object.hasOwn(limits, name) ? limits[name] : undefined)

function roomOf(name: string, { concurrency = Infinity, per_minute = Infinity }: Limit, started: number, running: readonly Running[]): Room {
  const mine = running.filter(({ project_id, agent }) => name === `project:${project_id}` || name === `agent:${agent}`)
  return new Room(concurrency - mine.reduce((sum, { count }) => sum + Number(count), 0), per_minute - started)
}
