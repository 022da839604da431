import { reasonOf, type Clock, type Logger } from '#core'
import type { Tx } from '#contracts/database'
import type { Consumer, Deliver, JobQueue, QueueEntry } from '#contracts/queue'
import type { RedisConnection } from '#contracts/redis'
import { MOST, RedisConsumer, type Source } from './consumer.ts'
import type { Engine } from './engine.ts'
import type { Loss } from './loss.ts'

export interface QueueDeps {
  readonly engine: Engine
  /** What the engine works on. */
  readonly connection: RedisConnection
  /** A connection for one consumer to wait on. */
  readonly connect: () => Promise<RedisConnection>
  /** Throws why Redis may not be used. */
  readonly expectFit: () => void
  readonly loss: Pick<Loss, 'listen'>
  readonly clock: Clock
  readonly log: Logger
  readonly lockMs: number
  /** Of this process, as it stands in the locks. */
  readonly id: string
}

/** The queue in Redis, by BullMQ. An id is there from its being added until it was delivered. */
export class BullQueue implements JobQueue, AsyncDisposable {
  readonly can = { transactional: false, distributed: true }
  readonly #consumers = new Set<RedisConsumer>()
  /** What we know that we took, and did not leave yet. */
  readonly #ours = new Set<string>()
  readonly #cancel: () => void

  constructor(readonly deps: QueueDeps) {
    this.#cancel = deps.clock.every(deps.lockMs / 2, () => this.#putBackStalled())
    deps.connection.onReady(() => void this.#putBackUnheard().catch(() => {}))
  }

  async enqueue(entries: readonly QueueEntry[], tx?: Tx): Promise<void> {
    if (tx) throw new TypeError('this queue is not in the database: enqueue after the commit, as `can.transactional` says')
    if (!entries.length) return
    await this.#ask(() => this.deps.engine.add(entries, this.deps.clock.now()))
  }

  async consume(deliver: Deliver): Promise<Consumer> {
    const { clock, log } = this.deps
    const consumer: RedisConsumer = new RedisConsumer({
      source: this.#source(), deliver, connection: await this.deps.connect(), clock, log, gone: () => this.#consumers.delete(consumer),
    })
    this.#consumers.add(consumer)
    return consumer
  }

  async remove(ids: readonly string[], tx?: Tx): Promise<void> {
    // What is left there, `jobs` refuses.
    if (tx) return tx.afterCommit(() => this.remove(ids).catch(error => this.deps.log.debug('ids were not removed', { reason: reasonOf(error) })))
    await this.#ask(() => Promise.all(ids.map(id => this.deps.engine.remove(id))))
  }

  depth(): Promise<number> { return this.#ask(() => this.deps.engine.waiting()) }

  onLoss(listener: () => void): () => void { return this.deps.loss.listen(listener) }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#cancel()
    await Promise.all([...this.#consumers].map(each => each[Symbol.asyncDispose]()))
  }

  #source(): Source {
    const { engine, clock, id: token } = this.deps
    const each = async (ids: readonly string[], what: (id: string) => Promise<void>) => {
      engine.together()
      const leave = (id: string) => what(id).finally(() => this.#ours.delete(id))
      const failed = (await Promise.allSettled(ids.map(leave))).find(result => result.status === 'rejected')
      if (failed) throw failed.reason
    }
    let many = false
    return {
      bell: engine.bell,
      take: async wanted => {
        const room = Math.min(wanted, MOST)
        const ids = await this.#take(room, many)
        many = ids.length === room
        return ids
      },
      acknowledge: async ids => {
        await each(ids, id => engine.acknowledge(id, token))
        await engine.addAgain(ids, clock.now())
      },
      putBack: async ids => {
        await each(ids, id => engine.putBack(id, token))
        await engine.ring()
      },
    }
  }

  /**
   * As many as are wanted, at once if there were so many the last time. Else the first one is asked for with the count of the rest, so a single
   * job waits for one answer and many for two; taken by twos and threes, their claims would never come together in one transaction.
   */
  async #take(room: number, many: boolean): Promise<readonly string[]> {
    this.deps.expectFit()
    const { engine } = this.deps
    const [first, waiting] = many ? [] : await Promise.all([this.#takeOne(), engine.waiting().catch(() => 0)])
    if (!many && first === undefined) return []
    const count = many ? room : Math.min(room - 1, waiting!)
    engine.together()
    const rest = await Promise.allSettled(Array.from({ length: count }, () => this.#takeOne()))
    const found = rest.flatMap(each => (each.status === 'fulfilled' && each.value !== undefined ? [each.value] : []))
    const ids = first === undefined ? found : [first, ...found]
    // Some may be locked though the connection has broken: they are delivered, and the others come when their lock is over.
    const failed = rest.find(each => each.status === 'rejected')
    if (failed && !ids.length) throw failed.reason
    return ids
  }

  async #takeOne(): Promise<string | undefined> {
    const id = await this.deps.engine.take(this.deps.id)
    if (id !== undefined) this.#ours.add(id)
    return id
  }

  /** What Redis gave to us, or was told to let go, while the connection broke, would else wait until its lock is over. */
  async #putBackUnheard(): Promise<void> {
    const { engine, id: token, log } = this.deps
    const ids = (await engine.taken(token)).filter(id => !this.#ours.has(id))
    if (!ids.length) return
    await Promise.all(ids.map(id => engine.putBack(id, token)))
    await engine.ring()
    log.info('ids were put back whose delivery was cut off with the connection', { count: ids.length })
  }

  async #putBackStalled(): Promise<void> {
    if (!this.#consumers.size) return
    const count = await this.deps.engine.putBackStalled().catch(() => 0)
    if (count) this.deps.log.info('ids were put back that a consumer took and did not deliver', { count })
  }

  async #ask<T>(what: () => Promise<T>): Promise<T> {
    this.deps.expectFit()
    try { return await what() } catch (error) { throw this.deps.connection.unavailable(error) }
  }
}
