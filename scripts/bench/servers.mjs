// Real servers for a benchmark, each in a folder of its own; they end with this process, however that ends.
import { tsImport } from 'tsx/esm/api'

const support = name => tsImport(`../../test/support/${name}.ts`, import.meta.url)

/** Both write ahead and sync as they do by default: PostgreSQL at each commit, Redis once a second. */
export async function withServers(use) {
  const [{ PostgresServer }, { RedisServer }] = [await support('postgres'), await support('redis')]
  const servers = []
  try {
    servers.push(await PostgresServer.start({ fsync: true }), await RedisServer.start())
    return await use(...servers)
  } finally { await Promise.all(servers.map(each => each.stop())) }
}
