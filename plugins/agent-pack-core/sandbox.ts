import type { Clock, Logger } from '#core'
import { CodeErrors } from '#contracts/agent-pack-core'
import { Death, SandboxProcess, type Outcome, type Task } from './sandbox-process.ts'

export interface SandboxOptions {
  /** Milliseconds that the code may take. */
  readonly timeout_ms: number
  /** MiB that it may use. */
  readonly memory_mb: number
  /** Bytes that it may print, and characters of its result. */
  readonly max_output: number
  /** Runs at a time. */
  readonly concurrency: number
}

/** Starting a process is not the code's fault, so it has a limit of its own. */
const START_MS = 20_000
/** The engine ends by itself what takes too long; what does not even notice that is killed this much later. */
const KILL_AFTER_MS = 1_000
const REST_MS = 60_000
const RUNS_PER_PROCESS = 100
/** A process that is killed from outside is not the code's fault either. */
const TRIES = 2

interface Worker { readonly child: SandboxProcess; runs: number }

/** Runs JavaScript in processes that hold nothing of ours. One that ended a run well is kept for the next. */
export class Sandbox implements AsyncDisposable {
  #spare: Worker | undefined
  #endRest = () => {}
  #running = 0
  readonly #waiting: (() => void)[] = []
  readonly #processes = new Set<SandboxProcess>()
  readonly #closed = new AbortController()
  constructor(readonly options: SandboxOptions, readonly clock: Clock, readonly log: Logger) {}

  /** What the code did wrong is told in the outcome. Rejects when it is aborted or closed, or with CODE_CRASHED. */
  async run(code: string, given: AbortSignal): Promise<Outcome> {
    const signal = AbortSignal.any([given, this.#closed.signal])
    await this.#turn(signal)
    try {
      for (let tries = 1; ; tries++) {
        try { return await this.#try(code, signal) } catch (error) {
          if (!(error instanceof Death)) throw error
          this.log.warn('a sandbox ended', { how: error.how, said: error.said, tries })
          if (error.how === 'SIGABRT') return this.#ended('memory', `it needs more than ${this.options.memory_mb} MiB of memory`)
          if (tries === TRIES) throw CodeErrors.CRASHED({}, { cause: error })
        }
      }
    } finally {
      this.#running--
      this.#waiting.shift()?.()
    }
  }

  #ended(kind: 'timeout' | 'memory', message: string): Outcome { return { output: '', cut: false, error: { kind, message } } }

  async #turn(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (this.#running >= this.options.concurrency) {
      await new Promise<void>((resolve, reject) => {
        const go = () => { signal.removeEventListener('abort', leave); resolve() }
        const leave = () => { this.#waiting.splice(this.#waiting.indexOf(go), 1); reject(signal.reason) }
        this.#waiting.push(go)
        signal.addEventListener('abort', leave, { once: true })
      })
    }
    this.#running++
  }

  async #try(code: string, signal: AbortSignal): Promise<Outcome> {
    const { timeout_ms, memory_mb, max_output } = this.options
    const worker = this.#takeSpare() ?? await this.#start(signal)
    const task: Task = { code, timeout_ms, memory_mb, max_output }
    const limit = timeout_ms + KILL_AFTER_MS
    const late = new Error('the time is up')
    try {
      const outcome = await this.#within(worker.child, limit, () => late, signal, () => worker.child.run(task))
      worker.runs++
      const spoilt = outcome.error && outcome.error.kind !== 'thrown' && outcome.error.kind !== 'pending'
      if (spoilt || this.#spare || worker.runs >= RUNS_PER_PROCESS || signal.aborted) worker.child.kill('it has done its work')
      else this.#keep(worker)
      return outcome
    } catch (error) {
      if (error === late) return this.#ended('timeout', `it took longer than ${timeout_ms} ms`)
      throw error
    }
  }

  async #start(signal: AbortSignal): Promise<Worker> {
    const child = new SandboxProcess()
    this.#processes.add(child)
    void child.ended.then(() => this.#processes.delete(child))
    await this.#within(child, START_MS, () => child.kill('it did not start'), signal, () => child.ready())
    return { child, runs: 0 }
  }

  /** Kills the process when its time is up, or when nobody waits for it. */
  async #within<T>(child: SandboxProcess, ms: number, late: () => Error, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    let reason: unknown
    const end = (why: unknown) => { reason ??= why; child.kill('it was stopped') }
    const aborted = () => end(signal.reason)
    const cancel = this.clock.after(ms, () => end(late()))
    signal.addEventListener('abort', aborted, { once: true })
    try {
      if (signal.aborted) aborted()
      return await work()
    } catch (error) {
      throw reason ?? error
    } finally {
      cancel()
      signal.removeEventListener('abort', aborted)
    }
  }

  #keep(worker: Worker): void {
    this.#spare = worker
    this.#endRest = this.clock.after(REST_MS, () => this.#takeSpare()?.child.kill('it is no longer needed'))
  }

  /** One that died at rest is none. */
  #takeSpare(): Worker | undefined {
    const worker = this.#spare
    this.#spare = undefined
    this.#endRest()
    return worker?.child.dead ? undefined : worker
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#takeSpare()
    this.#closed.abort(CodeErrors.CLOSED())
    const processes = [...this.#processes]
    for (const child of processes) child.kill('it is being stopped')
    await Promise.all(processes.map(child => child.ended))
  }
}
