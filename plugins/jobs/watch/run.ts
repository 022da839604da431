import { JobErrors, type Job, type JobProgress, type Jobs } from '#contracts/jobs'
import type { JobUpdate } from '#contracts/job-updates'
import type { JobControl } from '../intake/control.ts'
import { pause, type JobFollower } from './follow.ts'
import { isFinal } from '../tables/machine.ts'
import { wasReplaced } from '../tables/keys.ts'
import type { JobQueries } from '../tables/queries.ts'
import { toJob, type JobRow } from '../tables/record.ts'
import type { Worker } from '../work/worker.ts'

export type RunOptions = NonNullable<Parameters<Jobs['run']>[2]>

const AWAY_MS = 500
/** Children that run at once where no worker was started. */
const CHILDREN = 10

/** Goes with one job to its end, wherever that is: here while it runs here, else on the log. */
export class JobRuns {
  constructor(readonly worker: Worker, readonly control: JobControl, readonly follower: JobFollower, readonly queries: JobQueries) {}

  /** `mine`: it was submitted by this call, so the signal cancels it; who joins another's only stops waiting. */
  async finish(row: JobRow, mine: boolean, { signal, onBegin, onProgress }: RunOptions): Promise<Job> {
    const { worker } = this
    const { id } = row
    const stop = () => worker.find(id)?.abort(JobErrors.CANCELLED({}, { cause: signal?.reason }))
    const running = mine && row.status === 'running' ? worker.begin(row, onProgress) : undefined
    onBegin?.(toJob(row))
    const asked = mine ? row : undefined
    if (!running) return this.#after(toJob(row), asked, { signal, onProgress })
    if (signal?.aborted) stop()
    else signal?.addEventListener('abort', stop, { once: true })
    try {
      const job = await running
      return isFinal(job.status) ? job : await this.#after(job, asked, { signal, onProgress })
    } finally { signal?.removeEventListener('abort', stop) }
  }

  /** `asked`: as this call submitted it. */
  async #after(job: Job, asked: JobRow | undefined, { signal, onProgress }: Watching): Promise<Job> {
    let now = job
    while (!isFinal(now.status)) {
      if (signal?.aborted && !(asked && await this.#isStill(asked))) throw signal.reason
      if (signal?.aborted) now = await this.#cancel(now.id)
      else if (asked && this.worker.idle) now = await this.#again(now, { signal, onProgress })
      else now = await this.#follow(now, { signal, onProgress })
    }
    return now
  }

  /** Not if it is somebody else's by now, who replaced it. */
  async #isStill(asked: JobRow): Promise<boolean> {
    const row = await this.worker.deps.store.read(asked.id)
    return row !== undefined && !wasReplaced(asked, row)
  }

  /** Where no worker was started nobody else would begin the next attempt. */
  async #again({ id, run_at, status }: Job, { signal, onProgress }: Watching): Promise<Job> {
    const { clock, database, store } = this.worker.deps
    // One that is queued was handed back, since what it needs is away.
    await pause(clock, status === 'queued' || status === 'waiting' ? AWAY_MS : Math.max(0, Date.parse(run_at) - store.now), signal)
    if (status === 'waiting') await this.#help(id, { signal, onProgress: undefined })
    const row = await database.transaction(async tx => {
      const seen = (await store.read(id, tx))!
      if (signal?.aborted || !['queued', 'failed', 'delayed'].includes(seen.status)) return seen
      const queued = seen.status === 'queued' ? seen : await store.change(seen, 'due', {}, tx)
      const [admitted] = await this.worker.deps.limits.admit([queued], tx)
      return admitted ? store.change(admitted, 'claim', this.worker.lease(), tx) : queued
    })
    if (row.status !== 'running') return toJob(row)
    const stop = () => this.worker.find(id)?.abort(JobErrors.CANCELLED({}, { cause: signal?.reason }))
    const running = this.worker.begin(row, onProgress)
    // While that was being written.
    if (signal?.aborted) stop()
    signal?.addEventListener('abort', stop, { once: true })
    try { return await running } finally { signal?.removeEventListener('abort', stop) }
  }

  /** Nobody else would run its children, or see that nobody answered. */
  async #help(id: string, watching: Watching): Promise<void> {
    const { due, store } = this.worker.deps
    await due.wake()
    const open = () => (watching.signal?.aborted ? [] : this.queries.openChildren(id, CHILDREN))
    for (let ids = await open(); ids.length; ids = await open()) {
      await Promise.all((await this.queries.byIds(ids)).map(row => this.#after(toJob(row), row, watching)))
    }
    if (watching.signal?.aborted) return
    const row = await store.read(id)
    if (row?.status === 'waiting') await this.worker.deps.family().sweep()
  }

  async #follow(job: Job, { signal, onProgress }: Watching): Promise<Job> {
    const stop = new AbortController()
    const end = () => stop.abort()
    signal?.addEventListener('abort', end, { once: true })
    try {
      for await (const update of this.follower.watch(job, { seq: job.seq, characters: 0 }, stop.signal)) {
        const progress = onProgress && progressIn(update)
        if (progress) onProgress(progress)
      }
    } finally { signal?.removeEventListener('abort', end) }
    const row = await this.worker.deps.store.read(job.id)
    if (!row) throw JobErrors.NOT_FOUND({ id: job.id })
    // Neither the job has ended nor the caller's patience, but this process.
    if (!isFinal(row.status) && !signal?.aborted) throw JobErrors.INTERRUPTED()
    return toJob(row)
  }

  async #cancel(id: string): Promise<Job> {
    try { return await this.control.cancel(id) } catch (error) {
      const row = JobErrors.FINAL.is(error) ? await this.worker.deps.store.read(id) : undefined
      if (!row) throw error
      return toJob(row)
    }
  }
}

interface Watching { readonly signal: AbortSignal | undefined; readonly onProgress: RunOptions['onProgress'] | undefined }

const FIELDS = { token: ['content'], tool_start: ['tool', 'call_id', 'input'], tool_end: ['tool', 'call_id', 'output', 'error'], progress: ['percent', 'message'] } as const

function progressIn(update: JobUpdate): JobProgress | undefined {
  const fields = FIELDS[update.type as keyof typeof FIELDS] as readonly string[] | undefined
  const given = fields?.filter(field => update[field] !== undefined).map(field => [field, update[field]] as const)
  return given && { type: update.type, ...Object.fromEntries(given) } as unknown as JobProgress
}
