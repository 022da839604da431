import assert from 'node:assert/strict'
import { BackplaneError, createRuntime, defineHook, definePlugin, definePoint, defineService, Host, live, RuntimeHooks, type Lifecycle, type Live, type Plugin } from '#core'
import { contribute, createTestRuntime, eventually, fake, recordHook, recordLog, settle } from '#core/testing'
import { z } from 'zod'

const A = defineService<string>('t.a')
const B = defineService<string>('t.b')
const Item = definePoint<{ key: string }>('t.item', { key: item => item.key })
const hang = () => new Promise<never>(() => {})

const give = (name: string, ref: typeof A, value = name, life: Lifecycle = {}, uses: Record<string, any> = {}): Plugin =>
  definePlugin({ name, uses, provides: [ref], setup(ctx) { ctx.provide(ref, value); return life } })
const bad = (name: string, phase: 'setup' | 'start', ref = A): Plugin =>
  definePlugin({ name, provides: [ref], setup(ctx) { ctx.provide(ref, 'bad'); if (phase === 'setup') throw new Error('no disk'); return { start() { throw new Error('port taken') } } } })
const user = (name: string, seen: string[], life: Lifecycle = {}): Plugin => definePlugin({ name, uses: { a: A }, setup(_ctx, { a }) { seen.push(`${name}:${a}`); return life } })
const states = (t: { runtime: { inspect(): { plugins: { name: string; state: string }[] } } }) => Object.fromEntries(t.runtime.inspect().plugins.map(each => [each.name, each.state]))

