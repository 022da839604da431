import assert from 'node:assert/strict'
import { Redis } from 'ioredis'
import { Host, type Role } from '#core'
import { conform, createTestRuntime, eventually, type TestRuntime } from '#core/testing'
import { queueConformance } from '#conformance/queue'
import type { Database } from '#contracts/database'
import { HealthCheck } from '#contracts/health'
import { JobQueue, type Consumer } from '#contracts/queue'
import { RedisErrors } from '#contracts/redis'
import database from '../../../plugins/database/index.ts'
import redis from '../../../plugins/redis/index.ts'
import { Engine } from '../../../plugins/queue-bullmq/engine.ts'
import queue from '../../../plugins/queue-bullmq/index.ts'
import { freePort } from '../../support/shared.ts'
import { redisOrSkip, RedisServer } from '../../support/services.ts'

const open = (url: string, { environment = 'test', roles, database: file, ...config }: Record<string, unknown> & { readonly roles?: readonly Role[] } = {}) =>
  createTestRuntime({
    plugins: [{ plugin: database, config: file === undefined ? {} : { url: file } }, { plugin: redis, config: { url } }, { plugin: queue, config }],
    host: { environment: String(environment), ...(roles && { roles }) },
  })
const fileOf = (t: TestRuntime) => `sqlite:${t.dataDir}/backplane.db`
const entries = (...ids: string[]) => ids.map(id => ({ id, priority: 5 }))
const checkOf = (t: TestRuntime, name = 'queue-bullmq') => t.runtime.collect(HealthCheck).find(each => each.name === name)!
const health = (t: TestRuntime, name?: string) => checkOf(t, name).check(AbortSignal.timeout(5_000))
const many = (count: number, prefix = 'job') => Array.from({ length: count }, (_, at) => ({ id: `${prefix}-${at}`, priority: 5 }))
const problem = (code: string) => (error: unknown) => String(error).includes(code) || JSON.stringify(error, Object.getOwnPropertyNames(error)).includes(code)

async function collect(t: TestRuntime, want: number): Promise<{ got: string[]; consumer: Consumer }> {
  const got: string[] = []
  const consumer = await t.get(JobQueue).consume(async ids => { got.push(...ids) })
  consumer.want(want)
  return { got, consumer }
}

