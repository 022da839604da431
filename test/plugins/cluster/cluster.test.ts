import assert from 'node:assert/strict'
import { Secret, type Runtime } from '#core'
import { conform, createTestRuntime, eventually } from '#core/testing'
import { clusterConformance, type ClusterSubject } from '#conformance/cluster'
import { Broadcast, Leases } from '#contracts/cluster'
import { HealthCheck } from '#contracts/health'
import cluster from '../../../plugins/cluster/index.ts'
import { config } from '../../../plugins/cluster/config.ts'
import database from '../../../plugins/database/index.ts'
import { postgresOrSkip, type PostgresServer } from '../../support/services.ts'
import { addressOf, FAST, postgresPlace, sqlitePlace, startNode, type NodeOptions, type Place } from './kit.ts'

async function subjectOn(place: Place, options: NodeOptions = {}) {
  const nodes = [await startNode(place, options), await startNode(place, options)] as const
  const subject: ClusterSubject = { nodes, leaseMs: FAST.leaseMs }
  return {
    subject,
    async [Symbol.asyncDispose]() {
      try { for (const node of nodes) await node.leave() } finally { await place[Symbol.asyncDispose]() }
    },
  }
}
const health = (runtime: Runtime) => runtime.collect(HealthCheck).find(each => each.name === 'cluster')!.check(AbortSignal.timeout(5_000))

function suite(place: () => Promise<Place>) {
  conform(it, clusterConformance, async () => subjectOn(await place()))

  it('is healthy, says who is alive, and is degraded when it is cut off', async () => {
    await using here = await place()
    await using node = await startNode(here)
    await using lease = await node.leases.acquire('a')
    assert.ok(lease)
    const { status, details } = await health(node.runtime)
    assert.equal(status, 'healthy')
    assert.deepEqual([details!['instances'], details!['leases'], details!['broadcast']], [1, ['a'], true])
    await node.cut()
    await assert.rejects(health(node.runtime))
  })

  it('starts with the database as it is, twice', async () => {
    await using here = await place()
    for (let at = 0; at < 2; at++) {
      await using t = await createTestRuntime({ plugins: [{ plugin: database, config: { url: addressOf(here) } }, cluster] })
      await using lease = await t.get(Leases).acquire('a')
      assert.equal(lease?.token, at + 1)
    }
  })

  it('gives back what plugins hold when it stops, so that nobody waits for it to run out', async () => {
    await using here = await place()
    await using one = await startNode(here, { config: { leaseMs: 60_000 } })
    await using two = await startNode(here, { config: { leaseMs: 60_000 } })
    assert.ok(await one.leases.acquire('held'))
    let ended = false
    await one.leases.lead('led', ({ signal }) => new Promise(resolve => signal.addEventListener('abort', () => { ended = true; resolve() }, { once: true })))
    await eventually('it to lead', async () => ((await health(one.runtime)).details!['leases'] as string[]).includes('led'))
    await one.leave()
    assert.ok(ended)
    for (const name of ['held', 'led']) {
      const lease = await two.leases.acquire(name)
      assert.ok(lease, name)
      await lease[Symbol.asyncDispose]()
    }
  })
}

describe('cluster on SQLite', () => {
  suite(sqlitePlace)

  it('writes no message while it is alone', async () => {
    await using here = await sqlitePlace()
    await using node = await startNode(here)
    await node.broadcast.publish('news', 1)
    assert.deepEqual(await node.database.knex()('cluster_messages'), [])
  })
})

describe('cluster on PostgreSQL', () => {
  let server: PostgresServer
  before(async function () { server = await postgresOrSkip(this) })
  suite(() => postgresPlace(server))
  const cutListeners = async ({ url }: Place) => {
    const cut = await server.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = '${new URL(url).pathname.slice(1)}'`)
    assert.ok(cut.length)
  }

  it('listens again after its connection was cut', async () => {
    await using here = await postgresPlace(server)
    await using one = await startNode(here)
    await using two = await startNode(here)
    const heard: unknown[] = []
    await using _sub = await two.broadcast.subscribe('news', message => heard.push(message))
    await cutListeners(here)
    await eventually('the loss to be seen', async () => (await health(two.runtime)).status === 'degraded')
    await eventually('a message to arrive again', async () => { await one.broadcast.publish('news', 'again'); return heard.includes('again') })
    assert.equal((await health(two.runtime)).status, 'healthy')
  })

  it('keeps no password in what it logs of a connection that broke', async () => {
    await using here = await postgresPlace(server)
    await using t = await createTestRuntime({ plugins: [{ plugin: database, config: { url: Secret.of('DATABASE_URL', here.url) } }, { plugin: cluster, config: FAST }] })
    await cutListeners(here)
    await eventually('the loss to be logged', () => t.lines.some(line => /listens to PostgreSQL broke/.test(line.message)))
    assert.doesNotMatch(JSON.stringify(t.lines), new RegExp(server.password))
    await t.get(Broadcast).publish('news', 1)
  })
})

describe('cluster', () => {
  it('takes over within 10 s by its settings', () => {
    const { leaseMs, retryMs } = config.parse({})
    assert.ok(leaseMs + retryMs * 1.25 < 10_000)
  })
})
