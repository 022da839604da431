import type { Access, Caller, Permission } from '#contracts/access'
import type { Instances } from '#contracts/cluster'
import type { Tx } from '#contracts/database'
import type { EventLog } from '#contracts/events'
import { JobErrors, type AdmittedJob, type Job, type JobFilter, type JobRequest, type Jobs, type Page } from '#contracts/jobs'
import { accessOf, Admission } from './admission.ts'
import { allOf } from './all.ts'
import type { Backlog } from './backlog.ts'
import { Batch } from '../batch.ts'
import type { JobControl } from './control.ts'
import { ID_PATTERN } from '../tables/id.ts'
import { instruments } from '../instruments.ts'
import type { JobQueries } from '../tables/queries.ts'
import { toQuestion } from '../tables/questions.ts'
import { timeOf, toJob, type JobDetail, type JobRow } from '../tables/record.ts'
import { Holdups } from '../watch/holdup.ts'
import type { JobRuns, RunOptions } from '../watch/run.ts'
import type { Inserted } from '../tables/store.ts'
import type { Worker } from '../work/worker.ts'

type Filter = NonNullable<Parameters<Jobs['list']>[1]>

const EVENTS_SHOWN = 100
/** Single submissions that are written in one transaction. */
const MOST_AT_ONCE = 64

/** Of what a caller sent, no more than a filter has. */
const chosen = ({ agent, type, project_id, parent_id, code }: JobFilter): JobFilter =>
  ({ ...(agent && { agent }), ...(type && { type }), ...(project_id && { project_id }), ...(parent_id && { parent_id }), ...(code && { code }) })

export interface JobServiceDeps {
  readonly worker: Worker
  readonly queries: JobQueries
  readonly control: JobControl
  readonly backlog: Backlog
  readonly runs: JobRuns
  readonly events: () => EventLog | undefined
  /** Which processes are alive, where somebody knows. */
  readonly instances?: () => Instances | undefined
}

/** `Jobs` for callers: who may do what, what is taken in, what is shown. */
export class JobService implements Jobs {
  // Kept after enter(): a transaction that is run again enters it again.
  readonly #admitted = new WeakMap<AdmittedJob, JobRow>()

  readonly worker: Worker
  readonly holdups: Holdups
  readonly #admission: Admission
  readonly #submissions: Batch<JobRow, Exclude<Inserted, Error>>

  constructor(readonly deps: JobServiceDeps) {
    this.worker = deps.worker
    this.#admission = new Admission(deps.worker)
    const { database, clock, queue } = deps.worker.deps
    const worksHere = () => deps.worker.takes
    this.holdups = new Holdups({ instances: () => deps.instances?.(), clock, worksHere, transactional: queue.can.transactional })
    this.#submissions = new Batch({ database, most: MOST_AT_ONCE, write: (rows, tx) => this.insertAll(rows, tx) })
  }

  async submit(caller: Caller, request: JobRequest): Promise<Job> {
    const row = await this.#admission.admit(caller, request)
    const inserted = await this.#withRoom([row], () => this.#submissions.add(row))
    await this.#checkShown(caller, [inserted])
    return toJob(inserted.row)
  }

