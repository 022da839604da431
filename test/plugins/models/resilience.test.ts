import assert from 'node:assert/strict'
import fc from 'fast-check'
import { BackplaneError, definePlugin, defineErrors } from '#core'
import { contribute, createTestRuntime, eventually, FakeClock, recordHook, settle } from '#core/testing'
import type { Caller } from '#contracts/access'
import { HealthCheck } from '#contracts/health'
import { Metric } from '#contracts/metrics'
import { BeforeModelCall, ModelCalled, ModelErrors, ModelProvider, Models, type LanguageModelV3CallOptions, type LanguageModelV3StreamPart } from '#contracts/models'
import models from '../../../plugins/models/index.ts'
import { Circuit } from '../../../plugins/models/circuit.ts'
import { Limiter } from '../../../plugins/models/limiter.ts'
import { backoff } from '../../../plugins/models/pause.ts'
import { answer, finish, hang, say, ScriptedModel, scriptedProvider, type Script } from '../../support/scripted-model.ts'

const caller: Caller = { id: 'ann', kind: 'user', name: 'Ann', project_id: 'p1' }
const context = { caller, project_id: 'p1' }
const options: LanguageModelV3CallOptions = { prompt: [{ role: 'user', content: [{ type: 'text', text: 'How are you?' }] }] }
const code = (...expected: string[]) => (error: unknown) => error instanceof BackplaneError && expected.includes(error.code.replace('MODELS_', ''))
const overloaded = () => ModelErrors.OVERLOADED({ model: 'm', reason: 'too much' })
const fails = (error: () => unknown): Script => () => ({ [Symbol.iterator]: () => ({ next() { throw error() } }) })

/** Providers `a`, `b`… that follow these scripts. */
async function setUp(scripts: Readonly<Record<string, Script>>, config: object = {}, clock?: FakeClock, more: Parameters<typeof createTestRuntime>[0]['plugins'] = []) {
  const scripted = Object.entries(scripts).map(([name, script]) => [name, new ScriptedModel(script)] as const)
  const called = recordHook(ModelCalled)
  const t = await createTestRuntime({
    plugins: [
      { plugin: models, config: { retries: { attempts: 0 }, ...config } },
      contribute(ModelProvider, ...scripted.map(([name, model]) => ({ ...scriptedProvider(model), name }))), called.plugin, ...more,
    ],
    ...(clock && { clock }),
  })
  const made = Object.fromEntries(scripted)
  return {
    t, called: called.calls, made: made as Record<string, ScriptedModel>,
    async ask(model: string, more: Partial<LanguageModelV3CallOptions> = {}) {
      const parts: LanguageModelV3StreamPart[] = []
      for await (const part of await t.get(Models).stream(context, model, { ...options, ...more })) parts.push(part)
      return parts
    },
    metric: (name: string, labels: Record<string, string>) => t.runtime.collect(Metric).find(each => each.name === name)!.samples()
      .find(sample => Object.entries(labels).every(([key, each]) => sample.labels[key] === each))?.value ?? 0,
    health: () => t.runtime.collect(HealthCheck).find(each => each.name === 'models')!.check(AbortSignal.timeout(1_000)),
    [Symbol.asyncDispose]: () => t[Symbol.asyncDispose](),
  }
}
const answeredBy = (parts: readonly LanguageModelV3StreamPart[]) => parts.flatMap(part => (part.type === 'response-metadata' ? [part.modelId] : []))

