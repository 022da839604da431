import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { APICallError } from '@ai-sdk/provider'
import { BackplaneError, defineErrors, definePlugin, Secret } from '#core'
import { contribute, createTestRuntime, eventually, recordHook } from '#core/testing'
import type { Caller } from '#contracts/access'
import { HealthCheck } from '#contracts/health'
import { Metric } from '#contracts/metrics'
import { BeforeModelCall, ModelCalled, ModelProvider, Models, type LanguageModelV3CallOptions, type LanguageModelV3StreamPart } from '#contracts/models'
import models from '../../../plugins/models/index.ts'
import { answer, finish, hang, say, ScriptedModel, scriptedProvider, type Script } from '../../support/scripted-model.ts'

const caller: Caller = { id: 'ann', kind: 'user', name: 'Ann', project_id: 'p1' }
const context = { caller, project_id: 'p1', agent: 'tester', job_id: 'j1' }
const options: LanguageModelV3CallOptions = { prompt: [{ role: 'user', content: [{ type: 'text', text: 'How are you?' }] }] }

async function setUp(
  script: Script = () => answer('fine', ', thanks'), provider: Partial<ModelProvider> = {}, config: unknown = {},
  more: Parameters<typeof createTestRuntime>[0]['plugins'] = [],
) {
  const model = new ScriptedModel(script)
  const scripted = scriptedProvider(model, provider)
  const called = recordHook(ModelCalled)
  const t = await createTestRuntime({ plugins: [{ plugin: models, config }, contribute(ModelProvider, scripted), called.plugin, ...more] })
  return { t, model, scripted, called: called.calls, models: t.get(Models), [Symbol.asyncDispose]: () => t[Symbol.asyncDispose]() }
}
async function read(stream: ReadableStream<LanguageModelV3StreamPart>): Promise<LanguageModelV3StreamPart[]> {
  const parts: LanguageModelV3StreamPart[] = []
  for await (const part of stream) parts.push(part)
  return parts
}
const code = (expected: string) => (error: unknown) => error instanceof BackplaneError && error.code === expected

