import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { definePlugin, defineHook } from '#core'
import { Health } from '#contracts/health'
import { createTestRuntime, eventually } from '#core/testing'
import { config } from '../../../plugins/health/config.ts'
import { diskCheck, eventLoopCheck, memoryCheck, pluginsCheck, readMemory } from '../../../plugins/health/health.ts'
import health from '../../../plugins/health/index.ts'

const { signal } = new AbortController()
const settings = config.parse({})
const fails = (name: string) => definePlugin({ name, setup: () => ({ start: () => { throw new Error('boom') } }) })

describe('built-in health checks', () => {
  it('stand on the point from the start', async () => {
    await using t = await createTestRuntime({ plugins: [health] })
    assert.deepEqual(Object.keys((await t.get(Health).report()).checks).sort(), ['disk', 'event-loop', 'memory', 'plugins'])
  })

  it('plugins: degraded by an optional one that failed, which is named', async () => {
    await using t = await createTestRuntime({ plugins: [health, { plugin: fails('extra'), optional: true }] })
    const { plugins } = (await t.get(Health).report()).checks
    assert.deepEqual([plugins?.status, plugins?.message, plugins?.details?.['failed']], ['degraded', 'not running: extra', ['extra']])
    assert.equal((await t.get(Health).ready()).ready, true)
  })

  it('plugins: unhealthy, and the process not ready, by a required one that failed', async () => {
    const host = { inspect: () => ({ state: 'running', plugins: [{ name: 'a', state: 'failed', optional: false }], hooks: [] }) as never }
    assert.deepEqual([pluginsCheck(host).critical, (await pluginsCheck(host).check(signal)).status], [true, 'unhealthy'])
  })

  it('plugins: degraded while a handler is in quarantine', async () => {
    const Told = defineHook.notify<void>('t.told')
    const bad = definePlugin({ name: 'bad', setup(ctx) { ctx.hook(Told, () => { throw new Error('boom') }) } })
    await using t = await createTestRuntime({ plugins: [health, bad] })
    for (let at = 0; at < 10; at++) await t.call(Told, undefined)
    const { plugins } = (await t.get(Health).report()).checks
    assert.deepEqual([plugins?.status, plugins?.message], ['degraded', 'in quarantine: bad (t.told@1)'])
    assert.deepEqual((plugins?.details?.['handlers'] as { plugin: string; hook: string }[]).map(each => [each.plugin, each.hook]), [['bad', 't.told@1']])
  })

  it('plugins: tells the faults of a running plugin by its name, and stays healthy', async () => {
    const shaky = definePlugin({ name: 'shaky', setup() {} })
    await using t = await createTestRuntime({ plugins: [health, shaky] })
    for (let at = 0; at < 2; at++) t.runtime.fault('shaky', new Error('boom'), 'timer')
    const { plugins } = (await t.get(Health).report()).checks
    assert.deepEqual([plugins?.status, plugins?.message, plugins?.details?.['faults']], ['healthy', 'faults since start: shaky 2', { shaky: 2 }])
  })

  const levels: [number, string][] = [[0, 'healthy'], [89, 'healthy'], [90, 'degraded'], [97.9, 'degraded'], [98, 'unhealthy'], [100, 'unhealthy']]
  for (const [percent, status] of levels) it(`memory: ${status} at ${percent} %`, async () => {
    const result = await memoryCheck(settings.memory, () => ({ total: 1_000 * 2 ** 30, free: (1_000 - percent * 10) * 2 ** 30,
      resident: 2 ** 30 })).check(signal)
    assert.deepEqual([result.status, result.details?.['percent_used'], result.details?.['process_gb']], [status, percent, 1])
  })

  it('memory: reads the machine, or the container', () => {
    const { total, free, resident } = readMemory()
    assert.ok(total > resident && resident > 1e6 && free >= 0 && free <= total)
  })

  it('disk: counts as df does, and reads the file system of the data folder', async () => {
    const full = await diskCheck(settings.disk, '/', async () => ({ blocks: 1_000, bfree: 100, bavail: 50, bsize: 2 ** 30 })).check(signal)
    assert.deepEqual([full.status, full.details], ['degraded', { percent_used: 94.7, free_gb: 50 }])
    const folder = mkdtempSync(join(tmpdir(), 'backplane-health-'))
    try {
      const { details } = await diskCheck(settings.disk, folder).check(signal)
      assert.ok(Number(details?.['free_gb']) > 0 && Number(details?.['percent_used']) <= 100)
    } finally { rmSync(folder, { recursive: true }) }
    assert.equal((await diskCheck(settings.disk, folder).check(signal)).status, 'unconfigured')
    await assert.rejects(diskCheck(settings.disk, '/', () => Promise.reject(new Error('EIO'))).check(signal), /EIO/)
  })

  it('event-loop: sees a loop that was blocked since the last look', async () => {
    const delays = monitorEventLoopDelay({ resolution: 20 })
    delays.enable()
    try {
      const check = eventLoopCheck({ degradedMs: 60, unhealthyMs: 5_000 }, delays)
      await eventually('a sample', () => delays.count > 0)
      const until = performance.now() + 150
      while (performance.now() < until) { /* blocks on purpose */ }
      const blocked = await eventually('the delay', async () => { const { max } = delays; return max > 100e6 && await check.check(signal) })
      assert.equal(blocked.status, 'degraded')
      assert.ok(Number(blocked.details?.['max_ms']) >= 80)
      assert.equal((await check.check(signal)).status, 'healthy')
    } finally { delays.disable() }
  })

  it('refuses settings that it does not know', () => {
    assert.equal(config.safeParse({ memory: { degradedPercent: 101 } }).success, false)
    assert.equal(config.safeParse({ memroy: {} }).success, false)
  })
})
