import type { Clock } from '#core'
import type { Instances } from '#contracts/cluster'
import type { JobRow } from '../tables/record.ts'

/** However many ask. */
const FRESH_MS = 2_000
/** A hand-over that takes no longer is none to speak of. */
const HANDED_MS = 2_000

/** Why a job that could begin has not. */
export interface Holdup { readonly reason: 'no_worker' | 'limit' | 'not_handed_over'; readonly message: string; readonly fix: string }

export interface HoldupsDeps {
  readonly instances: () => Instances | undefined
  readonly clock: Clock
  /** Does this process run jobs? */
  readonly worksHere: () => boolean
  /** Is a job in the queue as soon as it is in the table? */
  readonly transactional: boolean
}

/** Knows what holds up queued jobs, at the cost of one small statement every two seconds at most, and of none where jobs are run. */
export class Holdups {
  #askedAt = -Infinity
  #alive: Promise<boolean | undefined> = Promise.resolve(undefined)
  /** Since when no worker has been seen, as far as this process knows. */
  #since: number | undefined

  constructor(readonly deps: HoldupsDeps) {}

  async of({ status, handed_at, run_at, held, held_by }: Pick<JobRow, 'status' | 'handed_at' | 'run_at' | 'held' | 'held_by'>): Promise<Holdup | null> {
    if (status !== 'queued') return null
    const absent = await this.noWorker()
    if (absent) return absent
    if (held) return { reason: 'limit', message: `a limit keeps it back: ${held_by}`, fix: 'Nothing to do: it begins when another one ends, or the minute does. Limits are in plugins.jobs.config.limits.' }
    if (this.deps.transactional || handed_at > 0 || this.deps.clock.now() - run_at < HANDED_MS) return null
    return {
      reason: 'not_handed_over', message: 'the queue has not taken it yet; it waits in the database, and is not lost',
      fix: 'See `GET /health/ready` for whether Redis answers; it is handed over as soon as it does.',
    }
  }

  async noWorker(): Promise<Holdup | undefined> {
    if (this.deps.worksHere() || await this.#workers() !== false) return undefined
    const seconds = Math.floor((this.deps.clock.now() - this.#since!) / 1_000)
    return {
      reason: 'no_worker', message: `no process that runs jobs is alive${seconds ? `; none has been seen for ${seconds} s` : ''}`,
      fix: 'Start one: `backplane start --roles worker`, with the same database.',
    }
  }

  /** Is one alive? Nothing, if that can't be known now. */
  #workers(): Promise<boolean | undefined> {
    const { clock } = this.deps
    if (clock.now() - this.#askedAt < FRESH_MS) return this.#alive
    this.#askedAt = clock.now()
    return (this.#alive = this.#look())
  }

  async #look(): Promise<boolean | undefined> {
    try {
      const all = await this.deps.instances()?.list()
      // Nobody at all is nobody who would know: not even this process has said yet that it lives.
      if (!all?.length) return undefined
      const alive = all.some(({ roles }) => roles.includes('worker'))
      this.#since = alive ? undefined : this.#since ?? this.deps.clock.now()
      return alive
    } catch { return undefined }
  }
}
