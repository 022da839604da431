import type { Logger } from '#core'
import type { Redis, RedisConnection } from '#contracts/redis'

/**
 * Whether what was left in Redis is gone: then whoever asks first is told, and nobody else. A server that is another one (restarted, or took
 * over) may miss the last of it.
 */
const MISSED = `local info = redis.pcall('INFO', 'server')
local server = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or 'unknown'
if redis.call('GET', KEYS[1]) == server then return 0 end
redis.call('SET', KEYS[1], server) return 1`

export interface LossDeps {
  readonly redis: Redis
  readonly connection: RedisConnection
  readonly queue: string
  readonly log: Logger
}

/** Redis that was emptied, or came back without its last writes, tells nobody; the ids that it had would be missed only in time. */
export class Loss {
  readonly #listeners = new Set<() => void>()
  constructor(readonly deps: LossDeps) {}

  listen(listener: () => void): () => void {
    this.#listeners.add(listener)
    void this.look()
    return () => { this.#listeners.delete(listener) }
  }

  /** Only for those who do something about it: it is told once. */
  async look(): Promise<void> {
    const { redis, connection, connection: { client }, queue, log } = this.deps
    if (!this.#listeners.size || !connection.ready) return
    try {
      if (await client.eval(MISSED, 1, `{${redis.prefix}}:${queue}:server`) !== 1) return
      log.info('Redis is another one than before, or was emptied: what waits is handed over again')
      for (const listener of this.#listeners) listener()
    } catch (error) { log.debug('whether Redis has what it had could not be asked', { reason: String(error) }) }
  }
}
