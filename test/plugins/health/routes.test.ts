import assert from 'node:assert/strict'
import { definePlugin, type CommandIo } from '#core'
import { Access } from '#contracts/access'
import { HealthCheck, type HealthResult, type HealthStatus } from '#contracts/health'
import { contribute, eventually, FakeClock, settle } from '#core/testing'
import { health as command } from '../../../plugins/health/commands.ts'
import healthPlugin from '../../../plugins/health/index.ts'
import { fakeAccess, httpEntry, serve } from '../../support/http.ts'
import { createTestRuntime } from '#core/testing'
import { HttpServer } from '#contracts/http'

// What the machine is like must not decide these tests.
const health = { plugin: healthPlugin, config: { memory: { degradedPercent: 100, unhealthyPercent: 100 },
  disk: { degradedPercent: 100, unhealthyPercent: 100 }, eventLoop: { degradedMs: 60_000, unhealthyMs: 60_000 } } }
const check = (name: string, result: () => HealthResult, critical = false) =>
  contribute(HealthCheck, { name, critical, ttl: 0, check: async () => result() })

describe('health routes', () => {
  const matrix: [HealthStatus, boolean, string, number, number][] = [
    ['healthy', true, 'healthy', 200, 200], ['degraded', true, 'degraded', 200, 200], ['unhealthy', true, 'unhealthy', 503, 503],
      ['unconfigured', true, 'healthy', 200, 200],
    ['unhealthy', false, 'degraded', 200, 200],
  ]
  for (const [status, critical, overall, code, ready] of matrix) {
    it(`answer ${code}, ready ${ready}, and "${overall}" when a ${critical ? 'critical' : 'minor'} check is ${status}`, async () => {
      await using t = await serve([health, check('db', () => ({ status }), critical)])
      const answer = await fetch(`${t.url}/health`)
      const body = await answer.json() as Record<string, any>
      assert.deepEqual([answer.status, body['status'], body['checks'].db.status], [code, overall, status])
      assert.equal((await fetch(`${t.url}/health/ready`)).status, ready)
      assert.equal((await fetch(`${t.url}/health/live`)).status, 200)
      const one = await fetch(`${t.url}/health/checks/db`)
      assert.deepEqual([one.status, (await one.json() as { status: string }).status], [status === 'unhealthy' ? 503 : 200, status])
      assert.deepEqual((await (await fetch(`${t.url}/api/v1/health`)).json() as { status: string }).status, overall)
    })
  }

  it('tell the public names and states only; the rest needs monitoring:read', async () => {
    await using t = await serve([health, check('db', () => ({ status: 'degraded', message: 'db.internal:5432 refused',
      details: { path: '/srv/data' } }))])
    for (const path of ['/health', '/api/v1/health', '/health/checks/db', '/health/ready', '/health/live']) {
      const answer = await fetch(`${t.url}${path}`, { headers: { 'x-refuse': 'identity' } })
      const text = await answer.text()
      assert.equal(answer.status, 200, path)
      assert.doesNotMatch(text, /internal|srv|message|details/)
    }
    assert.equal((await fetch(`${t.url}/health/detailed`, { headers: { 'x-refuse': 'permission' } })).status, 403)
    const body = await (await fetch(`${t.url}/health/detailed`)).json() as Record<string, any>
    assert.equal(body['checks'].db.message, 'db.internal:5432 refused')
    assert.deepEqual(body['plugins'].find((each: { name: string }) => each.name === 'health'),
      { name: 'health', state: 'running', optional: false, faults: 0 })
    assert.deepEqual([body['state'], body['versions'].backplane, body['versions'].node], ['running', '0.0.0-test', process.version])
    assert.ok(Number.isInteger(body['uptime_s']) && typeof body['instance_id'] === 'string')
  })

  it('name in detail what was left out and why', async () => {
    const broken = definePlugin({ name: 'broken', setup() { throw new Error('no disk') } })
    await using t = await serve([health, { plugin: broken, optional: true }])
    const body = await (await fetch(`${t.url}/health/detailed`)).json() as Record<string, any>
    const row = body['plugins'].find((each: { name: string }) => each.name === 'broken')
    assert.deepEqual([body['status'], row.state, row.problem.phase, row.problem.code], ['degraded', 'failed', 'setup', 'LIFECYCLE_FAILED'])
  })

  it('name in detail the faults of running plugins', async () => {
    await using t = await serve([health, definePlugin({ name: 'shaky', setup() {} })])
    t.runtime.fault('shaky', new Error('boom'), 'timer')
    const body = await (await fetch(`${t.url}/health/detailed`)).json() as Record<string, any>
    assert.deepEqual([body['checks'].plugins.message, body['checks'].plugins.details.faults], ['faults since start: shaky 1', { shaky: 1 }])
    assert.equal(body['plugins'].find((each: { name: string }) => each.name === 'shaky').faults, 1)
  })

  it('answer 404 to a check that there is not', async () => {
    await using t = await serve([health])
    assert.equal((await fetch(`${t.url}/health/checks/nope`)).status, 404)
  })

  it('are not ready, with the reason, while starting and while draining; live all the while', async () => {
    let go = () => {}
    let end = () => {}
    const slow = definePlugin({ name: 'slow', setup: () => ({ start: () => new Promise<void>(resolve => { go = resolve }),
      drain: () => new Promise<void>(resolve => { end = resolve }) }) })
    await using t = await createTestRuntime({ plugins: [httpEntry(), health, slow], services: [[Access, fakeAccess()]], manual: true })
    const started = t.runtime.start()
    const url = await eventually('the server', () => { try { return t.get(HttpServer).url } catch { return undefined } })
    const readiness = async () => { const answer = await fetch(`${url}/health/ready`)
      return [answer.status, await answer.json(), answer.headers.get('retry-after')] }
    assert.deepEqual(await readiness(), [503, { ready: false, reasons: ['starting'], degraded: [] }, '1'])
    assert.equal((await fetch(`${url}/health/live`)).status, 200)
    await eventually('the last start', () => { go(); return t.runtime.state === 'running' })
    await started
    assert.deepEqual(await readiness(), [200, { ready: true, reasons: [], degraded: [] }, null])
    const stopped = t.runtime.stop()
    await eventually('the drain', async () => (await readiness())[0] === 503)
    assert.deepEqual(await readiness(), [503, { ready: false, reasons: ['draining'], degraded: [] }, '1'])
    assert.equal((await fetch(`${url}/health/live`)).status, 200)
    end()
    await stopped
  })

  it('answer from what is fresh without asking again', async () => {
    const clock = new FakeClock()
    let runs = 0
    const counted = contribute(HealthCheck, { name: 'counted', check: async () => { runs++; return { status: 'healthy' } } })
    await using t = await serve([health, counted], { clock })
    for (let at = 0; at < 10; at++) assert.equal((await fetch(`${t.url}/health`)).status, 200)
    assert.equal(runs, 1)
    await settle()
  })
})

