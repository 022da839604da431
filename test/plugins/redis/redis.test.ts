import assert from 'node:assert/strict'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { Secret } from '#core'
import { createTestRuntime, eventually, type TestRuntime } from '#core/testing'
import { HealthCheck } from '#contracts/health'
import { Redis, RedisErrors, type RedisUse } from '#contracts/redis'
import redis from '../../../plugins/redis/index.ts'
import { freePort } from '../../support/shared.ts'
import { redisOrSkip, RedisServer } from '../../support/services.ts'

const open = (url: string, more: object = {}) => createTestRuntime({ plugins: [{ plugin: redis, config: { url: Secret.of('REDIS_URL', url), ...more } }] })
const health = (t: TestRuntime) => t.runtime.collect(HealthCheck)[0]!.check(AbortSignal.timeout(5_000))
const healthy = (t: TestRuntime) => health(t).then(({ status }) => status === 'healthy', () => false)
const logged = (t: TestRuntime) => JSON.stringify(t.lines)

describe('redis', () => {
  let server: RedisServer
  before(async function () { server = await redisOrSkip(this) })

  it('gives connections for each use, named, and takes them back', async () => {
    await using place = await server.newDatabase()
    await using t = await open(place.url, { prefix: 'mine' })
    const service = t.get(Redis)
    for (const use of ['command', 'general', 'blocking', 'subscriber'] as const satisfies readonly RedisUse[]) {
      await using held = await service.connect(use, 'test')
      assert.ok(held.ready, use)
      if (use !== 'subscriber') await held.client.set('a', use)
      const list: string = await server.call('CLIENT', ['LIST'])
      assert.match(list, new RegExp(`name=mine:test:${use}`))
    }
    await eventually('the connections to be gone', async () => !/name=mine:test:/.test(await server.call('CLIENT', ['LIST'])))
    assert.equal(await server.call('GET', ['a'], place.number), 'blocking')
  })

  it('is healthy, and says who is connected', async () => {
    await using place = await server.newDatabase()
    await using t = await open(place.url)
    await using _held = await t.get(Redis).connect('command', 'somebody')
    const { status, details } = await health(t)
    assert.equal(status, 'healthy')
    assert.deepEqual([details!['kind'], details!['connections']], ['standalone', ['somebody']])
  })

  it('refuses to start with an address that it does not understand', async () => {
    await assert.rejects(open('redis://u:hunter2@a,b'), error => /address of Redis "redis:/.test(String(error)) && !/hunter2/.test(String(error)))
  })

  it('keeps the password out of what it logs and throws, also when it is wrong', async () => {
    await using t = await open(`redis://:wrong-password@127.0.0.1:${server.port}`)
    await assert.rejects(health(t), error => RedisErrors.UNAVAILABLE.is(error) && !/wrong-password/.test(JSON.stringify(error) + String((error as Error).stack)))
    await eventually('it to be logged', () => t.lines.some(({ level, message }) => level === 'warn' && /Redis does not answer/.test(message)))
    assert.doesNotMatch(logged(t), /wrong-password/)
  })

  it('uses the new password once it was rotated', async () => {
    await server.call('ACL', ['SETUSER', 'turner', 'on', '>first-password', '~*', '+@all'])
    let value = `redis://turner:first-password@127.0.0.1:${server.port}`
    let rotated = () => {}
    const url = new Secret([{ secret: 'redis-url' }], { read: async () => value, watch: (_names, changed) => { rotated = changed; return () => {} } })
    // A handle of the test's own: bound already, so that the runtime need not know a store.
    url.bind = () => url
    try {
      await using t = await createTestRuntime({ plugins: [{ plugin: redis, config: { url } }] })
      assert.ok(await healthy(t))
      await server.call('ACL', ['SETUSER', 'turner', 'resetpass', '>second-password'])
      value = value.replace('first', 'second')
      rotated()
      await server.call('CLIENT', ['KILL', 'USER', 'turner'])
      await eventually('it to be back', () => healthy(t))
      assert.doesNotMatch(logged(t), /(first|second)-password/)
    } finally { await server.call('ACL', ['DELUSER', 'turner']) }
  })

  describe('whose server comes and goes', () => {
    const own: RedisServer[] = []
    const start = async (options: Parameters<typeof RedisServer.start>[0]) => { const made = await RedisServer.start(options); own.push(made); return made }
    afterEach(async () => { for (const each of own.splice(0)) await each.stop() })

    it('starts without it, says so, and is there within 5 s of it', async function () {
      this.timeout(20_000)
      const port = await freePort()
      await using t = await open(`redis://:not-a-secret-of-anybody@127.0.0.1:${port}`)
      const check = t.runtime.collect(HealthCheck)[0]!
      assert.deepEqual([check.critical, check.noted], [false, true])
      await using held = await t.get(Redis).connect('command', 'test')
      const from = performance.now()
      await assert.rejects(held.client.get('a'))
      await assert.rejects(health(t), { code: RedisErrors.UNAVAILABLE.code })
      assert.ok(performance.now() - from < 500, 'it waited')
      await new Promise(resolve => setTimeout(resolve, 1_000))
      await start({ port })
      const there = performance.now()
      await eventually('it to be there', () => held.ready)
      await eventually('it to be healthy', () => healthy(t))
      assert.ok(performance.now() - there < 5_000)
      assert.equal(t.lines.filter(({ level, fields }) => level === 'warn' && JSON.stringify(fields).includes('REFUSED')).length, 2, 'each connection tells of it once')
    })

    it('comes back after a kill -9 by itself: commands reject meanwhile, and what waits goes on', async function () {
      this.timeout(20_000)
      const server = await start({})
      await using t = await open(server.url)
      const service = t.get(Redis)
      await using command = await service.connect('command', 'one')
      await using general = await service.connect('general', 'two')
      await using blocking = await service.connect('blocking', 'three')
      await using subscriber = await service.connect('subscriber', 'four')
      const heard: string[] = []
      await subscriber.client.subscribe('news')
      subscriber.client.on('message', (_channel: string, message: string) => heard.push(message))
      await command.client.set('kept', 'yes')
      await server.call('BGREWRITEAOF')
      const waits = blocking.client.blpop('list', 0)
      const cut = assert.rejects(waits)
      await eventually('it to wait', async () => /cmd=blpop/.test(await server.call('CLIENT', ['LIST'])))
      await eventually('it to be on disk', async () => /aof_rewrite_in_progress:0/.test(await server.call('INFO', ['persistence'])))
      await new Promise(resolve => setTimeout(resolve, 1_100))
      await server.crash()
      await cut
      await assert.rejects(command.client.get('kept'))
      const waiting = general.client.get('kept')
      await server.restart()
      const there = performance.now()
      assert.equal(await waiting, 'yes')
      await eventually('all to be back', () => [command, general, blocking, subscriber].every(each => each.ready))
      assert.ok(performance.now() - there < 5_000)
      // Not before: it is rejected with each attempt to connect that fails, and whoever waits so asks again.
      const again = blocking.client.blpop('list', 0)
      await command.client.rpush('list', 'x')
      assert.deepEqual(await again, ['list', 'x'])
      await eventually('it to hear again', async () => { await command.client.publish('news', 'again'); return heard.includes('again') })
    })

    it('stops at once while it is away', async function () {
      this.timeout(20_000)
      const server = await start({})
      const t = await open(server.url)
      for (const use of ['command', 'general', 'blocking', 'subscriber'] as const) await t.get(Redis).connect(use, use)
      await server.crash()
      await eventually('the loss to be seen', () => t.lines.filter(({ level }) => level === 'warn').length >= 5)
      const from = performance.now()
      await t[Symbol.asyncDispose]()
      assert.ok(performance.now() - from < 2_000)
    })

    it('notices a server that is there and says nothing', async function () {
      this.timeout(30_000)
      const server = await start({})
      await using t = await open(server.url, { commandMs: 300, connectMs: 300 })
      await using command = await t.get(Redis).connect('command', 'test')
      const pid = Number(/process_id:(\d+)/.exec(await server.call('INFO', ['server']))![1])
      process.kill(pid, 'SIGSTOP')
      try {
        const from = performance.now()
        await assert.rejects(command.client.get('a'))
        assert.ok(performance.now() - from < 1_500)
        await eventually('it to be noticed', () => t.lines.some(({ fields }) => /no sign of life/.test(JSON.stringify(fields))), 10_000)
      } finally { process.kill(pid, 'SIGCONT') }
      await eventually('it to be back', () => healthy(t))
    })

    it('tells why what is kept there may be lost', async () => {
      const server = await start({ settings: ['--save', '', '--appendonly', 'no', '--maxmemory-policy', 'allkeys-lru'] })
      await using t = await open(server.url)
      assert.deepEqual((await t.get(Redis).flaws()).map(each => each.code), [RedisErrors.EVICTS.code, RedisErrors.FORGETS.code])
      const { status, message } = await health(t)
      assert.equal(status, 'degraded')
      assert.match(message!, /allkeys-lru.*noeviction.*appendonly yes/)
      await server.call('CONFIG', ['SET', 'save', '900 1'])
      await server.call('CONFIG', ['SET', 'maxmemory-policy', 'noeviction'])
      assert.deepEqual(await t.get(Redis).flaws(), [])
    })

    it('takes it for kept where CONFIG is forbidden, as on managed servers', async () => {
      const server = await start({ settings: ['--save', '', '--appendonly', 'no', '--rename-command', 'CONFIG', ''] })
      await using t = await open(server.url)
      assert.deepEqual(await t.get(Redis).flaws(), [])
    })

    it('finds the master by Sentinel, and the new one after a fail-over', async function () {
      this.timeout(60_000)
      const [master, replica] = [await start({}), await start({})]
      await replica.call('REPLICAOF', ['127.0.0.1', master.port])
      await eventually('the replica to follow', async () => /master_link_status:up/.test(await replica.call('INFO', ['replication'])), 20_000)
      const port = await freePort()
      const sentinel = await start({ port, sentinel: true })
      await sentinel.call('SENTINEL', ['MONITOR', 'main', '127.0.0.1', master.port, '1'])
      await sentinel.call('SENTINEL', ['SET', 'main', 'auth-pass', master.password])
      await sentinel.call('SENTINEL', ['SET', 'main', 'down-after-milliseconds', '500'])
      // One that is not known to follow is never chosen.
      await eventually('Sentinel to know the replica', async () => (await sentinel.call('SENTINEL', ['REPLICAS', 'main'])).flat().join().includes('master-link-status,ok'), 20_000)
      await sentinel.call('SENTINEL', ['SET', 'main', 'failover-timeout', '4000'])
      // The first one that is asked takes the connection and says nothing.
      const sockets = new Set<Socket>()
      const mute = createServer(socket => void sockets.add(socket.on('error', () => {}).on('close', () => sockets.delete(socket))))
      await new Promise<void>(resolve => { mute.listen(0, '127.0.0.1', resolve) })
      const hosts = `127.0.0.1:${(mute.address() as AddressInfo).port},127.0.0.1:${port}`
      await using t = await open(`redis+sentinel://:${master.password}@${hosts}/main?sentinel_password=${sentinel.password}`, { connectMs: 300 })
      await using held = await t.get(Redis).connect('command', 'test')
      try { await eventually('the master to be found', () => held.ready) } finally {
        for (const each of sockets) each.destroy()
        await new Promise(resolve => mute.close(resolve))
      }
      await held.client.set('a', '1')
      await eventually('the replica to have it', async () => await replica.call('GET', ['a']) === '1')
      await master.crash()
      await eventually('the new master to be written to', () => held.client.set('b', '2').then(() => true, () => false), 30_000)
      assert.equal(await replica.call('GET', ['b']), '2')
      // A client of Sentinel that found nobody there keeps a timer.
      await new Promise(resolve => setTimeout(resolve, 2_100))
    })

    it('speaks to a cluster', async function () {
      this.timeout(30_000)
      const server = await start({ settings: ['--cluster-enabled', 'yes', '--cluster-announce-ip', '127.0.0.1', '--appendonly', 'yes', '--databases', '1'] })
      await server.call('CLUSTER', ['ADDSLOTSRANGE', '0', '16383'])
      await eventually('the cluster to be up', async () => /cluster_state:ok/.test(await server.call('CLUSTER', ['INFO'])))
      await using t = await open(`redis+cluster://:${server.password}@127.0.0.1:${server.port}`)
      await eventually('it to be healthy', () => healthy(t))
      await using command = await t.get(Redis).connect('command', 'test')
      await using subscriber = await t.get(Redis).connect('subscriber', 'test')
      await command.client.set('a', '1')
      assert.equal(await command.client.get('a'), '1')
      const heard: string[] = []
      subscriber.client.on('message', (_channel: string, message: string) => heard.push(message))
      await subscriber.client.subscribe('news')
      await eventually('a message', async () => { await command.client.publish('news', 'x'); return heard.length > 0 })
      assert.equal((await health(t)).details!['kind'], 'cluster')
    })
  })
})
