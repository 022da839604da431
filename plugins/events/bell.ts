import { reasonOf, type Clock, type Live, type Logger } from '#core'
import type { Broadcast } from '#contracts/cluster'

const CHANNEL = 'events.appended'
/** Other processes are told at most this often. Milliseconds. */
const APART_MS = 25

export interface BellDeps { readonly broadcast: Live<Broadcast>; readonly clock: Clock; readonly log: Logger; readonly id: string }

/** Says that there is news in the log: here at once, elsewhere through `Broadcast`. It may be missed, so nobody relies on it alone. */
export class Bell {
  readonly #listeners = new Set<() => void>()
  #subscription: Promise<AsyncDisposable | undefined> = Promise.resolve(undefined)
  #resting = false
  #again = false

  constructor(readonly deps: BellDeps) {
    deps.broadcast.watch(broadcast => { this.#subscription = this.#follow(broadcast) })
  }

  /** Returns how to listen no more. */
  listen(heard: () => void): () => void {
    this.#listeners.add(heard)
    return () => void this.#listeners.delete(heard)
  }

  ring(): void {
    this.#ringHere()
    if (this.#resting) { this.#again = true; return }
    this.#tell()
  }

  async close(): Promise<void> {
    this.#listeners.clear()
    await (await this.#subscription)?.[Symbol.asyncDispose]()
  }

  #ringHere(): void { for (const heard of this.#listeners) heard() }

  #tell(): void {
    const { broadcast: { current }, clock, id } = this.deps
    if (!current) return
    this.#resting = true
    clock.after(APART_MS, () => {
      this.#resting = false
      if (this.#again) { this.#again = false; this.#tell() }
    })
    current.publish(CHANNEL, id).catch((error: unknown) => this.deps.log.debug('other processes were not told of events', { reason: reasonOf(error) }))
  }

  async #follow(broadcast: Broadcast | undefined): Promise<AsyncDisposable | undefined> {
    const before = await this.#subscription
    try {
      await before?.[Symbol.asyncDispose]()
      return await broadcast?.subscribe(CHANNEL, sender => { if (sender !== this.deps.id) this.#ringHere() })
    } catch (error) {
      this.deps.log.warn('news of other processes is only seen by looking', { reason: reasonOf(error) })
      return undefined
    }
  }
}
