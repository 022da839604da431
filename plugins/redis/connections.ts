import { Cluster } from 'ioredis'
import { Deadline, reasonOf, Secret, type BackplaneError, type Clock, type Logger } from '#core'
import { RedisErrors, type Redis, type RedisClient, type RedisConnection, type RedisUse } from '#contracts/redis'
import { readAddress, type RedisAddress } from './address.ts'
import { isReady, openClient, renewLogin } from './client.ts'
import type { RedisConfig } from './config.ts'
import { findFlaws } from './flaws.ts'

/** How often a connection that sends nothing by itself is asked whether it lives. */
const PING_MS = 2_000

/** What the health check has written. */
const KEPT_MS = 10_000

export interface ConnectionsDeps {
  readonly config: RedisConfig
  readonly clock: Clock
  readonly log: Logger
}

class Silence extends Deadline {
  constructor(readonly expire: () => void) { super() }
}

/** One client, with what is told of it. */
class Connection implements RedisConnection {
  /** Why it is away. */
  #lost: string | undefined
  #closed: Promise<void> | undefined
  #pinging = false
  readonly #cancel: () => void
  // Deadlines, since a process that stood still itself gave nobody a chance to answer.
  readonly #unready = new Silence(() => this.#giveUp(this.client.status !== 'ready', 'it takes connections, and does not get ready'))
  readonly #silent = new Silence(() => this.#giveUp(this.ready, 'it gives no sign of life'))

