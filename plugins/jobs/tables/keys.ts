import { createHash } from 'node:crypto'
import { JobErrors } from '#contracts/jobs'
import { DatabaseErrors, type ManyStatement, type Statement, type Tx } from '#contracts/database'
import { isFinal, next } from './machine.ts'
import type { JobRow } from './record.ts'
import type { Inserted, JobStore } from './store.ts'

/** What becomes that of another request which takes its place. */
const REPLACED = [
  'type', 'agent', 'created_by', 'principal_id', 'traceparent', 'input', 'priority', 'max_attempts', 'timeout_ms', 'backoff', 'metadata',
] as const satisfies readonly (keyof JobRow)[]

/** Has another request taken the place of the one that the row was written for? */
export const wasReplaced = (was: JobRow, is: JobRow): boolean => REPLACED.some(column => was[column] !== is[column])

/** An unfinished job has its key; one that has ended, for a while. */
export const keepsKey = ({ status, dedupe_until }: JobRow, now: number): boolean => !isFinal(status) || Number(dedupe_until ?? 0) > now

/** No attempt has ever begun, so that nothing of the old input was done, and nobody loses what they may not take away. */
const replaceable = (row: JobRow, by: JobRow): boolean =>
  row.token === 0 && next(row, 'replace') !== undefined && row.parent_id === by.parent_id && (row.created_by === by.created_by || row.id === by.replaces)

/** Whose key a request has, and what was asked for with it then. */
type Known = JobRow & { readonly asked: string }

const KEY = ['project_id', 'created_by', 'idempotency_key']
const keyOf = ({ project_id, created_by, idempotency_key }: JobRow) => ({ project_id, created_by, idempotency_key })

/** Marks the advisory locks of keys among all others, of which there are so many. */
const TURN = 5_210_021
const TURNS = 256
const turnOf = (row: JobRow): number => createHash('sha256').update(JSON.stringify(Object.values(keyOf(row)))).digest().readUInt32BE() % TURNS

/** Idempotency keys and dedupe keys: which job stands for a request that is not to become one. */
export class JobKeys {
  readonly #byKey: Statement<Known>
  readonly #takeBack: ManyStatement<{ id: string }>
  readonly #byDedupe: Statement<JobRow>
  readonly #turns: ManyStatement | undefined

