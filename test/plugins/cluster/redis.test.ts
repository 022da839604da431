import assert from 'node:assert/strict'
import { createTestRuntime, conform, eventually } from '#core/testing'
import { clusterConformance, type ClusterSubject } from '#conformance/cluster'
import { Broadcast, ClusterErrors } from '#contracts/cluster'
import { HealthCheck } from '#contracts/health'
import cluster from '../../../plugins/cluster/index.ts'
import database from '../../../plugins/database/index.ts'
import redis from '../../../plugins/redis/index.ts'
import { postgresOrSkip, redisOrSkip, type PostgresServer, RedisServer } from '../../support/services.ts'
import { FAST, postgresPlace, sqlitePlace, startNode, type Node, type Place } from './kit.ts'

type Where = () => Promise<Place>

const details = async (node: Node) =>
  (await node.runtime.collect(HealthCheck).find(each => each.name === 'cluster')!.check(AbortSignal.timeout(5_000))).details!
const linked = (...nodes: Node[]) => eventually('Redis to carry', async () => (await Promise.all(nodes.map(details))).every(each => each['redis'] === true))

describe('cluster on Redis', () => {
  let server: RedisServer
  let postgres: PostgresServer
  before(async function () {
    server = await redisOrSkip(this)
    postgres = await postgresOrSkip(this)
  })

  const on = (under: Where): Where => async () => {
    const [place, logical] = [await under(), await server.newDatabase()]
    return {
      ...place, redis: logical.url,
      async [Symbol.asyncDispose]() { await place[Symbol.asyncDispose](); await logical[Symbol.asyncDispose]() },
    }
  }

  for (const [title, under, leases] of [
    ['SQLite', sqlitePlace, 'database'], ['SQLite, with its leases there', sqlitePlace, 'redis'], ['PostgreSQL, with its leases there', () => postgresPlace(postgres), 'redis'],
  ] as const) {
    describe(`beside ${title}`, () => conform(it, clusterConformance, async () => {
      const place = await on(under)()
      const nodes = [await startNode(place, { config: { leases } }), await startNode(place, { config: { leases } })] as const
      await linked(...nodes)
      const subject: ClusterSubject = { nodes, leaseMs: FAST.leaseMs }
      return {
        subject,
        async [Symbol.asyncDispose]() {
          try { for (const node of nodes) await node.leave() } finally { await place[Symbol.asyncDispose]() }
        },
      }
    }))
  }

  it('carries by Redis alone while it is connected', async () => {
    await using here = await on(sqlitePlace)()
    await using one = await startNode(here)
    await using two = await startNode(here)
    await linked(one, two)
    await eventually('both to be listed', async () => (await one.instances.list()).length === 2)
    const heard: unknown[] = []
    await using _sub = await two.broadcast.subscribe('news', message => heard.push(message))
    const from = performance.now()
    await one.broadcast.publish('news', 1)
    await eventually('the message', () => heard.length === 1)
    assert.ok(performance.now() - from < FAST.pollMs * 10)
    assert.deepEqual(await one.database.knex()('cluster_messages'), [])
  })

  it('keeps what is said under another prefix apart', async () => {
    await using here = await on(sqlitePlace)()
    const open = (prefix: string) => createTestRuntime({
      plugins: [database, { plugin: redis, config: { url: here.redis, prefix } }, { plugin: cluster, config: FAST }],
    })
    await using one = await open('one')
    await using two = await open('two')
    await using _sub = await two.get(Broadcast).subscribe('news', () => assert.fail('it is of another deployment'))
    const ready = (t: typeof one) => t.runtime.collect(HealthCheck).find(each => each.name === 'cluster')!.check(AbortSignal.timeout(1_000)).then(each => each.details!['redis'] === true)
    await eventually('both to be connected', async () => await ready(one) && await ready(two))
    await one.get(Broadcast).publish('news', 1)
    await new Promise(resolve => setTimeout(resolve, 50))
  })

  describe('that comes and goes', () => {
    const own: RedisServer[] = []
    const start = async () => { const made = await RedisServer.start({}); own.push(made); return made }
    afterEach(async () => { for (const each of own.splice(0)) await each.stop() })
    const beside = async (): Promise<Place & { server: RedisServer }> => { const server = await start(); return { ...await sqlitePlace(), redis: server.url, server } }

    it('goes on by the database while Redis is away, and by Redis again', async function () {
      this.timeout(20_000)
      await using here = await beside()
      await using one = await startNode(here)
      await using two = await startNode(here)
      await linked(one, two)
      await eventually('both to be listed', async () => (await one.instances.list()).length === 2)
      const heard: unknown[] = []
      await using _sub = await two.broadcast.subscribe('news', message => heard.push(message))
      await here.server.crash()
      await eventually('the loss to be seen', async () => (await details(one))['redis'] === false)
      await one.broadcast.publish('news', 'by the database')
      await eventually('the message', () => heard.includes('by the database'))
      assert.equal((await details(one))['broadcast'], true)
      await here.server.restart()
      await linked(one, two)
      await eventually('a message by Redis', async () => { await one.broadcast.publish('news', 'by Redis'); return heard.includes('by Redis') })
    })

    it('never gives a smaller token, though Redis is wiped, killed or left', async function () {
      this.timeout(20_000)
      await using here = await beside()
      await using one = await startNode(here, { config: { leases: 'redis' } })
      await using two = await startNode(here, { config: { leases: 'redis' } })
      await linked(one, two)
      const first = (await one.leases.acquire('a'))!
      await here.server.flushAll()
      const second = (await two.leases.acquire('a'))!
      assert.ok(second.token > first.token)
      await eventually('the first to know', () => first.signal.aborted)
      assert.ok(ClusterErrors.LEASE_LOST.is(first.signal.reason))
      await here.server.crash()
      await assert.rejects(one.leases.acquire('a'), { retryable: true })
      await here.server.restart()
      await linked(one, two)
      await second[Symbol.asyncDispose]()
      const third = await eventually('it to be free', () => one.leases.acquire('a'))
      assert.ok(third.token > second.token)
      await third[Symbol.asyncDispose]()
      await one.leave()
      await two.leave()
      await using old = await startNode(here, { config: { leases: 'database' } })
      await using fourth = await old.leases.acquire('a')
      assert.ok(fourth!.token > third.token, 'what the database counts goes on')
    })

    it('refuses a lease in Redis that another process has in the database', async () => {
      await using here = await beside()
      await using one = await startNode(here, { config: { leases: 'database' } })
      await using two = await startNode(here, { config: { leases: 'redis' } })
      await linked(one, two)
      await using held = await one.leases.acquire('a')
      assert.ok(held)
      assert.equal(await two.leases.acquire('a'), undefined)
      assert.equal(await two.leases.acquire('a'), undefined)
    })

    it('follows the plugin redis when it is taken out and put in', async () => {
      await using here = await beside()
      await using t = await createTestRuntime({ plugins: [database, { plugin: redis, config: { url: here.redis } }, { plugin: cluster, config: FAST }] })
      const state = async () => (await t.runtime.collect(HealthCheck).find(each => each.name === 'cluster')!.check(AbortSignal.timeout(1_000))).details!['redis']
      await eventually('it to be connected', async () => await state() === true)
      await t.runtime.change(new Map([['redis', undefined]]))
      await eventually('it to be gone', async () => await state() === undefined)
      await t.get(Broadcast).publish('news', 1)
      await t.runtime.change(new Map([['redis', { plugin: redis, config: { url: here.redis } }]]))
      await eventually('it to be connected again', async () => await state() === true)
    })
  })
})