describe('models: names', () => {
  it('resolves aliases through aliases, and makes each model once', async () => {
    await using it = await setUp(undefined, {}, { aliases: { default: 'fast', fast: 'scripted/m' } })
    await read(await it.models.stream(context, 'default', options))
    await read(await it.models.stream(context, 'scripted/m', options))
    assert.equal(it.scripted.created, 1)
    assert.deepEqual(it.called.map(({ provider, model }) => `${provider}/${model}`), ['scripted/m', 'scripted/m'])
  })
  it('has `default` lead to the offline provider when config says nothing', async () => {
    await using it = await setUp()
    const text = (await read(await it.models.stream(context, 'default', options))).flatMap(part => (part.type === 'text-delta' ? [part.delta] : [])).join('')
    assert.match(text, /offline, without a language model/)
  })
  it('refuses an unknown model and names the known', async () => {
    await using it = await setUp()
    for (const name of ['nope', 'nope/m', '', '/m', 'toString', '__proto__']) {
      await assert.rejects(
        it.models.stream(context, name, options),
        (error: BackplaneError) => code('MODELS_UNKNOWN')(error) && error.fix.includes('offline/deterministic') && error.fix.includes('scripted/'),
        name,
      )
    }
    await assert.rejects(it.models.stream(context, 'offline/other', options), code('MODELS_UNKNOWN'))
  })
  it('refuses a provider that lacks settings, by their names', async () => {
    await using it = await setUp(undefined, { missing: ['OPENAI_API_KEY'] })
    await assert.rejects(it.models.stream(context, 'scripted/m', options), (error: BackplaneError) => code('MODELS_UNCONFIGURED')(error) && error.message.includes('OPENAI_API_KEY'))
    assert.equal(it.called.length, 0)
  })
  it('makes a model again after making it failed', async () => {
    let tries = 0
    const model = new ScriptedModel(() => answer('ok'))
    await using it = await setUp(undefined, { create: async () => { if (tries++ === 0) throw new Error('no luck'); return model } })
    await assert.rejects(it.models.stream(context, 'scripted/m', options), code('MODELS_FAILED'))
    assert.equal((await read(await it.models.stream(context, 'scripted/m', options))).at(-1)!.type, 'finish')
    assert.deepEqual(it.called.map(call => call.status), ['failed', 'completed'])
  })
  it('refuses aliases that lead nowhere or in a circle, in config', async () => {
    for (const aliases of [{ a: 'b' }, { a: 'b', b: 'a' }, { default: 'default' }, { 'a/b': 'offline/deterministic' }, { a: '' }]) {
      await assert.rejects(createTestRuntime({ plugins: [{ plugin: models, config: { aliases } }] }), /CONFIG_INVALID|config\.aliases/, JSON.stringify(aliases))
    }
  })
  it('lists models and aliases', async () => {
    await using it = await setUp(undefined, { models: ['m'], missing: ['KEY'] }, { aliases: { fast: 'scripted/m' } })
    const list = await it.models.list()
    assert.deepEqual(list.find(each => each.id === 'fast'), { id: 'fast', provider: 'scripted', alias_of: 'scripted/m', missing: ['KEY'], circuit: 'closed' })
    assert.ok(list.some(each => each.id === 'offline/deterministic') && list.some(each => each.id === 'default'))
  })
  it('says in health which alias leads to nothing', async () => {
    await using it = await setUp(undefined, {}, { aliases: { fast: 'gone/m' } })
    const check = it.t.runtime.collect(HealthCheck).find(each => each.name === 'models')!
    const result = await check.check(AbortSignal.timeout(1_000))
    assert.equal(result.status, 'degraded')
    assert.match(result.message!, /fast: there is no model "fast"/)
  })
  it('takes other aliases without a restart', async () => {
    await using it = await setUp()
    const { models } = it
    const [entry] = it.t.runtime.options.plugins
    assert.deepEqual(await it.t.runtime.change(new Map([['models', { ...entry!, config: { aliases: { fast: 'scripted/m' } } }]])), [])
    assert.equal((await read(await models.stream(context, 'fast', options))).at(-1)!.type, 'finish')
  })
})

