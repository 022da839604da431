import { HookErrors, PluginErrors, reasonOf, type BackplaneError } from './errors.ts'
import type { AnyHook } from './plugin.ts'
import type { GuardMode, HookMode, HookRef } from './refs.ts'
import { PluginScope } from './scope.ts'
import { Deadline, isPromise, type Deadlines } from './time.ts'

/** A handler's second argument. */
export interface HookCall {
  /** Aborts when the handler's time is up or the caller goes away. Made when it is first read. */
  readonly signal: AbortSignal
}
export interface HookReport { readonly delivered: number; readonly failures: readonly BackplaneError[] }

type Awaitable<T> = T | Promise<T>
export type HookHandler<H> =
  H extends HookRef<'notify' | 'series', infer In, any> ? (input: In, call: HookCall) => Awaitable<unknown>
  : H extends HookRef<'waterfall', infer In, any> ? (value: In, call: HookCall) => Awaitable<In | void>
  : H extends HookRef<'first', infer In, infer Out> ? (input: In, call: HookCall) => Awaitable<Out | undefined | void>
  : never
export type HookResult<H> =
  H extends HookRef<'notify', any, any> ? HookReport
  : H extends HookRef<'series', any, any> ? void
  : H extends HookRef<'waterfall', infer In, any> ? In
  : H extends HookRef<'first', any, infer Out> ? Out | undefined
  : never
export type HookInput<H> = H extends HookRef<any, infer In, any> ? In : never
export type Order = 'pre' | 'normal' | 'post'

/** `coming`: not set up yet; `open`: its handlers stand; `away`: being swapped; `failed`: left out, or it did not come back. */
export type GuardState = 'coming' | 'open' | 'away' | 'failed'

const RANK = { pre: 0, normal: 1, post: 2 } as const
const WAIT_MS = 10_000
const QUARANTINE = { row: 10, calls: 20, windowMs: 60_000, restMs: 30_000 }
const NOTHING: HookReport = Object.freeze({ delivered: 0, failures: Object.freeze([]) as readonly never[] })

/** One handler, with what is known of how it fares. */
class Entry {
  present = true
  calls = 0
  failures = 0
  timed = 0
  ms = 0
  row = 0
  #since = 0
  #calls = 0
  #failures = 0
  restsUntil = 0
  constructor(readonly ref: AnyHook, readonly plugin: string, readonly order: Order, readonly rank: number, readonly run: (input: any, call: HookCall) => unknown, readonly scope: PluginScope) {}

