import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { BackplaneError, defineErrors, defineHook, definePlugin, rootOf, scope, type HookReport } from '#core'
import { createTestRuntime, FakeClock, settle, type TestPlugin } from '#core/testing'

const Told = defineHook.notify<number>('t.told')
const BeforeIt = defineHook.series<number>('t.before-it')
const Shape = defineHook.waterfall<number>('t.shape')
const Resolve = defineHook.first<number, string>('t.resolve')
const guards = [BeforeIt, Shape, Resolve] as const

type Ctx = Parameters<Parameters<typeof definePlugin<any, {}, [], [], typeof guards>>[0]['setup']>[0]
const plugin = (name: string, setup: (ctx: Ctx) => void) => definePlugin({ name, guards, setup })
const boot = (...plugins: TestPlugin[]) => createTestRuntime({ plugins })
const reported = (report: unknown) => {
  const { delivered, failures } = report as HookReport
  return { delivered, codes: failures.map(each => each.code), plugins: failures.map(each => each.details['plugin']) }
}
const hang = () => new Promise<never>(() => {})

describe('hooks', () => {
  describe('notify', () => {
    it('calls all handlers at once and reports how many were reached', async () => {
      const seen: string[] = []
      await using t = await boot(plugin('a', ctx => ctx.hook(Told, async value => { await settle(); seen.push(`a${value}`) })), plugin('b', ctx => ctx.hook(Told, value => void seen.push(`b${value}`))))
      assert.deepEqual(reported(await t.call(Told, 7)), { delivered: 2, codes: [], plugins: [] })
      assert.deepEqual(seen, ['b7', 'a7'])
    })

    it('answers without a promise when every handler is synchronous', async () => {
      await using t = await boot(plugin('a', ctx => ctx.hook(Told, () => {})))
      assert.ok(!(t.call(Told, 1) instanceof Promise))
    })

    it('isolates a handler that throws, rejects or hangs: the others and the caller never notice', async () => {
      const clock = new FakeClock()
      const seen: number[] = []
      await using t = await createTestRuntime({ clock, plugins: [
        plugin('throws', ctx => ctx.hook(Told, () => { throw new Error('boom') })),
        plugin('rejects', ctx => ctx.hook(Told, () => Promise.reject(new Error('later')))),
        plugin('hangs', ctx => ctx.hook(Told, hang)),
        plugin('good', ctx => ctx.hook(Told, async value => void seen.push(value))),
      ] })
      const report = t.call(Told, 1)
      await clock.advance(2_000)
      assert.deepEqual(reported(await report), { delivered: 1, codes: ['HOOK_FAILED', 'HOOK_FAILED', 'HOOK_TIMEOUT'], plugins: ['throws', 'rejects', 'hangs'] })
      assert.deepEqual(seen, [1])
      assert.deepEqual(t.lines.filter(line => line.level === 'error').map(line => line.fields['plugin']), ['throws', 'rejects', 'hangs'])
    })

    it('rests a handler that failed ten times in a row, and tries it again after 30 s', async () => {
      const clock = new FakeClock()
      let calls = 0
      let broken = true
      await using t = await createTestRuntime({ clock, plugins: [plugin('bad', ctx => ctx.hook(Told, () => { calls++; if (broken) throw new Error('boom') }))] })
      for (let i = 0; i < 15; i++) await t.call(Told, i)
      assert.equal(calls, 10)
      assert.equal(t.runtime.inspect().hooks.find(hook => hook.plugin === 'bad')?.quarantined, true)
      broken = false
      await clock.advance(30_001)
      assert.equal(reported(await t.call(Told, 0)).delivered, 1)
      assert.equal(calls, 11)
    })

    it('rests a handler of which half of at least twenty calls failed within a minute, and not one that fails now and then', async () => {
      const clock = new FakeClock()
      const calls = { half: 0, rare: 0 }
      await using t = await createTestRuntime({ clock, plugins: [
        plugin('half', ctx => ctx.hook(Told, () => { if (calls.half++ % 2 === 0) throw new Error('boom') })),
        plugin('rare', ctx => ctx.hook(Told, () => { if (calls.rare++ % 5 === 0) throw new Error('boom') })),
      ] })
      for (let i = 0; i < 60; i++) await t.call(Told, i)
      assert.ok(calls.half < 30, `half was called ${calls.half} times`)
      assert.equal(calls.rare, 60)
    })
  })

  describe('series', () => {
    it('runs one by one, in the order pre, normal, post, then boot order', async () => {
      const seen: string[] = []
      const at = (name: string, order?: 'pre' | 'post') => plugin(name, ctx => ctx.hook(BeforeIt, async () => { await settle(); seen.push(name) }, order ? { order } : undefined))
      await using t = await boot(at('z', 'post'), at('m'), at('n'), at('y', 'pre'))
      await t.call(BeforeIt, 1)
      assert.deepEqual(seen, ['y', 'm', 'n', 'z'])
    })

    it('keeps boot order when a plugin was swapped', async () => {
      const seen: string[] = []
      const at = (name: string) => plugin(name, ctx => ctx.hook(BeforeIt, () => void seen.push(name)))
      const first = at('first')
      await using t = await boot(first, at('second'))
      await t.runtime.swap('first', at('first'))
      await t.call(BeforeIt, 1)
      assert.deepEqual(seen, ['first', 'second'])
    })

    it('stops at the first failure, which reaches the caller wrapped once with hook, plugin and cause', async () => {
      const Costs = defineErrors('COSTS', { OVER: { message: 'over budget', fix: 'raise it', status: 402, expose: true } })
      let reached = false
      await using t = await boot(plugin('guard', ctx => ctx.hook(BeforeIt, async () => { throw Costs.OVER() })), plugin('after', ctx => ctx.hook(BeforeIt, () => { reached = true })))
      const error = await Promise.resolve(t.call(BeforeIt, 1)).then(() => assert.fail(), (e: BackplaneError) => e)
      assert.equal(error.code, 'HOOK_FAILED')
      assert.deepEqual([error.details['hook'], error.details['plugin'], error.status, error.expose], ['t.before-it', 'guard', 402, true])
      assert.equal(rootOf(error), error.cause)
      assert.equal(reached, false)
    })

    it('rejects with HOOK_TIMEOUT and aborts the signal when a handler hangs', async () => {
      const clock = new FakeClock()
      let aborted: unknown
      const slow = plugin('slow', ctx => ctx.hook(BeforeIt, (_value, { signal }) => { signal.addEventListener('abort', () => { aborted = signal.reason }); return hang() }))
      await using t = await createTestRuntime({ clock, plugins: [slow] })
      const call = assert.rejects(async () => t.call(BeforeIt, 1), { code: 'HOOK_TIMEOUT' })
      await clock.advance(2_000)
      await call
      assert.equal((aborted as BackplaneError).code, 'HOOK_TIMEOUT')
    })
  })

  it('waterfall hands the value on; undefined leaves it as it is', async () => {
    await using t = await boot(
      plugin('a', ctx => ctx.hook(Shape, async value => value + 1)), plugin('b', ctx => ctx.hook(Shape, () => {})), plugin('c', ctx => ctx.hook(Shape, value => value * 10, { order: 'pre' })))
    assert.equal(await t.call(Shape, 1), 11)
    assert.equal(t.runtime.call(defineHook.waterfall<string>('t.nobody'), 'same'), 'same')
  })

  it('first takes the first answer, and a failure never lets the next one answer', async () => {
    const answers = plugin('answers', ctx => ctx.hook(Resolve, async value => { if (value === 0) throw new Error('broken'); return `a${value}` }))
    await using t = await boot(plugin('silent', ctx => ctx.hook(Resolve, () => undefined)), answers, plugin('other', ctx => ctx.hook(Resolve, () => 'other')))
    assert.equal(await t.call(Resolve, 4), 'a4')
    await assert.rejects(async () => t.call(Resolve, 0), { code: 'HOOK_FAILED' })
  })

  it('enters the scope of the handler\'s plugin, and keeps what the caller\'s scope knew', async () => {
    const seen: unknown[] = []
    const look = async () => { seen.push(scope.current); await settle(); seen.push(scope.current) }
    await using t = await boot(plugin('a', ctx => ctx.hook(Told, look)), plugin('b', ctx => ctx.hook(Told, () => void seen.push(scope.current))))
    await scope.run({ request_id: 'r1' }, async () => {
      await t.call(Told, 1)
      assert.deepEqual(scope.current, { request_id: 'r1' })
    })
    assert.deepEqual(seen, [{ request_id: 'r1', plugin: 'a' }, { request_id: 'r1', plugin: 'b' }, { request_id: 'r1', plugin: 'a' }])
  })

  it('hang nothing on the caller\'s signal once a call is over, though a handler read its own', async () => {
    let caller!: { signal: AbortSignal; call(hook: typeof Told | typeof BeforeIt, input: number): unknown }
    const reads = plugin('reads', ctx => {
      ctx.hook(Told, async (_value, { signal }) => { await settle(); signal.throwIfAborted() })
      ctx.hook(BeforeIt, (value, { signal }) => { signal.throwIfAborted(); if (value === 3) throw new Error('veto') })
    })
    await using _t = await boot(reads, plugin('caller', ctx => { caller = ctx as never }))
    for (let i = 0; i < 20; i++) await Promise.allSettled([caller.call(Told, i), (async () => caller.call(BeforeIt, i))()])
    assert.equal(getEventListeners(caller.signal, 'abort').length, 0)
  })

  it('counts calls and failures under the plugin, and times some', async () => {
    await using t = await boot(plugin('a', ctx => ctx.hook(Told, value => { if (value === 1) throw new Error('boom') })))
    for (let i = 0; i < 3; i++) await t.call(Told, i)
    const [row] = t.runtime.inspect().hooks.filter(each => each.hook === 't.told@1')
    assert.deepEqual([row!.calls, row!.failures], [3, 1])
    assert.ok(row!.ms > 0)
  })

  describe('guards', () => {
    const guard = (name: string, seen: string[], options: { fail?: boolean; setup?: () => Promise<void> } = {}) => definePlugin({ name, guards: [BeforeIt], async setup(ctx) {
      await options.setup?.()
      ctx.hook(BeforeIt, () => void seen.push(name))
      return { start() { if (options.fail) throw new Error('cannot') } }
    } })

    it('close the hook while their plugin is swapped: calls wait, and pass through the new handler', async () => {
      const seen: string[] = []
      let go = () => {}
      await using t = await boot(guard('budget', seen))
      const next = definePlugin({ name: 'budget', guards: [BeforeIt], async setup(ctx) {
        await new Promise<void>(resolve => { go = resolve })
        ctx.hook(BeforeIt, () => void seen.push('new'))
      } })
      const swapped = t.runtime.swap('budget', next)
      await settle()
      const call = Promise.resolve(t.call(BeforeIt, 1))
      await settle()
      assert.deepEqual(seen, [])
      assert.deepEqual(t.runtime.inspect().closed, [{ hook: 't.before-it@1', plugin: 'budget', state: 'away' }])
      go()
      await Promise.all([swapped, call])
      assert.deepEqual(seen, ['new'])
    })

    it('that stay away longer than 10 s reject with a retryable 503', async () => {
      const clock = new FakeClock()
      let go = () => {}
      await using t = await createTestRuntime({ clock, timeouts: { setup: 60_000 }, plugins: [guard('budget', [])] })
      const swapped = t.runtime.swap('budget', guard('budget', [], { setup: () => new Promise(resolve => { go = resolve }) }))
      await settle()
      const call = assert.rejects(async () => t.call(BeforeIt, 1), { code: 'PLUGIN_UNAVAILABLE', status: 503, retryable: true })
      await clock.advance(10_100)
      await call
      go()
      await swapped
    })

    it('of an optional plugin that could not start keep the hook closed, at once', async () => {
      await using t = await boot({ plugin: guard('budget', [], { fail: true }), optional: true })
      await assert.rejects(async () => t.call(BeforeIt, 1), { code: 'PLUGIN_UNAVAILABLE' })
      await assert.rejects(async () => t.runtime.call(BeforeIt, 1), /not running/)
    })

    it('of an optional plugin with bad settings or a missing dependency keep it closed too', async () => {
      const refuse = { '~standard': { version: 1 as const, vendor: 't', validate: () => ({ issues: [{ message: 'no' }] }) } }
      await using t = await boot({ plugin: definePlugin({ name: 'budget', config: refuse, guards: [BeforeIt], setup() {} }), optional: true })
      await assert.rejects(async () => t.call(BeforeIt, 1), { code: 'PLUGIN_UNAVAILABLE' })
    })

    it('go only when config no longer has them', async () => {
      const seen: string[] = []
      await using t = await boot({ plugin: guard('budget', seen, { fail: true }), optional: true })
      await t.runtime.change(new Map([['budget', undefined]]))
      await t.call(BeforeIt, 1)
      assert.deepEqual(seen, [])
    })

    it('reject at once when the hook carries a transaction, since others wait for it', async () => {
      const Settling = defineHook.series<{ tx: string }>('t.settling', { tx: true })
      let go = () => {}
      const make = (setup?: Promise<void>) => definePlugin({ name: 'costs', guards: [Settling], async setup(ctx) { await setup; ctx.hook(Settling, () => {}) } })
      const probe = definePlugin({ name: 'probe', setup(ctx) { ready = () => Promise.resolve(ctx.ready(Settling)) } })
      let ready: () => Promise<void> = async () => {}
      await using t = await boot(make(), probe)
      const swapped = t.runtime.swap('costs', make(new Promise(resolve => { go = resolve })))
      await settle()
      await assert.rejects(async () => t.call(Settling, { tx: 'tx' }), { code: 'PLUGIN_UNAVAILABLE' })
      const waited = ready().then(() => t.call(Settling, { tx: 'tx' }))
      go()
      await Promise.all([swapped, waited])
    })

    it('of a plugin that leaves while a call is on its way reject it rather than let it pass', async () => {
      const seen: string[] = []
      let go = () => {}
      const first = plugin('first', ctx => ctx.hook(BeforeIt, () => new Promise<void>(resolve => { go = resolve })))
      await using t = await createTestRuntime({ plugins: [first, guard('budget', seen)], timeouts: { hook: 300 } })
      const call = assert.rejects(async () => t.call(BeforeIt, 1), (error: BackplaneError) => error.retryable)
      await settle()
      await t.runtime.swap('budget', guard('budget', seen))
      go()
      await call
      assert.deepEqual(seen, [])
    })

    it('can\'t be asked before they are set up: a call from setup() is told to wait for start()', async () => {
      const caller = definePlugin({ name: 'caller', async setup(ctx) { await ctx.call(BeforeIt, 1) } })
      await assert.rejects(boot(caller, guard('budget', [])), /not set up yet; call it from start\(\) or later/)
    })
  })
})
