import { reasonOf, type Live, type Logger } from '#core'
import type { Broadcast } from '#contracts/cluster'
import { JobErrors } from '#contracts/jobs'
import type { Worker } from './worker.ts'

const CHANNEL = 'jobs.cancelled'

/** An attempt. A message that comes late must not stop a later one of the same job. */
interface Cancelled { readonly id: string; readonly token: number }
const isCancelled = (message: unknown): message is Cancelled =>
  typeof (message as Cancelled | null)?.id === 'string' && typeof (message as Cancelled).token === 'number'

/** Tells whoever runs a cancelled job to stop: here at once, elsewhere through `Broadcast`. Whom that misses learns it when it renews its lease. */
export class Cancellations {
  #subscription: Promise<AsyncDisposable | undefined> = Promise.resolve(undefined)

  constructor(readonly worker: Pick<Worker, 'find'>, readonly broadcast: Live<Broadcast>, readonly log: Logger) {
    broadcast.watch(current => { this.#subscription = this.#follow(current) })
  }

  tell(cancelled: Cancelled): void {
    if (this.#stop(cancelled)) return
    this.broadcast.current?.publish(CHANNEL, { id: cancelled.id, token: cancelled.token })
      .catch((error: unknown) => this.log.warn('other processes were not told of a cancelled job', { job_id: cancelled.id, reason: reasonOf(error) }))
  }

  async close(): Promise<void> { await (await this.#subscription)?.[Symbol.asyncDispose]() }

  #stop({ id, token }: Cancelled): boolean {
    const execution = this.worker.find(id)
    if (execution?.token !== token) return false
    execution.abort(JobErrors.CANCELLED())
    return true
  }

  async #follow(broadcast: Broadcast | undefined): Promise<AsyncDisposable | undefined> {
    const before = await this.#subscription
    try {
      await before?.[Symbol.asyncDispose]()
      return await broadcast?.subscribe(CHANNEL, message => { if (isCancelled(message)) this.#stop(message) })
    } catch (error) {
      this.log.warn('what another process cancels is only seen when a lease is renewed', { reason: reasonOf(error) })
      return undefined
    }
  }
}