describe('queue-bullmq', () => {
  let server: RedisServer
  before(async function () { server = await redisOrSkip(this) })

  conform(it, queueConformance, async () => {
    const place = await server.newDatabase()
    const t = await open(place.url)
    return {
      // It needs none: what asks for one is refused.
      subject: { queue: t.get(JobQueue), database: undefined as unknown as Database },
      async [Symbol.asyncDispose]() { try { await t[Symbol.asyncDispose]() } finally { await place[Symbol.asyncDispose]() } },
    }
  }, { transactional: false })

  it('says what it can do, refuses a transaction, and is healthy', async () => {
    await using place = await server.newDatabase()
    await using t = await open(place.url)
    assert.deepEqual(t.get(JobQueue).can, { transactional: false, distributed: true })
    await assert.rejects(t.get(JobQueue).enqueue(entries('a'), { afterCommit() {} }), /after the commit/)
    await t.get(JobQueue).enqueue(entries('a'))
    assert.deepEqual(await health(t), { status: 'healthy', details: { depth: 1 } })
  })

  it('is needed for readiness where jobs are only worked on: others take them in without it', async () => {
    await using place = await server.newDatabase()
    for (const [roles, critical] of [[['api'], false], [['api', 'worker', 'scheduler'], false], [['scheduler'], false], [['worker'], true], [['worker', 'scheduler'], true]] as const) {
      await using t = await open(place.url, { roles })
      assert.deepEqual([checkOf(t).critical, checkOf(t).noted], [critical, true], roles.join())
      await server.call('DEL', ['{backplane}:jobs:database'], place.number)
    }
  })

  it('removes after the commit of a transaction', async () => {
    await using place = await server.newDatabase()
    await using t = await open(place.url)
    const after: (() => unknown)[] = []
    await t.get(JobQueue).enqueue(entries('a', 'b'))
    await t.get(JobQueue).remove(['a'], { afterCommit: run => void after.push(run) })
    assert.equal(await t.get(JobQueue).depth(), 2)
    for (const run of after) await run()
    assert.equal(await t.get(JobQueue).depth(), 1)
  })

  it('shares 2,000 ids among two processes, with no id given to both, and leaves nothing in Redis', async () => {
    await using place = await server.newDatabase()
    await using one = await open(place.url)
    {
      await using two = await open(place.url, { database: fileOf(one) })
      const [a, b] = [await collect(one, 1_000_000), await collect(two, 1_000_000)]
      for (let at = 0; at < 10; at++) await (at % 2 ? one : two).get(JobQueue).enqueue(many(200, `${at}`))
      await eventually('all', () => a.got.length + b.got.length >= 2_000, 10_000)
      assert.equal(new Set([...a.got, ...b.got]).size, 2_000)
      assert.equal(a.got.length + b.got.length, 2_000)
      assert.ok(a.got.length && b.got.length, `${a.got.length} and ${b.got.length}`)
      await b.consumer[Symbol.asyncDispose]()
      await a.consumer[Symbol.asyncDispose]()
    }
    const left: string[] = await server.call('KEYS', ['*'], place.number)
    assert.deepEqual(left.filter(key => /:\d+-\d+/.test(key)), [], 'entries or locks')
    assert.ok(left.every(key => key.startsWith('{backplane}:jobs:')))
    for (const type of ['failed', 'completed']) assert.equal(await server.call('ZCARD', [`{backplane}:jobs:${type}`], place.number), 0)
  })

  it('gives to another process what a consumer took and did not deliver, and never fails it, however often', async function () {
    this.timeout(20_000)
    await using place = await server.newDatabase()
    await using one = await open(place.url, { lock_ms: 300 })
    await one.get(JobQueue).enqueue(entries('a', 'b', 'c'))
    for (let at = 0; at < 4; at++) {
      // As a process does that is killed between taking and delivering: its lock runs out.
      await server.call('EVAL', [`local id = redis.call('ZPOPMIN', KEYS[1])[1] or redis.call('RPOP', KEYS[3]) if id then redis.call('LPUSH', KEYS[2], id) end return id`, 3,
        '{backplane}:jobs:prioritized', '{backplane}:jobs:active', '{backplane}:jobs:wait'], place.number)
      await using watcher = await one.get(JobQueue).consume(async () => assert.fail('nothing is wanted'))
      await eventually('it to be back', async () => await one.get(JobQueue).depth() === 3)
      watcher.want(0)
    }
    const { got, consumer } = await collect(one, 10)
    await eventually('all', () => got.length >= 3)
    assert.deepEqual(got.toSorted(), ['a', 'b', 'c'])
    await eventually('an empty queue', async () => await one.get(JobQueue).depth() === 0)
    await consumer[Symbol.asyncDispose]()
    assert.equal(await server.call('EXISTS', ['{backplane}:jobs:failed'], place.number), 0)
  })

  it('keeps an id that comes back while its delivery is not acknowledged yet', async () => {
    await using place = await server.newDatabase()
    await using t = await open(place.url)
    const jobs = t.get(JobQueue)
    const got: string[] = []
    let again: Promise<void> | undefined
    const consumer = await jobs.consume(async ids => {
      got.push(...ids)
      // As a job does that fails at once and is queued again.
      again ??= jobs.enqueue(entries('a'))
    })
    consumer.want(10)
    await jobs.enqueue(entries('a'))
    await eventually('the second delivery', () => got.length === 2)
    await again
    await eventually('an empty queue', async () => await jobs.depth() === 0)
    await consumer[Symbol.asyncDispose]()
  })

  it('brings again an id that another process adds while it is being delivered, with its new priority', async () => {
    await using place = await server.newDatabase()
    await using one = await open(place.url)
    await using two = await open(place.url, { database: fileOf(one) })
    const got: string[] = []
    let refuse!: () => void
    const looked = new Promise<void>(resolve => { refuse = resolve })
    const consumer = await one.get(JobQueue).consume(async ids => { got.push(...ids); await looked })
    consumer.want(1)
    await one.get(JobQueue).enqueue(entries('a'))
    await eventually('the delivery', () => got.length === 1)
    // As another process does that lets a job go which this one has just kept back.
    await two.get(JobQueue).enqueue([{ id: 'a', priority: 9 }, { id: 'b', priority: 5 }])
    await two.get(JobQueue).enqueue(entries('c'))
    refuse()
    await eventually('it to wait again', async () => await two.get(JobQueue).depth() === 3)
    consumer.want(3)
    await eventually('all', () => got.length === 4)
    assert.deepEqual(got, ['a', 'a', 'b', 'c'])
    await consumer[Symbol.asyncDispose]()
    const left: string[] = await server.call('KEYS', ['*'], place.number)
    assert.deepEqual(left.filter(key => /:(a|b|c|again)(:|$)/.test(key)), [])
  })

  it('forgets an id that came back and was removed', async () => {
    await using place = await server.newDatabase()
    await using t = await open(place.url)
    const jobs = t.get(JobQueue)
    const got: string[] = []
    const consumer = await jobs.consume(async ids => {
      got.push(...ids)
      if (ids.includes('b')) return
      await jobs.enqueue(entries('a'))
      await jobs.remove(['a'])
    })
    consumer.want(1)
    await jobs.enqueue(entries('a'))
    await eventually('it to be gone', async () => await server.call('EXISTS', ['{backplane}:jobs:a'], place.number) === 0)
    consumer.want(1)
    await jobs.enqueue(entries('b'))
    await eventually('another', () => got.includes('b'))
    await consumer[Symbol.asyncDispose]()
    assert.deepEqual([got, await jobs.depth()], [['a', 'b'], 0])
  })

  it('gives back what it took when nothing is wanted any more', async () => {
    await using place = await server.newDatabase()
    await using t = await open(place.url)
    const { got, consumer } = await collect(t, 5)
    await eventually('it to wait', async () => /cmd=bzpopmin/.test(await server.call('CLIENT', ['LIST'])))
    const added = t.get(JobQueue).enqueue(entries('a', 'b', 'c'))
    consumer.want(1)
    await added
    await eventually('one', () => got.length === 1)
    consumer.want(0)
    await eventually('two to be left', async () => await t.get(JobQueue).depth() === 2)
    consumer.want(5)
    await eventually('all', () => got.length === 3)
    assert.deepEqual(got, ['a', 'b', 'c'])
    await consumer[Symbol.asyncDispose]()
  })

  it('tells whoever waits of what another one put back', async () => {
    await using place = await server.newDatabase()
    await using t = await open(place.url)
    const waiting = async (count: number) => [...String(await server.call('CLIENT', ['LIST'])).matchAll(/cmd=bzpopmin/g)].length === count
    const first: Consumer = await t.get(JobQueue).consume(async () => { first.want(0); throw new Error('not here') })
    first.want(1)
    await eventually('it to wait', () => waiting(1))
    const { got, consumer } = await collect(t, 1)
    await eventually('both to wait', () => waiting(2))
    const from = performance.now()
    await t.get(JobQueue).enqueue(entries('a'))
    await eventually('it', () => got.length === 1)
    assert.ok(performance.now() - from < 1_000, `it took ${Math.round(performance.now() - from)} ms`)
    await first[Symbol.asyncDispose]()
    await consumer[Symbol.asyncDispose]()
  })

  it('closes at once while it waits, and after what it delivers', async () => {
    await using place = await server.newDatabase()
    await using t = await open(place.url)
    const idle = await collect(t, 5)
    await eventually('it to wait', async () => /cmd=bzpopmin/.test(await server.call('CLIENT', ['LIST'])))
    const from = performance.now()
    await idle.consumer[Symbol.asyncDispose]()
    assert.ok(performance.now() - from < 500)
    let release!: () => void
    const door = new Promise<void>(resolve => { release = resolve })
    let delivered = false
    const busy = await t.get(JobQueue).consume(async () => { delivered = true; await door })
    busy.want(1)
    await t.get(JobQueue).enqueue(entries('a'))
    await eventually('the delivery', () => delivered)
    let closed = false
    const closing = Promise.resolve(busy[Symbol.asyncDispose]()).then(() => { closed = true })
    await new Promise(resolve => setTimeout(resolve, 50))
    assert.equal(closed, false)
    release()
    await closing
    assert.equal(await server.call('EXISTS', ['{backplane}:jobs:a'], place.number), 0, 'it was not acknowledged')
  })

  it('takes nothing from a queue that is of another database, says so, and goes on when the other one is gone', async function () {
    this.timeout(30_000)
    await using place = await server.newDatabase()
    await using ours = await open(place.url)
    await ours.get(JobQueue).enqueue(entries('a', 'b'))
    await using theirs = await open(place.url)
    const { got, consumer } = await collect(theirs, 10)
    await assert.rejects(theirs.get(JobQueue).enqueue(entries('c')), { code: RedisErrors.SHARED.code, retryable: true })
    await assert.rejects(health(theirs), { code: RedisErrors.SHARED.code })
    assert.deepEqual([checkOf(ours).critical, checkOf(theirs).critical], [false, true], 'who is no part of the deployment is not ready')
    assert.deepEqual(theirs.lines.filter(({ level }) => level === 'error').map(({ fields }) => fields['code']), [RedisErrors.SHARED.code])
    assert.equal(await ours.get(JobQueue).depth(), 2)
    assert.deepEqual(got, [])
    await ours.runtime.stop()
    // As its silence does, later.
    await server.call('DEL', ['{backplane}:jobs:database'], place.number)
    await eventually('the other one to go on', async () => await theirs.get(JobQueue).depth().catch(() => -1) >= 0, 10_000)
    await consumer[Symbol.asyncDispose]()
  })

  it('keeps deployments with a prefix of their own apart', async () => {
    await using place = await server.newDatabase()
    const open = (prefix: string) => createTestRuntime({ plugins: [database, { plugin: redis, config: { url: place.url, prefix } }, queue] })
    await using one = await open('one')
    await using two = await open('two')
    const [a, b] = [await collect(one, 10), await collect(two, 10)]
    await one.get(JobQueue).enqueue(entries('a'))
    await two.get(JobQueue).enqueue(entries('b'))
    await eventually('both', () => a.got.length + b.got.length >= 2)
    assert.deepEqual([a.got, b.got], [['a'], ['b']])
    await a.consumer[Symbol.asyncDispose]()
    await b.consumer[Symbol.asyncDispose]()
  })

  describe('whose Redis comes and goes', () => {
    const own: RedisServer[] = []
    const start = async (options: Parameters<typeof RedisServer.start>[0] = {}) => { const made = await RedisServer.start(options); own.push(made); return made }
    afterEach(async () => { for (const each of own.splice(0)) await each.stop() })

    it('goes on within 5 s of a killed Redis coming back, and fails at once meanwhile', async function () {
      this.timeout(30_000)
      const server = await start()
      await using t = await open(server.url)
      const { got, consumer } = await collect(t, 1_000)
      await t.get(JobQueue).enqueue(entries('before'))
      await eventually('the first', () => got.length === 1)
      await server.crash()
      const from = performance.now()
      for (let at = 0; at < 20; at++) await assert.rejects(t.get(JobQueue).enqueue(entries('meanwhile')), { code: RedisErrors.UNAVAILABLE.code, retryable: true })
      await assert.rejects(t.get(JobQueue).depth(), { code: RedisErrors.UNAVAILABLE.code })
      await assert.rejects(health(t), { code: RedisErrors.UNAVAILABLE.code })
      assert.ok(performance.now() - from < 500, 'it waited')
      await new Promise(resolve => setTimeout(resolve, 3_000))
      await server.restart()
      const there = performance.now()
      await eventually('it to take ids again', () => t.get(JobQueue).enqueue(entries('after')).then(() => true, () => false))
      await eventually('it to be delivered', () => got.includes('after'))
      assert.ok(performance.now() - there < 5_000)
      await consumer[Symbol.asyncDispose]()
    })

    it('delivers each id at least once though Redis is killed again and again', async function () {
      this.timeout(60_000)
      const server = await start({ settings: ['--appendonly', 'yes', '--appendfsync', 'always', '--save', '', '--databases', '2'] })
      await using one = await open(server.url, { lock_ms: 500 })
      const got = new Set<string>()
      const consumer = await one.get(JobQueue).consume(async ids => {
        for (const id of ids) got.add(id)
        await new Promise(resolve => setTimeout(resolve, 2))
        consumer.want(20)
      })
      consumer.want(20)
      const wanted = new Set<string>()
      for (let kill = 0; kill < 3; kill++) {
        for (let at = 0; at < 10; at++) {
          const batch = many(100, `${kill}-${at}`)
          for (const { id } of batch) wanted.add(id)
          // As `jobs` does: what was not taken is handed over again.
          const handed = eventually('it to be taken', () => one.get(JobQueue).enqueue(batch).then(() => true, () => false), 15_000)
          if (at === 5) { await server.crash(); await server.restart() }
          await handed
        }
      }
      await eventually('all', () => got.size === wanted.size, 20_000)
      await eventually('an empty queue', async () => await one.get(JobQueue).depth().catch(() => 1) === 0)
      await consumer[Symbol.asyncDispose]()
    })

    it('takes again what it took when the connection broke, so that no answer came', async () => {
      const server = await start()
      await using t = await open(server.url)
      await t.get(JobQueue).enqueue(entries('a', 'b'))
      const client = new Redis(server.url)
      try {
        const unheard = new Engine(client, 'backplane', 'jobs', 5_000)
        assert.equal(await unheard.take(t.get(Host).instanceId), 'a')
        const { got, consumer } = await collect(t, 2)
        await eventually('the other', () => got.length === 1)
        const from = performance.now()
        await server.call('CLIENT', ['KILL', 'TYPE', 'normal'])
        await eventually('it', () => got.length === 2)
        assert.ok(performance.now() - from < 2_000, `it took ${Math.round(performance.now() - from)} ms`)
        assert.deepEqual(got, ['b', 'a'])
        await consumer[Symbol.asyncDispose]()
      } finally { client.disconnect() }
    })

    it('starts without Redis, and works once it is there', async function () {
      this.timeout(20_000)
      const port = await freePort()
      const url = `redis://:not-a-secret-of-anybody@127.0.0.1:${port}`
      await using t = await open(url, { environment: 'production' })
      const { got, consumer } = await collect(t, 10)
      await assert.rejects(t.get(JobQueue).enqueue(entries('a')), { code: RedisErrors.UNAVAILABLE.code })
      await start({ port })
      await eventually('it to be taken', () => t.get(JobQueue).enqueue(entries('a')).then(() => true, () => false))
      await eventually('it to be delivered', () => got.length === 1)
      await consumer[Symbol.asyncDispose]()
    })

    it('loses its consumer nothing but the ids by FLUSHALL', async () => {
      const server = await start()
      await using t = await open(server.url)
      const { got, consumer } = await collect(t, 0)
      await t.get(JobQueue).enqueue(entries('lost'))
      await server.flushAll()
      consumer.want(10)
      await t.get(JobQueue).enqueue(entries('a'))
      await eventually('the next', () => got.length === 1)
      assert.deepEqual(got, ['a'])
      await t.get(JobQueue).enqueue(entries('lost'))
      await eventually('what was handed over again', () => got.length === 2)
      await consumer[Symbol.asyncDispose]()
    })

    it('refuses to start in production on a Redis that evicts or forgets, and warns elsewhere', async () => {
      const server = await start({ settings: ['--save', '', '--appendonly', 'no', '--maxmemory-policy', 'allkeys-lru'] })
      await assert.rejects(open(server.url, { environment: 'production' }), problem('maxmemory-policy allkeys-lru'))
      await using t = await open(server.url, { environment: 'development' })
      assert.deepEqual(t.lines.filter(({ level }) => level === 'warn').map(({ fields }) => fields['code']), [RedisErrors.EVICTS.code, RedisErrors.FORGETS.code])
      await t.get(JobQueue).enqueue(entries('a'))
      await using warned = await open(server.url, { environment: 'production', unfit: 'warn', database: fileOf(t) })
      assert.equal(await warned.get(JobQueue).depth(), 1)
    })

    it('refuses to work in production once Redis turns out to be unfit', async function () {
      this.timeout(20_000)
      const port = await freePort()
      await using t = await open(`redis://:not-a-secret-of-anybody@127.0.0.1:${port}`, { environment: 'production' })
      await start({ port, settings: ['--save', '', '--appendonly', 'no'] })
      await eventually('it to be refused', () => t.get(JobQueue).enqueue(entries('a')).then(() => undefined, error => RedisErrors.FORGETS.is(error)), 10_000)
      await assert.rejects(health(t), { code: RedisErrors.FORGETS.code })
    })
  })
})
