import { Deadlines, type Clock } from '../time.ts'

interface Timer { at: number; readonly every: number | undefined; readonly run: () => void }

/** Time that stands still until `advance`. Hand it to createTestRuntime: deadlines, ctx.clock and `now` all follow it. */
export class FakeClock implements Clock {
  readonly deadlines = new Deadlines(true)
  #timers = new Set<Timer>()
  #now: number
  constructor(now: number | Date = new Date('2026-01-01T00:00:00Z')) { this.#now = Number(now) }

  now(): number { return this.#now }
  after(ms: number, run: () => void): () => void { return this.#add({ at: this.#now + ms, every: undefined, run }) }
  every(ms: number, run: () => void): () => void { return this.#add({ at: this.#now + ms, every: ms, run }) }
  #add(timer: Timer): () => void {
    this.#timers.add(timer)
    return () => void this.#timers.delete(timer)
  }

  /** How many timers wait. */
  get pending(): number { return this.#timers.size }

  /** Moves on by `ms`, running what is due in order, and lets promises settle after each. */
  async advance(ms: number): Promise<void> {
    const until = this.#now + ms
    for (;;) {
      await settle()
      const due = [...this.#timers].filter(timer => timer.at <= until).sort((a, b) => a.at - b.at)[0]
      const to = due?.at ?? until
      this.deadlines.advance(to - this.#now)
      this.#now = to
      if (!due) break
      if (due.every === undefined) this.#timers.delete(due)
      else due.at += due.every
      due.run()
    }
    await settle()
  }
}

/** Lets everything that is ready to go on do so. */
export const settle = async (): Promise<void> => { for (let i = 0; i < 3; i++) await new Promise<void>(resolve => setImmediate(resolve)) }

/**
 * Waits until `check` gives something other than false or undefined, and returns it; fails after `ms` with what was waited for.
 * With `progress`, after `ms` in which that did not change: what goes on slowly on a busy machine is no failure.
 */
export async function eventually<T>(what: string, check: () => T | Promise<T>, ms = 5_000, progress?: () => unknown): Promise<Exclude<T, false | undefined>> {
  let [from, seen] = [performance.now(), progress?.()]
  for (;;) {
    const found = await check()
    if (found !== undefined && found !== false) return found as Exclude<T, false | undefined>
    const now = progress?.()
    if (now !== seen) [from, seen] = [performance.now(), now]
    const waited = performance.now() - from
    if (waited > ms) throw new Error(`waited ${ms} ms for ${what}`)
    // Less often for what takes long: who asks all the time takes the processor from what it waits for.
    await new Promise(resolve => setTimeout(resolve, Math.min(5 + waited / 20, 50)))
  }
}