describe('the runtime', () => {
  describe('start and stop', () => {
    const log: string[] = []
    const traced = (name: string, uses: Record<string, any>, ref?: typeof A) => definePlugin({
      name, uses, provides: ref ? [ref] : [],
      setup(ctx) {
        log.push(`${name}.setup`)
        if (ref) ctx.provide(ref, name)
        ctx.defer(() => log.push(`${name}.release1`))
        ctx.defer(() => log.push(`${name}.release2`))
        ctx.signal.addEventListener('abort', () => log.push(`${name}.abort`))
        return { start: () => log.push(`${name}.start`), drain: () => log.push(`${name}.drain`), stop: () => log.push(`${name}.stop`) }
      },
    })

    it('sets up all before it starts any; drains all, stops all in reverse, and only then releases', async () => {
      log.length = 0
      { await using _t = await createTestRuntime({ plugins: [traced('user', { a: A }), traced('base', {}, A)] }) }
      assert.deepEqual(log, ['base.setup', 'user.setup', 'base.start', 'user.start', 'user.drain', 'base.drain', 'user.stop', 'user.abort', 'base.stop', 'base.abort',
        'user.release2', 'user.release1', 'base.release2', 'base.release1'])
    })

    it('undoes everything when one fails to start, and says who and in what phase', async () => {
      log.length = 0
      const error = await createTestRuntime({ plugins: [traced('base', {}, A), bad('top', 'start', B)] }).then(() => assert.fail(), (e: BackplaneError) => e)
      assert.deepEqual([error.code, error.details['plugin'], error.details['phase']], ['LIFECYCLE_FAILED', 'top', 'start'])
      assert.deepEqual(log.filter(line => line.startsWith('base')), ['base.setup', 'base.start', 'base.stop', 'base.abort', 'base.release2', 'base.release1'])
    })

    it('gives a hanging setup its time, then fails the boot with LIFECYCLE_TIMEOUT', async () => {
      await assert.rejects(createTestRuntime({ plugins: [definePlugin({ name: 'slow', setup: hang })], timeouts: { setup: 50 } }), { code: 'LIFECYCLE_TIMEOUT' })
    })

    it('ends within one grace budget even if every drain, stop and disposer hangs', async () => {
      const stuck = (name: string) => definePlugin({ name, setup(ctx) { ctx.defer(hang, 'stuck'); return { drain: hang, stop: hang } } })
      const runtime = createRuntime({ log: recordLog(), graceMs: 2_000, plugins: Array.from({ length: 5 }, (_, i) => ({ plugin: stuck(`s${i}`) })) })
      await runtime.start()
      const from = performance.now()
      await runtime.stop()
      assert.ok(performance.now() - from < 3_000, `took ${performance.now() - from} ms`)
      assert.equal(runtime.state, 'stopped')
    })

    it('a stop in the middle of a boot waits for the step under way and begins no other', async () => {
      const seen: string[] = []
      let go = () => {}
      const runtime = createRuntime({ log: recordLog(), plugins: [
        { plugin: definePlugin({ name: 'slow', setup: async () => { await new Promise<void>(resolve => { go = resolve }); seen.push('slow'); return { stop: () => void seen.push('slow.stop') } } }) },
        { plugin: definePlugin({ name: 'late', setup: () => void seen.push('late') }) },
      ] })
      const started = runtime.start()
      await settle()
      const stopped = runtime.stop()
      go()
      await Promise.all([started, stopped])
      assert.deepEqual(seen, ['slow', 'slow.stop'])
      assert.equal(runtime.state, 'stopped')
    })

    it('starts once', async () => {
      await using t = await createTestRuntime({ plugins: [] })
      await assert.rejects(t.runtime.start(), { code: 'RUNTIME_STATE' })
    })

    it('announces ready and draining', async () => {
      const seen: string[] = []
      const listener = definePlugin({ name: 'x', setup(ctx) {
        ctx.hook(RuntimeHooks.ready, () => void seen.push('ready'))
        ctx.hook(RuntimeHooks.draining, () => void seen.push('draining'))
        return { drain: () => void seen.push('drain') }
      } })
      { await using _t = await createTestRuntime({ plugins: [listener] }) }
      assert.deepEqual(seen, ['ready', 'draining', 'drain'])
    })

    it('setupOnly gives services and starts nothing', async () => {
      await using t = await createTestRuntime({ setupOnly: true, plugins: [give('base', A, 'value', { start: () => assert.fail('started') })] })
      assert.equal(t.get(A), 'value')
    })

    it('a plugin that declares a service and does not provide it is refused', async () => {
      await assert.rejects(createTestRuntime({ plugins: [definePlugin({ name: 'x', provides: [A], setup() {} })] }), { code: 'SERVICE_NOT_PROVIDED' })
    })
  })

  describe('optional plugins', () => {
    for (const phase of ['setup', 'start'] as const) it(`that fail in ${phase} are left out with their hard dependents, and named with phase and error`, async () => {
      const seen: string[] = []
      const rest = definePlugin({ name: 'rest', uses: { a: live(A) }, setup: (_ctx, { a }) => ({ start: () => assert.equal(a.current, undefined) }) })
      await using t = await createTestRuntime({ plugins: [{ plugin: bad('shaky', phase), optional: true }, user('needs-it', seen), rest] })
      assert.deepEqual(states(t), { shaky: 'failed', 'needs-it': 'failed', rest: 'running' })
      const [shaky, needs] = t.runtime.inspect().plugins
      assert.deepEqual([shaky!.problem!.phase, shaky!.problem!.code], [phase, 'LIFECYCLE_FAILED'])
      assert.match(needs!.problem!.message, /needs "shaky"/)
    })

    it('with bad settings or a missing service are left out before anything starts', async () => {
      const strict = definePlugin({ name: 'strict', config: z.object({ port: z.number() }), provides: [A], setup(ctx) { ctx.provide(A, 'x') } })
      await using t = await createTestRuntime({ plugins: [{ plugin: strict, optional: true }, user('needs-it', []), { plugin: definePlugin({ name: 'lonely', uses: { b: B }, setup() {} }), optional: true }] })
      assert.deepEqual(t.runtime.inspect().plugins.map(each => [each.name, each.state, each.problem?.phase, each.problem?.code]), [
        ['strict', 'failed', 'config', 'PLUGIN_CONFIG_INVALID'], ['needs-it', 'failed', 'graph', 'LIFECYCLE_LEFT_OUT'], ['lonely', 'failed', 'graph', 'SERVICE_MISSING']])
    })

    it('come back when what they lacked is added', async () => {
      const seen: string[] = []
      await using t = await createTestRuntime({ plugins: [{ plugin: user('needs-it', seen), optional: true }] })
      assert.deepEqual(states(t), { 'needs-it': 'failed' })
      await t.runtime.change(new Map([['base', { plugin: give('base', A, 'here') }]]))
      assert.deepEqual([states(t), seen], [{ base: 'running', 'needs-it': 'running' }, ['needs-it:here']])
    })
  })

  describe('swap', () => {
    it('restarts the plugin and its hard dependents only', async () => {
      const seen: string[] = []
      await using t = await createTestRuntime({ plugins: [give('base', A, 'one'), user('near', seen), definePlugin({ name: 'far', setup: () => void seen.push('far') })] })
      assert.deepEqual(await t.runtime.swap('base', give('base', A, 'two')), ['base', 'near'])
      assert.deepEqual(seen, ['near:one', 'far', 'near:two'])
    })

    it('leaves those who hold it live running, and shows them the new one', async () => {
      let held: Live<string> | undefined
      const values: (string | undefined)[] = []
      const reader = definePlugin({ name: 'reader', uses: { a: live(A) }, setup(_ctx, { a }) { held = a; a.watch(value => values.push(value)) } })
      await using t = await createTestRuntime({ plugins: [reader, give('base', A, 'one')] })
      await t.runtime.swap('base', give('base', A, 'two'))
      assert.equal(held!.current, 'two')
      assert.deepEqual(values.slice(-3), ['one', undefined, 'two'])
    })

    for (const phase of ['setup', 'start'] as const) it(`puts the old one back when the new one fails in ${phase}`, async () => {
      const seen: string[] = []
      await using t = await createTestRuntime({ plugins: [give('base', A, 'one'), user('near', seen)] })
      await assert.rejects(t.runtime.swap('base', bad('base', phase)), { code: 'LIFECYCLE_FAILED' })
      assert.equal(t.get(A), 'one')
      assert.deepEqual(states(t), { base: 'running', near: 'running' })
      assert.equal(seen.at(-1), 'near:one')
    })

    it('checks definition, settings and graph before it touches anything', async () => {
      const seen: string[] = []
      await using t = await createTestRuntime({ plugins: [give('base', A, 'one', { stop: () => void seen.push('stopped') }), user('near', [])] })
      const strict = definePlugin({ name: 'base', config: z.object({ port: z.number() }), provides: [A], setup(ctx) { ctx.provide(A, 'x') } })
      await assert.rejects(t.runtime.swap('base', strict), { code: 'RUNTIME_BOOT_FAILED' })
      await assert.rejects(t.runtime.swap('base', give('base', B)), { code: 'RUNTIME_BOOT_FAILED' })
      await assert.rejects(t.runtime.swap('base', {} as Plugin), { code: 'RUNTIME_BOOT_FAILED' })
      await assert.rejects(async () => t.runtime.swap('nobody', give('base', B)), { code: 'PLUGIN_UNKNOWN' })
      assert.deepEqual(seen, [])
    })

    it('an old plugin that can\'t come back is left out with its dependents, and the rest goes on', async () => {
      let once = 0
      const fragile = definePlugin({ name: 'base', provides: [A], setup(ctx) { if (once++) throw new Error('gone for good'); ctx.provide(A, 'one') } })
      await using t = await createTestRuntime({ plugins: [fragile, user('near', []), give('other', B)] })
      await assert.rejects(t.runtime.swap('base', bad('base', 'setup')), /no disk/)
      assert.deepEqual(states(t), { base: 'failed', near: 'failed', other: 'running' })
      assert.ok(t.lines.some(line => line.message.includes('could not be put back')))
      await t.runtime.swap('base', give('base', A, 'mended'))
      assert.deepEqual(states(t), { base: 'running', near: 'running', other: 'running' })
    })

    it('keeps what a swapped plugin contributed as away until it is back', async () => {
      const seen: string[] = []
      const reader = definePlugin({ name: 'reader', setup(ctx) { ctx.collect(Item).watch((all, away) => void seen.push(`${all.length}/${away.length}`)) } })
      await using t = await createTestRuntime({ plugins: [reader, { plugin: contribute(Item, { key: 'x' }), name: 'items' }] })
      await t.runtime.swap('items', contribute(Item, { key: 'x' }))
      assert.deepEqual(seen, ['0/0', '1/0', '1/1', '0/1', '1/1', '1/0'])
    })

    it('swaps queue behind each other', async () => {
      let busy = 0
      const slow = (value: string) => definePlugin({ name: 'base', provides: [A], async setup(ctx) { assert.equal(++busy, 1); await settle(); busy--; ctx.provide(A, value) } })
      await using t = await createTestRuntime({ plugins: [slow('0')] })
      await Promise.all(['1', '2', '3'].map(value => t.runtime.swap('base', slow(value))))
      assert.equal(t.get(A), '3')
    })

    it('announces who was changed and who restarted', async () => {
      const changed = recordHook(RuntimeHooks.changed)
      await using t = await createTestRuntime({ plugins: [give('base', A), user('near', []), changed.plugin] })
      await t.runtime.swap('base', give('base', A))
      assert.deepEqual(changed.calls, [{ plugins: ['base'], restarted: ['base', 'near'] }])
    })
  })

  describe('changes', () => {
    const config = z.object({ level: z.number() })
    const tunable = (seen: string[], answer: (level: number) => boolean) => definePlugin({
      name: 'tunable', config, setup(ctx) { seen.push(`setup ${ctx.config.level}`); return { reconfigure(next) { seen.push(`reconfigure ${next.level}`); return answer(next.level) } } },
    })

    it('of settings are offered to reconfigure first, and restart only who refuses', async () => {
      const seen: string[] = []
      const plugin = tunable(seen, level => level < 5)
      await using t = await createTestRuntime({ plugins: [{ plugin, config: { level: 1 } }] })
      assert.deepEqual(await t.runtime.swap('tunable', plugin, { level: 2 }), [])
      assert.deepEqual(await t.runtime.swap('tunable', plugin, { level: 9 }), ['tunable'])
      assert.deepEqual(seen, ['setup 1', 'reconfigure 2', 'reconfigure 9', 'setup 9'])
    })

    it('are undone in one piece: settings taken in place go back when another plugin can\'t start', async () => {
      const seen: string[] = []
      const plugin = tunable(seen, () => true)
      await using t = await createTestRuntime({ plugins: [{ plugin, config: { level: 1 } }, give('base', A, 'one')] })
      await assert.rejects(t.runtime.change(new Map([['tunable', { plugin, config: { level: 2 } }], ['base', { plugin: bad('base', 'start') }], ['new', { plugin: give('new', B) }]])))
      assert.deepEqual(seen, ['setup 1', 'reconfigure 2', 'reconfigure 1'])
      assert.deepEqual([t.get(A), states(t)], ['one', { tunable: 'running', base: 'running' }])
    })

    it('take plugins in and out', async () => {
      await using t = await createTestRuntime({ plugins: [give('base', A)] })
      await t.runtime.change(new Map([['more', { plugin: give('more', B) }], ['base', undefined]]))
      assert.deepEqual([states(t), t.runtime.inspect().services], [{ more: 'running' }, [{ service: 't.b@1', plugin: 'more' }]])
      await assert.rejects(t.runtime.change(new Map([['near', { plugin: user('near', []) }]])), /nothing provides/)
    })
  })

  describe('faults', () => {
    it('of a plugin\'s timer or listener are put down to it, counted and announced', async () => {
      const faulted = recordHook(RuntimeHooks.faulted)
      const shaky = definePlugin({ name: 'shaky', uses: { a: live(A) }, setup(ctx, { a }) { ctx.clock.after(1, () => { throw new Error('tick') }); a.watch(() => { throw new Error('watched') }) } })
      await using t = await createTestRuntime({ plugins: [faulted.plugin, shaky, give('base', A)] })
      await eventually('the faults', () => t.runtime.inspect().plugins.find(each => each.name === 'shaky')!.faults >= 2)
      assert.ok(faulted.calls.every(call => call.plugin === 'shaky'))
      assert.equal(t.get(A), 'base')
    })
  })

  describe('the context', () => {
    const within = async (setup: (ctx: any, deps: any) => unknown, extra: object = {}) => {
      await using _t = await createTestRuntime({ plugins: [definePlugin({ name: 'x', ...extra, setup: setup as never }), give('base', A)] })
    }

    it('refuses what was not declared', async () => {
      await assert.rejects(within(ctx => ctx.provide(B, 'b')), /LIFECYCLE|touched "t.b"/)
      await assert.rejects(within(ctx => ctx.use(A)), /touched "t.a" without declaring it/)
      await assert.rejects(within(ctx => ctx.contribute(Item, { key: 'x' })), /touched "t.item"/)
      await assert.rejects(within(ctx => ctx.hook(defineHook.series('t.s'), () => {})), /touched "t.s"/)
    })

    it('refuses a second contribution under the same key, naming both plugins', async () => {
      await assert.rejects(createTestRuntime({ plugins: [{ plugin: contribute(Item, { key: 'same' }), name: 'one' }, { plugin: contribute(Item, { key: 'same' }), name: 'two' }] }), /already has "same" from plugin "one"; "two"/)
    })

    it('is dead after the plugin left', async () => {
      let ctx: any
      { await using _t = await createTestRuntime({ plugins: [definePlugin({ name: 'x', setup(given) { ctx = given } })] }) }
      assert.throws(() => ctx.defer(() => {}), { code: 'RUNTIME_DISPOSED' })
    })

    it('make builds a class from declared dependencies, owns it and disposes it', async () => {
      const seen: unknown[] = []
      class Thing {
        constructor(readonly deps: { a: string; config: unknown }) {}
        [Symbol.asyncDispose]() { seen.push('disposed'); return Promise.resolve() }
      }
      await within(ctx => { seen.push(ctx.make(Thing).deps.a) }, { uses: { a: A } })
      assert.deepEqual(seen, ['base', 'disposed'])
    })

    it('container is an awilix scope with the declared dependencies, disposed with the plugin', async () => {
      const { asFunction } = await import('awilix')
      const seen: unknown[] = []
      await within(ctx => {
        ctx.container.register('joined', asFunction(({ a, config }: any) => `${a}/${typeof config}`).scoped().disposer((value: string) => void seen.push(`disposed ${value}`)))
        seen.push(ctx.container.resolve('joined'))
      }, { uses: { a: A } })
      assert.deepEqual(seen, ['base/object', 'disposed base/object'])
    })

    it('timers of ctx.clock leave with the plugin', async () => { await within(ctx => { ctx.clock.every(10, () => {}); ctx.clock.after(100_000, () => {}) }) })

    it('Host tells a plugin of the process it lives in', async () => {
      let host: Host | undefined
      await using t = await createTestRuntime({ plugins: [definePlugin({ name: 'x', uses: { host: Host }, setup(_ctx, deps) { host = deps.host } })] })
      assert.equal(host!.dataDir, t.dataDir)
      assert.deepEqual(host!.inspect().plugins.map(each => each.name), ['x'])
      assert.deepEqual(await host!.reload('x'), ['x'])
    })
  })
})

