import assert from 'node:assert/strict'
import type { Command } from 'ioredis'
import type { Consumer, Deliver, JobQueue, QueueEntry } from '#contracts/queue'
import { RedisErrors, type RedisClient, type RedisConnection } from '#contracts/redis'
import { Engine } from '../../../plugins/queue-bullmq/engine.ts'
import { BullQueue } from '../../../plugins/queue-bullmq/queue.ts'
import { readAddress } from '../../../plugins/redis/address.ts'
import { openClient } from '../../../plugins/redis/client.ts'
import type { RedisServer } from '../../support/services.ts'
import type { Host, Lane, Outside } from './walk-queues.ts'

/** Longer than any walk: a lock ends when the walk says so. */
const LOCK_MS = 600_000
const PREFIX = 'walk'
const keyOf = (name: string) => `{${PREFIX}}:jobs:${name}`
/** What BullMQ keeps of no job. */
const OF_THE_QUEUE = ['id', 'pc', 'meta', 'events', 'marker', 'stalled', 'stalled-check'].map(keyOf)

type Standalone = Exclude<RedisClient, { nodes: unknown }>
const connect = (server: RedisServer): Standalone => {
  const client = openClient(readAddress(server.url), { use: 'command', name: 'walk', tls: { verify: true }, connectMs: 2_000, commandMs: 20_000 }) as Standalone
  client.on('error', () => {})
  return client
}
/** Sooner than it would by itself. */
async function revive(client: Standalone): Promise<void> {
  if (client.status === 'ready') return
  if (client.status === 'connecting' || client.status === 'connect') return new Promise(resolve => client.once('ready', () => resolve()))
  client.disconnect()
  await client.connect()
}

/** The engine as the product has it, which tells what its process began and did not end. */
class WatchedEngine extends Engine {
  constructor(client: RedisClient, readonly place: RedisPlace) { super(client, PREFIX, 'jobs', LOCK_MS) }

  override async add(entries: readonly QueueEntry[], now: number): Promise<void> {
    const lost = entries.filter(({ id }) => this.place.lost.delete(id))
    try { await super.add(entries, now) } catch (error) {
      for (const { id } of lost) this.place.lost.add(id)
      throw error
    }
  }
  /** Until those that came back meanwhile were added again, they are in nobody's hands. */
  override async acknowledge(id: string, token: string): Promise<void> {
    this.place.leaving.add(id)
    await super.acknowledge(id, token)
  }
  override async addAgain(ids: readonly string[], now: number): Promise<void> {
    await super.addAgain(ids, now)
    for (const id of ids) this.place.leaving.delete(id)
  }
  override async remove(id: string): Promise<void> {
    this.place.lost.add(id)
    await super.remove(id)
  }
}

interface Kept { readonly key: string; readonly value: Buffer; readonly ttl: number }

/** A Redis of its own with the queue of `queue-bullmq`; each process has a connection. It may be emptied, killed, cut off, or be put back to what it was. */
export class RedisPlace implements Outside, AsyncDisposable {
  readonly lost = new Set<string>()
  readonly leaving = new Set<string>()
  readonly lanes = new Set<RedisLane>()
  readonly #late: (() => void)[] = []
  readonly #client: Standalone
  readonly #engine: Engine
  #kept: readonly Kept[] = []
  away = false
  /** What was in it when it was killed. */
  #killed: ReadonlySet<string> | undefined

  constructor(readonly server: RedisServer) {
    this.#client = connect(server)
    this.#engine = new Engine(this.#client, PREFIX, 'jobs', LOCK_MS)
  }