describe('models: fallbacks', () => {
  const config = { fallbacks: { 'a/m': ['b/m', 'c/m'] }, aliases: { smart: 'a/m' } }
  it('answer in place of a model that fails, under their own name, with a record of each call', async () => {
    await using it = await setUp({ a: fails(overloaded), b: fails(() => ModelErrors.AUTH_FAILED({ model: 'b/m', provider: 'b', reason: '401' })), c: () => answer('fine') }, config)
    const before = it.metric('llm_fallbacks_total', { model: 'smart', fallback: 'b/m' })
    assert.deepEqual(answeredBy(await it.ask('smart')), ['c/m'])
    assert.deepEqual(it.called.map(({ provider, status, error }) => [provider, status, error?.code]),
      [['a', 'failed', 'MODELS_OVERLOADED'], ['b', 'failed', 'MODELS_AUTH_FAILED'], ['c', 'completed', undefined]])
    assert.equal(it.metric('llm_fallbacks_total', { model: 'smart', fallback: 'b/m' }), before + 1)
  })
  it('are not asked when the request is wrong, when a guard refused it, or when it was aborted', async () => {
    const Errors = defineErrors('TESTMONEY', { GONE: { message: 'no money', fix: 'Earn some.', retryable: true } })
    for (const error of [ModelErrors.BAD_REQUEST({ model: 'a/m', reason: '400' }), ModelErrors.GUARD_FAILED({ model: 'a/m' }), ModelErrors.ABORTED({ model: 'a/m' })]) {
      await using it = await setUp({ a: fails(() => error), b: () => answer('b'), c: () => answer('c') }, config)
      await assert.rejects(it.ask('a/m'), (thrown: BackplaneError) => thrown.code === error.code)
      assert.equal(it.made['b']!.calls.length, 0)
    }
    const guard = definePlugin({ name: 'budget', guards: [BeforeModelCall], setup(ctx) { ctx.hook(BeforeModelCall, () => { throw Errors.GONE() }) } })
    await using it = await setUp({ a: () => answer('a'), b: () => answer('b'), c: () => answer('c') }, { ...config, retries: { attempts: 3 } }, undefined, [guard])
    await assert.rejects(it.ask('a/m'), { code: 'TESTMONEY_GONE' })
    assert.equal(it.called.length, 1)
  })
  it('are not asked once anything was said', async () => {
    await using it = await setUp({ a: function* () { yield* say('half').slice(0, 2); throw overloaded() }, b: () => answer('b'), c: () => answer('c') }, { ...config, retries: { attempts: 2 } })
    await assert.rejects(it.ask('a/m'), code('OVERLOADED'))
    assert.deepEqual([it.made['a']!.calls.length, it.made['b']!.calls.length], [1, 0])
  })
  it('hide what came before the failure: the stream has one beginning', async () => {
    await using it = await setUp({ a: function* () { yield { type: 'stream-start', warnings: [] }; yield { type: 'text-start', id: 'x' }; throw overloaded() }, b: () => answer('b'), c: () => answer() }, config)
    assert.deepEqual((await it.ask('a/m')).map(part => part.type), ['stream-start', 'response-metadata', 'text-start', 'text-delta', 'text-end', 'finish'])
  })
  it('if all fail, give the error that may pass, else that of the model that was asked for', async () => {
    await using it = await setUp({ a: fails(() => ModelErrors.AUTH_FAILED({ model: 'a/m', provider: 'a', reason: '401' })), b: fails(overloaded), c: fails(() => new Error('odd')) }, config)
    await assert.rejects(it.ask('a/m'), code('OVERLOADED'))
    await using other = await setUp({ a: fails(() => ModelErrors.AUTH_FAILED({ model: 'a/m', provider: 'a', reason: '401' })), b: fails(() => new Error('odd')), c: fails(() => new Error('odd')) }, config)
    await assert.rejects(other.ask('a/m'), code('AUTH_FAILED'))
  })
  it('of the name asked for come before those of what it leads to', async () => {
    await using it = await setUp({ a: fails(overloaded), b: () => answer('b'), c: () => answer('c') }, { ...config, fallbacks: { ...config.fallbacks, smart: ['c/m'] } })
    assert.deepEqual([answeredBy(await it.ask('smart')), answeredBy(await it.ask('a/m'))], [['c/m'], ['b/m']])
  })
})

