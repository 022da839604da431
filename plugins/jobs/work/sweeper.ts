import { BackplaneError, reasonOf } from '#core'
import { JobErrors } from '#contracts/jobs'
import { failureOf } from './failure.ts'
import type { JobRow } from '../tables/record.ts'
import type { Worker } from './worker.ts'

const BATCH = 200

/** Looks for what nobody else does any more: whatever a process left undone when it was killed is found here, by any other one. */
export class Sweeper {
  #sweeping: Promise<void> | undefined
  /** How often a sweep over whatever is queued was asked for, and how many of these are done. */
  #asked = 0
  #done = 0
  #failing = false
  /** Leases that nobody could renew say nothing: after an outage of the database their owners have time for it. */
  #trustLeasesAt = 0

  constructor(readonly worker: Pick<Worker, 'deps' | 'claims' | 'looks' | 'find' | 'typeOf' | 'end'>) {}

  /** Takes back what dead workers held, wakes what is due, and gives the queue again what it may have lost (`all`: whatever is queued). */
  async sweep(all = false): Promise<void> {
    if (!this.worker.looks) return
    if (all) this.#asked++
    this.#sweeping ??= this.#sweep(this.#asked)
      .then(() => { this.#failing = false }, error => this.#unswept(error))
      .finally(() => { this.#sweeping = undefined })
    await this.#sweeping
  }

  /** Settles when none is under way. */
  async idle(): Promise<void> { await this.#sweeping }

  #unswept(error: unknown): void {
    const { log, store, config } = this.worker.deps
    const away = error instanceof BackplaneError && error.retryable
    // Of an outage it is enough to hear once.
    log[away && this.#failing ? 'debug' : 'warn']('a sweep failed and is done again', away ? { reason: reasonOf(error) } : { err: error })
    this.#failing = true
    if (away) this.#trustLeasesAt = store.now + config.lease.ms
  }

  async #sweep(asked: number): Promise<void> {
    const all = asked > this.#done
    const { store, queue, config, access, types, due, family, limits } = this.worker.deps
    const from = store.now
    await this.#handBackUnbegun()
    const expired = await store.expired(BATCH)
    if (from >= this.#trustLeasesAt) await Promise.all(expired.map(id => this.#interrupt(id)))
    await due.wake()
    await family().sweep()
    await limits.release()
    const here = access.current ? [...types].map(type => type.type).filter(type => this.worker.typeOf(type)) : []
    const before = all ? from : from - config.rehand_ms
    const more = () => this.worker.looks && store.handOverAgain(before, here, BATCH)
    // What waited for a queue that was away may be much.
    while (here.length && await more()) if (!all && queue.can.transactional) break
    this.#done = asked
  }

  /** Claims that the database may have kept without saying so: nobody began these jobs, so it costs them no attempt. Before others end the lease. */
  async #handBackUnbegun(): Promise<void> {
    const { claims, deps: { store, config } } = this.worker
    for (const claim of claims.values()) {
      if (claim.lease_until! - config.lease.ms / 2 > store.now) continue
      // First: if its COMMIT is answered after all, nobody may begin it any more.
      claims.delete(claim.id)
      try { await this.#handBack(claim) } catch (error) {
        if (!claims.has(claim.id)) claims.set(claim.id, claim)
        throw error
      }
    }
  }

  async #handBack({ id, token, lease_owner }: JobRow): Promise<void> {
    const { store, database, log } = this.worker.deps
    await database.transaction(async tx => {
      const row = await store.read(id, tx)
      if (row?.status !== 'running' || row.token !== token || row.lease_owner !== lease_owner) return
      await store.handOver([await store.change(row, 'hand_back', { run_at: store.now }, tx)], tx)
      log.info('a job is handed back that never began: the database did not say whether it was claimed', { job_id: id })
    })
  }

  async #interrupt(id: string): Promise<void> {
    const { store, log } = this.worker.deps
    const expired = (row: JobRow | undefined): row is JobRow =>
      // Our own, whose renewal was late, is running all the same.
      row?.status === 'running' && Number(row.lease_until) <= store.now && this.worker.find(id)?.token !== row.token
    if (!expired(await store.read(id))) return
    const error = failureOf(JobErrors.INTERRUPTED(), id)
    try {
      const job = await this.worker.end('interrupt', { error, run_at: store.now }, async tx => {
        const row = await store.read(id, tx)
        if (!expired(row)) throw JobErrors.LEASE_LOST({ id })
        return row
      })
      log.warn('a job was taken back from a worker that gave no sign of life', { job_id: id, status: job.status, attempt: job.attempt })
    } catch (cause) {
      if (!JobErrors.LEASE_LOST.is(cause)) log.warn('a job could not be taken back and is tried again', { job_id: id, err: cause })
    }
  }
}
