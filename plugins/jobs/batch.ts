import { AsyncResource } from 'node:async_hooks'
import { DatabaseErrors, type Database, type Tx } from '#contracts/database'

interface Waiting<In, Out> {
  readonly item: In
  resolve(value: Out): void
  reject(error: unknown): void
}

export interface BatchOptions<In, Out> {
  readonly database: Pick<Database, 'transaction' | 'knex'>
  /** Items of one transaction: it holds the event loop, and on SQLite every other writer. */
  readonly most: number
  /** Answers in the order of the items; an error is the answer to one of them. When it rejects, nothing is kept, and each is written alone. */
  write(items: readonly In[], tx: Tx): Promise<readonly (Out | Error)[]>
}

/**
 * Writes what comes at the same time in one transaction: what comes while one is on its way goes into the next. Nobody waits for company, and nobody
 * pays for the failure of another.
 */
export class Batch<In, Out> {
  #waiting: Waiting<In, Out>[] = []
  #writing = false
  // In the scope of nobody: it serves all of them.
  readonly #outside = new AsyncResource('BackplaneBatch', { requireManualDestroy: true })

  constructor(readonly options: BatchOptions<In, Out>) {}

  add(item: In): Promise<Out> {
    // Throws in the middle of an open transaction: on SQLite this would wait for that, and that for this.
    this.options.database.knex()
    return new Promise((resolve, reject) => {
      this.#waiting.push({ item, resolve, reject })
      if (!this.#writing) this.#outside.runInAsyncScope(() => void this.#loop())
    })
  }

  async #loop(): Promise<void> {
    this.#writing = true
    while (this.#waiting.length) await this.#next()
    this.#writing = false
  }

  async #next(): Promise<void> {
    const { database, most } = this.options
    const taken: Waiting<In, Out>[] = []
    try {
      const answers = await database.transaction(async tx => {
        // As late as this: whoever came while it waited for its turn is in it. And once: after a deadlock it is run again.
        if (!taken.length) taken.push(...this.#waiting.splice(0, most))
        return this.options.write(taken.map(each => each.item), tx)
      })
      for (const [at, each] of taken.entries()) answer(each, answers[at]!)
    } catch (error) {
      if (!taken.length) taken.push(...this.#waiting.splice(0, most))
      if (taken.length === 1 || isNobodys(error)) for (const each of taken) each.reject(error)
      else await Promise.all(taken.map(each => this.#alone(each)))
    }
  }

  async #alone(each: Waiting<In, Out>): Promise<void> {
    try {
      const [only] = await this.options.database.transaction(tx => this.options.write([each.item], tx))
      answer(each, only!)
    } catch (error) { each.reject(error) }
  }
}

/** Nobody's fault, and perhaps all of it was kept. */
const isNobodys = (error: unknown): boolean => DatabaseErrors.UNAVAILABLE.is(error) || DatabaseErrors.IN_DOUBT.is(error)

function answer<In, Out>({ resolve, reject }: Waiting<In, Out>, given: Out | Error): void {
  if (given instanceof Error) reject(given)
  else resolve(given)
}
