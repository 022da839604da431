import { eventually } from '#core/testing'
import { RedisServer } from './redis.ts'
import { freePort } from './shared.ts'

const KEPT = ['--appendonly', 'yes', '--appendfsync', 'everysec', '--save', '']
const WAIT_MS = 20_000

/** Several servers that stand and fall together. */
export interface Topology extends AsyncDisposable {
  readonly url: string
  readonly servers: readonly RedisServer[]
}
const stopping = (servers: readonly RedisServer[]) => async () => { await Promise.all(servers.map(each => each.stop())) }

export interface RedisCluster extends Topology {
  readonly masters: readonly RedisServer[]
  /** The master that had `key` at the start, and who takes over when it dies. */
  readonly owner: RedisServer
  readonly replica: RedisServer
  masterOf(key: string): Promise<RedisServer>
  /** Moves the slot of `key`, with what is in it, while it is in use. */
  move(key: string, to: RedisServer): Promise<void>
}

const idOf = (server: RedisServer): Promise<string> => server.call('CLUSTER', ['MYID'])

/** Three masters, and a replica of the one that has `key`. */
export async function startCluster(key: string): Promise<RedisCluster> {
  const one = async () => {
    const bus = await freePort()
    const settings = [...KEPT, '--cluster-enabled', 'yes', '--cluster-node-timeout', '1000', '--cluster-require-full-coverage', 'no', '--cluster-port', String(bus), '--cluster-announce-ip', '127.0.0.1']
    return { server: await RedisServer.start({ settings }), bus }
  }
  const nodes = await Promise.all([one(), one(), one(), one()])
  const servers = nodes.map(each => each.server)
  const [first, masters, replica] = [servers[0]!, servers.slice(0, 3), servers[3]!]
  try {
    const ranges = [[0, 5_460], [5_461, 10_922], [10_923, 16_383]] as const
    await Promise.all(masters.map((each, at) => each.call('CLUSTER', ['ADDSLOTSRANGE', ...ranges[at]!])))
    // Without an epoch of its own each would take the slots of the others for disputed.
    await Promise.all(masters.map((each, at) => each.call('CLUSTER', ['SET-CONFIG-EPOCH', at + 1])))
    for (const { server, bus } of nodes.slice(1)) await first.call('CLUSTER', ['MEET', '127.0.0.1', server.port, bus])
    const slot: number = await first.call('CLUSTER', ['KEYSLOT', key])
    const owner = masters[ranges.findIndex(([from, to]) => slot >= from && slot <= to)]!
    await eventually('the replica to know its master', async () => (await replica.call('CLUSTER', ['NODES'])).includes(await idOf(owner)), WAIT_MS)
    await eventually('the replica to be one', async () => replica.call('CLUSTER', ['REPLICATE', await idOf(owner)]).then(() => true, () => false), WAIT_MS)
    await eventually('the cluster to be up', async () => {
      const states: string[] = await Promise.all(servers.map(each => each.call('CLUSTER', ['INFO'])))
      return states.every(each => each.includes('cluster_state:ok') && each.includes('cluster_known_nodes:4'))
    }, WAIT_MS)
    await eventually('the replica to follow', async () => /master_link_status:up/.test(await replica.call('INFO', ['replication'])), WAIT_MS)
    const idsOf = async () => new Map(await Promise.all(masters.map(async each => [await idOf(each), each] as const)))
    const masterOf = async (of: string) => {
      const wanted: number = await first.call('CLUSTER', ['KEYSLOT', of])
      for (const [from, to, [, port]] of await first.call('CLUSTER', ['SLOTS'])) if (wanted >= from && wanted <= to) return servers.find(each => each.port === port)!
      throw new Error(`nobody has the slot ${wanted}`)
    }
    return {
      url: `redis+cluster://:${first.password}@${masters.map(each => `127.0.0.1:${each.port}`).join(',')}`,
      servers, masters, owner, replica, masterOf,
      async move(of, to) {
        const moved: number = await first.call('CLUSTER', ['KEYSLOT', of])
        const from = await masterOf(of)
        const [fromId, toId] = [await idOf(from), await idOf(to)]
        await to.call('CLUSTER', ['SETSLOT', moved, 'IMPORTING', fromId])
        await from.call('CLUSTER', ['SETSLOT', moved, 'MIGRATING', toId])
        for (let keys: string[]; (keys = await from.call('CLUSTER', ['GETKEYSINSLOT', moved, 100])).length;) {
          await from.call('MIGRATE', ['127.0.0.1', to.port, '', 0, 5_000, 'AUTH', to.password, 'KEYS', ...keys])
        }
        for (const each of [to, from, ...(await idsOf()).values()]) await each.call('CLUSTER', ['SETSLOT', moved, 'NODE', toId])
      },
      [Symbol.asyncDispose]: stopping(servers),
    }
  } catch (error) {
    await stopping(servers)()
    throw error
  }
}

export interface RedisSentinels extends Topology {
  readonly master: RedisServer
  readonly replica: RedisServer
  readonly sentinels: readonly RedisServer[]
}

/** A master and its replica under three sentinels, which agree within a second that the master is dead. */
export async function startSentinels(): Promise<RedisSentinels> {
  const [master, replica, ...sentinels] = await Promise.all([
    RedisServer.start({ settings: KEPT }), RedisServer.start({ settings: KEPT }),
    ...Array.from({ length: 3 }, async () => RedisServer.start({ port: await freePort(), sentinel: true })),
  ])
  const servers = [master!, replica!, ...sentinels]
  try {
    await replica!.call('REPLICAOF', ['127.0.0.1', master!.port])
    await eventually('the replica to follow', async () => /master_link_status:up/.test(await replica!.call('INFO', ['replication'])), WAIT_MS)
    for (const each of sentinels) {
      await each.call('SENTINEL', ['MONITOR', 'main', '127.0.0.1', master!.port, '2'])
      for (const [name, value] of [['auth-pass', master!.password], ['down-after-milliseconds', '1000'], ['failover-timeout', '5000']]) await each.call('SENTINEL', ['SET', 'main', name!, value!])
    }
    await eventually('the sentinels to know each other', async () => {
      const known: unknown[][] = await Promise.all(sentinels.flatMap(each => [each.call('SENTINEL', ['SENTINELS', 'main']), each.call('SENTINEL', ['REPLICAS', 'main'])]))
      // One that is not known to follow is never chosen.
      return known.every((each, at) => (at % 2 ? each.flat().join().includes('master-link-status,ok') : each.length === 2))
    }, WAIT_MS)
    const hosts = sentinels.map(each => `127.0.0.1:${each.port}`).join(',')
    return {
      url: `redis+sentinel://:${master!.password}@${hosts}/main?sentinel_password=${sentinels[0]!.password}`,
      servers, master: master!, replica: replica!, sentinels, [Symbol.asyncDispose]: stopping(servers),
    }
  } catch (error) {
    await stopping(servers)()
    throw error
  }
}
