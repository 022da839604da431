import { Cluster } from 'ioredis'
import type { BackplaneError } from '#core'
import { RedisErrors, type RedisClient } from '#contracts/redis'

type Node = Pick<Exclude<RedisClient, Cluster>, 'info' | 'config'>

/** Which has BZPOPMIN and streams; what speaks as Redis does tells such a version too. */
const OLDEST = 5

const field = (info: string, name: string) => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1]

/** By INFO, which managed servers answer too; only the schedule of saving has to be asked of CONFIG, and if that is refused, it is taken for set. */
async function flawsOf(node: Node): Promise<BackplaneError[]> {
  const [server, memory, persistence] = await Promise.all([node.info('server'), node.info('memory'), node.info('persistence')])
  const version = field(server, 'redis_version') ?? ''
  const old = Number.parseInt(version, 10) < OLDEST
  const policy = field(memory, 'maxmemory_policy') ?? 'noeviction'
  const saves = async () => node.config('GET', 'save').then(found => !Array.isArray(found) || found[1] !== '', () => true)
  const kept = field(persistence, 'aof_enabled') === '1' || await saves()
  return [
    ...(old ? [RedisErrors.OLD({ version, oldest: OLDEST })] : []),
    ...(policy === 'noeviction' ? [] : [RedisErrors.EVICTS({ policy })]),
    ...(kept ? [] : [RedisErrors.FORGETS()]),
  ]
}

/** Of all masters together, each kind once. */
export async function findFlaws(client: RedisClient): Promise<readonly BackplaneError[]> {
  const nodes: readonly Node[] = client instanceof Cluster ? client.nodes('master') : [client]
  const found = (await Promise.all(nodes.map(flawsOf))).flat()
  return [...new Map(found.map(each => [each.code, each])).values()]
}
