const TICK_MS = 50

/** Something that expires. Hang it on `Deadlines`, and take it off when the work is done. */
export abstract class Deadline {
  at = 0
  home: Set<Deadline> | undefined
  abstract expire(): void
}

/**
 * Where all deadlines of a runtime hang: one unref'd timer for any number of them, at a resolution of 50 ms.
 * A timer for each handler would cost four times the call. Sets keep their order, so the first of a duration is the next to expire.
 */
export class Deadlines {
  #now = 0
  #byDuration = new Map<number, Set<Deadline>>()
  #timer: NodeJS.Timeout | undefined
  #idleTicks = 0

  /** `manual`: time moves only by `advance`, as a fake clock wants it. */
  constructor(readonly manual = false) {}

  arm(node: Deadline, ms: number): void {
    node.home?.delete(node)
    let home = this.#byDuration.get(ms)
    if (!home) this.#byDuration.set(ms, (home = new Set()))
    node.home = home.add(node)
    node.at = this.#now + ms + TICK_MS
    if (!this.#timer && !this.manual) this.#wind()
  }

  disarm(node: Deadline): void {
    node.home?.delete(node)
    node.home = undefined
  }

  advance(ms: number): void {
    this.#now += ms
    for (const [duration, home] of this.#byDuration) {
      for (const node of home) {
        if (node.at > this.#now) break
        this.disarm(node)
        node.expire()
      }
      if (!home.size) this.#byDuration.delete(duration)
    }
  }

  #wind(): void {
    let last = performance.now()
    this.#idleTicks = 0
    this.#timer = setInterval(() => {
      const now = performance.now()
      // A loop that was blocked gave nobody a chance to answer: only two ticks of the pause count.
      this.advance(Math.min(now - last, 2 * TICK_MS))
      last = now
      this.#idleTicks = this.#byDuration.size ? 0 : this.#idleTicks + 1
      if (this.#idleTicks > 20) this.stop()
    }, TICK_MS).unref()
  }

  stop(): void { clearInterval(this.#timer); this.#timer = undefined }
}

/** Time as plugins see it, so that a test can turn it. Milliseconds; `now` counts from the epoch. `after` and `every` return a cancel. */
export interface Clock {
  readonly deadlines: Deadlines
  now(): number
  after(ms: number, run: () => void): () => void
  every(ms: number, run: () => void): () => void
}

export class SystemClock implements Clock {
  readonly deadlines = new Deadlines()
  now(): number { return Date.now() }
  after(ms: number, run: () => void): () => void { const timer = setTimeout(run, ms); return () => clearTimeout(timer) }
  every(ms: number, run: () => void): () => void { const timer = setInterval(run, ms); return () => clearInterval(timer) }
}

class Timeout extends Deadline {
  constructor(readonly expire: () => void) { super() }
}

/** Rejects with `onTimeout()` when `work` has not settled after `ms`; `extend` moves that moment. A synchronous result costs nothing. */
export function within<T>(deadlines: Deadlines, ms: number, onTimeout: () => Error, work: (extend: (ms: number) => void) => T | Promise<T>): T | Promise<T> {
  let node: Timeout | undefined
  let limit = ms
  const result = work(more => { limit = more; if (node?.home) deadlines.arm(node, more) })
  if (!isPromise(result)) return result
  return new Promise<T>((resolve, reject) => {
    node = new Timeout(() => reject(onTimeout()))
    deadlines.arm(node, limit)
    const settle = <V>(then: (value: V) => void) => (value: V) => { deadlines.disarm(node!); then(value) }
    result.then(settle(resolve), settle(reject))
  })
}

export const isPromise = (value: unknown): value is Promise<any> => typeof value === 'object' && value !== null && typeof (value as Promise<unknown>).then === 'function'
