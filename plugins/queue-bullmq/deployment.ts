import type { Logger } from '#core'
import type { Database, Statement } from '#contracts/database'
import { RedisErrors, type Redis, type RedisConnection } from '#contracts/redis'

export const LOOK_MS = 5_000
/** After three looks in silence the name is free. */
const KEPT_MS = 3 * LOOK_MS

const CLAIM = `local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return 1`

export interface DeploymentDeps {
  readonly database: Database
  readonly redis: Redis
  readonly connection: RedisConnection
  readonly queue: string
  readonly log: Logger
}

/**
 * The queue holds ids of rows, so all who share it must share a database. Who has another one would take ids, find no rows, and throw them away, and
 * nobody would see more than jobs that wait.
 */
export class Deployment {
  readonly #row: Statement<{ id: string }>
  #id: string | undefined
  #shared = false
  constructor(readonly deps: DeploymentDeps) { this.#row = deps.database.prepare('SELECT id FROM queue_bullmq_deployment') }

  /** Is somebody with another database there? */
  get shared(): boolean { return this.#shared }

  /** Throws if it is. */
  expect(): void { if (this.#shared) throw this.#error() }

  /** Whoever can't be asked is asked the next time. */
  async look(): Promise<void> {
    const { redis, connection: { client }, queue, log } = this.deps
    try {
      this.#id ??= (await this.#row.get([]))!.id
      const shared = await client.eval(CLAIM, 1, `{${redis.prefix}}:${queue}:database`, this.#id, KEPT_MS) === 0
      if (shared && !this.#shared) {
        const { message, code, fix } = this.#error()
        log.error(message, { code, fix })
      }
      if (!shared && this.#shared) log.info('the queue is of this database alone again')
      this.#shared = shared
    } catch (error) { log.debug('whose the queue is could not be asked', { reason: String(error) }) }
  }

  #error() { return RedisErrors.SHARED({ prefix: this.deps.redis.prefix }) }
}
