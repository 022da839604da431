import { Worker } from 'node:worker_threads'
import type { BackplaneError, Clock, Logger } from '#core'
import { CalculatorErrors } from '#contracts/agent-pack-core'
import { readEquations, type FoundEquations, type Solved } from './equation.ts'
import { readSentence, type Findings, type Outcome } from './expression.ts'

export interface CalculatorOptions {
  /** Milliseconds that one expression, or the equations that hold together, may take. */
  readonly timeout_ms: number
  /** MiB that the worker's heap may have. */
  readonly memory_mb: number
}

/** Starting the worker is not the expression's fault, so it has a limit of its own. */
const START_MS = 20_000
const here = import.meta.url

/** A thread that runs worker.ts, as source or built. Its environment is empty. */
function startWorker(memory_mb: number): Worker {
  const options = { env: {}, execArgv: [], resourceLimits: { maxOldGenerationSizeMb: memory_mb, stackSizeMb: 4 } }
  if (!here.endsWith('.ts')) return new Worker(new URL('./worker.js', here), options)
  // A worker does not inherit the TypeScript loader.
  const [loader, file] = [import.meta.resolve('tsx/esm/api'), new URL('./worker.ts', here).href].map(each => JSON.stringify(each))
  return new Worker(`import(${loader}).then(({ register }) => { register(); return import(${file}) })`, { ...options, eval: true })
}

/**
 * Computes expressions and solves equations in a thread of its own, one after another, within bounds of time and memory. The thread is
 * started by the first expression, used again, and ended by what takes too long, is aborted or fails in it.
 */
export class Calculator implements AsyncDisposable {
  #worker: Promise<Worker> | undefined
  #queue: Promise<unknown> = Promise.resolve()
  #closed = new AbortController()
  constructor(readonly options: CalculatorOptions, readonly clock: Clock, readonly log: Logger) {}

  /** The expressions in a sentence, `most` of them; computes nothing. Throws CALCULATOR_UNREADABLE. */
  find(sentence: string, most: number): Findings {
    // What belongs to an equation is no calculation of its own.
    const spans = readEquations(sentence)?.spans ?? []
    return readSentence(spans.reduce((text, { from, to }) => text.slice(0, from) + ';'.repeat(to - from) + text.slice(to), sentence), most)
  }

  /** The equations that a sentence asks to solve; solves nothing. Throws CALCULATOR_UNREADABLE. */
  findEquations(sentence: string): FoundEquations | undefined { return readEquations(sentence) }

  /** What can't be computed, or not in time, is told in the outcome. Rejects only when it is aborted or closed. */
  evaluate(expression: string, signal: AbortSignal): Promise<Outcome> { return this.#enqueue({ expression }, signal) }

  /** As `evaluate`, of equations that hold together. */
  solve(equations: readonly string[], signal: AbortSignal): Promise<Solved> { return this.#enqueue({ equations }, signal) }

  async #enqueue<T extends object>(task: T, signal: AbortSignal): Promise<T & { readonly error?: string }> {
    const work = () => this.#work(task, signal)
    const result = this.#queue.then(work, work)
    this.#queue = result.catch(() => {})
    return result
  }

  async #work<T extends object>(task: T, signal: AbortSignal): Promise<T & { readonly error?: string }> {
    signal.throwIfAborted()
    if (this.#closed.signal.aborted) throw CalculatorErrors.CLOSED()
    let worker: Worker
    try {
      this.#worker ??= this.#start()
      worker = await this.#worker
    } catch (error) {
      this.#worker = undefined
      if (CalculatorErrors.CLOSED.is(error)) throw error
      return { ...task, error: this.#crashed(error).message }
    }
    try {
      return await this.#hear(worker, this.options.timeout_ms, signal, () => worker.postMessage(task))
    } catch (error) {
      this.#worker = undefined
      await worker.terminate()
      if (CalculatorErrors.TIMEOUT.is(error) || CalculatorErrors.CRASHED.is(error)) return { ...task, error: error.message }
      throw error
    }
  }

  async #start(): Promise<Worker> {
    const worker = startWorker(this.options.memory_mb)
    // It must not keep the process alive, nor end it when it fails between two expressions.
    worker.unref()
    worker.on('error', () => {})
    try {
      await this.#hear(worker, START_MS, new AbortController().signal, () => {})
      // Died at rest: the next expression gets a new one.
      worker.once('exit', () => { this.#worker = undefined })
      return worker
    } catch (error) {
      await worker.terminate()
      throw error
    }
  }

  /** What a thread dies of may name files of this machine, so only the log has it in full. */
  #crashed(error: unknown): BackplaneError {
    if (CalculatorErrors.CRASHED.is(error)) return error
    this.log.warn('the calculator\'s thread ended', { err: error })
    const full = (error as { code?: unknown } | undefined)?.code === 'ERR_WORKER_OUT_OF_MEMORY'
    return CalculatorErrors.CRASHED({ reason: full ? 'it ran out of memory' : 'see the log' }, { cause: error })
  }

  /** The worker's next message. */
  #hear<T>(worker: Worker, ms: number, signal: AbortSignal, begin: () => void): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const ends = {
        message: (value: T) => done(() => resolve(value)), error: (error: unknown) => crash(error),
        exit: (code: number) => crash(new Error(`exit code ${code}`)),
      }
      const crash = (error: unknown) => done(() => reject(this.#crashed(error)))
      const aborted = () => done(() => reject(signal.reason))
      const closed = () => done(() => reject(CalculatorErrors.CLOSED()))
      const cancel = this.clock.after(ms, () => done(() => reject(CalculatorErrors.TIMEOUT({ ms }))))
      const done = (settle: () => void) => {
        cancel()
        worker.unref()
        for (const [event, handler] of Object.entries(ends)) worker.off(event, handler)
        signal.removeEventListener('abort', aborted)
        this.#closed.signal.removeEventListener('abort', closed)
        settle()
      }
      for (const [event, handler] of Object.entries(ends)) worker.on(event, handler)
      signal.addEventListener('abort', aborted)
      this.#closed.signal.addEventListener('abort', closed)
      worker.ref()
      begin()
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort()
    const worker = await this.#worker?.catch(() => undefined)
    this.#worker = undefined
    await this.#queue
    await worker?.terminate()
  }
}
