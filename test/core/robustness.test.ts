import assert from 'node:assert/strict'
import { createRuntime, defineErrors, defineHook, definePlugin, definePoint, defineService, maskSecrets, RuntimeHooks, scope, Secret, SecretResolve, SystemClock, type Plugin } from '#core'
import { createTestRuntime, FakeClock, leftBehind, recordLog, settle } from '#core/testing'

const A = defineService<string>('r.a')
const Item = definePoint<{ key: string }>('r.item', { key: item => item.key })
const Told = defineHook.notify<number>('r.told')
const BeforeIt = defineHook.series<number>('r.before-it')
const hang = () => new Promise<never>(() => {})
const give = (value: string, fail?: 'setup' | 'start'): Plugin => definePlugin({
  name: 'base', provides: [A], contributes: [Item], setup(ctx) {
    ctx.contribute(Item, { key: value })
    if (fail === 'setup') throw new Error('no disk')
    ctx.provide(A, value)
    return { start() { if (fail) throw new Error('port taken') } }
  },
})
const guard = (name = 'guard'): Plugin => definePlugin({ name, guards: [BeforeIt], setup(ctx) { ctx.hook(BeforeIt, () => {}) } })

describe('what must not happen', () => {
  it('a setup that outlives its time leaves nothing behind, and does not stand in the way of the mended plugin', async () => {
    let go = () => {}
    let ticks = 0
    const zombie = definePlugin({ name: 'base', provides: [A], contributes: [Item], guards: [BeforeIt], async setup(ctx) {
      await new Promise<void>(resolve => { go = resolve })
      const attempts = [
        () => ctx.provide(A, 'zombie'), () => ctx.contribute(Item, { key: 'z' }), () => ctx.hook(BeforeIt, () => {}), () => ctx.clock.every(1, () => ticks++),
        () => ctx.collect(Item).watch(() => ticks++),
      ]
      for (const attempt of attempts) try { attempt() } catch { /* It is told. */ }
    } })
    await using t = await createTestRuntime({ plugins: [{ plugin: zombie, optional: true }], timeouts: { setup: 50 } })
    go()
    await settle()
    assert.deepEqual([leftBehind(t.runtime), ticks <= 1], [[], true])
    await t.runtime.swap('base', give('mended'))
    assert.equal(t.get(A), 'mended')
  })

  it('a secret store that is being swapped does not open the way to the next one', async () => {
    const answers = (name: string, value: string, setup?: Promise<void>) =>
      definePlugin({ name, guards: [SecretResolve], async setup(ctx) { await setup; ctx.hook(SecretResolve, () => value, { order: name === 'vault' ? 'pre' : 'normal' }) } })
    let go = () => {}
    await using t = await createTestRuntime({ plugins: [answers('vault', 'new'), answers('env', 'old')] })
    const swapped = t.runtime.swap('vault', answers('vault', 'newer', new Promise(resolve => { go = resolve })))
    await settle()
    const read = Promise.resolve(t.call(SecretResolve, { name: 'x', plugin: 'y' }))
    go()
    await swapped
    assert.equal(await read, 'newer')
  })

  it('a plugin reads no secret that its definition does not list, nor in another plugin\'s name', async () => {
    const asked: unknown[] = []
    const store = definePlugin({ name: 'env', guards: [SecretResolve], setup(ctx) { ctx.hook(SecretResolve, input => { asked.push(input); return 'value' }) } })
    const read = (secrets: string[], name: string) => definePlugin({ name: 'reader', secrets, setup: ctx => ({ start: () => ctx.call(SecretResolve, { name, plugin: 'http' }) }) })
    { await using _t = await createTestRuntime({ plugins: [store, read(['smtp-*'], 'smtp-password')] }) }
    assert.deepEqual(asked, [{ name: 'smtp-password', plugin: 'reader' }])
    await assert.rejects(createTestRuntime({ plugins: [store, read(['smtp-*'], 'admin-key')] }), { code: 'SECRET_UNDECLARED' })
  })

  it('a hook stays closed for ever because a guard was dropped by a swap, by a roll-back, or while it was left out', async () => {
    const refuse = { '~standard': { version: 1 as const, vendor: 't', validate: () => ({ issues: [{ message: 'no' }] }) } }
    await using t = await createTestRuntime({ plugins: [guard(), { plugin: { ...guard('left-out'), config: refuse }, optional: true }, give('one')] })
    await assert.rejects(async () => t.call(BeforeIt, 1), { code: 'PLUGIN_UNAVAILABLE' })
    await t.runtime.change(new Map([['left-out', undefined]]))
    await t.call(BeforeIt, 1)
    await t.runtime.swap('guard', definePlugin({ name: 'guard', setup() {} }))
    await assert.rejects(t.runtime.swap('guard', definePlugin({ name: 'guard', guards: [BeforeIt], setup() { throw new Error('bad') } })))
    assert.deepEqual(t.runtime.inspect().closed, [])
    await t.call(BeforeIt, 1)
  })

  it('an abort listener that throws is somebody else\'s failure', async () => {
    const blamed: unknown[] = []
    const listeners = process.listeners('uncaughtException')
    process.removeAllListeners('uncaughtException')
    const stray = () => { blamed.push(scope.current?.plugin) }
    process.on('uncaughtException', stray)
    try {
      const clock = new FakeClock()
      const rude = definePlugin({ name: 'rude', guards: [BeforeIt], setup(ctx) {
        ctx.signal.addEventListener('abort', () => { throw new Error('boom') })
        ctx.hook(BeforeIt, (_value, { signal }) => { signal.addEventListener('abort', () => { throw new Error('boom') }); return hang() })
      } })
      await using t = await createTestRuntime({ clock, plugins: [rude] })
      const call = assert.rejects(async () => t.call(BeforeIt, 1), { code: 'HOOK_TIMEOUT' })
      await clock.advance(2_000)
      await call
      await t.runtime.change(new Map([['rude', undefined]]))
      await settle()
      assert.deepEqual(blamed, ['rude', 'rude'])
    } finally {
      process.off('uncaughtException', stray)
      for (const listener of listeners) process.on('uncaughtException', listener)
    }
  })

  it('a handler that fails while it hears of failures is not told of its own for ever', async () => {
    let heard = 0
    const alerts: Plugin = definePlugin({ name: 'alerts', setup(ctx) { ctx.hook(RuntimeHooks.faulted, ({ error }) => { heard++; if (heard < 100) t.runtime.fault('alerts', error, 'again') }) } })
    await using t = await createTestRuntime({ plugins: [alerts] })
    t.runtime.fault('alerts', new Error('first'), 'timer')
    await settle()
    assert.equal(heard, 1)
  })

  it('a lazy thenable, such as a query builder, runs twice', async () => {
    let runs = 0
    // oxlint-disable-next-line unicorn/no-thenable -- just that is what is tested
    const query = Object.fromEntries([['then', (resolve: (value: unknown) => void) => { runs++; resolve(undefined) }]]) as never
    const lazy = definePlugin({ name: 'x', guards: [BeforeIt], setup(ctx) { ctx.hook(BeforeIt, () => query); ctx.hook(Told, () => query) } })
    await using t = await createTestRuntime({ plugins: [lazy] })
    for (let i = 0; i < 20; i++) { await t.call(BeforeIt, i); await t.call(Told, i) }
    assert.equal(runs, 40)
  })

  it('contributions are forgotten while a bad change is rolled back', async () => {
    const seen: string[] = []
    const reader = definePlugin({ name: 'reader', setup(ctx) { ctx.collect(Item).watch((all, away) => void seen.push(`${all.length + away.length}`)) } })
    await using t = await createTestRuntime({ plugins: [give('one'), reader] })
    seen.length = 0
    await assert.rejects(t.runtime.swap('base', give('two', 'start')))
    assert.ok(seen.length > 3 && !seen.includes('0'), seen.join())
  })

  it('a dependent that took new settings in place keeps them after a roll-back', async () => {
    const seen: unknown[] = []
    const near = definePlugin({ name: 'near', uses: { a: A }, setup(ctx) { seen.push(ctx.config); return { reconfigure: () => true } } })
    await using t = await createTestRuntime({ plugins: [give('one'), { plugin: near, config: { v: 'old' } }] })
    await assert.rejects(t.runtime.change(new Map([['near', { plugin: near, config: { v: 'new' } }], ['base', { plugin: give('two', 'start') }]])))
    assert.deepEqual(seen.at(-1), { v: 'old' })
  })

  it('a bad edit takes a running plugin down because it is optional', async () => {
    await using t = await createTestRuntime({ plugins: [{ plugin: give('one'), optional: true }] })
    await assert.rejects(t.runtime.swap('base', give('two', 'setup')), /no disk/)
    await assert.rejects(t.runtime.swap('base', give('two', 'start')), /port taken/)
    assert.equal(t.get(A), 'one')
  })

  it('stop takes longer than its grace period: thirty hanging disposers, or a step under way that hangs', async () => {
    const stopIn = async (plugins: Plugin[], during?: (runtime: ReturnType<typeof createRuntime>) => void) => {
      const runtime = createRuntime({ log: recordLog(), graceMs: 1_000, timeouts: { setup: 5_000 }, plugins: plugins.map(plugin => ({ plugin })) })
      const starting = runtime.start()
      if (during) { during(runtime); await settle() } else await starting
      const from = performance.now()
      await runtime.stop()
      return performance.now() - from
    }
    const sticky = definePlugin({ name: 'sticky', setup(ctx) { for (let i = 0; i < 30; i++) ctx.defer(hang) } })
    assert.ok(await stopIn([sticky]) < 1_300)
    assert.ok(await stopIn([definePlugin({ name: 'stuck', setup: hang })], () => {}) < 1_300)
  })

  it('a plugin that waits for a change in its own start() hangs until the time-out', async () => {
    const self: Plugin = definePlugin({ name: 'self', setup: () => ({ start: () => t.runtime.host.reload('self') }) })
    const t = await createTestRuntime({ plugins: [self], manual: true })
    const from = performance.now()
    await assert.rejects(t.runtime.start(), /would wait for itself/)
    assert.ok(performance.now() - from < 1_000)
    await t[Symbol.asyncDispose]()
  })

  it('a failure in a plugin hides what it knows of its fix, or where it came up', async () => {
    const Ports = defineErrors('PORTS', { TAKEN: { message: 'the port is taken', fix: 'Set another one with PORT.' } })
    const failing = (error: Error) => definePlugin({ name: 'x', setup: () => ({ start() { throw error } }) })
    await assert.rejects(createTestRuntime({ plugins: [failing(Ports.TAKEN())] }), { code: 'LIFECYCLE_FAILED', fix: 'Set another one with PORT.' })
    await assert.rejects(createTestRuntime({ plugins: [failing(new Error('boom'))] }), { fix: /^See at .*robustness\.test\.ts:\d+.*`optional: true`/ })
  })

  it('a drain that runs out of time looks like a crash', async () => {
    const busy = definePlugin({ name: 'busy', setup: () => ({ drain: hang }) })
    const log = recordLog()
    const runtime = createRuntime({ log, graceMs: 400, plugins: [{ plugin: busy }] })
    await runtime.start()
    await runtime.stop()
    assert.deepEqual(log.lines.filter(line => line.level === 'error'), [])
    assert.ok(log.lines.some(line => line.level === 'info' && line.message.includes('runtime.graceMs')))
  })

  it('a mask leaves half of a secret, or cuts it in pieces', async () => {
    const source = { read: async (name: string) => ({ short: 'hunter2', one: 'sk-prefix-1', two: 'sk-prefix-1-and-more', odd: 'p@ss/word+1' })[name]!, watch: () => () => {} }
    for (const parts of [['postgres://app:', { secret: 'short' }, '@db/x'], [{ secret: 'one' }], [{ secret: 'two' }], [{ secret: 'odd' }]]) await new Secret(parts, source).read()
    assert.equal(maskSecrets('to postgres://app:hunter2@db/x'), 'to [secret]')
    assert.equal(maskSecrets('see postgres://app:… in the docs'), 'see postgres://app:… in the docs')
    assert.equal(maskSecrets('key sk-prefix-1-and-more'), 'key [secret]')
    assert.equal(maskSecrets(`?k=${encodeURIComponent('p@ss/word+1')}`), '?k=[secret]')
  })

  it('a timer of a month fires at once', async () => {
    const clock = new SystemClock()
    let fired = 0
    const cancels = [clock.every(30 * 86_400_000, () => fired++), clock.after(30 * 86_400_000, () => fired++)]
    await new Promise(resolve => setTimeout(resolve, 30))
    for (const cancel of cancels) cancel()
    assert.equal(fired, 0)
  })
})
