import { outside } from './scope.ts'

const TICK_MS = 50
const LONGEST = 2 ** 31 - 1

/** Something that expires. Hang it on `Deadlines`, and take it off when the work is done. */
export abstract class Deadline {
  // Set in the constructor, here and in hooks.ts: class fields cost a call with one handler a third of its time.
  declare at: number
  declare before: Deadline | undefined
  declare after: Deadline | undefined
  constructor() {
    this.at = 0
    this.before = this.after = undefined
  }
  abstract expire(): void
}

/** Both ends of the line, so that no node has to ask whether it is the first or the last. */
class End extends Deadline {
  expire(): void {}
}

/**
 * Where all deadlines of a runtime hang: one unref'd timer for any number of them, at a resolution of 50 ms.
 * A timer for each handler would cost four times the call. A plain line that each tick walks: what is armed a million
 * times a second and expires never should pay for two links, not for a hash or an order.
 */
export class Deadlines {
  #now = 0
  readonly #end = new End()
  #timer: NodeJS.Timeout | undefined
  #idleTicks = 0

  /** `manual`: time moves only by `advance`, as a fake clock wants it. */
  constructor(readonly manual = false) { this.#end.before = this.#end.after = this.#end }

  /** Arming again moves the moment. */
  arm(node: Deadline, ms: number): void {
    node.at = this.#now + ms + TICK_MS
    if (node.before) return
    const last = this.#end.before!
    node.before = last
    node.after = this.#end
    this.#end.before = last.after = node
    if (!this.#timer && !this.manual) this.#wind()
  }

  disarm(node: Deadline): void {
    if (!node.before) return
    node.before.after = node.after
    node.after!.before = node.before
    node.before = node.after = undefined
  }

  advance(ms: number): void {
    this.#now += ms
    const due: Deadline[] = []
    for (let node = this.#end.after!; node !== this.#end; node = node.after!) if (node.at <= this.#now) due.push(node)
    for (const node of due.sort((a, b) => a.at - b.at)) {
      // One that expired before it may have taken it off, or given it more time.
      if (!node.before || node.at > this.#now) continue
      this.disarm(node)
      node.expire()
    }
  }

  #wind(): void {
    let last = performance.now()
    this.#idleTicks = 0
    // In nobody's scope: else whoever came first would be blamed for what expires.
    this.#timer = outside(() => setInterval(() => {
      const now = performance.now()
      // A loop that was blocked gave nobody a chance to answer: only two ticks of the pause count.
      this.advance(Math.min(now - last, 2 * TICK_MS))
      last = now
      this.#idleTicks = this.#end.after !== this.#end ? 0 : this.#idleTicks + 1
      if (this.#idleTicks > 20) this.stop()
    }, TICK_MS)).unref()
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
  after(ms: number, run: () => void): () => void {
    let timer: NodeJS.Timeout
    // Node takes what is longer than 24.8 days for 1 ms.
    const wait = (left: number) => { timer = left > LONGEST ? setTimeout(() => wait(left - LONGEST), LONGEST) : setTimeout(run, left) }
    wait(ms)
    return () => clearTimeout(timer)
  }
  every(ms: number, run: () => void): () => void {
    if (ms > LONGEST) {
      const again = () => { cancel = this.after(ms, again); run() }
      let cancel = this.after(ms, again)
      return () => cancel()
    }
    const timer = setInterval(run, ms)
    return () => clearInterval(timer)
  }
}

class Timeout extends Deadline {
  constructor(readonly expire: () => void) { super() }
}

/** Rejects with `onTimeout()` when `work` has not settled after `ms`; `extend` moves that moment. A synchronous result costs nothing. */
export function within<T>(deadlines: Deadlines, ms: number, onTimeout: () => Error, work: (extend: (ms: number) => void) => T | Promise<T>): T | Promise<T> {
  let node: Timeout | undefined
  let limit = ms
  const result = work(more => { limit = more; if (node?.before) deadlines.arm(node, more) })
  if (!isPromise(result)) return result
  return new Promise<T>((resolve, reject) => {
    node = new Timeout(() => reject(onTimeout()))
    deadlines.arm(node, limit)
    const settle = <V>(then: (value: V) => void) => (value: V) => { deadlines.disarm(node!); then(value) }
    result.then(settle(resolve), settle(reject))
  })
}

export const isPromise = (value: unknown): value is Promise<any> => typeof value === 'object' && value !== null && typeof (value as Promise<unknown>).then === 'function'
