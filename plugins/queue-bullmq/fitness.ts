import { type BackplaneError, type Logger } from '#core'
import type { Redis } from '#contracts/redis'

/** Whether Redis keeps what it is given. Asked at the start, and each time that Redis is back: it may be another one. */
export class Fitness {
  #flaws: readonly BackplaneError[] | undefined
  #told = ''
  constructor(readonly redis: Redis, readonly refuses: boolean, readonly log: Logger) {}

  /** Redis was away each time that it was asked. */
  get unknown(): boolean { return this.#flaws === undefined }

  /** Throws what is wrong, where that is refused. */
  expect(): void { if (this.refuses && this.#flaws?.length) throw this.#flaws[0]! }

  async look(): Promise<void> {
    const flaws = await this.redis.flaws().catch(() => undefined)
    if (!flaws) return
    this.#flaws = flaws
    const text = flaws.map(each => each.code).join()
    if (text !== this.#told) for (const { message, fix, code } of flaws) this.log[this.refuses ? 'error' : 'warn'](message, { code, fix })
    this.#told = text
  }
}