describe('the health command', () => {
  const run = async (url: string, args: string[] = [], json = false, headers: Record<string, string> = {}) => {
    const out: string[] = []
    const err: string[] = []
    const io = {
      args, json, options: {}, tty: false, stdin: async function* () {}, signal: new AbortController().signal, out: (text: string) => out.push(text),
        err: (text: string) => err.push(text), get: () => { throw new Error('no runtime here') },
      server: { url, fetch: (path: string, init: RequestInit = {}) => fetch(`${url}${path}`, { ...init, headers }) },
    } as unknown as CommandIo
    return { code: (await command.run(io)) ?? 0, out: out.join('\n'), err: err.join('\n') }
  }

  it('shows every check with its message, and ends with 1 when the server is unhealthy', async () => {
    let status: HealthStatus = 'healthy'
    await using t = await serve([health, check('db', () => ({ status, message: 'as it is' }), true)])
    const well = await run(t.url)
    assert.equal(well.code, 0)
    assert.match(well.out, /^healthy\n/)
    assert.match(well.out, /^ {2}db +healthy +[\d.]+ ms {2}as it is$/m)
    status = 'unhealthy'
    const ill = await run(t.url)
    assert.deepEqual([ill.code, ill.out.split('\n')[0]], [1, 'unhealthy'])
  })

  it('shows one check by its name, as JSON too, and says which there are when it is none of them', async () => {
    await using t = await serve([health, check('db', () => ({ status: 'unhealthy' }))])
    const one = await run(t.url, ['db'], true)
    const parsed = JSON.parse(one.out) as Record<string, unknown>
    assert.deepEqual([one.code, parsed['name'], parsed['status']], [1, 'db', 'unhealthy'])
    const none = await run(t.url, ['nope'])
    assert.equal(none.code, 1)
    assert.match(none.err, /no health check "nope".*db/)
    assert.equal((JSON.parse((await run(t.url, [], true)).out) as { status: string }).status, 'degraded')
  })

  it('makes do with what everybody may see', async () => {
    await using t = await serve([health, check('db', () => ({ status: 'healthy', message: 'for operators' }))])
    const seen = await run(t.url, [], false, { 'x-refuse': 'permission' })
    assert.equal(seen.code, 0)
    assert.match(seen.out, /db/)
    assert.doesNotMatch(seen.out, /for operators/)
  })
})
