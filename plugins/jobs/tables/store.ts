import type { Clock } from '#core'
import { JobErrors, type JobError } from '#contracts/jobs'
import type { ColumnType, Database, ManyStatement, Statement, Tx } from '#contracts/database'
import type { EventLog, NewEvent } from '#contracts/events'
import type { JobQueue } from '#contracts/queue'
import { INLINE_RESULT_BYTES } from '../config.ts'
import { IDLE } from '../migrations.ts'
import { GIVEN_BACK, HANDED, HeldJobs, type Handed } from './held.ts'
import { JobKeys, keepsKey } from './keys.ts'
import { isFinal, next, type JobEvent } from './machine.ts'
import { QuestionStore } from './questions.ts'
import { dataOf, refOf, type JobRow } from './record.ts'
import { ResultStore } from './results.ts'

const COLUMNS = [
  'id', 'type', 'agent', 'project_id', 'parent_id', 'depth', 'created_by', 'principal_id', 'traceparent', 'status', 'input', 'result', 'error',
  'priority', 'attempt', 'max_attempts', 'timeout_ms', 'backoff', 'seq', 'idempotency_key', 'dedupe_key', 'substance', 'metadata', 'lease_owner', 'lease_until', 'token',
  'created_at', 'run_at', 'started_at', 'finished_at', 'handed_at',
] as const satisfies readonly (keyof JobRow)[]
const CHANGING = [
  'status', 'attempt', 'token', 'result', 'error', 'run_at', 'started_at', 'finished_at', 'lease_owner', 'lease_until', 'handed_at',
] as const satisfies readonly (keyof JobRow)[]
const NUMBERS: ReadonlySet<keyof JobRow> = new Set([
  'depth', 'priority', 'attempt', 'max_attempts', 'timeout_ms', 'seq', 'lease_until', 'token', 'created_at', 'run_at', 'started_at', 'finished_at', 'handed_at',
])
const typesOf = (columns: readonly (keyof JobRow)[]): ColumnType[] => columns.map(each => (NUMBERS.has(each) ? 'bigint' : 'text'))
type Changes = Partial<Pick<JobRow, 'result' | 'run_at' | 'lease_owner' | 'lease_until' | 'handed_at'>> & { readonly error?: JobError | null }

const PAST = {
  claim: 'job.started', complete: 'job.completed', fail: 'job.failed', refuse: 'job.dead', interrupt: 'job.interrupted',
  hand_back: 'job.handed_back', put_off: 'job.handed_back', due: 'job.queued', park: 'job.waiting', wake: 'job.resumed', cancel: 'job.cancelled', retry: 'job.retried',
  replace: 'job.replaced', replace_later: 'job.replaced',
} as const satisfies Record<JobEvent, string>

/** How long it may take until it is noted that a new job is in the queue, and how many are noted at once. */
const NOTE_MS = 100
const NOTED_AT_ONCE = 500
/** What the queue was given, and when. */
type Given = readonly [row: Handed, at: number]
/** One step of the machine: `row` is what it was read as in the same transaction. */
export interface Step { readonly row: JobRow; readonly event: JobEvent; readonly changes: Changes; /** For its event. */ readonly data?: object }
interface Made extends Step { readonly after: JobRow; /** A result that is kept apart. */ readonly large: string | undefined }

/** What became of a job that was to be written: itself, the one that has its idempotency key, or why it can't be. */
export type Inserted = { readonly row: JobRow; readonly created: boolean; readonly replaced?: boolean } | Error

/** Who holds a job, and under which token. */
export interface Claim { readonly id: string; readonly token: number; readonly owner: string }

export interface StoreDeps {
  readonly database: Database
  readonly queue: JobQueue
  readonly clock: Clock
  readonly events: () => EventLog | undefined
  /** A queued job gains one priority in such a time. */
  readonly agingMs?: number
  readonly inlineResultBytes?: number
}

