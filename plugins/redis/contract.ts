import type { Cluster, Redis as Standalone } from 'ioredis'
import { defineErrors, defineService, type BackplaneError } from '#core'

/** What a connection does while Redis is away is set by what it is for. */
export type RedisUse =
  /** Rejects at once, so that the caller takes its other way. Never for commands that wait. */
  | 'command'
  /** Waits until Redis is back, up to 5 s for each command. */
  | 'general'
  /** For commands that wait in Redis, such as BZPOPMIN: they reject when they are cut off, and when an attempt to connect fails. */
  | 'blocking'
  /** Subscribes, and does so again by itself; what was said meanwhile is missed. */
  | 'subscriber'

export type RedisClient = Standalone | Cluster

/** Held until it is disposed of: `ctx.own(await redis.connect('command', 'queue-bullmq'))`. */
export interface RedisConnection extends AsyncDisposable {
  readonly client: RedisClient
  /** Is it connected now? */
  readonly ready: boolean
  /** Runs after each connecting, and now if it is connected. */
  onReady(listener: () => void): void
  /** REDIS_UNAVAILABLE or REDIS_REFUSES, for what a command rejected with: it tells why there is no connection, rather than that there is none. */
  unavailable(error: unknown): BackplaneError
}

/** Owns every connection to Redis: nobody else opens one. Local. */
export interface Redis {
  /** Resolves when it is connected, or when Redis turns out to be away: it then connects as soon as it can. */
  connect(use: RedisUse, name: string): Promise<RedisConnection>
  /** What every key of this deployment begins with. In a cluster, keys that one command touches need `{…}` around what they share. */
  readonly prefix: string
  /** Why what is kept there may be lost, or it can't be used, as errors with their fix; empty if it is fit for work. Rejects with REDIS_UNAVAILABLE. */
  flaws(): Promise<readonly BackplaneError[]>
}
export const Redis = defineService<Redis>('redis.redis')

export const RedisErrors = defineErrors('REDIS', {
  UNAVAILABLE: {
    message: 'Redis does not answer: {reason}',
    fix: 'See that it runs, and that REDIS_URL has its address, user and password; it is connected to again by itself.', status: 503, retryable: true,
  },
  REFUSES: {
    message: 'Redis refuses what it is asked: {reason}',
    fix: 'OOM: raise `maxmemory`. READONLY: give the address of the master. MISCONF: make room on its disk. NOREPLICAS: bring its replicas back. NOPERM: see plugins/redis/README.md.',
    status: 503, retryable: true,
  },
  ADDRESS: {
    message: 'the address of Redis "{url}" is not understood: {reason}',
    fix: 'Write redis://user:password@host:port/database, rediss:// for TLS, redis+sentinel://host,host/master, or redis+cluster://host,host (REDIS_URL).',
  },
  EVICTS: {
    message: 'Redis throws keys away when its memory is full (maxmemory-policy {policy})',
    fix: 'Set `maxmemory-policy noeviction`, and give caches a Redis of their own.',
  },
  SHARED: {
    message: 'a process with another database uses the queue "{prefix}" of this Redis, and takes the jobs of this one',
    fix: 'Give all processes of a deployment the same DATABASE_URL, and each deployment a `plugins.redis.config.prefix` of its own. It goes on when the other one is gone.',
    status: 503, retryable: true,
  },
  OLD: { message: 'Redis {version} is older than {oldest}, and lacks what the queue needs', fix: 'Use Redis 7, or what speaks as it does.' },
  FORGETS: { message: 'Redis keeps nothing over a restart', fix: 'Set `appendonly yes`, or a `save` schedule.' },
})