describe('models: one record for each call, however it ends', () => {
  it('completed: the parts as they came, and the usage that the provider told', async () => {
    await using it = await setUp(() => [...say('a', 'b'), finish('stop', 11, 7)])
    const metadata = { type: 'response-metadata', modelId: 'scripted/m' }
    assert.deepEqual(await read(await it.models.stream(context, 'scripted/m', options)), [metadata, ...say('a', 'b'), finish('stop', 11, 7)])
    assert.equal(it.called.length, 1)
    const [call] = it.called
    assert.equal(call!.status, 'completed')
    assert.deepEqual([call!.usage.inputTokens.total, call!.usage.outputTokens.total, call!.estimated], [11, 7, false])
    assert.deepEqual([call!.project_id, call!.agent, call!.job_id, call!.caller.id], ['p1', 'tester', 'j1', 'ann'])
    assert.ok(call!.first_token_ms! >= 0 && call!.first_token_ms! <= call!.duration_ms)
  })
  it('completed without figures: our own count, which says so', async () => {
    const none = {
      inputTokens: { total: undefined, noCache: undefined, cacheRead: undefined, cacheWrite: undefined },
      outputTokens: { total: undefined, text: undefined, reasoning: undefined },
    }
    await using it = await setUp(() => [...say('one two', ' three'), { ...finish(), usage: none } as LanguageModelV3StreamPart])
    await read(await it.models.stream(context, 'scripted/m', options))
    assert.deepEqual([it.called[0]!.usage.inputTokens.total, it.called[0]!.usage.outputTokens.total, it.called[0]!.estimated], [4, 3, true])
  })
  it('failed by an error part, a broken stream, a refusal, or an end without a finish', async () => {
    const scripts: [string, string, Script, unknown?][] = [
      ['error part', 'MODELS_FAILED', () => [...say('a'), { type: 'error', error: new Error('boom') }]],
      ['broken', 'MODELS_FAILED', function* () { yield* say('a'); throw new Error('boom') }],
      ['refused', 'MODELS_FAILED', () => [], new Error('boom')],
      ['no finish', 'MODELS_STREAM_BROKEN', () => say('a')],
      ['a finish that nobody gave a reason for', 'MODELS_STREAM_BROKEN', () => [...say('a'), { ...finish(), finishReason: { unified: 'other', raw: undefined } } as LanguageModelV3StreamPart]],
    ]
    for (const [name, expected, script, refuse] of scripts) {
      await using it = await setUp(script)
      it.model.refuse = refuse
      await assert.rejects((async () => read(await it.models.stream(context, 'scripted/m', options)))(), code(expected), name)
      assert.deepEqual(it.called.map(({ status, error, estimated }) => [status, error?.code, estimated]), [['failed', expected, true]], name)
    }
  })
  it('aborted in the middle: the provider is told, the stream errors, what was counted is kept', async () => {
    let seen: AbortSignal | undefined
    await using it = await setUp(async function* ({ abortSignal }) { seen = abortSignal; yield* say('one two').slice(0, 2); await hang(abortSignal) })
    const stop = new AbortController()
    const reader = (await it.models.stream(context, 'scripted/m', { ...options, abortSignal: stop.signal })).getReader()
    for (let said = ''; said !== 'one two';) { const { value } = await reader.read(); if (value?.type === 'text-delta') said += value.delta }
    const pending = reader.read()
    stop.abort()
    await assert.rejects(pending, code('MODELS_ABORTED'))
    assert.equal(seen!.aborted, true)
    assert.deepEqual(it.called.map(({ status, usage: { outputTokens } }) => [status, outputTokens.total]), [['aborted', 2]])
  })
  it('aborted while the provider pays no heed', async () => {
    await using it = await setUp(async function* () { yield* say('a').slice(0, 2); await new Promise(() => {}) })
    const stop = new AbortController()
    const stream = await it.models.stream(context, 'scripted/m', { ...options, abortSignal: stop.signal })
    setTimeout(() => stop.abort(), 5)
    await assert.rejects(read(stream), code('MODELS_ABORTED'))
    assert.equal(it.model.cancelled, 1)
    assert.equal(it.called.length, 1)
  })
  it('aborted before it began: the provider is never asked', async () => {
    await using it = await setUp()
    await assert.rejects(it.models.stream(context, 'scripted/m', { ...options, abortSignal: AbortSignal.abort() }), code('MODELS_ABORTED'))
    assert.deepEqual([it.model.calls.length, it.called.length, it.called[0]?.status], [0, 1, 'aborted'])
  })
  it('aborted while the answer has not begun, by a provider that never answers', async () => {
    await using it = await setUp(
      undefined, { create: async () => Object.assign(new ScriptedModel(() => []), { doStream: () => new Promise<never>(() => {}) }) },
    )
    const stop = new AbortController()
    const pending = it.models.stream(context, 'scripted/m', { ...options, abortSignal: stop.signal })
    setTimeout(() => stop.abort(), 5)
    await assert.rejects(pending, code('MODELS_ABORTED'))
    assert.deepEqual(it.called.map(call => [call.status, call.first_token_ms]), [['aborted', undefined]])
  })
  it('left by the reader: the provider\'s call ends', async () => {
    let seen: AbortSignal | undefined
    await using it = await setUp(async function* ({ abortSignal }) { seen = abortSignal; yield* say('a', 'b'); await hang(abortSignal) })
    for await (const part of await it.models.stream(context, 'scripted/m', options)) if (part.type === 'text-delta') break
    assert.equal(seen!.aborted, true)
    assert.deepEqual(it.called.map(call => call.status), ['aborted'])
  })
  it('left after its finish: completed it stays', async () => {
    await using it = await setUp()
    for await (const part of await it.models.stream(context, 'scripted/m', options)) if (part.type === 'finish') break
    assert.deepEqual(it.called.map(call => call.status), ['completed'])
  })
  it('ended by the plugin\'s leaving', async () => {
    await using it = await setUp(async function* ({ abortSignal }) { yield* say('a'); await hang(abortSignal) })
    const pending = read(await it.models.stream(context, 'scripted/m', options))
    await Promise.all([it.t.runtime.stop(), assert.rejects(pending, code('MODELS_ABORTED'))])
    assert.deepEqual(it.called.map(call => call.status), ['aborted'])
  })
  it('waits for nobody who is told of an end, on any path, and tells each once', async () => {
    let told = 0
    const audit = definePlugin({ name: 'audit', setup(ctx) { ctx.hook(ModelCalled, () => { told++; return new Promise(() => {}) }) } })
    await using it = await setUp(({ prompt }) => (prompt.length > 1 ? [...say('a'), { type: 'error', error: new Error('boom') }] : answer('ok')), {}, {}, [audit])
    const from = performance.now()
    await read(await it.models.stream(context, 'scripted/m', options))
    await assert.rejects((async () => read(await it.models.stream(context, 'scripted/m', { prompt: [...options.prompt, ...options.prompt] })))(), code('MODELS_FAILED'))
    for await (const part of await it.models.stream(context, 'scripted/m', options)) if (part.type === 'text-delta') break
    await assert.rejects(it.models.stream(context, 'scripted/m', { ...options, abortSignal: AbortSignal.abort() }), code('MODELS_ABORTED'))
    // The limit of a hook is a second here.
    assert.ok(performance.now() - from < 800, `${performance.now() - from} ms`)
    assert.deepEqual([told, it.called.map(call => call.status)], [4, ['completed', 'failed', 'aborted', 'aborted']])
  })
  it('ended by the leaving of its provider\'s plugin: the call may be made again, and the new one answers it', async () => {
    const [first, second] = [new ScriptedModel(async function* () { yield* say('a').slice(0, 2); await new Promise(() => {}) }), new ScriptedModel(() => answer('b'))]
    const vendor = (model: ScriptedModel) => definePlugin({
      name: 'vendor', contributes: [ModelProvider], setup(ctx) { ctx.contribute(ModelProvider, { ...scriptedProvider(model), name: 'vendor' }) },
    })
    await using it = await setUp(undefined, {}, {}, [vendor(first)])
    const away = (error: BackplaneError) => error.code === 'MODELS_PROVIDER_AWAY' && error.retryable && error.expose && error.message.includes('"vendor"')
    const idle = (await it.models.stream(context, 'vendor/m', options)).getReader()
    const pending = read(await it.models.stream(context, 'vendor/m', options))
    const other = (await it.models.stream(context, 'scripted/m', options)).getReader()
    await eventually('both calls', () => first.calls.length === 2)
    await Promise.all([it.t.runtime.swap('vendor', vendor(second)), assert.rejects(pending, away)])
    // Told when the plugin left, not when somebody read on.
    assert.deepEqual(it.called.map(({ status, provider, error }) => [status, provider, error?.code]), Array(2).fill(['aborted', 'vendor', 'MODELS_PROVIDER_AWAY']))
    await assert.rejects(idle.read(), away)
    assert.equal((await read(await it.models.stream(context, 'vendor/m', options))).at(-1)!.type, 'finish')
    while (!(await other.read()).done) { /* to its end */ }
    assert.deepEqual(it.called.slice(2).map(call => call.status), ['completed', 'completed'])
    await it.t.runtime.change(new Map([['vendor', undefined]]))
    await assert.rejects(it.models.stream(context, 'vendor/m', options), code('MODELS_UNKNOWN'))
  })
  it('asks to try again while its provider\'s plugin is being swapped', async () => {
    let check: () => Promise<unknown> = async () => {}
    const vendor = (tell: () => Promise<unknown>) => definePlugin({
      name: 'vendor', contributes: [ModelProvider],
      async setup(ctx) { await tell(); ctx.contribute(ModelProvider, { ...scriptedProvider(new ScriptedModel(() => answer('b'))), name: 'vendor' }) },
    })
    await using it = await setUp(undefined, {}, {}, [vendor(() => check())])
    let asked = 0
    check = async () => { asked++; await assert.rejects(it.models.stream(context, 'vendor/m', options), code('MODELS_PROVIDER_AWAY')) }
    await it.t.runtime.swap('vendor', vendor(() => check()))
    assert.equal(asked, 1)
  })
  it('leaves no listener at the caller\'s signal', async () => {
    await using it = await setUp()
    const { signal } = new AbortController()
    for (let i = 0; i < 20; i++) await read(await it.models.stream(context, 'scripted/m', { ...options, abortSignal: signal }))
    assert.equal(getEventListeners(signal, 'abort').length, 0)
  })
})