  async submitMany(caller: Caller, requests: readonly JobRequest[]): Promise<readonly Job[]> {
    const rows = await this.#admission.admitMany(caller, requests)
    if (!rows.length) return []
    const { database } = this.worker.deps
    const inserted = await this.#withRoom(rows, () => database.transaction(async tx => {
      return allOf(await this.insertAll(rows, tx), async each => written(each))
    }))
    await this.#checkShown(caller, inserted)
    return inserted.map(each => toJob(each.row))
  }

  async admit(caller: Caller, request: JobRequest): Promise<AdmittedJob> {
    const row = await this.#admission.admit(caller, request)
    await this.deps.backlog.admit(1).catch(error => this.#checkNew([row], error))
    const admitted = Object.freeze({ id: row.id })
    this.#admitted.set(admitted, row)
    return admitted
  }

  async enter(admitted: AdmittedJob, tx: Tx): Promise<Job> {
    const row = this.#admitted.get(admitted)
    if (!row) throw JobErrors.NOT_ADMITTED()
    return toJob(written((await this.insertAll([row], tx))[0]!).row)
  }

  async run(caller: Caller, request: JobRequest, options: RunOptions = {}): Promise<Job> {
    const { worker } = this
    const { store } = worker.deps
    const admitted = await this.#admission.admit(caller, request)
    if (options.signal?.aborted) throw JobErrors.CANCELLED({}, { cause: options.signal.reason })
    const here = worker.takes && admitted.status === 'queued' && admitted.replaces === undefined && !worker.deps.limits.concern(admitted)
    const claimed = { status: 'running' as const, attempt: 1, token: 1, started_at: store.now, ...worker.lease() }
    const { row, created, replaced } = await (here
      ? this.#submissions.add({ ...admitted, ...claimed })
      : this.#withRoom([admitted], () => this.#submissions.add(admitted)))
    await this.#checkShown(caller, [{ row, created }])
    return store.results.whole(await this.deps.runs.finish(row, created || replaced === true, options))
  }

  async get(caller: Caller, id: string): Promise<Job> { return toJob(await this.#read(caller, id)) }

  async result(caller: Caller, id: string): Promise<unknown> { return JSON.parse((await this.resultText(caller, id)).text!) }

  /** As it is stored, under its tag; no text for who has that already. */
  async resultText(caller: Caller, id: string, known?: string): Promise<{ readonly tag: string; readonly text: string | undefined }> {
    const row = await this.#read(caller, id)
    const tag = `"${row.token}"`
    if (row.status === 'completed' && known === tag) return { tag, text: undefined }
    const text = await this.worker.deps.store.results.textOf(row)
    if (text === undefined) throw JobErrors.NO_RESULT({ id, status: row.status })
    return { tag, text }
  }

  /** The job with its attempts, its steps, and the last of what the log has of it. */
  async detail(caller: Caller, id: string): Promise<JobDetail> {
    const row = await this.#read(caller, id)
    const logged = await this.deps.events()?.read(`job:${id}`, Math.max(0, row.seq - EVENTS_SHOWN), EVENTS_SHOWN)
    const events = logged?.events.map(({ seq, type, at, data }) => ({ seq: seq!, type, at: timeOf(at), data })) ?? []
    const questions = (await this.worker.deps.store.questions.of(id)).map(toQuestion)
    return { ...toJob(row), ...await this.deps.queries.history(id), questions, events, held_up: await this.holdups.of(row) }
  }

  async list(caller: Caller, filter: Filter = {}): Promise<Page<Job>> {
    const projects = await this.#access().projects(caller, 'jobs:read')
    const limit = Math.min(Math.max(1, Math.trunc(filter.limit ?? 20)), 100)
    const { status, cursor } = filter
    const { rows, next } = await this.deps.queries.list({ ...chosen(filter), ...(status && { status }), ...(cursor && { cursor }), projects, limit })
    return { items: rows.map(toJob), next }
  }

  async cancel(caller: Caller, id: string): Promise<Job> {
    await this.#read(caller, id, 'jobs:cancel')
    return this.deps.control.cancel(id)
  }

  async retry(caller: Caller, id: string): Promise<Job> {
    await this.#read(caller, id, 'jobs:retry')
    return this.deps.control.retry(id)
  }

  async replay(caller: Caller, which: { readonly id: string } | JobFilter): Promise<number> {
    if (!('id' in which)) return this.deps.control.replayAll({ ...chosen(which), projects: await this.#access().projects(caller, 'jobs:retry') })
    await this.#read(caller, which.id, 'jobs:retry')
    await this.deps.control.replay(which.id)
    return 1
  }

  async discard(caller: Caller, id: string): Promise<void> {
    await this.#read(caller, id, 'jobs:discard')
    await this.deps.control.discard(id)
  }

  /** A job that was there already, by its dedupe key, may be another's. */
  async #checkShown(caller: Caller, inserted: readonly Exclude<Inserted, Error>[]): Promise<void> {
    for (const { row: { id, project_id, created_by }, created } of inserted) {
      if (!created && created_by !== caller.id) await this.#access().check(caller, 'jobs:read', { kind: 'job', id, project_id })
    }
  }

  #access(): Access { return accessOf(this.worker.deps) }

  async #read(caller: Caller, id: string, permission: Permission = 'jobs:read'): Promise<JobRow> {
    const access = this.#access()
    const row = ID_PATTERN.test(id) ? await this.worker.deps.store.read(id) : undefined
    if (!row) {
      await access.check(caller, permission)
      throw JobErrors.NOT_FOUND({ id: String(id).slice(0, 40) })
    }
    await access.check(caller, permission, { kind: 'job', id, project_id: row.project_id })
    return row
  }

  /** Room is asked for; where there is none, once more without those that get a job which is there. */
  async #withRoom<T>(rows: readonly JobRow[], work: () => Promise<T>): Promise<T> {
    const { backlog } = this.deps
    try { return await backlog.add(rows.length, work) } catch (error) {
      const fresh = await this.#checkNew(rows, error)
      return fresh ? backlog.add(fresh, work) : work()
    }
  }

  /** How many of them are new jobs; the error, if all are, or if it is no lack of room. */
  async #checkNew(rows: readonly JobRow[], error: unknown): Promise<number> {
    const fresh = JobErrors.QUEUE_FULL.is(error) ? await this.worker.deps.store.keys.countNew(rows) : rows.length
    if (fresh === rows.length) throw error
    return fresh
  }

  /** In the transaction that the caller has open; counted and expected once that is committed. */
  async insertAll(rows: readonly JobRow[], tx: Tx): Promise<Inserted[]> {
    const inserted = await this.worker.deps.store.insertAll(rows, tx)
    tx.afterCommit(() => {
      for (const each of inserted) if (!(each instanceof Error) && (each.created || each.replaced)) {
        const { type, project_id, status, run_at } = each.row
        if (each.created) instruments.created.inc({ type, project: project_id })
        if (status === 'delayed') this.worker.expect(run_at)
      }
    })
    return inserted
  }
}

function written(inserted: Inserted): Exclude<Inserted, Error> {
  if (inserted instanceof Error) throw inserted
  return inserted
}
