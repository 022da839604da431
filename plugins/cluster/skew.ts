import { reasonOf, type Clock, type Logger } from '#core'
import type { ClockSkew } from '#contracts/cluster'
import type { Database, Statement } from '#contracts/database'
import { nowOf } from './clock.ts'

const MEASURE_MS = { first: 1_000, later: 10_000 }
const NEGLIGIBLE_MS = 100
/** From here on somebody should look after the clock. */
export const BAD_MS = 1_000

export interface SkewDeps {
  readonly database: Database
  readonly clock: Clock
  readonly log: Logger
  /** The clock of this machine. Not the plugin's, which a test may turn: what is measured is between machines. */
  readonly wall?: () => number
}

/**
 * How far the clock of this machine is from the database's. Kept as the distance to the monotonic clock, so that a clock which is set, as by NTP,
 * is right at once.
 * An answer tells no more than that the database's now was between question and answer, so only what lies outside of that is skew.
 */
export class MeasuredSkew implements ClockSkew {
  readonly #now: Statement<{ now: number }>
  readonly #wall: () => number
  #between: readonly [number, number] | undefined
  #cancel = () => {}
  #closed = false
  #warned = false

  constructor(readonly deps: SkewDeps) {
    this.#now = deps.database.prepare(`SELECT ${nowOf(deps.database.dialect)} AS now`)
    this.#wall = deps.wall ?? (() => Date.now())
  }

  get ms(): number {
    if (!this.#between) return 0
    const [least, most] = this.#between
    const mine = this.#wall() - performance.now()
    const ms = Math.round(mine < least ? least - mine : Math.min(0, most - mine))
    return Math.abs(ms) < NEGLIGIBLE_MS ? 0 : ms
  }

  /** Measures now, and again and again. Never rejects: while the database is away nothing is known, or what was known holds on. */
  async watch(): Promise<void> {
    try { await this.measure() } catch (error) { this.deps.log.debug('the clock of the database could not be asked', { reason: reasonOf(error) }) }
    if (!this.#closed) this.#cancel = this.deps.clock.after(this.#between ? MEASURE_MS.later : MEASURE_MS.first, () => this.watch())
  }

  async measure(): Promise<void> {
    const asked = performance.now()
    const { now } = (await this.#now.get([]))!
    this.#between = [now - performance.now(), now + 1 - asked]
    const { ms } = this
    const bad = Math.abs(ms) > BAD_MS
    if (bad && !this.#warned) this.deps.log.warn(told(ms), { skew_ms: ms, fix: FIX })
    this.#warned = bad
  }

  [Symbol.dispose](): void {
    this.#closed = true
    this.#cancel()
  }
}

export const FIX = 'Run NTP (chrony, systemd-timesyncd) on this machine and on that of the database.'
export const told = (ms: number): string => `the clock of this machine is ${Math.abs(ms)} ms ${ms < 0 ? 'ahead of' : 'behind'} that of the database`
