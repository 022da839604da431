import { stopPostgres } from './postgres.ts'
import { stopRedis } from './redis.ts'

/** A real server that tests talk to, started once for a whole run by whoever asks for it first. */
export interface TestService {
  readonly name: string
  /** Does nothing if nobody asked for it. */
  stop(): Promise<void>
}

const services: readonly TestService[] = [{ name: 'postgres', stop: stopPostgres }, { name: 'redis', stop: stopRedis }]

export { NoRedis, redis, redisOrSkip, RedisServer, type TestRedis } from './redis.ts'
export { NoPostgres, postgres, postgresOrSkip, PostgresServer, type TestDatabase } from './postgres.ts'

export async function stopServices(): Promise<void> {
  const stopped = await Promise.allSettled(services.map(service => service.stop()))
  const failed = stopped.flatMap(each => (each.status === 'rejected' ? [each.reason] : []))
  if (failed.length) throw new AggregateError(failed, 'test services did not stop')
}
