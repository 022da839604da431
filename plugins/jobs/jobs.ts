import { scope } from '#core'
import { AccessErrors, type Access, type Caller } from '#contracts/access'
import type { Tx } from '#contracts/database'
import { JobErrors, type AdmittedJob, type Job, type JobRequest, type Jobs, type JobType, type Page } from '#contracts/jobs'
import { ID_PATTERN, newId } from './id.ts'
import { checkInput } from './input.ts'
import { instruments } from './instruments.ts'
import { jsonOf } from './json.ts'
import { checkRun, checkSubmit } from './permission.ts'
import type { JobQueries } from './queries.ts'
import { toJob, type JobDetail, type JobRow } from './record.ts'
import { substanceOf } from './substance.ts'
import type { Worker } from './worker.ts'

type RunOptions = NonNullable<Parameters<Jobs['run']>[2]>
type Filter = NonNullable<Parameters<Jobs['list']>[1]>

/** The agent that a permission is asked for: it must be the one that runs. */
function agentOf({ type, agent }: JobRequest, input: unknown): string | null {
  const named = typeof input === 'object' && input !== null ? (input as { agent?: unknown }).agent : undefined
  if (agent !== undefined && named !== undefined && named !== agent) {
    const [path, message] = ['input.agent', `it is not "${agent}", the agent of the request`]
    throw JobErrors.INPUT_INVALID({ type, reason: `${path}: ${message}`, errors: [{ path, message }] })
  }
  return agent ?? (type === 'agent' && typeof named === 'string' ? named : null)
}

/** `Jobs` for callers: who may do what, what is taken in, what is shown. */
export class JobService implements Jobs {
  // Kept after enter(): a transaction that is run again enters it again.
  readonly #admitted = new WeakMap<AdmittedJob, JobRow>()

  constructor(readonly worker: Worker, readonly queries: JobQueries) {}

  async submit(caller: Caller, request: JobRequest): Promise<Job> {
    const row = await this.#admit(caller, request)
    return toJob((await this.worker.deps.database.transaction(tx => this.#insert(row, tx))).row)
  }

  async admit(caller: Caller, request: JobRequest): Promise<AdmittedJob> {
    const row = await this.#admit(caller, request)
    const admitted = Object.freeze({ id: row.id })
    this.#admitted.set(admitted, row)
    return admitted
  }

  async enter(admitted: AdmittedJob, tx: Tx): Promise<Job> {
    const row = this.#admitted.get(admitted)
    if (!row) throw JobErrors.NOT_ADMITTED()
    return toJob((await this.#insert(row, tx)).row)
  }

  async run(caller: Caller, request: JobRequest, options: RunOptions = {}): Promise<Job> {
    const { worker } = this
    const { signal, onProgress } = options
    const { database, store } = worker.deps
    const admitted = await this.#admit(caller, request)
    if (signal?.aborted) throw JobErrors.CANCELLED({}, { cause: signal.reason })
    const { row, created } = await database.transaction(tx => {
      const claimed = { status: 'running' as const, attempt: 1, token: 1, started_at: store.now, ...worker.lease() }
      return this.#insert(worker.accepts ? { ...admitted, ...claimed } : admitted, tx)
    })
    const running = created && row.status === 'running' ? worker.begin(row, onProgress) : worker.find(row.id)?.done
    if (!running) return toJob(row)
    const cancel = () => worker.find(row.id)?.abort(JobErrors.CANCELLED({}, { cause: signal?.reason }))
    if (!created) return running
    signal?.addEventListener('abort', cancel, { once: true })
    if (signal?.aborted) cancel()
    try { return await running } finally { signal?.removeEventListener('abort', cancel) }
  }

  async get(caller: Caller, id: string): Promise<Job> { return toJob(await this.#read(caller, id)) }

  /** The job with its attempts and steps. */
  async detail(caller: Caller, id: string): Promise<JobDetail> {
    const row = await this.#read(caller, id)
    return { ...toJob(row), ...await this.queries.history(id) }
  }

  async list(caller: Caller, filter: Filter = {}): Promise<Page<Job>> {
    const projects = await this.#access().projects(caller, 'jobs:read')
    const limit = Math.min(Math.max(1, Math.trunc(filter.limit ?? 20)), 100)
    const rows = await this.queries.list({ ...filter, projects, limit: limit + 1 })
    const items = rows.slice(0, limit).map(toJob)
    return { items, next: rows.length > limit ? items.at(-1)!.id : null }
  }

  #access(): Access {
    const access = this.worker.deps.access.current
    if (!access) throw AccessErrors.UNAVAILABLE()
    return access
  }

  async #read(caller: Caller, id: string): Promise<JobRow> {
    const access = this.#access()
    const row = ID_PATTERN.test(id) ? await this.worker.deps.store.read(id) : undefined
    if (!row) {
      await access.check(caller, 'jobs:read')
      throw JobErrors.NOT_FOUND({ id })
    }
    await access.check(caller, 'jobs:read', { kind: 'job', id, project_id: row.project_id })
    return row
  }

  #type(name: string): JobType {
    const type = this.worker.typeOf(name)
    if (type) return type
    const { types } = this.worker.deps
    if (types.away.some(each => each.value.type === name)) throw JobErrors.TYPE_AWAY({ type: name })
    throw JobErrors.TYPE_UNKNOWN({ type: name, known: [...types].map(each => each.type).join(', ') || 'none' })
  }

  /** Everything that can be refused is refused here, before anything is written. */
  async #admit(caller: Caller, request: JobRequest): Promise<JobRow> {
    const { config, store, queue } = this.worker.deps
    const access = this.#access()
    const project_id = request.project_id ?? caller.project_id
    await checkSubmit(access, caller, project_id)
    const type = this.#type(request.type)
    const text = jsonOf('input', request.input, config.max_input_bytes)
    // What is stored and run, not what was handed in: that may have a getter, or change while this waits.
    const input: unknown = JSON.parse(text)
    const agent = agentOf(request, input)
    if (type.permission !== 'jobs:submit') await checkRun(access, caller, type, { agent, project_id })
    const metadata = jsonOf('metadata', request.metadata ?? {}, config.max_input_bytes)
    await checkInput(type.type, type.input, input)
    await type.admit?.(caller, { ...request, input })
    const { now } = store
    const substance = request.idempotency_key === undefined ? null : substanceOf(request, agent, input, JSON.parse(metadata))
    return {
      id: newId(now), type: type.type, agent, project_id, created_by: caller.id, principal_id: caller.id,
      traceparent: scope.current?.traceparent ?? null, status: 'queued', input: text, result: null, error: null,
      priority: request.priority ?? 5, attempt: 0, max_attempts: request.max_attempts ?? config.max_attempts,
      timeout_ms: request.timeout_ms ?? config.timeout_ms, backoff: null,
      seq: 1, idempotency_key: request.idempotency_key ?? null, substance, metadata, lease_owner: null, lease_until: null, token: 0,
      created_at: now, run_at: now, started_at: null, finished_at: null, handed_at: queue.can.transactional ? now : 0,
    }
  }

  async #insert(row: JobRow, tx: Tx): Promise<{ row: JobRow; created: boolean }> {
    const inserted = await this.worker.deps.store.insert(row, tx)
    if (inserted.created) tx.afterCommit(() => instruments.created.inc({ type: row.type, project: row.project_id }))
    return inserted
  }
}
