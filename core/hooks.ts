import { HookErrors, PluginErrors, reasonOf, type BackplaneError } from './errors.ts'
import type { AnyHook, GuardMode, HookMode, HookRef } from './refs.ts'
import { PluginScope } from './scope.ts'
import { Deadline, isPromise, within, type Deadlines } from './time.ts'

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
  constructor(
    readonly ref: AnyHook, readonly plugin: string, readonly order: Order, readonly rank: number,
    readonly run: (input: any, call: HookCall) => unknown, readonly scope: PluginScope,
  ) {}

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

  /** In its plugin's scope. Times the first calls and then one in sixty-four: the clock costs more than the handler of a hot hook. */
  enter(input: unknown, call: HookCall): unknown {
    const from = this.calls++ < 16 || (this.calls & 63) === 0 ? performance.now() : 0
    const given = this.scope.run(this.run, input, call)
    if (!isPromise(given)) {
      if (from) this.#time(from)
      return given
    }
    // A query builder runs each time that it is awaited.
    const result = given instanceof Promise ? given : Promise.resolve(given)
    if (from) result.then(() => this.#time(from), () => this.#time(from))
    return result
  }
  #time(from: number): void { this.timed++; this.ms += performance.now() - from }

  /** Wrapped once: by the innermost hook. */
  failure(cause: unknown): BackplaneError {
    if (HookErrors.FAILED.is(cause) || HookErrors.TIMEOUT.is(cause) || PluginErrors.UNAVAILABLE.is(cause)) return cause
    return HookErrors.FAILED({ hook: this.ref.id, plugin: this.plugin, reason: reasonOf(cause) }, { cause })
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

/** Who calls. Its signal is made when a handler asks for it. */
interface Stoppable { readonly signal: AbortSignal }

/** One call: the node that hangs on the shared clock, and what the handlers get as their second argument. */
abstract class Call extends Deadline implements HookCall {
  declare private controller: AbortController | undefined
  declare private reason: unknown
  declare private detach: (() => void) | undefined
  declare readonly bus: Hooks
  declare readonly line: Line
  declare readonly parent: Stoppable | undefined
  constructor(bus: Hooks, line: Line, parent: Stoppable | undefined) {
    super()
    this.bus = bus
    this.line = line
    this.parent = parent
    this.controller = this.reason = this.detach = undefined
  }
  get signal(): AbortSignal {
    if (!this.controller) {
      this.controller = new AbortController()
      const parent = this.parent?.signal
      const abort = () => this.abort(parent!.reason)
      if (this.reason !== undefined) this.controller.abort(this.reason)
      else if (parent?.aborted) abort()
      else if (parent) {
        parent.addEventListener('abort', abort, { once: true })
        // The caller's signal lives as long as its plugin: a call that is over must not hang on it.
        this.detach = () => parent.removeEventListener('abort', abort)
      }
    }
    return this.controller.signal
  }
  abort(reason: unknown): void { this.reason = reason; this.controller?.abort(reason) }
  protected over(): void { this.detach?.() }
  timeout(entry: Entry): BackplaneError { return HookErrors.TIMEOUT({ hook: this.line.ref.id, plugin: entry.plugin, ms: this.bus.timeoutOf(this.line.ref) }) }
}

/** series, waterfall and first: one by one. Makes no promise until a handler does. */
class Walk extends Call {
  declare private place: number
  declare private left: boolean
  declare private resolve: ((value: unknown) => void) | undefined
  declare private reject: ((error: unknown) => void) | undefined
  declare private value: unknown
  declare private readonly entries: readonly Entry[]
  constructor(bus: Hooks, line: Line, value: unknown, parent: Stoppable | undefined) {
    super(bus, line, parent)
    this.place = 0
    this.left = false
    this.resolve = this.reject = undefined
    this.value = value
    this.entries = line.entries
  }

  run(): unknown {
    const { entries } = this
    while (this.place < entries.length) {
      const entry = entries[this.place]!
      // Its plugin left while this call was on its way: a guard never opens by leaving.
      if (!entry.present) return this.#fail(PluginErrors.UNAVAILABLE({ plugin: entry.plugin, hook: entry.ref.id, state: 'being swapped' }))
      let result: unknown
      try { result = entry.enter(this.value, this) } catch (cause) { return this.#fail(cause, entry) }
      if (isPromise(result)) return this.#wait(result)
      if (this.#took(entry, result)) return this.#end(result)
    }
    return this.#end(this.line.ref.mode === 'waterfall' ? this.value : undefined)
  }

  /** Is this the answer? */
  #took(entry: Entry, result: unknown): boolean {
    this.place++
    entry.row = 0
    if (result === undefined) return false
    if (this.line.ref.mode === 'waterfall') this.value = result
    return this.line.ref.mode === 'first'
  }

  #wait(result: Promise<unknown>): unknown {
    const entry = this.entries[this.place]!
    this.bus.options.deadlines.arm(this, this.bus.timeoutOf(this.line.ref))
    result.then(answer => { if (!this.left) { if (this.#took(entry, answer)) this.#end(answer); else this.run() } }, cause => { if (!this.left) this.#fail(cause, entry) })
    if (this.resolve) return
    this.line.running++
    return new Promise((resolve, reject) => { this.resolve = resolve; this.reject = reject })
  }

  #end(value: unknown): unknown {
    this.over()
    if (!this.resolve) return value
    this.#leave()
    this.resolve(value)
  }

  #fail(cause: unknown, entry?: Entry): void {
    entry?.failed(this.bus.options.now())
    const error = entry ? entry.failure(cause) : cause
    this.over()
    if (!this.reject) throw error
    this.#leave()
    this.reject(error)
  }

  #leave(): void {
    this.left = true
    this.line.running--
    this.bus.options.deadlines.disarm(this)
  }

  expire(): void {
    const entry = this.entries[this.place]!
    const error = this.timeout(entry)
    this.#fail(error, entry)
    entry.scope.run(() => this.abort(error), undefined, undefined)
  }
}

/** notify: all at once. What fails is told to the log and the caller, and hurts nobody. */
class Announcement extends Call {
  #delivered = 0
  #resolve: ((report: HookReport) => void) | undefined
  #failures: BackplaneError[] | undefined
  #pending: Set<Entry> | undefined

  run(input: unknown): HookReport | Promise<HookReport> {
    const { entries, allDelivered } = this.line
    for (let i = 0; i < entries.length; i++) {
      const entry = entries[i]!
      if (entry.restsUntil !== 0 && entry.restsUntil > this.bus.options.now()) continue
      try {
        const result = entry.enter(input, this)
        if (isPromise(result)) this.#follow(entry, result)
        else { entry.row = 0; this.#delivered++ }
      } catch (cause) { this.#isolate(entry, entry.failure(cause)) }
    }
    if (this.#pending) return new Promise(resolve => { this.#resolve = resolve })
    this.over()
    return this.#delivered === entries.length ? allDelivered : this.#report
  }

  get #report(): HookReport { return { delivered: this.#delivered, failures: this.#failures ?? [] } }

  #follow(entry: Entry, result: Promise<unknown>): void {
    if (!this.#pending) this.bus.options.deadlines.arm(this, this.bus.timeoutOf(this.line.ref))
    this.#pending = (this.#pending ?? new Set()).add(entry)
    result.then(() => this.#settle(entry), cause => this.#settle(entry, entry.failure(cause)))
  }

  #settle(entry: Entry, failure?: BackplaneError): void {
    if (!this.#pending!.delete(entry)) return
    if (failure) this.#isolate(entry, failure)
    else { entry.row = 0; this.#delivered++ }
    if (this.#pending!.size) return
    this.over()
    this.bus.options.deadlines.disarm(this)
    this.#resolve!(this.#report)
  }

  #isolate(entry: Entry, failure: BackplaneError): void {
    this.#failures = [...(this.#failures ?? []), failure]
    entry.failed(this.bus.options.now())
    this.bus.options.onFailure(entry.plugin, failure)
  }

  expire(): void {
    const late = [...this.#pending!]
    late[0]!.scope.run(() => this.abort(this.timeout(late[0]!)), undefined, undefined)
    for (const entry of late) this.#settle(entry, this.timeout(entry))
  }
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
    if (this.#shut(line)?.[1] === 'away') return
    for (const wake of line.waiting) wake()
    line.waiting.clear()
  }

  /** Settles when no call is inside this hook any more, or after its time-out. */
  async quiet(ref: AnyHook): Promise<void> {
    const line = this.#line(ref)
    const until = performance.now() + this.timeoutOf(ref)
    while (line.running > 0 && performance.now() < until) await new Promise(resolve => setTimeout(resolve, 1))
  }

  ready(ref: AnyHook): Awaitable<void> {
    const line = this.#lines.get(ref.slot)
    if (line?.shut.size && this.#shut(line)) return this.#opened(line)
  }

  call<H extends AnyHook>(ref: H, input: HookInput<H>, caller?: Stoppable): Awaitable<HookResult<H>> {
    const line = this.#lines.get(ref.slot)
    if (line === undefined) return (ref.mode === 'waterfall' ? input : ref.mode === 'notify' ? NOTHING : undefined) as HookResult<H>
    if (line.shut.size === 0 || !this.#shut(line)) return this.#run(line, input, caller) as Awaitable<HookResult<H>>
    if (ref.options.tx) throw this.#absent(line)
    return this.#opened(line).then(() => this.#run(line, input, caller)) as Promise<HookResult<H>>
  }

  #run(line: Line, input: unknown, caller: Stoppable | undefined): unknown {
    return line.ref.mode === 'notify' ? new Announcement(this, line, caller).run(input) : new Walk(this, line, input, caller).run()
  }

  timeoutOf(ref: AnyHook): number { return ref.options.timeout ?? (ref.options.tx ? 500 : this.options.timeout) }

  /** The guard that keeps the hook closed, a hopeless one first. An early hook may be asked while guards are still to come. */
  #shut({ shut, ref }: Line): [plugin: string, state: GuardState] | undefined {
    const closed = [...shut].filter(([, state]) => state !== 'coming' || !ref.options.early)
    return closed.find(([, state]) => state !== 'away') ?? closed[0]
  }

  #absent(line: Line, [plugin, state]: [string, GuardState] = this.#shut(line)!): BackplaneError {
    const told = { coming: 'not set up yet; call it from start() or later', open: 'there', away: 'being swapped', failed: 'not running' }[state]
    return PluginErrors.UNAVAILABLE({ plugin, hook: line.ref.id, state: told })
  }

  async #opened(line: Line): Promise<void> {
    const open = async () => { while (this.#shut(line)?.[1] === 'away') await new Promise<void>(resolve => line.waiting.add(resolve)) }
    await within(this.options.deadlines, WAIT_MS, () => this.#absent(line), open)
    if (this.#shut(line)) throw this.#absent(line)
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
