import { CoreErrors, reasonOf, type Logger } from '#core'
import type { Redis, RedisClient, RedisConnection } from '#contracts/redis'
import { readEnvelope, writeEnvelope, type Carrier, type Heard } from './carrier.ts'

export interface RedisLinkDeps {
  readonly id: string
  readonly log: Logger
}

interface Held { readonly redis: Redis; readonly commands: RedisConnection; readonly subscriber: RedisConnection }

/** Channels are of the whole server: the databases of it, which deployments may have one each, do not keep them apart. */
const channelOf = ({ options }: RedisClient, prefix: string) => `${prefix}:cluster:${'db' in options ? options.db : 0}`

/** What this process has of Redis while the plugin `redis` is there: it may come, go and be restarted. */
export class RedisLink implements Carrier {
  #held: Held | undefined
  #subscribed = false
  #following: Promise<void> = Promise.resolve()
  #heard: Heard = () => {}
  constructor(readonly deps: RedisLinkDeps) {}

  get present(): boolean { return this.#held !== undefined }
  get connected(): boolean { return this.#subscribed && this.#held!.commands.ready && this.#held!.subscriber.ready }

  hear(heard: Heard): void { this.#heard = heard }

  /** One after another, in the order in which it came and went. */
  follow(redis: Redis | undefined): Promise<void> {
    return (this.#following = this.#following.then(() => this.#take(redis)).catch(error => {
      this.deps.log.warn('Redis can not be used for the cluster', { reason: reasonOf(error) })
    }))
  }

  async send(channel: string, message: string): Promise<void> {
    await this.run((client, prefix) => client.publish(channelOf(client, prefix), writeEnvelope(this.deps.id, channel, message)))
  }

  /** Rejects at once if Redis, or its plugin, is away. */
  async run<T>(what: (client: RedisClient, prefix: string) => Promise<T>): Promise<T> {
    const held = this.#held
    if (!held) throw CoreErrors.Service.UNAVAILABLE({ service: 'redis.redis' })
    try { return await what(held.commands.client, held.redis.prefix) } catch (error) { throw held.commands.unavailable(error) }
  }

  [Symbol.asyncDispose](): Promise<void> { return this.follow(undefined) }

  async #take(redis: Redis | undefined): Promise<void> {
    const { commands, subscriber } = this.#held ?? {}
    this.#held = undefined
    this.#subscribed = false
    await subscriber?.[Symbol.asyncDispose]()
    await commands?.[Symbol.asyncDispose]()
    if (!redis) return
    const held = { redis, commands: await redis.connect('command', 'cluster'), subscriber: await redis.connect('subscriber', 'cluster') }
    this.#held = held
    const { client } = held.subscriber
    client.on('message', (_channel: string, payload: string) => {
      const [sender, channel, message] = readEnvelope(payload)
      if (message !== undefined && sender !== this.deps.id) this.#heard(channel!, message)
    })
    // Redis may be away for long: it is subscribed to as soon as it is there.
    client.subscribe(channelOf(client, redis.prefix)).then(() => { if (this.#held === held) this.#subscribed = true }, () => {})
  }
}