  /** Ten in a row, or half of at least twenty within a minute, and it rests for half a minute. Only notify handlers may. */
  failed(now: number): boolean {
    this.failures++
    if (now - this.#since > QUARANTINE.windowMs) { this.#since = now; this.#calls = this.calls - 1; this.#failures = this.failures - 1 }
    const recent = this.calls - this.#calls
    const bad = ++this.row >= QUARANTINE.row || (recent >= QUARANTINE.calls && (this.failures - this.#failures) * 2 >= recent)
    if (this.ref.mode !== 'notify' || !bad) return false
    this.restsUntil = now + QUARANTINE.restMs
    this.row = this.#since = 0
    return true
  }
}

/** All that the bus knows of one hook. */
class Line {
  entries: readonly Entry[] = []
  /** Guards that are not open, with their state. The hook is closed while there is one. */
  readonly shut = new Map<string, GuardState>()
  readonly waiting = new Set<() => void>()
  running = 0
  allDelivered: HookReport = NOTHING
  constructor(readonly ref: AnyHook) {}
}

/** One call: the node that hangs on the shared clock, and what the handlers get as their second argument. */
class Call extends Deadline implements HookCall {
  #controller: AbortController | undefined
  #reason: unknown
  onExpire: (() => void) | undefined
  constructor(readonly parent: AbortSignal | undefined) { super() }
  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController()
      const abort = () => this.abort(this.parent!.reason)
      if (this.#reason !== undefined) this.#controller.abort(this.#reason)
      else if (this.parent?.aborted) abort()
      else this.parent?.addEventListener('abort', abort, { once: true, signal: this.#controller.signal })
    }
    return this.#controller.signal
  }
  abort(reason: unknown): void { this.#reason = reason; this.#controller?.abort(reason) }
  expire(): void { this.onExpire?.() }
}

export interface HooksOptions {
  readonly deadlines: Deadlines
  readonly now: () => number
  readonly timeout: number
  /** A notify handler failed; nobody else will tell. */
  readonly onFailure: (plugin: string, failure: BackplaneError) => void
  /** Where a plugin stands in the boot order. */
  readonly rankOf: (plugin: string) => number
}

export class Hooks {
  #lines = new Map<string, Line>()
  constructor(readonly options: HooksOptions) {}

  #line(ref: AnyHook): Line {
    let line = this.#lines.get(ref.slot)
    if (!line) this.#lines.set(ref.slot, (line = new Line(ref)))
    return line
  }

  add(ref: AnyHook, plugin: string, run: (input: any, call: HookCall) => unknown, order: Order = 'normal'): () => void {
    const line = this.#line(ref)
    const entry = new Entry(ref, plugin, order, this.options.rankOf(plugin), run, new PluginScope(plugin))
    this.#replace(line, [...line.entries, entry].sort((a, b) => RANK[a.order] - RANK[b.order] || a.rank - b.rank))
    return () => {
      entry.present = false
      this.#replace(line, line.entries.filter(other => other !== entry))
    }
  }

  // Lists are replaced, never edited: a call in flight keeps the one it started with.
  #replace(line: Line, entries: readonly Entry[]): void {
    line.entries = entries
    line.allDelivered = { delivered: entries.length, failures: [] }
  }

  /** The runtime says how a guard fares; `gone` when config no longer has it, which alone takes it away. */
  guard(ref: AnyHook, plugin: string, state: GuardState | 'gone'): void {
    const line = this.#line(ref)
    if (state === 'open' || state === 'gone') line.shut.delete(plugin)
    else line.shut.set(plugin, state)
    if (!line.shut.size || state === 'failed') for (const wake of [...line.waiting]) wake()
  }

  /** Settles when no call is inside this hook any more, or after its time-out. */
  async quiet(ref: AnyHook): Promise<void> {
    const line = this.#line(ref)
    const until = performance.now() + this.#timeout(ref)
    while (line.running > 0 && performance.now() < until) await new Promise(resolve => setTimeout(resolve, 1))
  }

  ready(ref: AnyHook): Awaitable<void> {
    const line = this.#lines.get(ref.slot)
    if (line?.shut.size && !ref.options.early) return this.#opened(line)
  }

  call<H extends AnyHook>(ref: H, input: HookInput<H>, signal?: AbortSignal): Awaitable<HookResult<H>> {
    const line = this.#lines.get(ref.slot)
    if (line === undefined) return (ref.mode === 'waterfall' ? input : ref.mode === 'notify' ? NOTHING : undefined) as HookResult<H>
    if (line.shut.size === 0 || ref.options.early) return this.#run(line, input, signal) as Awaitable<HookResult<H>>
    if (ref.options.tx) throw this.#absent(line)
    return this.#opened(line).then(() => this.#run(line, input, signal)) as Promise<HookResult<H>>
  }

  #run(line: Line, input: unknown, signal: AbortSignal | undefined): unknown {
    return line.ref.mode === 'notify' ? this.#notify(line, input, signal) : this.#walk(line, input, signal)
  }

  #timeout(ref: AnyHook): number { return ref.options.timeout ?? (ref.options.tx ? 500 : this.options.timeout) }

  #absent(line: Line, [plugin, state] = [...line.shut].find(([, each]) => each === 'failed') ?? [...line.shut][0]!): BackplaneError {
    const told = { coming: 'not set up yet; call it from start() or later', open: 'there', away: 'being swapped', failed: 'not running' }[state]
    return PluginErrors.UNAVAILABLE({ plugin, hook: line.ref.id, state: told })
  }

  async #opened(line: Line): Promise<void> {
    const hopeless = () => [...line.shut.values()].some(state => state !== 'away')
    const node = new Call(undefined)
    let late = false
    try {
      while (line.shut.size && !late && !hopeless()) {
        await new Promise<void>(resolve => {
          line.waiting.add(resolve)
          node.onExpire = () => { late = true; resolve() }
          if (!node.home) this.options.deadlines.arm(node, WAIT_MS)
        })
        line.waiting.clear()
      }
    } finally { this.options.deadlines.disarm(node) }
    if (line.shut.size) throw this.#absent(line)
  }

