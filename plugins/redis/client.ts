import { Cluster, Redis } from 'ioredis'
import type { CommonRedisOptions, RedisOptions } from 'ioredis'
import type { RedisClient, RedisUse } from '#contracts/redis'
import type { RedisAddress } from './address.ts'
import type { RedisConfig } from './config.ts'

/** After this long at most it is tried again: so it is back within 5 s of Redis. */
const RETRY_MS = 2_000
/** How often it is looked for another master, while the one that it is connected to refuses to write. */
const REPLICA_MS = 4_000
const retry = (times: number) => Math.min(50 * 2 ** Math.min(times, 10), RETRY_MS)

/** What `connect` was asked for, in ioredis' words. */
const uses = {
  // Not 1: what was under way would be answered only when a second attempt to connect has failed, so never if the first one succeeds.
  command: { enableOfflineQueue: false, maxRetriesPerRequest: 0 },
  general: { enableOfflineQueue: true, maxRetriesPerRequest: null },
  blocking: { enableOfflineQueue: true, maxRetriesPerRequest: 0 },
  subscriber: { enableOfflineQueue: true, maxRetriesPerRequest: null, autoResubscribe: true },
} satisfies Record<RedisUse, CommonRedisOptions>

export interface ClientOptions extends Pick<RedisConfig, 'tls' | 'connectMs' | 'commandMs'> {
  readonly use: RedisUse
  readonly name: string
}

/** A client that has begun to connect, and never gives up. */
export function openClient(address: RedisAddress, { use, name, tls, connectMs, commandMs }: ClientOptions): RedisClient {
  const { nodes, master, sentinelUsername, sentinelPassword } = address
  const trust = { rejectUnauthorized: tls.verify, ...(tls.ca && { ca: tls.ca }), ...(tls.servername && { servername: tls.servername }) }
  const secured = address.tls && { tls: trust }
  const waits = use === 'blocking' || use === 'subscriber'
  const options: RedisOptions = {
    ...uses[use], ...secured, ...loginOf(address), ...(!waits && { commandTimeout: commandMs }), connectionName: name,
    connectTimeout: connectMs, disconnectTimeout: 250, keepAlive: 5_000, retryStrategy: retry, maxLoadingRetryTime: RETRY_MS,
    reconnectOnError: leavingReplicas(use),
  }
  if (address.kind === 'cluster' && use === 'subscriber') return openListener(nodes, { ...options, db: 0 })
  if (address.kind === 'cluster') {
    const { enableOfflineQueue, retryStrategy: _none, ...redisOptions } = options
    return new Cluster(nodes.map(node => ({ ...node })), {
      redisOptions, enableOfflineQueue: enableOfflineQueue!, clusterRetryStrategy: retry, slotsRefreshTimeout: connectMs, slotsRefreshInterval: 5_000,
    })
  }
  if (address.kind === 'sentinel') {
    return new Redis({
      ...options, db: address.db, sentinels: nodes.map(node => ({ ...node })), name: master!, sentinelRetryStrategy: retry,
      // One that takes connections and says nothing would else be waited for, and the others never asked.
      sentinelCommandTimeout: connectMs,
      ...(sentinelUsername && { sentinelUsername }), ...(sentinelPassword && { sentinelPassword }),
      ...(secured && { enableTLSForSentinelMode: true, sentinelTLS: secured.tls }),
    })
  }
  return new Redis({ ...options, ...nodes[0]!, db: address.db })
}

/**
 * All nodes of a cluster say what one is told, so it is enough to listen to any. The cluster client's own way of that takes another node the moment
 * that one is away, thousands of times in a second while all are, and never asks whether the one that it has lives.
 */
function openListener(nodes: RedisAddress['nodes'], options: RedisOptions): Redis {
  const next = (times: number) => {
    Object.assign(client.options, nodes[times % nodes.length])
    return retry(times)
  }
  const client = new Redis({ ...options, ...nodes[0]!, retryStrategy: next })
  return client
}

/** A replica that was the master a moment ago refuses to write: connecting again finds the new one. One that stays a replica is not stormed. */
function leavingReplicas(use: RedisUse): (error: Error) => false | 1 | 2 {
  let left = -Infinity
  return ({ message }) => {
    if (!message.startsWith('READONLY') || performance.now() - left < REPLICA_MS) return false
    left = performance.now()
    // Sent again only where it may wait: else nobody would hear why it was rejected.
    return use === 'general' ? 2 : 1
  }
}

const loginOf = ({ username, password }: RedisAddress) => ({ ...(username && { username }), ...(password && { password }) })

/** For the next time that it connects: what is connected stays so. */
export function renewLogin(client: RedisClient, address: RedisAddress): void {
  const options = client instanceof Cluster ? client.options.redisOptions : client.options
  const { sentinelPassword } = address
  Object.assign(options ?? {}, loginOf(address), sentinelPassword && { sentinelPassword })
}

/** A cluster says `connect` where a single server says `ready`. */
export const isReady = (client: RedisClient): boolean => client.status === 'ready' || (client instanceof Cluster && client.status === 'connect')
