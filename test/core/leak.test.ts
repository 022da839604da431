import assert from 'node:assert/strict'
import { createServer } from 'node:net'
import { once } from 'node:events'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { z } from 'zod'
import { defineHook, definePlugin, definePoint, defineService, live, RuntimeHooks, settled, type Plugin } from '#core'
import { createTestRuntime, leftBehind } from '#core/testing'

const Base = defineService<object>('leak.base')
const Offer = defineService<object>('leak.offer')
const Item = definePoint<object>('leak.item')
const Told = defineHook.notify<object>('leak.told')
const BeforeIt = defineHook.series<object>('leak.before')

setFlagsFromString('--expose-gc')
const gc = runInNewContext('gc') as () => void
const heap = async () => {
  for (let i = 0; i < 3; i++) { gc(); await new Promise(resolve => setImmediate(resolve)) }
  return process.memoryUsage().heapUsed
}
const open = () => process.getActiveResourcesInfo().filter(kind => kind !== 'Immediate').sort().join()
const listeners = () => ['SIGTERM', 'SIGINT', 'exit', 'warning', 'unhandledRejection', 'uncaughtException'].map(name => process.listenerCount(name)).join()

/** Uses every verb there is, and cleans up nothing by itself. */
const greedy = (): Plugin => definePlugin({
  name: 'greedy', config: z.strictObject({ text: z.string().default('x'.repeat(10_000)) }),
  uses: { base: Base, other: live(Base), items: settled(Item) }, provides: [Offer], contributes: [Item], guards: [BeforeIt],
  async setup(ctx, { other, items }) {
    ctx.provide(Offer, { text: ctx.config.text })
    ctx.contribute(Item, { of: ctx.name })
    ctx.hook(Told, () => {})
    ctx.hook(BeforeIt, async () => {})
    ctx.hook(RuntimeHooks.state, () => {})
    other.watch(() => {})
    items.watch(() => {})
    ctx.collect(Item).watch(() => {})
    ctx.clock.every(60_000, () => {})
    ctx.clock.after(60_000, () => {})
    ctx.signal.addEventListener('abort', () => {})
    ctx.make(class { [Symbol.dispose]() {} })
    const server = ctx.own(createServer(), each => new Promise(resolve => each.close(resolve)))
    const onExit = () => {}
    process.on('exit', onExit)
    ctx.defer(() => process.off('exit', onExit), 'exit listener')
    return { async start() { server.listen(0, '127.0.0.1'); await once(server, 'listening'); await ctx.call(Told, {}) } }
  },
})

describe('1,000 rounds of loading and unloading a plugin that uses every verb', () => {
  it('leave handlers, services, contributions, timers, listeners, sockets and the heap as they were', async function () {
    this.timeout(60_000)
    const base = definePlugin({ name: 'base', provides: [Base], setup(ctx) { ctx.provide(Base, {}) } })
    await using t = await createTestRuntime({ plugins: [base] })
    const round = async () => {
      await t.runtime.change(new Map([['greedy', { plugin: greedy() }]]))
      await t.call(BeforeIt, {})
      await t.runtime.change(new Map([['greedy', undefined]]))
    }
    for (let i = 0; i < 200; i++) await round()
    const before = await heap()
    const held = JSON.stringify([leftBehind(t.runtime), t.runtime.inspect().hooks.length, open(), listeners()])
    for (let i = 0; i < 1_000; i++) await round()
    const after = await heap()
    assert.equal(JSON.stringify([leftBehind(t.runtime), t.runtime.inspect().hooks.length, open(), listeners()]), held)
    assert.ok(after <= before * 1.05, `the heap grew from ${before} to ${after} bytes`)
  })

  it('as swaps leave as little', async function () {
    this.timeout(60_000)
    const base = definePlugin({ name: 'base', provides: [Base], setup(ctx) { ctx.provide(Base, {}) } })
    await using t = await createTestRuntime({ plugins: [base, greedy()] })
    for (let i = 0; i < 100; i++) await t.runtime.swap('base', base)
    const before = await heap()
    for (let i = 0; i < 300; i++) await t.runtime.swap('base', base)
    assert.ok(await heap() <= before * 1.05)
  })
})