describe('models: errors', () => {
  const api = (statusCode: number) => new APICallError({ message: `status ${statusCode}`, url: 'http://x', requestBodyValues: { text: 'private words' }, statusCode })
  it('says what kind of failure it was, and whether it may pass', async () => {
    const reset = Object.assign(new TypeError('fetch failed'), { cause: Object.assign(new Error('reset'), { code: 'ECONNRESET' }) })
    const table = [
      [api(429), 'RATE_LIMITED', true], [api(500), 'OVERLOADED', true], [api(529), 'OVERLOADED', true], [api(408), 'OVERLOADED', true], [api(401), 'AUTH_FAILED', false],
      [api(403), 'AUTH_FAILED', false], [api(400), 'BAD_REQUEST', false], [api(404), 'BAD_REQUEST', false], [api(422), 'BAD_REQUEST', false], [api(302), 'BAD_REQUEST', false],
      [reset, 'UNREACHABLE', true], [new Error('odd'), 'FAILED', false], ['a text', 'FAILED', false], [null, 'FAILED', false],
      [new APICallError({ message: 'no credit', url: 'http://x', requestBodyValues: {}, statusCode: 429, responseBody: '{"error":{"code":"insufficient_quota"}}' }), 'AUTH_FAILED', false],
    ] as const
    for (const [error, name, retryable] of table) {
      await using it = await setUp(() => { throw error }, {}, { retries: { attempts: 0 } })
      await assert.rejects(
        it.models.stream(context, 'scripted/m', options),
        (thrown: BackplaneError) => thrown.code === `MODELS_${name}` && thrown.retryable === retryable && thrown.expose, `${String(error)} ${name}`,
      )
    }
  })
  it('leaves a vendor\'s words out that repeat the request', async () => {
    const prompt: LanguageModelV3CallOptions['prompt'] = [{ role: 'user', content: [{ type: 'text', text: 'my pin is 4711, and my name is Ann' }] }]
    for (const message of ['bad input: "my pin is 4711, and my name"', 'value my pin is 4711, and my name is Ann']) {
      await using it = await setUp()
      it.model.refuse = Object.assign(api(400), { message })
      await assert.rejects(it.models.stream(context, 'scripted/m', { prompt }), (error: BackplaneError) => code('MODELS_BAD_REQUEST')(error) && !/4711|Ann/.test(`${error.message} ${String(error.cause)}`))
    }
    await using it = await setUp()
    it.model.refuse = Object.assign(api(400), { message: 'max_tokens is too large' })
    await assert.rejects(it.models.stream(context, 'scripted/m', { prompt }), /400 max_tokens is too large/)
  })
  it('keeps the request and secret values out of the error', async () => {
    const secret = Secret.of('key', 'sk-live-0123456789')
    await secret.read()
    await using it = await setUp()
    it.model.refuse = Object.assign(api(401), { message: 'bad key sk-live-0123456789' })
    await assert.rejects(it.models.stream(context, 'scripted/m', options), (error: BackplaneError) => {
      assert.doesNotMatch(`${error.message} ${JSON.stringify(error)} ${JSON.stringify(error.cause)} ${String(error.cause)}`, /sk-live|private words/)
      return true
    })
    assert.doesNotMatch(JSON.stringify(it.called), /sk-live|private words/)
  })
})

