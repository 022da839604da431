import assert from 'node:assert/strict'
import { createTestRuntime, contribute, eventually, type TestRuntime } from '#core/testing'
import { Broadcast, Leases } from '#contracts/cluster'
import { HealthCheck } from '#contracts/health'
import { Jobs, JobType } from '#contracts/jobs'
import cluster from '../../../plugins/cluster/index.ts'
import database from '../../../plugins/database/index.ts'
import jobs from '../../../plugins/jobs/index.ts'
import queue from '../../../plugins/queue-bullmq/index.ts'
import redis from '../../../plugins/redis/index.ts'
import { jobType, openAccess, operator } from '../jobs/kit.ts'
import { startCluster, startSentinels } from '../../support/redis-topology.ts'
import { redisOrSkip, type RedisServer } from '../../support/services.ts'

/** After the fail-over itself. */
const BACK_MS = 7_000

/** Two processes on one database and one Redis; the first one works. */
async function pair(url: string) {
  const runs: unknown[] = []
  const open = (types: readonly JobType[], config: object, file?: string) => createTestRuntime({
    plugins: [
      { plugin: database, config: file === undefined ? {} : { url: file } }, { plugin: redis, config: { url } }, { plugin: cluster, config: { leases: 'redis' } },
      { plugin: queue, config: { lock_ms: 1_000 } }, { plugin: jobs, config: { sweep_ms: 200, rehand_ms: 1_000, ...config } }, contribute(JobType, ...types),
    ],
    services: [openAccess()],
  })
  const one = await open([jobType('count', async ({ input }) => { runs.push(input); return null })], {})
  const two = await open([], { concurrency: 0 }, `sqlite:${one.dataDir}/backplane.db`)
  const linked = async (t: TestRuntime) =>
    (await t.runtime.collect(HealthCheck).find(each => each.name === 'cluster')!.check(AbortSignal.timeout(1_000))).details!['redis'] === true
  await eventually('both to be connected', async () => await linked(one) && await linked(two))
  return {
    /** Jobs run once each, a word is heard, and a lease has one holder. */
    async work(what: string) {
      const from = performance.now()
      const before = runs.length
      const ids = Array.from({ length: 30 }, (_, at) => `${what} ${at}`)
      await Promise.all(ids.map(input => one.get(Jobs).submit(operator, { type: 'count', input })))
      await eventually(`the jobs ${what}`, () => runs.length >= before + ids.length, 20_000)
      assert.deepEqual(runs.slice(before).toSorted(), ids.toSorted())
      const heard: unknown[] = []
      await using _heard = await two.get(Broadcast).subscribe('news', message => heard.push(message))
      await eventually(`a word ${what}`, async () => { await one.get(Broadcast).publish('news', 1).catch(() => {}); return heard.length > 0 })
      await using lease = await eventually(`a lease ${what}`, () => one.get(Leases).acquire('work').catch(() => undefined))
      assert.equal(await two.get(Leases).acquire('work'), undefined)
      return { ms: performance.now() - from, token: lease.token }
    },
    async [Symbol.asyncDispose]() {
      // Before either is looked at for what it left: each has connected to more nodes since the other one began.
      for (const each of [two, one]) await each.runtime.stop()
      try { await two[Symbol.asyncDispose]() } finally { await one[Symbol.asyncDispose]() }
    },
  }
}

/** Sentinel cuts all connections of whom it promotes, this one too. */
const promoted = (replica: RedisServer) =>
  eventually('the replica to be the master', () => replica.call('INFO', ['replication']).then(info => /role:master/.test(info), () => false), 20_000)
const pidOf = async (server: RedisServer) => Number(/process_id:(\d+)/.exec(await server.call('INFO', ['server']))![1])
/** As a machine that is gone without a word: its connections stand, and nothing is answered. */
async function stopped(servers: readonly RedisServer[], work: () => Promise<void>): Promise<void> {
  const pids = await Promise.all(servers.map(pidOf))
  for (const pid of pids) process.kill(pid, 'SIGSTOP')
  try { await work() } finally { for (const pid of pids) process.kill(pid, 'SIGCONT') }
}

/** A client of Sentinel that was given up keeps its socket for 2 s. */
const given = () => new Promise(resolve => setTimeout(resolve, 2_500))

describe('queue, broadcast and leases', function () {
  this.timeout(90_000)
  before(async function () { await redisOrSkip(this) })
  const QUEUE = '{backplane}'

  it('go on in a cluster while their slot moves and after the death of its master, and storm nobody after the death of all', async () => {
    await using servers = await startCluster(QUEUE)
    await using processes = await pair(servers.url)
    const first = await processes.work('at the start')
    await servers.move(QUEUE, servers.masters.find(each => each !== servers.owner)!)
    await processes.work('after the move')
    await servers.move(QUEUE, servers.owner)
    await processes.work('after the move back')
    await servers.owner.crash()
    await promoted(servers.replica)
    const last = await processes.work('after the death')
    assert.ok(last.ms < BACK_MS, `${last.ms} ms`)
    assert.ok(last.token > first.token)

    for (const each of servers.servers) await each.crash()
    const before = process.cpuUsage()
    await new Promise(resolve => setTimeout(resolve, 1_500))
    const { user, system } = process.cpuUsage(before)
    assert.ok((user + system) / 1_000 < 400, `${(user + system) / 1_000} ms of CPU while all of it was away`)
    const timers = process.getActiveResourcesInfo().filter(each => each === 'Timeout').length
    assert.ok(timers < 200, `${timers} timers while all of it was away`)
  })

  if (process.env['BACKPLANE_CHAOS']) {
    it('go on under Sentinel after the death of the master, though the first Sentinel says nothing', async () => {
      await using servers = await startSentinels()
      await stopped([servers.sentinels[0]!], async () => {
        await using processes = await pair(servers.url)
        const first = await processes.work('at the start')
        await servers.master.crash()
        await promoted(servers.replica)
        const last = await processes.work('after the death')
        assert.ok(last.ms < BACK_MS, `${last.ms} ms`)
        assert.ok(last.token > first.token)
        await given()
      })
    })

    it('go on when master and first Sentinel fall silent together', async () => {
      await using servers = await startSentinels()
      await using processes = await pair(servers.url)
      await processes.work('at the start')
      await stopped([servers.master, servers.sentinels[0]!], async () => {
        await promoted(servers.replica)
        const { ms } = await processes.work('after the silence')
        console.log(`      after ${Math.round(ms)} ms`)
        assert.ok(ms < BACK_MS, `${ms} ms`)
        await given()
      })
    })

    it('go on in a cluster whose master falls silent', async () => {
      await using servers = await startCluster(QUEUE)
      await using processes = await pair(servers.url)
      await processes.work('at the start')
      await stopped([servers.owner], async () => {
        await promoted(servers.replica)
        const { ms } = await processes.work('after the silence')
        console.log(`      after ${Math.round(ms)} ms`)
        assert.ok(ms < BACK_MS, `${ms} ms`)
        await given()
      })
    })
  }
})