describe('models: retries', () => {
  it('pause longer each time, half of it by chance, and never longer than the limit', () => {
    fc.assert(fc.property(fc.nat(20), fc.integer({ min: 0, max: 100_000 }), fc.double({ min: 0, max: 1, noNaN: true }), (nth, max, random) => {
      const full = Math.min(max, 500 * 2 ** nth)
      const wait = backoff(nth, max, () => random)
      return wait >= full / 2 && wait <= full
    }))
  })
  it('wait on the clock for as long as the provider asks', async () => {
    const clock = new FakeClock()
    let tries = 0
    await using it = await setUp({ a: () => { if (tries++ === 0) throw ModelErrors.RATE_LIMITED({ model: 'a/m', provider: 'a', reason: '429', retry_after: 7 }); return answer('ok') } },
      { retries: { attempts: 1, max_wait_ms: 10_000 } }, clock)
    const before = it.metric('llm_retries_total', { model: 'a/m', code: 'MODELS_RATE_LIMITED' })
    const pending = it.ask('a/m')
    await clock.advance(6_900)
    assert.equal(tries, 1)
    await clock.advance(200)
    assert.equal((await pending).at(-1)!.type, 'finish')
    assert.equal(it.metric('llm_retries_total', { model: 'a/m', code: 'MODELS_RATE_LIMITED' }), before + 1)
  })
  it('end a pause at the abort signal, and with the plugin', async () => {
    const clock = new FakeClock()
    await using it = await setUp({ a: fails(overloaded) }, { retries: { attempts: 5 } }, clock)
    const stop = new AbortController()
    const aborted = assert.rejects(it.ask('a/m', { abortSignal: stop.signal }), code('ABORTED'))
    const stopped = assert.rejects(it.ask('a/m'), code('ABORTED'))
    await eventually('both pauses', () => clock.pending >= 2)
    stop.abort()
    await aborted
    await it.t.runtime.stop()
    await stopped
    assert.deepEqual(it.called.map(call => call.status), ['failed', 'failed'])
  })
})

describe('models: time-outs', () => {
  it('run on the clock: to the first token, between parts, and in all; a slow reader is not the provider\'s silence', async () => {
    const clock = new FakeClock()
    const timeouts = { first_token_ms: 1_000, idle_ms: 2_000, total_ms: 10_000 }
    await using it = await setUp({
      silent: async function* ({ abortSignal }) { await hang(abortSignal); yield finish() },
      stuck: async function* ({ abortSignal }) { yield* say('a').slice(0, 2); await hang(abortSignal) },
      endless: async function* () { yield* say('a').slice(0, 1); for (;;) { await new Promise<void>(go => { clock.after(500, go) }); yield { type: 'text-delta', id: 't', delta: 'a' } } },
      fast: () => answer('a', 'b'),
    }, { timeouts }, clock)
    const refused = (model: string, what: string) => assert.rejects(it.ask(model), (error: BackplaneError) => code('TIMEOUT')(error) && error.message.includes(what))
    for (const [model, what, ms] of [['silent/m', 'first token', 1_000], ['stuck/m', 'next part', 2_000], ['endless/m', 'whole answer', 10_000]] as const) {
      const pending = refused(model, what)
      await settle()
      await clock.advance(ms + 200)
      await pending
      const { status, error } = it.called.at(-1)!
      assert.deepEqual([status, error?.code], ['failed', 'MODELS_TIMEOUT'], model)
    }
    const reader = (await it.t.get(Models).stream(context, 'fast/m', options)).getReader()
    await clock.advance(5_000)
    while (!(await reader.read()).done) { /* to its end */ }
    assert.equal(it.called.at(-1)!.status, 'completed')
  })
})