  /** Times one call in sixteen: the clock costs more than the handler of a hot hook. */
  #enter(entry: Entry, input: unknown, call: HookCall): unknown {
    if ((entry.calls++ & 15) !== 0) return entry.scope.run(entry.run, input, call)
    const from = performance.now()
    const done = () => { entry.timed++; entry.ms += performance.now() - from }
    const result = entry.scope.run(entry.run, input, call)
    if (isPromise(result)) result.then(done, done)
    else done()
    return result
  }

  #failure(entry: Entry, cause: unknown): BackplaneError {
    if (HookErrors.FAILED.is(cause) || HookErrors.TIMEOUT.is(cause) || PluginErrors.UNAVAILABLE.is(cause)) return cause
    return HookErrors.FAILED({ hook: entry.ref.id, plugin: entry.plugin, reason: reasonOf(cause) }, { cause })
  }

  /** series, waterfall and first: one by one. Makes no promise until a handler does. */
  #walk(line: Line, input: unknown, signal: AbortSignal | undefined): unknown {
    const { entries, ref } = line
    const call = new Call(signal)
    let value = input
    for (let i = 0; i < entries.length; i++) {
      const entry = entries[i]!
      let result: unknown
      try { result = this.#enter(entry, value, call) } catch (cause) { entry.failed(this.options.now()); throw this.#failure(entry, cause) }
      if (isPromise(result)) return new Promise((resolve, reject) => void this.#walkOn(line, entries, i, result, value, call, resolve, reject))
      entry.row = 0
      if (result === undefined) continue
      if (ref.mode === 'first') return result
      if (ref.mode === 'waterfall') value = result
    }
    return ref.mode === 'waterfall' ? value : undefined
  }

  async #walkOn(line: Line, entries: readonly Entry[], at: number, pending: Promise<unknown>, input: unknown, call: Call, resolve: (value: unknown) => void, reject: (error: unknown) => void): Promise<void> {
    const { ref } = line
    const { deadlines } = this.options
    const ms = this.#timeout(ref)
    let entry = entries[at]!
    let value = input
    let over = false
    const fail = (error: BackplaneError) => { over = true; entry.failed(this.options.now()); reject(error) }
    call.onExpire = () => {
      const error = HookErrors.TIMEOUT({ hook: ref.id, plugin: entry.plugin, ms })
      fail(error)
      call.abort(error)
    }
    line.running++
    try {
      for (let result: unknown = pending; ; ) {
        if (isPromise(result)) {
          deadlines.arm(call, ms)
          result = await result
          if (over) return
        }
        entry.row = 0
        if (result !== undefined) {
          if (ref.mode === 'first') return resolve(result)
          if (ref.mode === 'waterfall') value = result
        }
        if (++at === entries.length) return resolve(ref.mode === 'waterfall' ? value : undefined)
        entry = entries[at]!
        // Its plugin left while this call was on its way: a guard never opens by leaving.
        if (!entry.present) throw PluginErrors.UNAVAILABLE({ plugin: entry.plugin, hook: ref.id, state: 'being swapped' })
        result = this.#enter(entry, value, call)
      }
    } catch (cause) {
      if (!over) fail(this.#failure(entry, cause))
    } finally {
      line.running--
      deadlines.disarm(call)
    }
  }

  /** All at once; what fails is told to the log and the caller, and hurts nobody. */
  #notify(line: Line, input: unknown, signal: AbortSignal | undefined): HookReport | Promise<HookReport> {
    const { entries } = line
    const call = new Call(signal)
    const failures: BackplaneError[] = []
    const pending = new Map<Entry, Promise<unknown>>()
    let delivered = 0
    for (let i = 0; i < entries.length; i++) {
      const entry = entries[i]!
      if (entry.restsUntil !== 0 && entry.restsUntil > this.options.now()) continue
      try {
        const result = this.#enter(entry, input, call)
        if (isPromise(result)) { pending.set(entry, result); continue }
        entry.row = 0
        delivered++
      } catch (cause) { this.#isolate(entry, this.#failure(entry, cause), failures) }
    }
    if (pending.size === 0) return delivered === entries.length ? line.allDelivered : { delivered, failures }
    return new Promise(resolve => {
      const { deadlines } = this.options
      const ms = this.#timeout(line.ref)
      const settle = (entry: Entry, failure?: BackplaneError) => {
        if (!pending.delete(entry)) return
        if (failure) this.#isolate(entry, failure, failures)
        else { entry.row = 0; delivered++ }
        if (pending.size > 0) return
        deadlines.disarm(call)
        resolve({ delivered, failures })
      }
      call.onExpire = () => {
        const error = HookErrors.TIMEOUT({ hook: line.ref.id, plugin: '(several)', ms })
        for (const entry of [...pending.keys()]) settle(entry, HookErrors.TIMEOUT({ hook: line.ref.id, plugin: entry.plugin, ms }))
        call.abort(error)
      }
      deadlines.arm(call, ms)
      for (const [entry, result] of [...pending]) result.then(() => settle(entry), cause => settle(entry, this.#failure(entry, cause)))
    })
  }

  #isolate(entry: Entry, failure: BackplaneError, failures: BackplaneError[]): void {
    failures.push(failure)
    const now = this.options.now()
    entry.failed(now)
    this.options.onFailure(entry.plugin, failure)
  }

  /** What stands where and how it fares; `ms` is the mean of the calls that were timed. */
  get handlers(): { hook: string; plugin: string; order: Order; calls: number; failures: number; ms: number; quarantined: boolean }[] {
    const now = this.options.now()
    return [...this.#lines].flatMap(([hook, line]) => line.entries.map(({ plugin, order, calls, failures, timed, ms, restsUntil }) =>
      ({ hook, plugin, order, calls, failures, ms: timed ? ms / timed : 0, quarantined: restsUntil > now })))
  }
  /** Hooks that are closed now, and by whom. */
  get closed(): { hook: string; plugin: string; state: GuardState }[] {
    return [...this.#lines].flatMap(([hook, { shut }]) => [...shut].map(([plugin, state]) => ({ hook, plugin, state })))
  }
}

export type { GuardMode, HookMode }