  constructor(readonly store: Pick<JobStore, 'deps' | 'now' | 'read' | 'change' | 'insertAll' | 'handOver' | 'takeOut'>) {
    const { database } = store.deps
    const [same, past] = ['jobs', 'job_keys'].map(table => `${table}.project_id = ? AND ${table}.created_by = ? AND ${table}.idempotency_key = ?`)
    this.#byKey = database.prepare(
      `SELECT jobs.*, jobs.substance AS asked FROM jobs WHERE ${same} UNION ALL
       SELECT jobs.*, job_keys.substance AS asked FROM job_keys JOIN jobs ON jobs.id = job_keys.job_id WHERE ${past}`)
    this.#takeBack = database.prepareMany(
      `DELETE FROM jobs WHERE id IN (SELECT jobs.id FROM jobs JOIN job_keys USING (project_id, created_by, idempotency_key) WHERE jobs.id IN (VALUES :rows)) RETURNING id`,
      ['text'])
    this.#byDedupe = database.prepare('SELECT * FROM jobs WHERE project_id = ? AND dedupe_key = ?')
    if (database.dialect === 'postgres') {
      this.#turns = database.prepareMany(`SELECT pg_advisory_xact_lock(${TURN}, CAST(column1 AS integer)) FROM (VALUES :rows) AS given`, ['bigint'])
    }
  }

  #jobs(tx: Tx) { return this.store.deps.database.knex(tx)('jobs') }

  /**
   * Before rows are written: those with one idempotency key and a dedupe key go one after another. Else, in the moment in which the job that has the
   * dedupe key ends, one would note that job, and another one that can't see the note yet would make its own.
   */
  async takeTurns(rows: readonly JobRow[], tx: Tx): Promise<void> {
    // On SQLite one writes at a time anyway.
    if (!this.#turns) return
    const both = rows.filter(row => row.idempotency_key !== null && row.dedupe_key !== null && row.replaces === undefined)
    // All lock in one order, so that nobody waits in a circle.
    const turns = [...new Set(both.map(turnOf))].sort((a, b) => a - b)
    if (turns.length) await this.#turns.all(turns.map(turn => [turn]), tx)
  }

  /** What becomes of one that a key stands in the way of. */
  async first(refused: JobRow, tx: Tx): Promise<Inserted> {
    const { project_id, idempotency_key, dedupe_key, substance } = refused
    const known = await this.#known(refused, tx)
    if (known) return known.asked === substance ? { row: known, created: false } : JobErrors.KEY_REUSED({ key: idempotency_key! })
    const same = dedupe_key === null ? undefined : await this.#byDedupe.get([project_id, dedupe_key], tx)
    if (same && refused.replaces !== undefined) return this.#replace(refused, same, tx)
    if (same && keepsKey(same, this.store.now)) {
      return await this.#note(refused, same.id, tx) ? { row: same, created: false } : this.first(refused, tx)
    }
    // The one that was in its way has ended meanwhile.
    if (same) await this.#takeKey(same, tx)
    return (await this.store.insertAll([refused], tx))[0]!
  }

  /** The job that has the key becomes what is asked for now, unless it has begun: then it goes on, and has the key no more. */
  async #replace(by: JobRow, seen: JobRow, tx: Tx): Promise<Inserted> {
    // First, as a worker does that takes it: the other way round the two would wait for each other.
    if (seen.status === 'queued' && this.store.deps.queue.can.transactional) await this.store.takeOut(seen.id, tx)
    const row = await this.store.read(seen.id, tx)
    // Whoever was quicker may have brought this key, too.
    const known = await this.#known(by, tx) !== undefined
    const replaces = row !== undefined && !known && row.dedupe_key === by.dedupe_key && replaceable(row, by)
    const given = replaces ? await this.#give(row, by, tx) : undefined
    if (!given) {
      if (row?.status === 'queued') await this.store.handOver([row], tx)
      if (known || replaces) return this.first(by, tx)
      await this.#takeKey(seen, tx)
      return (await this.store.insertAll([by], tx))[0]!
    }
    const after = await this.store.change(given, by.status === 'delayed' ? 'replace_later' : 'replace', { run_at: by.run_at }, tx)
    // Out of a queue that would leave it in its old place; what is to be in there is given to it again.
    if (given.status === 'queued' && !this.store.deps.queue.can.transactional) await this.store.takeOut(after.id, tx)
    else if (after.status === 'queued') await this.store.handOver([after], tx)
    return { row: after, created: false, replaced: true }
  }

  /**
   * Makes of the job what is asked for now; nothing if somebody else brought its idempotency key meanwhile. The key that goes is kept, for who asks
   * with it again.
   */
  async #give(row: JobRow, by: JobRow, tx: Tx): Promise<JobRow | undefined> {
    // A key is of who sent it.
    const keyed = by.idempotency_key === null && row.created_by === by.created_by ? row : by
    const { idempotency_key, substance } = keyed
    const given = { ...Object.fromEntries(REPLACED.map(column => [column, by[column]])), dedupe_until: null, idempotency_key, substance }
    try {
      await this.store.deps.database.knex(tx).transaction(async part => {
        await part('jobs').where({ id: row.id }).update({ ...given, held: 0, held_by: null })
        if (keyed === row) return
        if (idempotency_key !== null && await part('job_keys').where(keyOf(by)).first('job_id')) throw JobErrors.KEY_REUSED({ key: idempotency_key })
        if (row.idempotency_key === null) return
        // A process of the release before knows no notes, and may have given the key to this job although it has one: that stays.
        await part('job_keys').insert({ ...keyOf(row), substance: row.substance, job_id: row.id }).onConflict(KEY).ignore()
      })
    } catch (error) {
      if (DatabaseErrors.CONSTRAINT.is(error) || JobErrors.KEY_REUSED.is(error)) return undefined
      throw error
    }
    return { ...row, ...given }
  }

  /** Whose job its key gets from now on, too. False if somebody else was quicker with that key. */
  async #note(by: JobRow, job_id: string, tx: Tx): Promise<boolean> {
    if (by.idempotency_key === null) return true
    const noted = this.store.deps.database.knex(tx)('job_keys').insert({ ...keyOf(by), substance: by.substance, job_id })
    return (await noted.onConflict(KEY).ignore().returning('job_id')).length > 0
  }

  /** Of rows that were just written: takes those back whose key has another job. Not before they are written: somebody may be noting it. */
  async takeBack(rows: readonly JobRow[], tx: Tx): Promise<readonly string[]> {
    const keyed = rows.filter(row => row.idempotency_key !== null)
    return keyed.length ? (await this.#takeBack.all(keyed.map(row => [row.id]), tx)).map(row => row.id) : []
  }

  async #known({ project_id, created_by, idempotency_key }: JobRow, tx?: Tx): Promise<Known | undefined> {
    if (idempotency_key === null) return undefined
    const key = [project_id, created_by, idempotency_key]
    return this.#byKey.get([...key, ...key], tx)
  }

  async #takeKey({ id, dedupe_key }: JobRow, tx: Tx): Promise<void> {
    await this.#jobs(tx).where({ id, dedupe_key }).update({ dedupe_key: null })
  }

  /** How many of them would be new jobs; the others get one that is there. */
  async countNew(rows: readonly JobRow[]): Promise<number> {
    const { now } = this.store
    const known = await Promise.all(rows.map(async row => {
      const { project_id, dedupe_key, replaces } = row
      if (await this.#known(row)) return true
      const same = dedupe_key === null ? undefined : await this.holder(project_id, dedupe_key)
      return same !== undefined && (replaces === undefined ? keepsKey(same, now) : replaceable(same, row))
    }))
    return known.filter(each => !each).length
  }

  /** Who has the dedupe key. */
  async holder(project_id: string, key: string): Promise<JobRow | undefined> { return this.#byDedupe.get([project_id, key]) }
}
