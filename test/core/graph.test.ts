import assert from 'node:assert/strict'
import fc from 'fast-check'
import { BootError, createRuntime, definePlugin, definePoint, defineService, live, Secret, SecretResolve, settled, type Plugin } from '#core'
import { createTestRuntime, recordLog } from '#core/testing'
import { z } from 'zod'

const A = defineService<string>('t.a')
const B = defineService<string>('t.b')
const give = (name: string, ref: typeof A, uses: Record<string, any> = {}): Plugin => definePlugin({ name, uses, provides: [ref], setup(ctx) { ctx.provide(ref, name) } })
const need = (name: string, uses: Record<string, any>): Plugin => definePlugin({ name, uses, setup() {} })
const check = (...plugins: Plugin[]) => createRuntime({ log: recordLog(), plugins: plugins.map(plugin => ({ plugin })) }).check()
const problems = (...plugins: Plugin[]) => { try { check(...plugins) } catch (error) { return (error as BootError).errors } return assert.fail('nothing was refused') }

describe('the graph', () => {
  it('puts providers first, and keeps the order of the config among equals', () => {
    assert.deepEqual(check(need('x', {}), need('user', { a: A }), need('y', {}), give('base', A)), ['x', 'base', 'user', 'y'])
  })

  it('puts everybody that contributes to a settled point before its reader', () => {
    const Store = definePoint<string>('t.store')
    const store = (name: string) => definePlugin({ name, contributes: [Store], setup(ctx) { ctx.contribute(Store, name) } })
    assert.deepEqual(check(need('secrets', { stores: settled(Store) }), store('one'), store('two')), ['one', 'two', 'secrets'])
  })

  it('lets a live use order where that costs nothing, and never make a circle', () => {
    assert.deepEqual(check(need('user', { a: live(A) }), give('base', A)), ['base', 'user'])
    assert.deepEqual(check(give('x', A, { b: live(B) }), give('y', B, { a: A })), ['x', 'y'])
  })

  it('names who needs what is missing, and which known plugins offer it', () => {
    const runtime = createRuntime({ log: recordLog(), plugins: [{ plugin: need('jobs', { a: A }) }], offers: () => ['database'] })
    assert.throws(() => runtime.check(), (error: BootError) => error.errors[0]!.code === 'SERVICE_MISSING' && /"jobs" needs service "t.a"/.test(error.message) && error.errors[0]!.fix.includes('(database)'))
  })

  it('tells a circle as a path', () => {
    const [error] = problems(give('x', A, { b: B }), give('y', B, { a: A }))
    assert.equal(error!.code, 'SERVICE_CYCLE')
    assert.match(error!.message, /x -> y -> x/)
  })

  it('refuses two providers of one service', () => { assert.equal(problems(give('one', A), give('two', A))[0]!.code, 'SERVICE_DUPLICATE') })

  it('holds versions apart: a user of 2 is not served by 1, and both may stand side by side', () => {
    const A2 = defineService<string>('t.a', { version: 2 })
    const [error] = problems(give('old', A), need('user', { a: A2 }))
    assert.equal(error!.code, 'SERVICE_VERSION')
    assert.match(error!.message, /"user" needs service "t.a" version 2, but "old" provides version 1/)
    assert.deepEqual(check(give('old', A), need('user', { a: A2 }), give('new', A2)), ['old', 'new', 'user'])
  })

  it('tells every problem at once', () => {
    const strict = definePlugin({ name: 'strict', config: z.object({ port: z.number() }), setup() {} })
    const codes = problems(strict, need('user', { a: A }), need('other', { b: B }), { name: 'empty' } as Plugin, need('user', {})).map(error => error.code)
    assert.deepEqual(codes.sort(), ['PLUGIN_CONFIG_INVALID', 'PLUGIN_DUPLICATE', 'PLUGIN_INVALID', 'SERVICE_MISSING', 'SERVICE_MISSING'])
  })

  describe('secrets', () => {
    const store = (name: string, uses: Record<string, any> = {}) => definePlugin({
      name, uses, guards: [SecretResolve], setup(ctx) { ctx.hook(SecretResolve, ({ name: wanted }) => (wanted === 'gone' ? undefined : `${name}:${wanted}`)) },
    })
    const config = z.object({ password: z.instanceof(Secret) })
    let read = ''
    const reader = (name: string, ref?: typeof A) => definePlugin({
      name, config, provides: ref ? [ref] : [], async setup(ctx) { read = await ctx.config.password.read(); if (ref) ctx.provide(ref, name) },
    })
    const entry = (plugin: Plugin) => ({ plugin, config: { password: new Secret([{ secret: 'db' }]) } })

    it('come from stores that are set up before the reader', async () => {
      await using t = await createTestRuntime({ plugins: [entry(reader('mail')), store('env')] })
      assert.deepEqual([t.runtime.inspect().order, read], [['env', 'mail'], 'env:db'])
    })

    it('for a plugin under a store come from the stores that do not stand on it', async () => {
      await using t = await createTestRuntime({ plugins: [store('encrypted', { database: A }), entry(reader('database', A)), store('env')] })
      assert.deepEqual([t.runtime.inspect().order, read], [['env', 'database', 'encrypted'], 'env:db'])
    })

    it('whose only store stands on their reader are a circle, told with its fix', () => {
      const runtime = createRuntime({ log: recordLog(), plugins: [{ plugin: store('encrypted', { database: A }) }, entry(reader('database', A))] })
      assert.throws(() => runtime.check(), (error: BootError) => error.errors[0]!.code === 'SECRET_CYCLE' && error.errors[0]!.fix.includes('env-secrets'))
    })

    it('found in no store are a typed error that never shows a value', async () => {
      const late = definePlugin({ name: 'late', config, setup: async ctx => { await ctx.config.password.read() } })
      await assert.rejects(createTestRuntime({ plugins: [store('env'), { plugin: late, config: { password: new Secret([{ secret: 'gone' }]) } }] }), /secret "gone" was found in no store/)
    })
  })

  it('orders any acyclic graph so that nobody comes before what it needs, whatever the order of the config', () => {
    fc.assert(fc.property(fc.array(fc.array(fc.nat(30), { maxLength: 4 }), { minLength: 1, maxLength: 30 }), fc.infiniteStream(fc.nat()), (needs, shuffle) => {
      const refs = needs.map((_, i) => defineService<number>(`t.p${i}`))
      const plugins = needs.map((list, i) => definePlugin({
        name: `p${i}`, provides: [refs[i]!], uses: Object.fromEntries(list.filter(to => to < i).map(to => [`u${to}`, refs[to]!])), setup() {},
      })).map(plugin => ({ plugin, at: shuffle.next().value })).sort((a, b) => a.at - b.at).map(({ plugin }) => plugin)
      const order = check(...plugins)
      assert.equal(order.length, plugins.length)
      needs.forEach((list, i) => { for (const to of list) if (to < i) assert.ok(order.indexOf(`p${to}`) < order.indexOf(`p${i}`)) })
    }), { numRuns: 200 })
  })

  it('is built in time that grows with its size', () => {
    const chain = (count: number) => {
      const refs = Array.from({ length: count }, (_, i) => defineService<number>(`t.c${i}`))
      return refs.map((ref, i) => ({ ...need(`c${i}`, i ? { before: refs[i - 1] } : {}), provides: [ref] }))
    }
    assert.equal(check(...chain(5_000)).length, 5_000)
  })
})