/** The tables of jobs: every change of a state is made here, by the machine, with its event in the same transaction. */
export class JobStore {
  readonly questions: QuestionStore
  readonly results: ResultStore
  readonly keys: JobKeys
  readonly held: HeldJobs
  readonly #byId: Statement<JobRow>
  readonly #locked: ManyStatement<JobRow>
  readonly #insert: ManyStatement<{ id: string }>
  readonly #change: ManyStatement<{ id: string }>
  readonly #remove: Statement
  readonly #begin: ManyStatement
  readonly #end: ManyStatement
  readonly #note: ManyStatement
  readonly #renew: Statement
  readonly #steps: Statement<{ name: string; result: string | null }>
  readonly #step: Statement
  /** Statements whose answers are known go out with those that follow from them: each would be a way there and back. */
  readonly #inOneGo: boolean

  constructor(readonly deps: StoreDeps) {
    const { database } = deps
    this.#inOneGo = database.dialect === 'postgres'
    this.questions = new QuestionStore(database)
    this.results = new ResultStore(database)
    this.keys = new JobKeys(this)
    this.held = new HeldJobs(this)
    this.#byId = database.prepare('SELECT * FROM jobs WHERE id = ?')
    // Progress moves seq on while the job runs: what is read to be changed must stay as it was read.
    // All lock in one order, so that nobody waits in a circle.
    const lock = database.dialect === 'postgres' ? 'ORDER BY id FOR UPDATE' : ''
    this.#locked = database.prepareMany(`SELECT * FROM jobs WHERE id IN (VALUES :rows) ${lock}`, ['text'])
    this.#insert = database.prepareMany(
      `INSERT INTO jobs (${COLUMNS.join(', ')}) VALUES :rows ON CONFLICT DO NOTHING RETURNING id`, typesOf(COLUMNS))
    this.#change = database.prepareMany(
      `UPDATE jobs SET ${CHANGING.map((each, at) => `${each} = given.column${at + 3}`).join(', ')}, seq = jobs.seq + 1
       FROM (VALUES :rows) AS given WHERE jobs.id = given.column1 AND jobs.seq = given.column2 RETURNING jobs.id`, typesOf(['id', 'seq', ...CHANGING]))
    this.#remove = database.prepare('DELETE FROM jobs WHERE id = ? AND seq = ?')
    this.#begin = database.prepareMany(
      'INSERT INTO job_attempts (job_id, token, attempt, worker, started_at) VALUES :rows', ['text', 'bigint', 'bigint', 'text', 'bigint'])
    this.#end = database.prepareMany(
      `UPDATE job_attempts SET finished_at = given.column3, outcome = given.column4, error = given.column5
       FROM (VALUES :rows) AS given WHERE job_id = given.column1 AND token = given.column2`, ['text', 'bigint', 'bigint', 'text', 'text'])
    this.#note = database.prepareMany(
      `UPDATE jobs SET handed_at = given.column4, held = 0 FROM (VALUES :rows) AS given
       WHERE jobs.id = given.column1 AND jobs.seq = given.column2 AND jobs.handed_at = given.column3 AND status = 'queued'`,
      ['text', 'bigint', 'bigint', 'bigint'])
    this.#renew = database.prepare(`UPDATE jobs SET lease_until = ? WHERE id = ? AND token = ? AND lease_owner = ? AND status = 'running'`)
    this.#steps = database.prepare('SELECT name, result FROM job_steps WHERE job_id = ?')
    // Whoever takes the job back waits for the step, or the next attempt would not see it, do it again, and find it there.
    const hold = database.dialect === 'postgres' ? 'FOR NO KEY UPDATE' : ''
    this.#step = database.prepare(
      `INSERT INTO job_steps (job_id, name, result, attempt, started_at, finished_at)
       SELECT id, ?, ?, attempt, ?, ? FROM jobs WHERE id = ? AND token = ? AND lease_owner = ? AND status = 'running' ${hold}`)
  }

  get now(): number { return this.deps.clock.now() }
  /** With `tx` it is locked, to be changed. */
  async read(id: string, tx?: Tx): Promise<JobRow | undefined> { return tx ? (await this.#locked.all([[id]], tx))[0] : this.#byId.get([id]) }
  /** Those that are there, locked, to be changed. */
  async readAll(ids: readonly string[], tx: Tx): Promise<ReadonlyMap<string, JobRow>> {
    return new Map((await this.#locked.all(ids.map(id => [id]), tx)).map(row => [row.id, row]))
  }

  /**
   * Each row, or the one that has its idempotency key already (of the same principal, or somebody would be shown the job of another), or the
   * unfinished one of its project that has its dedupe key. It is refused with JOBS_KEY_REUSED if that was
   * made for something else. A queued one is in the queue with it; a running one is claimed.
   */
  async insertAll(rows: readonly JobRow[], tx: Tx): Promise<Inserted[]> {
    await this.keys.takeTurns(rows, tx)
    const writing = this.#insert.all(rows.map(row => COLUMNS.map(column => row[column])), tx)
    // Nothing stands in the way of those that have no key.
    const created = this.#inOneGo && rows.every(isPlain) ? rows : await this.#createdOf(rows, await writing, tx)
    const running = created.filter(row => row.status === 'running')
    await Promise.all([
      expectAll(created, writing),
      this.#begin.run(running.map(row => [row.id, row.token, row.attempt, row.lease_owner, row.started_at]), tx),
      this.#tell(created.map(row => [row, 'job.created']), tx),
      this.handOver(created.filter(row => row.status === 'queued'), tx, true),
    ])
    const written = new Set(created.map(each => each.id))
    const inserted: Inserted[] = []
    for (const row of rows) inserted.push(written.has(row.id) ? { row, created: true } : await this.keys.first(row, tx))
    return inserted
  }

  async #createdOf(rows: readonly JobRow[], found: readonly { readonly id: string }[], tx: Tx): Promise<readonly JobRow[]> {
    const written = new Set(found.map(each => each.id))
    for (const id of await this.keys.takeBack(rows.filter(row => written.has(row.id)), tx)) written.delete(id)
    const created = rows.filter(row => written.has(row.id))
    await this.#adopt(created, tx)
    for (const { id, dedupe_until } of created) if (dedupe_until) await this.#jobsIn(tx).where({ id }).update({ dedupe_until })
    return created
  }

  /** A parent that has ended by now takes none. */
  async #adopt(children: readonly JobRow[], tx: Tx): Promise<void> {
    for (const parent_id of new Set(children.flatMap(child => child.parent_id ?? []).sort())) {
      const found = await this.deps.database.knex(tx)('jobs').where({ id: parent_id }).whereNull('finished_at').update({ has_children: 1 })
      if (!found) throw JobErrors.PARENT({ parent_id, reason: 'it is gone, or has ended' })
    }
  }

  /** One step of the machine. Rejects with JOBS_LEASE_LOST if it has no such step, or the row has changed since it was read. */
  async change(row: JobRow, event: JobEvent, changes: Changes, tx: Tx, data?: object): Promise<JobRow> {
    const [after] = await this.changeAll([{ row, event, changes, ...(data && { data }) }], tx)
    if (!after) throw JobErrors.LEASE_LOST({ id: row.id })
    return after
  }

  /** change() of many jobs, in few statements; nothing for each that somebody else was quicker with, for that must not undo the others. */
  async changeAll(steps: readonly Step[], tx: Tx): Promise<(JobRow | undefined)[]> {
    const { now, deps: { inlineResultBytes = INLINE_RESULT_BYTES } } = this
    const possible = steps.flatMap((step): Made[] => {
      const after = stepped(step, now)
      return after ? [{ ...step, ...keptApart(after, step.changes, inlineResultBytes) }] : []
    })
    const changing = possible.map(({ row, after }) => [row.id, row.seq, ...CHANGING.map(column => after[column])])
    const writing = this.#change.all(changing, tx)
    // In PostgreSQL they are locked since they were read: nobody was quicker.
    const made = this.#inOneGo ? possible : await writtenOf(possible, writing)
    const begun = made.filter(({ event }) => event === 'claim')
    const ended = made.filter(({ row }) => row.status === 'running')
    await Promise.all([
      expectAll(made.map(({ after }) => after), writing),
      this.#begin.run(begun.map(({ after }) => [after.id, after.token, after.attempt, after.lease_owner, now]), tx),
      this.#end.run(ended.map(({ row, event, after }) => [row.id, row.token, now, outcomeOf(event, after), after.error]), tx),
      this.#tell(made.map(({ event, after, data }) => [after, after.status === 'dead' ? 'job.dead' : PAST[event], data]), tx),
    ])
    for (const { after, large } of made) if (large !== undefined) await this.results.write(after.id, large, after.result_bytes!, tx)
    const again = made.flatMap(({ row, event }) => (event === 'retry' && isFinal(row.status) ? [row] : []))
    if (again.length) await this.questions.askAgain(again.map(row => row.id), tx)
    for (const row of again) if (dataOf(row.error)?.code === JobErrors.ASK_TIMEOUT.code) await this.questions.reopen(row.id, tx)
    await this.#forgetKeys(made.filter(({ after }) => after.dedupe_key !== null && !keepsKey(after, now)), tx)
    const results = new Map(made.map(({ after }) => [after.id, after]))
    return steps.map(({ row }) => results.get(row.id))
  }

  /** A job that has ended stands in nobody's way, and nobody in its way if it is run again. */
  async #forgetKeys(ended: readonly Made[], tx: Tx): Promise<void> {
    if (ended.length) await this.#jobsIn(tx).whereIn('id', ended.map(({ after }) => after.id)).update({ dedupe_key: null })
  }

  /** Deletes a job with its attempts and steps; the log keeps what happened to it. Rejects with JOBS_LEASE_LOST if the row has changed. */
  async remove(row: JobRow, tx: Tx): Promise<void> {
    if (!await this.#remove.run([row.id, row.seq], tx)) throw JobErrors.LEASE_LOST({ id: row.id })
    await this.#tell([[{ ...row, seq: row.seq + 1 }, 'job.discarded']], tx)
  }

  /** Whoever waits long enough goes first. */
  entriesOf(rows: readonly Handed[]): { id: string; priority: number }[] {
    const { now, deps: { agingMs = Infinity } } = this
    return rows.map(({ id, priority, run_at }) => ({ id, priority: aged(priority, now - run_at, agingMs) }))
  }

  /** Gives queued jobs to the queue: in `tx` if it can, else after commit, and what is lost then the sweep finds by `handed_at`. */
  async handOver(rows: readonly Handed[], tx: Tx, fresh = false): Promise<void> {
    const { queue } = this.deps
    if (!rows.length) return
    if (queue.can.transactional) {
      await queue.enqueue(this.entriesOf(rows), tx)
      if (!fresh) await this.#handed(rows, tx)
    } else tx.afterCommit(() => this.#handOverNow(rows, fresh))
  }

  async takeOut(id: string, tx: Tx): Promise<void> {
    const { queue } = this.deps
    if (queue.can.transactional) await queue.remove([id], tx)
    else tx.afterCommit(() => this.removeNow([id]).catch(() => {})) // What is left there is refused.
  }

  /**
   * Takes them out of a queue that has no transactions. Whoever has queued one again since, or let it go, may have been quicker: it is handed
   * over once more; and if that is not noted yet, then the note is void.
   */
  async removeNow(ids: readonly string[]): Promise<void> {
    await this.deps.queue.remove(ids)
    const queued = () => this.#jobs.whereIn('id', [...ids]).whereRaw("status = 'queued'")
    await queued().update({ handed_at: this.deps.database.knex().raw(GIVEN_BACK) })
    const again: Handed[] = await queued().where('held', 0).select(HANDED)
    if (again.length) await this.#handOverNow(again)
  }

  /** Gives the queue again what it was last given before that moment. Resolves to whether there may be more; not if the queue is away. */
  async handOverAgain(before: number, types: readonly string[], limit: number): Promise<boolean> {
    const { database, queue } = this.deps
    await this.#noteFresh()
    if (!(await this.#unhanded(before).whereIn('type', [...types]).limit(1)).length) return false
    const again = (tx: Tx) => this.unhanded(before, types, limit, tx)
    let found = 0
    const count = (rows: readonly Handed[]) => { found = rows.length; return rows }
    if (queue.can.transactional) await database.transaction(async tx => this.handOver(count(await again(tx)), tx))
    else if (!await this.#handOverNow(count(await this.unhanded(before, types, limit)))) return false
    return found === limit
  }

  /** False if the queue is away: the sweep hands over what was not. `fresh`: that it was is noted later, by when most of them have begun. */
  async #handOverNow(rows: readonly Handed[], fresh = false): Promise<boolean> {
    try { await this.deps.queue.enqueue(this.entriesOf(rows)) } catch (error) {
      if ((error as { retryable?: boolean }).retryable !== true) throw error
      return false
    }
    const { now } = this
    // Not when it is noted: the queue may lose them before that.
    const given = rows.map(row => [row, now] as const)
    if (!fresh) await this.#noteHanded(given)
    else if (this.#unnoted.push(...given) === rows.length) this.#noting = this.deps.clock.after(NOTE_MS, () => void this.#noteFresh().catch(() => {}))
    return true
  }

  #unnoted: Given[] = []
  #noting = () => {}
  async #noteFresh(): Promise<void> {
    this.#noting()
    await this.#noteHanded(this.#unnoted.splice(0))
  }

  /** Of those that are as they were handed over: it may be late. Should it fail, the sweep gives them again. */
  async #noteHanded(given: readonly Given[]): Promise<void> {
    // All lock in one order, so that nobody waits in a circle.
    const notes = given.map(([{ id, seq, handed_at }, at]) => [id, seq, handed_at, at]).sort(([one], [two]) => (one! < two! ? -1 : 1))
    for (let from = 0; from < notes.length; from += NOTED_AT_ONCE) {
      await this.deps.database.transaction(tx => this.#note.run(notes.slice(from, from + NOTED_AT_ONCE), tx))
    }
  }

  async #handed(rows: readonly Handed[], tx: Tx): Promise<void> {
    await this.deps.database.knex(tx)('jobs').whereIn('id', rows.map(row => row.id)).where('status', 'queued').update({ handed_at: this.now, held: 0 })
  }

  /** True while this claim stands; its lease is longer then. */
  async renew({ id, token, owner }: Claim, until: number): Promise<boolean> { return await this.#renew.run([until, id, token, owner]) > 0 }

  /** What earlier attempts left, by the name of the step. */
  async steps(id: string): Promise<Map<string, string | null>> {
    return new Map((await this.#steps.all([id])).map(({ name, result }) => [name, result]))
  }

  /** Rejects with JOBS_LEASE_LOST if the claim no longer stands. */
  async saveStep({ id, token, owner }: Claim, name: string, result: string | null, startedAt: number, tx?: Tx): Promise<void> {
    if (!await this.#step.run([name, result, startedAt, this.now, id, token, owner], tx)) throw JobErrors.LEASE_LOST({ id })
  }

  get #jobs() { return this.deps.database.knex()('jobs') }
  #jobsIn(tx: Tx) { return this.deps.database.knex(tx)('jobs') }

  /** Ids of running jobs whose lease is over. */
  async expired(limit: number): Promise<string[]> {
    // The status is written out, here and below: an index of some jobs is not used for one that is a parameter.
    return this.#jobs.whereRaw("status = 'running'").where('lease_until', '<=', this.now).orderBy('lease_until').limit(limit).pluck('id')
  }
  /** Ids of jobs whose time has come. */
  async due(limit: number): Promise<string[]> {
    return this.#jobs.whereRaw(IDLE).whereIn('status', ['failed', 'delayed']).where('run_at', '<=', this.now).orderBy('run_at').limit(limit).pluck('id')
  }
  /** Ids of jobs that waited for an answer long enough. */
  async overdue(limit: number): Promise<string[]> {
    return this.#jobs.whereRaw("status = 'waiting'").where('wake_at', '<=', this.now).orderBy('wake_at').limit(limit).pluck('id')
  }
  /** Its children, finished or not; it stops counting there. */
  async countChildren(id: string, most: number): Promise<number> {
    const knex = this.deps.database.knex()
    const some = knex('jobs').where({ parent_id: id }).select(knex.raw('1')).limit(most).as('some')
    return Number((await knex.count({ count: '*' }).from(some).first())!.count)
  }
  /** Of a job that waits now. */
  async setWaiting(id: string, wake_at: number | null, forChildren: boolean, tx: Tx): Promise<void> {
    await this.deps.database.knex(tx)('jobs').where({ id }).update({ wake_at, for_children: Number(forChildren) })
  }
  /** Queued jobs that the queue was last given before that moment, and may have lost; of any type, those that it has longest first. */
  async unhanded(before: number, types: readonly string[], limit: number, tx?: Tx): Promise<Handed[]> {
    const rows: Handed[] = []
    // One by one: of all types together no index has them in order, and those of one could hide those of another for ever.
    for (const type of types) rows.push(...await this.#unhanded(before, tx).where({ type }).orderBy('handed_at').limit(limit))
    return rows.sort((a, b) => a.handed_at - b.handed_at).slice(0, limit)
  }
  #unhanded(before: number, tx?: Tx) {
    return this.deps.database.knex(tx)('jobs').select(HANDED).whereRaw("status = 'queued' AND held = 0").where('handed_at', '<', before)
  }
  /** Nothing here can run it now: the sweep looks at it again. */
  async setAside(id: string, tx: Tx): Promise<void> {
    const knex = this.deps.database.knex(tx)
    await knex('jobs').where({ id, status: 'queued' }).update({ handed_at: knex.raw(GIVEN_BACK) })
  }

  async #tell(changed: readonly (readonly [row: JobRow, type: string, data?: object | undefined])[], tx: Tx): Promise<void> {
    if (changed.length) await this.deps.events()?.append(tx, changed.map(([row, type, data]) => eventOf(row, type, data)))
  }
}

type Writing = Promise<readonly { readonly id: string }[]>

async function writtenOf(possible: readonly Made[], writing: Writing): Promise<readonly Made[]> {
  const written = new Set((await writing).map(each => each.id))
  return possible.filter(({ row }) => written.has(row.id))
}

/** What goes with the rows may be on its way already: it is undone if one of them was not written. */
async function expectAll(rows: readonly JobRow[], writing: Writing): Promise<void> {
  const written = new Set((await writing).map(each => each.id))
  for (const { id } of rows) if (!written.has(id)) throw JobErrors.LEASE_LOST({ id })
}

/** No other job can stand in its way, or must be there for it. */
const isPlain = ({ idempotency_key, dedupe_key, parent_id }: JobRow): boolean => idempotency_key === null && dedupe_key === null && parent_id === null

/** The row after the step; nothing if the machine has no such step. */
function stepped({ row, event, changes }: Step, now: number): JobRow | undefined {
  const standing = next(row, event)
  if (!standing) return undefined
  const claims = event === 'claim'
  const released = claims ? {} : { lease_owner: null, lease_until: null }
  // Nothing stays of an end that is taken back.
  const reopened = isFinal(row.status) ? { result: null, error: null, started_at: null } : {}
  return {
    ...row, ...released, ...changes, ...standing, seq: row.seq + 1,
    error: changes.error === undefined ? row.error : changes.error && JSON.stringify(changes.error),
    token: claims ? row.token + 1 : row.token,
    started_at: claims ? row.started_at ?? now : row.started_at,
    ...reopened,
    finished_at: isFinal(standing.status) ? now : null,
    handed_at: standing.status === 'queued' && row.status !== 'queued' ? 0 : changes.handed_at ?? row.handed_at,
  }
}

/** A result that is too large goes out of the row. */
function keptApart(after: JobRow, { result }: Changes, limit: number): Pick<Made, 'after' | 'large'> {
  const bytes = typeof result === 'string' ? Buffer.byteLength(result) : 0
  return bytes > limit ? { after: { ...after, result: null, result_bytes: bytes }, large: result! } : { after, large: undefined }
}

const aged = (priority: number, waited: number, agingMs: number): number => Math.min(9, priority + Math.max(0, Math.floor(waited / agingMs)))

const outcomeOf = (event: JobEvent, { status }: JobRow): string =>
  (event === 'interrupt' ? 'interrupted' : event === 'hand_back' || event === 'put_off' ? 'handed_back' : status)

function eventOf(row: JobRow, type: string, data?: object): NewEvent {
  const { id, agent, status, attempt, seq, project_id, created_by } = row
  const ref = refOf(row)
  return {
    type, project_id, created_by, job_id: id, seq,
    topics: [`job:${id}`, `project:${project_id}`, ...(agent === null ? [] : [`agent:${agent}`])],
    data: {
      // An attempt that begins has not failed, whatever the last one did.
      id, type: row.type, agent, status, attempt, error: status === 'running' ? null : dataOf(row.error),
      ...data, ...(ref ? { result_ref: ref } : { result: status === 'completed' ? dataOf(row.result) : null }),
    },
  }
}