describe('models: guards', () => {
  const Errors = defineErrors('TESTBUDGET', { EXCEEDED: { message: 'over budget', fix: 'Wait.', status: 402, expose: true } })
  it('asks before each call; a refusal reaches the caller as it is, and no provider is called', async () => {
    const seen: string[] = []
    const guard = definePlugin({
      name: 'budget', guards: [BeforeModelCall],
      setup(ctx) { ctx.hook(BeforeModelCall, ({ id, model, project_id }) => { seen.push(`${project_id} ${model} ${id.length}`); throw Errors.EXCEEDED() }) },
    })
    await using it = await setUp(undefined, {}, {}, [guard])
    await assert.rejects(it.models.stream(context, 'scripted/m', options), code('TESTBUDGET_EXCEEDED'))
    assert.deepEqual([seen, it.model.calls.length], [['p1 m 36'], 0])
    assert.deepEqual(it.called.map(({ status, usage }) => [status, usage.inputTokens.total]), [['failed', 0]])
  })
  it('tells of what a guard broke with only that it did: the log has the query and the path', async () => {
    const truth = 'insert into `costs` - SQLITE_ERROR: no such table, /home/ann/data.sqlite'
    const guard = definePlugin({ name: 'budget', guards: [BeforeModelCall], setup(ctx) { ctx.hook(BeforeModelCall, () => { throw new Error(truth) }) } })
    await using it = await setUp(undefined, {}, {}, [guard])
    await assert.rejects(it.models.stream(context, 'scripted/m', options), (error: BackplaneError) => {
      assert.deepEqual([error.code, error.retryable, error.expose], ['MODELS_GUARD_FAILED', true, true])
      assert.doesNotMatch(`${error.message} ${error.fix} ${JSON.stringify(error.details)}`, /insert|ann/)
      return true
    })
    assert.deepEqual(it.called.map(({ status, error }) => [status, error?.code]), [['failed', 'MODELS_GUARD_FAILED']])
    assert.doesNotMatch(JSON.stringify(it.called), /insert|ann\//)
    const line = it.t.lines.find(each => each.message === 'a guard of a model call failed')
    assert.match((line?.fields['err'] as Error).message, /SQLITE_ERROR/)
  })
  it('records of a guard that took too long no more than its code', async () => {
    const guard = definePlugin({ name: 'slow', guards: [BeforeModelCall], setup(ctx) { ctx.hook(BeforeModelCall, () => new Promise(() => {})) } })
    await using it = await setUp(undefined, {}, {}, [guard])
    await assert.rejects(it.models.stream(context, 'scripted/m', options), code('HOOK_TIMEOUT'))
    assert.deepEqual(it.called.map(({ error }) => error), [{ code: 'HOOK_TIMEOUT', message: 'HOOK_TIMEOUT, see the log' }])
  })
  it('tells ModelCalled with the id that BeforeModelCall had', async () => {
    const ids: string[] = []
    const guard = definePlugin({ name: 'reserve', guards: [BeforeModelCall], setup(ctx) { ctx.hook(BeforeModelCall, ({ id }) => void ids.push(id)) } })
    await using it = await setUp(undefined, {}, {}, [guard])
    await read(await it.models.stream(context, 'scripted/m', options))
    assert.deepEqual(it.called.map(call => call.id), ids)
  })
})

describe('models: metrics', () => {
  it('counts calls, tokens and times', async () => {
    await using it = await setUp(() => [...say('a'), finish('stop', 30, 2)])
    const value = (name: string, labels: Record<string, string>) => it.t.runtime.collect(Metric).find(each => each.name === name)!.samples()
      .find(sample => Object.entries(labels).every(([key, each]) => sample.labels[key] === each))?.value ?? 0
    const before = [value('llm_calls_total', { provider: 'scripted', model: 'm', status: 'completed' }), value('tokens_used_total', { model: 'm', kind: 'input' })]
    await read(await it.models.stream(context, 'scripted/m', options))
    assert.equal(value('llm_calls_total', { provider: 'scripted', model: 'm', status: 'completed' }), before[0]! + 1)
    assert.equal(value('tokens_used_total', { model: 'm', kind: 'input' }), before[1]! + 30)
    await eventually('the time', () => value('llm_call_duration_seconds', { model: 'm' }) > 0)
  })
})
