import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createRuntime, Secret, type Plugin, type Runtime } from '#core'
import { leftBehind, recordLog, type Line } from '#core/testing'
import { Broadcast, Instances, Leases } from '#contracts/cluster'
import { Redis, type RedisConnection } from '#contracts/redis'
import { Database, DatabaseChannels, DatabaseErrors, type Statement } from '#contracts/database'
import type { ClusterNode } from '#conformance/cluster'
import cluster from '../../../plugins/cluster/index.ts'
import database from '../../../plugins/database/index.ts'
import redis from '../../../plugins/redis/index.ts'
import type { PostgresServer } from '../../support/services.ts'

export const FAST = { heartbeatMs: 100, leaseMs: 600, retryMs: 50, pollMs: 20 }

/** Where the processes of one test meet. */
export interface Place extends AsyncDisposable {
  readonly dialect: 'sqlite' | 'postgres'
  readonly url: string
  /** Only where the plugin is loaded. */
  readonly redis?: string
}

export async function sqlitePlace(): Promise<Place> {
  const folder = mkdtempSync(join(tmpdir(), 'backplane-place-'))
  return { dialect: 'sqlite', url: `sqlite:${join(folder, 'test.db')}`, [Symbol.asyncDispose]: async () => rmSync(folder, { recursive: true }) }
}
export async function postgresPlace(server: PostgresServer): Promise<Place> {
  const { url, drop } = await server.newDatabase()
  return { dialect: 'postgres', url, [Symbol.asyncDispose]: drop }
}
export const addressOf = ({ url }: Place): Secret => Secret.of('DATABASE_URL', url)

/** A database that can be cut off: then nothing is answered any more. */
function cuttable(database: Database) {
  const state = { cut: false }
  const guarded = async <T>(work: () => Promise<T>): Promise<T> => {
    if (state.cut) throw DatabaseErrors.UNAVAILABLE({ reason: 'it is cut off' })
    return work()
  }
  const prepare = (sql: string): Statement<any> => {
    const { all, get, run } = database.prepare(sql)
    return { all: (params, tx) => guarded(() => all(params, tx)), get: (params, tx) => guarded(() => get(params, tx)), run: (params, tx) => guarded(() => run(params, tx)) }
  }
  const service: Database = {
    dialect: database.dialect, knex: tx => database.knex(tx), prepare, prepareMany: (sql, types) => database.prepareMany(sql, types), migrate: (owner, list) => database.migrate(owner, list),
    transaction: work => guarded(() => database.transaction(work)),
  }
  return { state, service }
}

export interface Node extends ClusterNode, AsyncDisposable { readonly runtime: Runtime; readonly database: Database; readonly lines: Line[] }
export interface NodeOptions { readonly config?: Record<string, unknown>; readonly plugins?: readonly { readonly plugin: Plugin; readonly config?: unknown }[] }

/** A Redis that can be cut off: its connections break, and are not made again. */
function cuttableRedis(redis: Redis) {
  const open: RedisConnection[] = []
  const service: Redis = {
    prefix: redis.prefix, flaws: () => redis.flaws(),
    connect: async (use, name) => { const made = await redis.connect(use, name); open.push(made); return made },
  }
  return { service, cut: () => { for (const { client } of open) client.disconnect() } }
}

/** One process of a deployment, in this process: connections of its own, and `cluster` on them. */
export async function startNode(place: Place, { config = {}, plugins = [] }: NodeOptions = {}): Promise<Node> {
  const log = recordLog()
  // The database is a runtime of its own, so that what stands between it and the cluster can be cut.
  const below = [{ plugin: database, config: { url: place.url } }, ...(place.redis === undefined ? [] : [{ plugin: redis, config: { url: place.redis } }])]
  const under = createRuntime({ plugins: below, log, graceMs: 10_000, host: { dataDir: tmpdir() } })
  await under.start()
  const { state, service } = cuttable(under.get(Database))
  const ofRedis = place.redis === undefined ? undefined : cuttableRedis(under.get(Redis))
  // createTestRuntime would take what the other nodes of the test hold for leaks of this one.
  const runtime = createRuntime({
    plugins: [{ plugin: cluster, config: { ...FAST, ...config } }, ...plugins], log, graceMs: 10_000,
    services: [[Database, service], [DatabaseChannels, under.get(DatabaseChannels)], ...(ofRedis ? [[Redis, ofRedis.service] as const] : [])],
    host: { dataDir: tmpdir() },
  })
  try { await runtime.start() } catch (error) { await under.stop(); throw error }
  const stop = async () => {
    await runtime.stop()
    await under.stop()
    assert.deepEqual(leftBehind(runtime), [])
  }
  let left: Promise<void> | undefined
  const leave = () => (left ??= stop())
  return {
    runtime, database: service, lines: log.lines, id: runtime.host.instanceId, instances: runtime.get(Instances), leases: runtime.get(Leases), broadcast: runtime.get(Broadcast),
    cut: async () => { state.cut = true; ofRedis?.cut() }, leave, [Symbol.asyncDispose]: leave,
  }
}