describe('models: the circuit breaker', () => {
  it('opens after failures in a row, lets one call through after a while, and closes when that succeeds', async () => {
    const clock = new FakeClock()
    let well = false
    await using it = await setUp({ a: () => { if (!well) throw overloaded(); return answer('ok') } }, { circuit: { failures: 3, open_ms: 10_000 } }, clock)
    for (let i = 0; i < 3; i++) await assert.rejects(it.ask('a/m'), code('OVERLOADED'))
    assert.equal(it.metric('circuit_breaker_state', { name: 'models.a' }), 2)
    await clock.advance(4_000)
    await assert.rejects(it.ask('a/m'), (error: BackplaneError) => code('CIRCUIT_OPEN')(error) && error.retryable && error.details['retry_after'] === 6)
    assert.deepEqual([it.made['a']!.calls.length, it.called.length], [3, 3])
    const { status, message } = await it.health()
    assert.deepEqual([status, message], ['degraded', 'a: its circuit breaker is open'])
    assert.equal((await it.t.get(Models).list()).find(each => each.provider === 'a')!.circuit, 'open')
    await clock.advance(6_000)
    await assert.rejects(it.ask('a/m'), code('OVERLOADED'))
    await assert.rejects(it.ask('a/m'), code('CIRCUIT_OPEN'))
    await clock.advance(10_000)
    well = true
    await it.ask('a/m')
    assert.equal(it.metric('circuit_breaker_state', { name: 'models.a' }), 0)
    assert.equal((await it.health()).status, 'healthy')
  })
  it('sends to the fallback while it is open', async () => {
    await using it = await setUp({ a: fails(overloaded), b: () => answer('b') }, { circuit: { failures: 1 }, fallbacks: { 'a/m': ['b/m'] } })
    await it.ask('a/m')
    assert.deepEqual(answeredBy(await it.ask('a/m')), ['b/m'])
    assert.equal(it.made['a']!.calls.length, 1)
  })
  it('counts neither what the caller did wrong nor the limits of his account', async () => {
    const errors = [ModelErrors.BAD_REQUEST({ model: 'a/m', reason: '400' }), ModelErrors.RATE_LIMITED({ model: 'a/m', provider: 'a', reason: '429' }), ModelErrors.ABORTED({ model: 'a/m' })]
    await using it = await setUp({ a: fails(() => errors.shift() ?? ModelErrors.BAD_REQUEST({ model: 'a/m', reason: '400' })) }, { circuit: { failures: 1 } })
    for (let i = 0; i < 5; i++) await assert.rejects(it.ask('a/m'), code('BAD_REQUEST', 'RATE_LIMITED', 'ABORTED'))
    assert.equal(it.made['a']!.calls.length, 5)
  })
  it('closes as soon as the call that was to see begins to answer', async () => {
    const clock = new FakeClock()
    let well = false
    await using it = await setUp({
      a: async function* ({ abortSignal }) { if (!well) throw overloaded(); yield* say('a').slice(0, 2); await hang(abortSignal) },
    }, { circuit: { failures: 1, open_ms: 1_000 } }, clock)
    await assert.rejects(it.ask('a/m'), code('OVERLOADED'))
    await clock.advance(1_000)
    well = true
    const first = await it.t.get(Models).stream(context, 'a/m', options)
    const second = await it.t.get(Models).stream(context, 'a/m', options)
    await Promise.all([first.cancel(), second.cancel()])
    assert.equal(it.called.length, 3)
  })
  it('refuses at once while it is open, rather than after a wait for tokens', async () => {
    let calls = 0
    await using it = await setUp({
      a: async function* () { if (++calls > 1) throw overloaded(); yield* say('a'); yield finish('stop', 100, 0) },
    }, { circuit: { failures: 1 }, limits: { tokens_per_minute: 60 }, retries: { attempts: 0, max_wait_ms: 60_000 } }, new FakeClock())
    const first = (await it.t.get(Models).stream(context, 'a/m', options)).getReader()
    await assert.rejects(it.ask('a/m'), code('OVERLOADED'))
    while (!(await first.read()).done) { /* to its end, which spends the tokens of more than a minute */ }
    await assert.rejects(it.ask('a/m'), code('CIRCUIT_OPEN'))
  })
  it('counts answers that break off', async () => {
    await using it = await setUp({ a: () => say('half') }, { circuit: { failures: 2 } })
    for (let i = 0; i < 2; i++) await assert.rejects(it.ask('a/m'), code('STREAM_BROKEN'))
    await assert.rejects(it.ask('a/m'), code('CIRCUIT_OPEN'))
  })
  it('never lets more than one through while it is not closed, whatever happens', () => {
    const step = fc.oneof(fc.constantFrom('admit', 'begin', 'well', 'failed', 'unknown'), fc.integer({ min: 1, max: 50 }))
    fc.assert(fc.property(fc.integer({ min: 1, max: 4 }), fc.array(fc.tuple(step, fc.nat(5)), { maxLength: 100 }), (failures, steps) => {
      let now = 0
      const circuit = new Circuit('p', { failures, open_ms: 30 }, () => now, () => {})
      const calls: { passage: ReturnType<Circuit['admit']>; probe: boolean }[] = []
      for (const [each, which] of steps) {
        const at = which % Math.max(1, calls.length)
        if (typeof each === 'number') now += each
        else if (each === 'admit') {
          const was = circuit.state
          try { calls.push({ passage: circuit.admit(), probe: was !== 'closed' }) } catch { assert.notEqual(was, 'closed') }
        } else if (each === 'begin') {
          calls[at]?.passage.begun()
          if (calls[at]) calls[at].probe = false
        } else calls.splice(at, 1)[0]?.passage.ended(each)
        assert.ok(calls.filter(call => call.probe).length <= 1, 'two calls to see')
        if (calls.some(call => call.probe)) assert.notEqual(circuit.state, 'closed')
      }
    }), { numRuns: 1_000 })
  })
})