  /** Empty, for another walk. */
  async renew(): Promise<void> {
    await this.comeBack()
    await revive(this.#client)
    await this.#client.flushall()
    this.#late.length = 0
    this.#kept = []
    this.lost.clear()
    this.leaving.clear()
  }

  open(host: Host): Lane {
    const lane = new RedisLane(host, this)
    this.lanes.add(lane)
    return lane
  }
  get up(): boolean { return !this.#killed }

  async ids(): Promise<ReadonlySet<string>> {
    if (this.#killed) return this.#killed
    const [wait, prioritized, active] = await Promise.all([
      this.#client.lrange(keyOf('wait'), 0, -1), this.#client.zrange(keyOf('prioritized'), '0', '-1'), this.#client.lrange(keyOf('active'), 0, -1),
    ])
    return new Set([...wait, ...prioritized, ...active, ...this.leaving])
  }

  /** What is there and shouldn't be, when all jobs have ended and all ids were delivered. */
  async left(): Promise<string[]> {
    const again = (await this.#client.hkeys(keyOf('again'))).filter(id => !this.leaving.has(id) && !this.lost.has(id))
    return [...again, ...(await this.#client.keys('*')).filter(key => !OF_THE_QUEUE.includes(key) && key !== keyOf('again'))]
  }

  async lose(): Promise<void> { if (!this.#killed) await this.#losing(() => this.#client.flushall()) }

  async stall(): Promise<void> {
    if (this.#killed) return
    const active = await this.#client.lrange(keyOf('active'), 0, -1)
    await this.#client.del([keyOf('stalled-check'), ...active.map(id => keyOf(`${id}:lock`))])
    if (active.length) await this.#client.sadd(keyOf('stalled'), ...active)
    await this.#engine.putBackStalled()
  }

  /** As a replica has it that takes over: what was written since is gone, and what was taken away is there. */
  async remember(): Promise<void> {
    if (this.#killed) return
    const keys = await this.#client.keys('*')
    this.#kept = await Promise.all(keys.map(async key => ({ key, value: (await this.#client.dumpBuffer(key))!, ttl: Math.max(0, await this.#client.pttl(key)) })))
  }
  async goBack(): Promise<void> {
    if (this.#killed) return
    await this.#losing(async () => {
      await this.#client.flushall()
      await Promise.all(this.#kept.map(({ key, value, ttl }) => this.#client.restore(key, ttl, value)))
    })
  }

  /** With SIGKILL; what it had not written to its file is lost. */
  async kill(): Promise<void> {
    if (this.#killed) return
    this.#killed = await this.ids()
    await this.server.crash()
  }
  leave(): void { this.away = true }
  async comeBack(): Promise<void> {
    this.away = false
    const killed = this.#killed
    if (!killed) return
    await this.server.restart()
    this.#killed = undefined
    await Promise.all([this.#client, ...[...this.lanes].map(lane => lane.client)].map(revive))
    await this.#losing(async () => {}, killed)
  }

  later<T>(work: () => Promise<T>): Promise<T> { return new Promise((resolve, reject) => { this.#late.push(() => void work().then(resolve, reject)) }) }
  catchUp(): void { for (const work of this.#late.splice(0)) work() }

  async [Symbol.asyncDispose](): Promise<void> { this.#client.disconnect() }

  async #losing(what: () => Promise<unknown>, before?: ReadonlySet<string>): Promise<void> {
    const had = before ?? await this.ids()
    await what()
    const has = await this.ids()
    for (const id of had) if (!has.has(id)) this.lost.add(id)
  }
}

/** The queue as it is, with everything but its waiting for a bell in Redis: that rings when the walk says so. */
export class RedisLane implements Lane {
  readonly client: Standalone
  readonly queue: JobQueue
  readonly ready: Promise<void>
  #consumer: Consumer | undefined
  #deliver: Deliver | undefined
  #ring = () => {}
  /** It stands still before it delivers, or when it has, before it says so. */
  #held: { readonly delivered: boolean; readonly over: Promise<void> } | undefined
  #letGo = () => {}
  /** After so many commands the answer to one is lost. */
  cutAfter = Infinity

  constructor(readonly host: Host, readonly place: RedisPlace) {
    const client = this.client = connect(place.server)
    this.ready = place.up ? revive(client) : Promise.resolve()
    const send = client.sendCommand.bind(client)
    // Not all of a pipeline at once: it, too, may be cut in two.
    client.sendCommand = command => (client.status === 'ready' ? this.#send(command, send) : send(command))
    const bull = new BullQueue({
      engine: new WatchedEngine(client, place), connection: connectionOf(client), connect: async () => this.#bell(), expectFit() {},
      clock: host.clock, log: host.log, loss: { listen: () => () => {} }, lockMs: LOCK_MS, id: host.name,
    })
    this.queue = {
      can: bull.can, consume: deliver => this.#consume(bull, deliver), depth: () => bull.depth(),
      enqueue: (entries, tx) => host.fly(() => bull.enqueue(entries, tx)), remove: (ids, tx) => place.later(() => bull.remove(ids, tx)),
    }
  }

  async claim(count: number): Promise<void> {
    assert.ok(this.#consumer, 'nobody consumes')
    this.#consumer.want(count)
    this.#ring()
    await this.host.idle()
    this.#consumer.want(0)
  }
  carry(count: number, delivered: boolean): Promise<void> {
    this.#held ??= { delivered, over: new Promise(resolve => { this.#letGo = resolve }) }
    return this.claim(count)
  }
  async deliverCarried(): Promise<void> {
    this.#held = undefined
    this.#letGo()
  }
  deliver(ids: readonly string[]): Promise<void> { return this.host.fly(() => this.#deliver!(ids)) }

  async [Symbol.asyncDispose](): Promise<void> {
    this.place.lanes.delete(this)
    this.client.disconnect()
  }

  async #consume(bull: BullQueue, deliver: Deliver): Promise<Consumer> {
    this.#deliver = deliver
    const consumer = this.#consumer = await bull.consume(async (ids, tx) => {
      if (!this.#held?.delivered) await this.#held?.over
      await deliver(ids, tx)
      await this.#held?.over
    })
    return {
      empty: this.host.takes, want() {}, take: async (count, tx) => (this.host.takes ? consumer.take(count, tx) : []),
      [Symbol.asyncDispose]: async () => {
        await this.deliverCarried()
        await consumer[Symbol.asyncDispose]()
      },
    }
  }

  /** Each command is a moment at which its process may end, or its connection. */
  #send(command: Command, send: (command: Command) => unknown): unknown {
    try { this.host.point() } catch (error) {
      command.reject(error as Error)
      return command.promise
    }
    const cut = this.place.away || this.cutAfter-- <= 0
    if (!this.place.away) {
      send(command)
      // What was sent arrives, whoever waits for the answer.
      void this.host.fly(async () => { await (cut ? send(pingOf(command)) : command.promise) }).catch(() => {})
    }
    if (cut) {
      this.cutAfter = Infinity
      command.reject(new Error('Connection is closed.'))
    }
    return command.promise
  }

  #bell(): RedisConnection {
    const ring = () => this.#ring()
    const client = { bzpopmin: () => new Promise<void>(resolve => { this.#ring = resolve }), zadd: async () => 0, disconnect: ring } as unknown as RedisClient
    return { ...connectionOf(this.client), client, [Symbol.asyncDispose]: async () => ring() }
  }
}

const pingOf = (command: Command): Command => new (command.constructor as typeof Command)('ping')
const connectionOf = (client: RedisClient): RedisConnection => ({
  client, ready: true, onReady: listener => { client.on('ready', listener) }, unavailable: error => RedisErrors.UNAVAILABLE({ reason: String(error) }), async [Symbol.asyncDispose]() {},
})
