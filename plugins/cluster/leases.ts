import { reasonOf, type Clock, type Logger } from '#core'
import { ClusterErrors, type Lease, type Leases } from '#contracts/cluster'
import { instruments } from './instruments.ts'
import type { LeaseKeeper } from './lease-keeper.ts'

export interface LeasesDeps {
  readonly keeper: LeaseKeeper
  readonly clock: Clock
  readonly log: Logger
  readonly leaseMs: number
  readonly retryMs: number
  /** Tells those who wait that a name is free. */
  readonly freed: (name: string) => void
}

/**
 * One holding. The keeper says until when, by its own clock; here it ends a little sooner, counted from before the last confirmed renewal was sent:
 * whoever could not renew stops before another one may begin.
 */
class HeldLease implements Lease {
  readonly #ended = new AbortController()
  #until: number
  #state: 'held' | 'lost' | 'released' = 'held'
  #cancelRenewal = () => {}
  #cancelEnd = () => {}

  constructor(
    readonly name: string, readonly token: number, sentAt: number,
    readonly deps: LeasesDeps, readonly gone: (lease: HeldLease) => void,
  ) {
    this.#until = sentAt + this.#life
    this.#watch()
    this.#renewLater(deps.leaseMs / 4)
  }

  get signal(): AbortSignal { return this.#ended.signal }
  get #life(): number { return this.deps.leaseMs * 0.9 }

  /** Asks its user to end, and goes on being held until it is released. */
  end(): void { this.#ended.abort(new DOMException(`the lease "${this.name}" is given back`, 'AbortError')) }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#state === 'released') return
    const held = this.#state === 'held'
    this.#state = 'released'
    this.#cancelRenewal()
    this.#cancelEnd()
    this.end()
    this.gone(this)
    // A renewal that is under way finds no holder after this, whichever comes first.
    if (!held) return
    try {
      if (await this.deps.keeper.release(this.name, this.token)) this.deps.freed(this.name)
    } catch (error) { this.deps.log.warn(`the lease "${this.name}" could not be given back, and runs out`, { reason: reasonOf(error) }) }
  }

  #renewLater(ms: number): void {
    this.#cancelRenewal = this.deps.clock.after(ms, () => (this.#state === 'held' ? this.#renew() : undefined))
  }

  async #renew(): Promise<void> {
    const sentAt = performance.now()
    let next = this.deps.leaseMs / 4
    try {
      if (!await this.deps.keeper.renew(this.name, this.token)) return this.#lose('somebody else has it')
      if (this.#state !== 'held') return
      this.#until = sentAt + this.#life
      this.#watch()
    } catch (error) {
      this.deps.log.warn(`the lease "${this.name}" could not be renewed yet`, { reason: reasonOf(error) })
      next = this.deps.leaseMs / 16
    }
    if (this.#state === 'held') this.#renewLater(next)
  }

  #watch(): void {
    this.#cancelEnd()
    const left = this.#until - performance.now()
    if (left <= 0) return this.#lose('it could not be renewed in time')
    this.#cancelEnd = this.deps.clock.after(left, () => this.#lose('it could not be renewed in time'))
  }

  #lose(reason: string): void {
    if (this.#state !== 'held') return
    this.#state = 'lost'
    this.#cancelRenewal()
    this.#cancelEnd()
    instruments.lost.inc({ name: this.name })
    this.deps.log.warn(`the lease "${this.name}" is lost`, { reason, token: this.token })
    this.#ended.abort(ClusterErrors.LEASE_LOST({ name: this.name }))
    this.gone(this)
  }
}

/** Leads again and again: waits for the lease, works, gives it back. */
class Candidate implements AsyncDisposable {
  readonly #closed = new AbortController()
  readonly #running: Promise<void>
  #lease: HeldLease | undefined
  #wake = () => {}
  #failures = 0

  constructor(readonly name: string, readonly work: (lease: Lease) => Promise<void>, readonly book: LeaseBook) { this.#running = this.#run() }

  wake(): void { this.#wake() }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort()
    this.#wake()
    this.#lease?.end()
    this.book.left(this)
    await this.#running
  }

  async #run(): Promise<void> {
    const { deps } = this.book
    while (!this.#closed.signal.aborted) {
      try {
        this.#lease = await this.book.take(this.name)
        if (this.#lease) await this.#lead(this.#lease)
        else this.#failures = 0
      } catch (error) {
        // Of an outage it is enough to hear once.
        deps.log[this.#failures++ ? 'debug' : 'warn'](`nobody knows who has the lease "${this.name}"`, { reason: reasonOf(error) })
      }
      await this.#pause(Math.min(deps.retryMs * 2 ** Math.min(this.#failures, 6), Math.max(deps.retryMs, 2_000)))
    }
  }

  async #lead(lease: HeldLease): Promise<void> {
    if (this.#closed.signal.aborted) lease.end()
    try {
      if (!lease.signal.aborted) await this.work(lease)
      this.#failures = 0
    } catch (error) {
      // That it was lost is told already.
      if (!lease.signal.aborted) {
        this.#failures++
        this.book.deps.log.error(`the work under the lease "${this.name}" failed, and is begun again: ${reasonOf(error)}`, { err: error })
      }
    } finally {
      this.#lease = undefined
      // Only now, also when it is closed: until the work has ended somebody else would act beside it.
      await lease[Symbol.asyncDispose]()
    }
  }

  async #pause(ms: number): Promise<void> {
    if (this.#closed.signal.aborted) return
    await new Promise<void>(resolve => {
      const cancel = this.book.deps.clock.after(ms * (0.75 + Math.random() / 2), resolve)
      this.#wake = () => { cancel(); resolve() }
    })
    this.#wake = () => {}
  }
}

/** Leases, each with a token that only grows. */
export class LeaseBook implements Leases {
  readonly #held = new Set<HeldLease>()
  readonly #candidates = new Set<Candidate>()

  constructor(readonly deps: LeasesDeps) {}

  get held(): readonly string[] { return [...this.#held].map(lease => lease.name) }

  acquire(name: string): Promise<Lease | undefined> { return this.take(name) }

  async take(name: string): Promise<HeldLease | undefined> {
    const sentAt = performance.now()
    const token = await this.deps.keeper.acquire(name)
    if (token === undefined) return undefined
    const lease = new HeldLease(name, token, sentAt, this.deps, gone => this.#held.delete(gone))
    if (!lease.signal.aborted) this.#held.add(lease)
    instruments.gained.inc({ name })
    return lease
  }

  async lead(name: string, work: (lease: Lease) => Promise<void>): Promise<AsyncDisposable> {
    const candidate = new Candidate(name, work, this)
    this.#candidates.add(candidate)
    return candidate
  }

  left(candidate: Candidate): void { this.#candidates.delete(candidate) }

  /** Somebody gave the lease back. */
  heardFreed(name: unknown): void { for (const candidate of this.#candidates) if (candidate.name === name) candidate.wake() }

  /** Gives back what is held. */
  async close(): Promise<void> {
    await Promise.all([...this.#candidates].map(candidate => candidate[Symbol.asyncDispose]()))
    await Promise.all([...this.#held].map(lease => lease[Symbol.asyncDispose]()))
  }
}