describe('models: limits', () => {
  it('let so many calls of a provider run at once, in order, and refuse when the line is full', async () => {
    const open: (() => void)[] = []
    await using it = await setUp({
      a: async function* () { await new Promise<void>(go => open.push(go)); yield* answer('ok') },
    }, { limits: { concurrency: 2, queue: 1 } })
    const calls = [it.ask('a/m'), it.ask('a/m'), it.ask('a/m')]
    await eventually('two under way', () => open.length === 2)
    await assert.rejects(it.ask('a/m'), code('BUSY'))
    assert.equal(it.called.length, 0)
    open[0]!()
    await eventually('the third', () => open.length === 3)
    open[1]!()
    open[2]!()
    await Promise.all(calls)
    assert.equal(it.called.length, 3)
  })
  it('free a place in line when its caller leaves', async () => {
    await using it = await setUp({ a: async function* ({ abortSignal }) { yield* say('a').slice(0, 2); await hang(abortSignal) } }, { limits: { concurrency: 1, queue: 1 } })
    const first = (await it.t.get(Models).stream(context, 'a/m', options)).getReader()
    const stop = new AbortController()
    const waiting = assert.rejects(it.ask('a/m', { abortSignal: stop.signal }), code('ABORTED'))
    await settle()
    await assert.rejects(it.ask('a/m'), code('BUSY'))
    stop.abort()
    await waiting
    const next = it.t.get(Models).stream(context, 'a/m', options)
    await first.cancel()
    await (await next).cancel()
    assert.equal(it.made['a']!.calls.length, 2)
  })
  it('keep to the tokens of a minute: a call waits until earlier ones are paid off, or fails with how long that takes', async () => {
    const clock = new FakeClock()
    await using it = await setUp({ a: () => [...say('a'), finish('stop', 100, 20)] }, { limits: { tokens_per_minute: 60 }, retries: { attempts: 0, max_wait_ms: 10_000 } }, clock)
    await it.ask('a/m')
    await assert.rejects(it.ask('a/m'), (error: BackplaneError) => code('BUSY')(error) && error.details['retry_after'] === 61)
    await clock.advance(55_000)
    const pending = it.ask('a/m')
    await clock.advance(5_000)
    assert.equal(it.made['a']!.calls.length, 1)
    await clock.advance(1_500)
    await pending
    assert.equal(it.made['a']!.calls.length, 2)
  })
  it('let in at once who waits when they are raised, and before who comes later', async () => {
    const limiter = new Limiter('p', { concurrency: 1, queue: 10 }, new FakeClock())
    const order: number[] = []
    const leaves = [0, 1, 2, 3].map(async nth => { const leave = await limiter.enter(0, new AbortController().signal); order.push(nth); return leave })
    await settle()
    assert.deepEqual(order, [0])
    limiter.limits = { concurrency: 3, queue: 10 }
    await settle()
    assert.deepEqual(order, [0, 1, 2])
    ;(await leaves[0]!)()
    await settle()
    assert.deepEqual(order, [0, 1, 2, 3])
  })
  it('count right whatever comes and goes', async () => {
    const walk = fc.array(fc.constantFrom('enter', 'leave', 'abort'), { maxLength: 60 })
    await fc.assert(fc.asyncProperty(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 0, max: 3 }), walk, async (concurrency, queue, steps) => {
      const limiter = new Limiter('p', { concurrency, queue }, new FakeClock())
      const inside: (() => void)[] = []
      const waiting = new Set<AbortController>()
      for (const step of steps) {
        if (step === 'enter') {
          const stop = new AbortController()
          waiting.add(stop)
          limiter.enter(0, stop.signal).then(leave => { waiting.delete(stop); inside.push(leave) }, () => { waiting.delete(stop) })
        } else if (step === 'leave') inside.shift()?.()
        else [...waiting].at(-1)?.abort(new Error('left'))
        await Promise.resolve().then(() => {}).then(() => {}).then(() => {})
        await new Promise(resolve => setImmediate(resolve))
        assert.ok(inside.length <= concurrency && waiting.size <= queue, `${inside.length} inside, ${waiting.size} waiting`)
        assert.ok(waiting.size === 0 || inside.length === concurrency, 'somebody waits for a free place')
      }
    }), { numRuns: 50 })
  })
})
