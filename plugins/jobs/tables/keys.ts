import { JobErrors } from '#contracts/jobs'
import type { Statement, Tx } from '#contracts/database'
import { isFinal, next } from './machine.ts'
import type { JobRow } from './record.ts'
import type { Inserted, JobStore } from './store.ts'

/** What becomes that of another request which takes its place. */
const REPLACED = [
  'type', 'agent', 'created_by', 'principal_id', 'traceparent', 'input', 'priority', 'max_attempts', 'timeout_ms', 'backoff', 'metadata',
] as const satisfies readonly (keyof JobRow)[]

/** An unfinished job has its key; one that has ended, for a while. */
export const keepsKey = ({ status, dedupe_until }: JobRow, now: number): boolean => !isFinal(status) || Number(dedupe_until ?? 0) > now

/** No attempt has ever begun, so that nothing of the old input was done, and nobody loses what they may not take away. */
const replaceable = (row: JobRow, by: JobRow): boolean =>
  row.token === 0 && next(row, 'replace') !== undefined && row.parent_id === by.parent_id && (row.created_by === by.created_by || row.id === by.replaces)

const sameKey = (row: JobRow, by: JobRow): boolean => row.created_by === by.created_by && row.idempotency_key === by.idempotency_key

/** Idempotency keys and dedupe keys: which job stands for a request that is not to become one. */
export class JobKeys {
  readonly #byKey: Statement<JobRow>
  readonly #byDedupe: Statement<JobRow>

  constructor(readonly store: Pick<JobStore, 'deps' | 'now' | 'read' | 'change' | 'insertAll' | 'handOver' | 'takeOut'>) {
    const { database } = store.deps
    this.#byKey = database.prepare('SELECT * FROM jobs WHERE project_id = ? AND created_by = ? AND idempotency_key = ?')
    this.#byDedupe = database.prepare('SELECT * FROM jobs WHERE project_id = ? AND dedupe_key = ?')
  }

  #jobs(tx: Tx) { return this.store.deps.database.knex(tx)('jobs') }

  /** What becomes of one that a key stands in the way of. */
  async first(refused: JobRow, tx: Tx): Promise<Inserted> {
    const { project_id, created_by, idempotency_key, dedupe_key, substance } = refused
    const row = idempotency_key === null ? undefined : await this.#byKey.get([project_id, created_by, idempotency_key], tx)
    if (row) return row.substance === substance ? { row, created: false } : JobErrors.KEY_REUSED({ key: idempotency_key! })
    const same = dedupe_key === null ? undefined : await this.#byDedupe.get([project_id, dedupe_key], tx)
    if (same && refused.replaces !== undefined) return this.#replace(refused, same, tx)
    if (same && keepsKey(same, this.store.now)) return { row: same, created: false }
    // The one that was in its way has ended meanwhile.
    if (same) await this.#takeKey(same, tx)
    return (await this.store.insertAll([refused], tx))[0]!
  }

  /** The job that has the key becomes what is asked for now, unless it has begun: then it goes on, and has the key no more. */
  async #replace(by: JobRow, seen: JobRow, tx: Tx): Promise<Inserted> {
    // First, as a worker does that takes it: the other way round the two would wait for each other.
    if (seen.status === 'queued' && this.store.deps.queue.can.transactional) await this.store.takeOut(seen.id, tx)
    const row = await this.store.read(seen.id, tx)
    // The same request was quicker: its job is as it should be.
    const done = row !== undefined && by.idempotency_key !== null && sameKey(row, by)
    if (!row || done || row.dedupe_key !== by.dedupe_key || !replaceable(row, by)) {
      if (row?.status === 'queued') await this.store.handOver([row], tx)
      if (done) return this.first(by, tx)
      await this.#takeKey(seen, tx)
      return (await this.store.insertAll([by], tx))[0]!
    }
    // A key is of who sent it.
    const keyed = by.idempotency_key === null && row.created_by === by.created_by ? row : by
    const { idempotency_key, substance } = keyed
    const given = { ...Object.fromEntries(REPLACED.map(column => [column, by[column]])), idempotency_key, substance }
    await this.#jobs(tx).where({ id: row.id }).update({ ...given, held: 0, held_by: null })
    const after = await this.store.change({ ...row, ...given }, by.status === 'delayed' ? 'replace_later' : 'replace', { run_at: by.run_at }, tx)
    if (after.status === 'queued') await this.store.handOver([after], tx)
    return { row: after, created: false, replaced: true }
  }

  async #takeKey({ id, dedupe_key }: JobRow, tx: Tx): Promise<void> {
    await this.#jobs(tx).where({ id, dedupe_key }).update({ dedupe_key: null })
  }

  /** How many of them would be new jobs; the others get one that is there. */
  async countNew(rows: readonly JobRow[]): Promise<number> {
    const { now } = this.store
    const known = await Promise.all(rows.map(async row => {
      const { project_id, created_by, idempotency_key, dedupe_key, replaces } = row
      if (idempotency_key !== null && await this.#byKey.get([project_id, created_by, idempotency_key])) return true
      const same = dedupe_key === null ? undefined : await this.holder(project_id, dedupe_key)
      return same !== undefined && (replaces === undefined ? keepsKey(same, now) : replaceable(same, row))
    }))
    return known.filter(each => !each).length
  }

  /** Who has the dedupe key. */
  async holder(project_id: string, key: string): Promise<JobRow | undefined> { return this.#byDedupe.get([project_id, key]) }
}
