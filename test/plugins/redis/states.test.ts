import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createTestRuntime, eventually, type TestRuntime } from '#core/testing'
import { HealthCheck } from '#contracts/health'
import { Redis, RedisErrors, type RedisClient } from '#contracts/redis'
import { findFlaws } from '../../../plugins/redis/flaws.ts'
import redis from '../../../plugins/redis/index.ts'
import { selfSigned } from '../../support/certificate.ts'
import { freePort } from '../../support/shared.ts'
import { redisOrSkip, RedisServer } from '../../support/services.ts'

const open = (url: string, more: object = {}) => createTestRuntime({ plugins: [{ plugin: redis, config: { url, ...more } }] })
const health = (t: TestRuntime) => t.runtime.collect(HealthCheck)[0]!.check(AbortSignal.timeout(5_000))
const healthy = (t: TestRuntime) => health(t).then(({ status }) => status === 'healthy', () => false)
const unhealthy = (t: TestRuntime, kind: { readonly code: string }, reason: RegExp) => assert.rejects(health(t), (error: Error & { code: string }) => {
  assert.equal(error.code, kind.code)
  assert.match(error.message, reason)
  return true
})

describe('redis: its version', () => {
  for (const [version, expected] of [['4.0.14', [RedisErrors.OLD.code]], ['5.0.0', []], ['7.2.4', []], ['10.1.0', []], ['', []]] as const) {
    it(`${version || 'none'} is ${expected.length ? 'too old' : 'taken'}`, async () => {
      const said = { server: `# Server\r\nredis_version:${version}\r\nos:Linux\r\n`, memory: 'maxmemory_policy:noeviction\r\n', persistence: 'aof_enabled:1\r\n' }
      const client = { info: async (section: keyof typeof said) => said[section], config: async () => [] } as unknown as RedisClient
      assert.deepEqual((await findFlaws(client)).map(each => each.code), expected)
    })
  }
})

describe('redis that answers, but not as it should', () => {
  before(async function () { await redisOrSkip(this) })
  const own: RedisServer[] = []
  const start = async (options: Parameters<typeof RedisServer.start>[0] = {}) => { const made = await RedisServer.start(options); own.push(made); return made }
  afterEach(async () => { for (const each of own.splice(0)) await each.stop() })

  it('never goes on in database 0 instead of one that there is not', async () => {
    const server = await start()
    await using t = await open(server.urlOf(9_999))
    await using held = await t.get(Redis).connect('command', 'test')
    await assert.rejects(held.client.set('a', '1'))
    await unhealthy(t, RedisErrors.UNAVAILABLE, /DB index is out of range/)
    assert.deepEqual(await server.call('KEYS', ['*']), [])
  })

  it('is unhealthy while it is full or lacks replicas, and says what helps', async () => {
    const server = await start()
    await using t = await open(server.url)
    for (const [name, value, reason, back] of [['maxmemory', '1mb', /OOM/, '0'], ['min-replicas-to-write', '1', /NOREPLICAS/, '0']] as const) {
      await server.call('CONFIG', ['SET', name, value])
      await unhealthy(t, RedisErrors.REFUSES, reason)
      await server.call('CONFIG', ['SET', name, back])
      assert.ok(await healthy(t))
    }
  })

  it('is unhealthy on a replica, which is not stormed', async () => {
    const [master, replica] = [await start(), await start()]
    await replica.call('REPLICAOF', ['127.0.0.1', master.port])
    await eventually('the replica to follow', async () => /master_link_status:up/.test(await replica.call('INFO', ['replication'])))
    await using t = await open(replica.url)
    await using held = await t.get(Redis).connect('command', 'test')
    const connections = async () => Number(/total_connections_received:(\d+)/.exec(await replica.call('INFO', ['stats']))![1])
    const before = await connections()
    let refused = 0
    for (let at = 0; at < 50; at++) {
      await held.client.set('a', '1').catch((error: unknown) => { if (RedisErrors.REFUSES.is(held.unavailable(error))) refused++ })
      await new Promise(resolve => setTimeout(resolve, 10))
    }
    assert.ok(refused > 25, `${refused} of 50 were told why`)
    assert.ok(await connections() - before <= 3, 'it connected again and again')
    await eventually('it to be connected', () => unhealthy(t, RedisErrors.REFUSES, /READONLY/).then(() => true, () => false))
  })

  it('needs no more rights than its README says', async () => {
    const server = await start()
    await server.call('ACL', ['SETUSER', 'narrow', 'on', '>not-a-secret', '~backplane:*', '~{backplane}:*', '&backplane:*', '+@all', '-@admin', '-@dangerous', '+info'])
    await using t = await open(`redis://narrow:not-a-secret@127.0.0.1:${server.port}`)
    assert.ok(await healthy(t))
    await using held = await t.get(Redis).connect('command', 'test')
    const error = await held.client.set('theirs', '1').then(() => undefined, (refused: unknown) => held.unavailable(refused))
    assert.ok(RedisErrors.REFUSES.is(error))
    assert.match(error.message, /NOPERM/)
  })

  it('speaks TLS, and trusts nobody but whom it is told to', async () => {
    const { cert, key } = selfSigned()
    const folder = mkdtempSync(join(tmpdir(), 'backplane-tls-'))
    try {
      const files = { cert: join(folder, 'cert.pem'), key: join(folder, 'key.pem') }
      writeFileSync(files.cert, cert)
      writeFileSync(files.key, key)
      const port = await freePort()
      const server = await start({
        settings: ['--appendonly', 'yes', '--tls-port', String(port), '--tls-cert-file', files.cert, '--tls-key-file', files.key, '--tls-ca-cert-file', files.cert, '--tls-auth-clients', 'no'],
      })
      const url = `rediss://:${server.password}@127.0.0.1:${port}/0`
      for (const [tls, reason] of [
        [{ ca: cert }, undefined], [{ verify: false }, undefined], [{}, /self-signed/], [{ ca: cert, servername: 'other' }, /does not match certificate/],
      ] as const) {
        await using t = await open(url, { tls })
        if (reason) await unhealthy(t, RedisErrors.UNAVAILABLE, reason)
        else assert.ok(await healthy(t))
      }
    } finally { rmSync(folder, { recursive: true }) }
  })

  it('gives up a peer that takes the connection and says nothing, whatever it is for', async function () {
    this.timeout(20_000)
    const sockets = new Set<Socket>()
    let attempts = 0
    const mute = createServer(socket => { attempts++; sockets.add(socket.on('error', () => {}).on('close', () => sockets.delete(socket))) })
    await new Promise<void>(resolve => { mute.listen(0, '127.0.0.1', resolve) })
    const { port } = mute.address() as AddressInfo
    const t = await open(`redis://:not-a-secret-of-anybody@127.0.0.1:${port}`, { connectMs: 200, silentMs: 200, commandMs: 200 })
    const held = await Promise.all((['general', 'blocking', 'subscriber'] as const).map(use => t.get(Redis).connect(use, use)))
    try {
      const before = attempts
      await eventually('each to try again', () => attempts >= before + 3 * held.length)
    } finally {
      for (const each of sockets) each.destroy()
      await new Promise(resolve => mute.close(resolve))
    }
    await start({ port })
    await eventually('all to be there', () => held.every(each => each.ready))
    await t[Symbol.asyncDispose]()
  })
})
