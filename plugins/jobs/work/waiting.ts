import type { Tx } from '#contracts/database'
import { isFinal } from '../tables/machine.ts'
import type { NewQuestion } from '../tables/questions.ts'
import type { JobRow } from '../tables/record.ts'
import type { JobStore } from '../tables/store.ts'

/** What a run waits for. */
export interface Waits { readonly questions: readonly NewQuestion[]; readonly children: boolean }

/** Of a question, in the event that tells of it: an event is small. */
const SHOWN = 500

/** What the event of a job that begins to wait tells. */
export const told = ({ questions, children }: Waits): object => ({
  ...(questions.length && {
    questions: questions.slice(0, 5).map(({ name, addressee, question, options }) => ({
      name, to: addressee, question: question.slice(0, SHOWN), options: options === null || options.length > SHOWN ? null : JSON.parse(options),
    })),
  }),
  ...(children && { children }),
})

/** Knows when the waiting of a job is over. Whoever finds out holds the lock of its row, so that nobody misses the last of what it waits for. */
export class Waiting {
  constructor(readonly store: JobStore) {}

  /** Of a job that was parked in this transaction: queued again if what it waits for has come meanwhile. */
  async begin(row: JobRow, { questions, children }: Waits, tx: Tx): Promise<JobRow> {
    const { now, questions: table } = this.store
    await table.open(row, questions, now, tx)
    const names = new Set(questions.map(({ name }) => name))
    const asked = names.size ? (await table.of(row.id, tx)).filter(each => names.has(each.name)) : []
    if (asked.some(each => each.state !== 'open') || (children && !await this.#hasOpenChildren(row.id, tx))) return this.#wake(row, tx)
    const ends = asked.flatMap(each => each.expires_at ?? [])
    const wake_at = ends.length ? Math.min(...ends) : null
    await this.store.setWaiting(row.id, wake_at, children, tx)
    return { ...row, wake_at }
  }

  /** Nobody answered in time. Nothing if it waits no longer, or may wait on. */
  async expire(row: JobRow, tx: Tx): Promise<JobRow | undefined> {
    const { now, questions: table } = this.store
    if (row.status !== 'waiting' || row.wake_at === null || row.wake_at === undefined || row.wake_at > now) return undefined
    for (const each of await table.of(row.id, tx)) {
      if (each.state === 'open' && each.expires_at !== null && each.expires_at <= now) await table.close(each, {}, row.attempt, null, now, tx)
    }
    return this.#wake(row, tx)
  }

  /** The parents of those, queued again if none of their children is unfinished. */
  async childrenEnded(rows: readonly JobRow[], tx: Tx): Promise<JobRow[]> {
    const ids = [...new Set(rows.flatMap(row => (isFinal(row.status) && row.parent_id !== null ? [row.parent_id] : [])))]
    return ids.length ? this.childrenMayHaveEnded(ids, tx) : []
  }

  async childrenMayHaveEnded(ids: readonly string[], tx: Tx): Promise<JobRow[]> {
    const woken: JobRow[] = []
    for (const parent of (await this.store.readAll(ids, tx)).values()) {
      if (parent.status !== 'waiting' || !parent.for_children || await this.#hasOpenChildren(parent.id, tx)) continue
      woken.push(await this.#wake(parent, tx))
    }
    return woken
  }

  /** Ids of parents that nobody woke. */
  async forgotten(limit: number): Promise<string[]> {
    const knex = this.store.deps.database.knex()
    const open = knex('jobs as child').select(knex.raw('1')).whereRaw('child.parent_id = parent.id').whereNull('child.finished_at')
    return knex('jobs as parent').whereRaw("parent.status = 'waiting' AND parent.for_children = 1").whereNotExists(open).limit(limit).pluck('parent.id')
  }

  #wake(row: JobRow, tx: Tx): Promise<JobRow> { return this.store.change(row, 'wake', { run_at: this.store.now }, tx) }

  async #hasOpenChildren(id: string, tx: Tx): Promise<boolean> {
    return (await this.store.deps.database.knex(tx)('jobs').where({ parent_id: id }).whereNull('finished_at').limit(1).pluck('id')).length > 0
  }
}