describe('the test kit', () => {
  it('a fake gives what it was given, and tells how to give the rest', async () => {
    const Thing = defineService<{ one(): number; two(): number }>('t.thing')
    await using t = await createTestRuntime({ plugins: [], services: [fake(Thing, { one: () => 1 })] })
    assert.equal(t.get(Thing).one(), 1)
    assert.throws(() => t.get(Thing).two(), /has no "two"; give it one: fake\(ref, \{ two: … \}\)/)
  })

  it('fails the test that leaves a timer, server or contribution behind', async () => {
    let timer: NodeJS.Timeout | undefined
    const t = await createTestRuntime({ plugins: [definePlugin({ name: 'leaky', setup() { timer = setInterval(function forgotten() {}, 1e6) } })] })
    await assert.rejects(t[Symbol.asyncDispose](), (error: BackplaneError) => error.code === 'RUNTIME_LEAK' && /1 open Timeout; all that are open:.*after 1000000 ms, forgotten of file:\S+runtime\.test\.ts:\d+/s.test(error.message))
    clearInterval(timer)
  })

  it('waits for a timer that nobody can clear, as a Sentinel client leaves one, if it is short', async () => {
    let over = false
    await (await createTestRuntime({ plugins: [definePlugin({ name: 'hasty', setup() { setTimeout(() => { over = true }, 1_500) } })] }))[Symbol.asyncDispose]()
    assert.ok(over)
  })
})
