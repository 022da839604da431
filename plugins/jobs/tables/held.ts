import type { ManyStatement, Statement, Tx } from '#contracts/database'
import type { JobRow } from './record.ts'
import type { JobStore } from './store.ts'

/**
 * `handed_at` of a job that the queue gave back: below 0, and never one that it had, so that a late note of its being handed over passes it by.
 * So far below the time of a hand-over that no count of those that follow comes to that of a later one.
 */
export const GIVEN_BACK = 'handed_at - CASE WHEN handed_at > 0 THEN 1000000000000000 ELSE 1 END'

/** What the queue is told of a job. */
export type Handed = Pick<JobRow, 'id' | 'priority' | 'run_at' | 'seq' | 'handed_at'>

export const HANDED = ['id', 'priority', 'run_at', 'seq', 'handed_at'] as const satisfies readonly (keyof Handed)[]

const PRIORITIES = [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
const MOST_PROMISED = 10_000

/** Queued jobs that a limit keeps back: in no queue (`held`), until there is room for them. `held_by` stays, and tells who was. */
export class HeldJobs {
  readonly #keepBack: ManyStatement
  readonly #inherit: ManyStatement<JobRow>
  readonly #highest: Statement<{ priority: number | null }>
  readonly #any: Statement
  readonly #scope: Statement<{ held_by: string }>
  readonly #first: Statement<Handed>
  readonly #promised: Statement

  constructor(readonly store: Pick<JobStore, 'deps' | 'readAll' | 'handOver' | 'removeNow' | 'entriesOf'>) {
    const { database } = store.deps
    // The index of these is not used for what is a parameter.
    const held = "held_by IS NOT NULL AND status = 'queued' AND held_by = ?"
    this.#keepBack = database.prepareMany(
      `UPDATE jobs SET held = 1, held_by = given.column2, handed_at = ${GIVEN_BACK} FROM (VALUES :rows) AS given
       WHERE jobs.id = given.column1 AND status = 'queued'`, ['text', 'text'])
    // Whoever waited here for a row, with rows locked that others wait for, would do so in a circle.
    const skip = database.dialect === 'postgres' ? 'FOR UPDATE SKIP LOCKED' : ''
    this.#inherit = database.prepareMany(
      `UPDATE jobs SET held = 0 WHERE id IN (SELECT id FROM jobs WHERE id IN (VALUES :rows) AND status = 'queued' AND held = 1 ${skip}) RETURNING *`, ['text'])
    this.#highest = database.prepare(`SELECT max(priority) AS priority FROM jobs WHERE ${held} AND held = 1`)
    this.#any = database.prepare(`SELECT 1 FROM jobs WHERE ${held} AND held = 1 LIMIT 1`)
    this.#scope = database.prepare("SELECT held_by FROM jobs WHERE status = 'queued' AND held = 1 AND held_by > ? ORDER BY held_by LIMIT 1")
    // Of each priority by age: by their number and age together no index has them in order.
    const some = PRIORITIES.map(each =>
      `SELECT * FROM (SELECT ${HANDED.join(', ')} FROM jobs WHERE ${held} AND held = 1 AND priority = ${each} ORDER BY run_at LIMIT ?) AS each${each}`)
    this.#first = database.prepare(some.join(' UNION ALL '))
    this.#promised = database.prepare(`SELECT 1 FROM jobs WHERE ${held} AND held = 0 AND handed_at > 0 LIMIT ?`)
  }

  /** A limit keeps them from beginning. */
  async keepBack(ids: readonly string[], scope: string, tx: Tx): Promise<void> { await this.#keepBack.run(ids.map(id => [id, scope]), tx) }

  /** Out of the queue as well, where they would come one by one only to be kept back. */
  async keepAway(ids: readonly string[], scope: string, tx: Tx): Promise<void> {
    const { store, store: { deps: { queue } } } = this
    // First, as a worker does that takes them: the other way round the two would wait for each other.
    if (queue.can.transactional) await queue.remove(ids, tx)
    const rows = [...(await store.readAll(ids, tx)).values()].filter(row => row.status === 'queued' && !row.held)
    await this.keepBack(rows.map(row => row.id), scope, tx)
    if (!queue.can.transactional) tx.afterCommit(() => store.removeNow(rows.map(row => row.id)).catch(() => {})) // What is left there is refused.
  }

  /** Those of a scope among the jobs of a type that are in the queue longest. */
  async inLine(scope: string, type: string, most: number): Promise<string[]> {
    const knex = this.store.deps.database.knex()
    const line = knex('jobs').whereRaw("status = 'queued' AND held = 0").where({ type }).where('handed_at', '>', 0).orderBy('handed_at').limit(most)
    const [column, value] = scope.startsWith('project:') ? ['project_id', scope.slice(8)] : ['agent', scope.slice(6)]
    return knex.from(line.select('id', 'project_id', 'agent').as('line')).where({ [column]: value }).pluck('id')
  }

  /** Gives them to the queue. */
  async letGo(ids: readonly string[], tx: Tx): Promise<void> {
    const rows = [...(await this.store.readAll(ids, tx)).values()].filter(row => row.status === 'queued' && row.held)
    await this.store.handOver(rows, tx)
  }

  /** Those that nobody else is about to change, for who begins them in `tx`, past the queue; in this order. */
  async inherit(ids: readonly string[], tx: Tx): Promise<readonly JobRow[]> {
    const rows = new Map((await this.#inherit.all(ids.map(id => [id]), tx)).map(row => [row.id, row]))
    return ids.flatMap(id => rows.get(id) ?? [])
  }

  /** The highest priority of those that it keeps back. */
  async highest(scope: string, tx: Tx): Promise<number | undefined> { return (await this.#highest.get([scope], tx))?.priority ?? undefined }
  async any(scope: string): Promise<boolean> { return await this.#any.get([scope]) !== undefined }

  /** What keeps any job back. One after another by the index: to ask for all at once is to read every job that is kept back. */
  async scopes(): Promise<string[]> {
    const scopes: string[] = []
    const next = async () => (await this.#scope.get([scopes.at(-1) ?? '']))?.held_by
    for (let scope = await next(); scope !== undefined; scope = await next()) scopes.push(scope)
    return scopes
  }

  /** Ids of those that go first. */
  async first(scope: string, count: number, tx?: Tx): Promise<string[]> {
    const rows = await this.#first.all(PRIORITIES.flatMap(() => [scope, count]), tx)
    const at = new Map(this.store.entriesOf(rows).map(entry => [entry.id, entry.priority]))
    return rows.sort((a, b) => at.get(b.id)! - at.get(a.id)! || a.run_at - b.run_at).slice(0, count).map(row => row.id)
  }

  /** Jobs that were let go and did not begin yet, nor were given back by the queue; it stops counting there. */
  async promised(scope: string, most: number): Promise<number> {
    return (await this.#promised.all([scope, Math.min(most, MOST_PROMISED)])).length
  }
}