  constructor(
    readonly client: RedisClient, readonly use: RedisUse, readonly name: string, readonly where: string,
    readonly deps: ConnectionsDeps, readonly gone: (connection: Connection) => void,
  ) {
    const { clock, log } = deps
    // Only its message: an error of ioredis holds the arguments of the command, and that of AUTH is the password.
    client.on('error', (error: Error) => {
      // What was left of an attempt that was given up tells nothing of why.
      this.#away(error.message.startsWith('Stream isn\'t writeable') ? this.#lost ?? error.message : reasonOf(error))
      // The client would go on in database 0, which is somebody else's.
      if ((error as { command?: { name: string } }).command?.name === 'select') client.disconnect(true)
    })
    client.on('close', () => this.#away(this.#lost ?? 'the connection was closed'))
    // A peer that takes the connection and says no more (a stopped master, before the fail-over) would else be waited for without end.
    client.on('connect', () => clock.deadlines.arm(this.#unready, deps.config.silentMs))
    client.on('ready', () => {
      clock.deadlines.disarm(this.#unready)
      if (this.#lost !== undefined) log.info(`Redis answers again (${this.name})`)
      this.#lost = undefined
    })
    this.#cancel = use === 'blocking' ? () => {} : clock.every(PING_MS, () => this.#ping())
  }

  get ready(): boolean { return isReady(this.client) && !this.#closed }

  onReady(listener: () => void): void {
    this.client.on('ready', listener)
    if (this.ready) listener()
  }

  unavailable(error: unknown): BackplaneError {
    const reason = reasonOf(error)
    if ((error as Partial<Error>).name === 'ReplyError') return RedisErrors.REFUSES({ reason })
    return RedisErrors.UNAVAILABLE({ reason: this.ready ? reason : this.#lost ?? 'it is not connected yet' })
  }

  /** Resolves when it is connected, or when it is known that it is not. */
  first(): Promise<void> {
    if (this.ready) return Promise.resolve()
    return new Promise(resolve => {
      const done = () => {
        cancel()
        for (const event of ['ready', 'error', 'end']) this.client.off(event, done)
        resolve()
      }
      const cancel = this.deps.clock.after(this.deps.config.connectMs, done)
      for (const event of ['ready', 'error', 'end']) this.client.on(event, done)
    })
  }

  [Symbol.asyncDispose](): Promise<void> { return (this.#closed ??= this.#close()) }

  async #close(): Promise<void> {
    this.#cancel()
    for (const each of [this.#unready, this.#silent]) this.deps.clock.deadlines.disarm(each)
    this.gone(this)
    // What is under way rejects: whoever disposes of a connection has awaited what it wants to know.
    const { client } = this
    // While it waits to connect again there is nothing to end, and it says nothing.
    const silent = ['reconnecting', 'end', 'wait'].includes(client.status)
    await new Promise<void>(resolve => {
      if (!silent) client.once('end', resolve)
      client.disconnect()
      if (silent) resolve()
    })
  }

  #away(reason: string): void {
    const first = this.#lost === undefined
    this.#lost = reason
    if (!first || this.#closed) return
    this.deps.log.warn(`Redis does not answer, and is connected to again (${this.name})`, { where: this.where, reason, fix: RedisErrors.UNAVAILABLE({ reason }).fix })
  }

  #giveUp(still: boolean, reason: string): void {
    if (!still || this.#closed) return
    this.#away(reason)
    this.client.disconnect(true)
  }

  /** A peer that is gone without a word would else be noticed after a quarter of an hour. */
  async #ping(): Promise<void> {
    const { clock: { deadlines }, config } = this.deps
    if (!this.ready || this.#pinging) return
    this.#pinging = true
    deadlines.arm(this.#silent, config.silentMs)
    const late = await this.#sign().then(() => false, (error: unknown) => reasonOf(error).includes('timed out'))
    deadlines.disarm(this.#silent)
    this.#pinging = false
    if (late) this.#silent.expire()
  }

  /** In a cluster a PING goes to any node, and not to that which has the queue. */
  #sign(): Promise<unknown> { return this.client instanceof Cluster ? this.client.exists(`{${this.deps.config.prefix}}:health`) : this.client.ping() }
}

/** Every connection to Redis of this process, and one of its own for asking how it is. */
export class Connections implements Redis, AsyncDisposable {
  readonly #open = new Set<Connection>()
  #own: Connection | undefined
  #address: RedisAddress

  private constructor(readonly deps: ConnectionsDeps, address: RedisAddress) { this.#address = address }

  /** Rejects with REDIS_ADDRESS; that Redis is away is no reason to. */
  static async open(deps: ConnectionsDeps): Promise<Connections> {
    const connections = new Connections(deps, await addressOf(deps.config))
    connections.#own = await connections.#connect('command', 'redis')
    return connections
  }

  get prefix(): string { return this.deps.config.prefix }
  get kind(): RedisAddress['kind'] { return this.#address.kind }
  get names(): readonly string[] { return [...this.#open].filter(each => each !== this.#own).map(each => each.name) }

  connect(use: RedisUse, name: string): Promise<RedisConnection> { return this.#connect(use, name) }

  async flaws(): Promise<readonly BackplaneError[]> { return this.#ask(findFlaws) }
  /** Reading is not enough: one that is full, or a replica, answers all the same. The key is in the slot of the queue. */
  async write(): Promise<void> { await this.#ask(client => client.set(`{${this.prefix}}:health`, '', 'PX', KEPT_MS)) }

  /** The password was rotated. Connections that stand go on. */
  async renew(): Promise<void> {
    const { deps: { config, log } } = this
    const next = await addressOf(config)
    if (JSON.stringify(placeOf(next)) !== JSON.stringify(placeOf(this.#address))) log.warn('the address of Redis names another place now: restart the plugin to go there')
    this.#address = next
    for (const { client } of this.#open) renewLogin(client, next)
  }

  async [Symbol.asyncDispose](): Promise<void> { await Promise.all([...this.#open].map(each => each[Symbol.asyncDispose]())) }

  async #connect(use: RedisUse, name: string): Promise<Connection> {
    const { config } = this.deps
    const client = openClient(this.#address, { ...config, use, name: `${config.prefix}:${name}:${use}` })
    const connection = new Connection(client, use, name, whereOf(this.#address), this.deps, each => this.#open.delete(each))
    this.#open.add(connection)
    // Once it is known that Redis is away, nobody waits for it again.
    if (!this.#own || this.#own.ready) await connection.first()
    return connection
  }

  async #ask<T>(what: (client: RedisClient) => Promise<T>): Promise<T> {
    try { return await what(this.#own!.client) } catch (error) { throw this.#own!.unavailable(error) }
  }
}

const addressOf = async ({ url }: RedisConfig) => readAddress(url instanceof Secret ? await url.read() : url)
const placeOf = ({ kind, nodes, db, master }: RedisAddress) => ({ kind, nodes, db, master })
const whereOf = ({ nodes }: RedisAddress) => nodes.map(({ host, port }) => `${host}:${port}`).join(',')
