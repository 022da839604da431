import assert from 'node:assert/strict'
import { pathToFileURL } from 'node:url'
import { BackplaneError, definePlugin, Secret, SecretResolve, type PluginEntry } from '#core'
import { createTestRuntime, eventually, recordHook } from '#core/testing'
import type { Caller } from '#contracts/access'
import { ModelCalled, Models, type LanguageModelV3CallOptions, type LanguageModelV3StreamPart } from '#contracts/models'
import models from '../../../plugins/models/index.ts'
import { workplace } from '../../support/cli.ts'
import { serve } from '../../support/http.ts'
import { startModelServer, type ModelServer } from '../../support/model-server.ts'
import type { Format } from '../../support/model-wire.ts'

const caller: Caller = { id: 'ann', kind: 'user', name: 'Ann', project_id: 'p1' }
const context = { caller, project_id: 'p1' }
const options: LanguageModelV3CallOptions = { prompt: [{ role: 'user', content: [{ type: 'text', text: 'How are you?' }] }] }
const key = (value: string) => Secret.of('TEST_KEY', value)
const code = (expected: string) => (error: unknown) => error instanceof BackplaneError && error.code === expected

async function ask(all: Models, model: string, more: Partial<LanguageModelV3CallOptions> = {}) {
  const parts: LanguageModelV3StreamPart[] = []
  for await (const part of await all.stream(context, model, { ...options, ...more })) parts.push(part)
  return parts
}
/** Node keeps connections for the next call, so the servers must go before the runtime looks what is left. */
async function start(providers: object, servers: readonly ModelServer[] = [], plugins: PluginEntry[] = []) {
  const t = await createTestRuntime({ plugins: [{ plugin: models, config: { providers, retries: { attempts: 0 } } }, ...plugins] })
  return {
    models: () => t.get(Models), runtime: t.runtime,
    async [Symbol.asyncDispose]() {
      for (const server of servers) await server[Symbol.asyncDispose]()
      await t[Symbol.asyncDispose]()
    },
  }
}

describe('models: vendors', () => {
  const table: [string, Format, string, string, object?][] = [
    ['openai', 'openai', 'authorization', 'Bearer k-0123456789'], ['openai', 'responses', 'authorization', 'Bearer k-0123456789', { api: 'responses' }],
    ['anthropic', 'anthropic', 'x-api-key', 'k-0123456789'], ['google', 'google', 'x-goog-api-key', 'k-0123456789'], ['groq', 'groq', 'authorization', 'Bearer k-0123456789'],
    ['xai', 'xai', 'authorization', 'Bearer k-0123456789'], ['ollama', 'openai', 'authorization', 'Bearer k-0123456789', { type: 'openai-compatible' }],
  ]
  for (const [name, format, header, value, more] of table) {
    it(`${name} is called in the form "${format}", with its key in ${header} and the headers of the config`, async () => {
      await using server = await startModelServer()
      await using t = await start({ [name]: { api_key: key('k-0123456789'), base_url: server.base(format), headers: { 'x-team': 'blue', 'x-token': key('t-0123456789') }, ...more } }, [server])
      const parts = await ask(t.models(), `${name}/some-model`)
      assert.deepEqual(parts.flatMap(part => (part.type === 'response-metadata' ? [part.modelId] : [])), [`${name}/some-model`])
      const [call] = server.calls
      assert.deepEqual([call!.format, call!.headers[header], call!.headers['x-team'], call!.headers['x-token']], [format, value, 'blue', 't-0123456789'])
      const sent = Object.entries(call!.headers).filter(([, each]) => String(each).includes('k-0123456789'))
      assert.deepEqual(sent.map(([each]) => each), [header])
      assert.deepEqual(Object.keys(call!.headers).filter(each => each.startsWith('x-')).toSorted(), [...new Set(['x-team', 'x-token', ...(header.startsWith('x-') ? [header] : [])])].toSorted())
    })
  }
  it('a local server needs no key, and gets none', async () => {
    await using server = await startModelServer()
    await using t = await start({ ollama: { type: 'openai-compatible', base_url: server.base('openai') }, openai: { base_url: `${server.base('openai')}/` } }, [server])
    for (const model of ['ollama/llama', 'openai/gpt']) await ask(t.models(), model)
    assert.deepEqual(server.calls.map(call => [call.path, call.headers.authorization]), Array(2).fill(['/v1/chat/completions', undefined]))
  })
  it('compatible servers are asked for the usage of a stream', async () => {
    await using server = await startModelServer()
    await using t = await start({ ollama: { type: 'openai-compatible', base_url: server.base('openai') } }, [server])
    await ask(t.models(), 'ollama/llama')
    assert.deepEqual(server.calls[0]!.body.stream_options, { include_usage: true })
  })
  it('tell what they lack, until they have a key', async () => {
    await using t = await start({ mine: { type: 'openai' } })
    for (const [model, lacks] of [['openai/gpt', 'OPENAI_API_KEY'], ['google/g', 'GOOGLE_API_KEY'], ['mine/gpt', 'plugins.models.config.providers.mine.api_key']] as const) {
      await assert.rejects(ask(t.models(), model), (error: BackplaneError) => code('MODELS_UNCONFIGURED')(error) && error.fix.includes(lacks))
    }
  })
  it('send a rotated key from the next call on', async () => {
    await using server = await startModelServer()
    let value = 'first-0123456789'
    const store = definePlugin({ name: 'store', guards: [SecretResolve], setup(ctx) { ctx.hook(SecretResolve, async () => value) } })
    await using t = await start({ anthropic: { api_key: new Secret([{ secret: 'anthropic' }]), base_url: server.base('anthropic') } }, [server], [{ plugin: store }])
    await ask(t.models(), 'anthropic/m')
    value = 'second-0123456789'
    await ask(t.models(), 'anthropic/m')
    assert.deepEqual(server.calls.map(call => call.headers['x-api-key']), ['first-0123456789', 'second-0123456789'])
  })
  it('take another key, other headers and bounds from an edited config while a call goes on; another address restarts them', async () => {
    await using server = await startModelServer({ text: ['one', ' two'], between: 150 })
    await using other = await startModelServer()
    const config = (value: string, base_url = server.base('openai')) => ({ openai: { api_key: key(value), base_url } })
    await using t = await start(config('first-0123456789'), [server, other])
    const all = t.models()
    const pending = ask(all, 'openai/m')
    await eventually('the call', () => server.calls.length === 1)
    const change = async (providers: object, restarted: string[] = []) => {
      const entry = { plugin: models, config: { providers, retries: { attempts: 0 } } }
      assert.deepEqual(await t.runtime.change(new Map([['models', entry]])), restarted)
    }
    await change(config('second-0123456789'))
    assert.equal((await pending).at(-1)!.type, 'finish')
    await ask(all, 'openai/m')
    assert.deepEqual(server.calls.map(call => call.headers.authorization), ['Bearer first-0123456789', 'Bearer second-0123456789'])
    await change(config('third-0123456789', other.base('openai')), ['models'])
    await ask(t.models(), 'openai/m')
    assert.deepEqual([server.calls.length, other.calls.length], [2, 1])
  })
  it('send no key along a redirect', async () => {
    await using thief = await startModelServer()
    for (const format of ['openai', 'anthropic', 'google'] as const) {
      await using server = await startModelServer({ status: 307, headers: { location: `${thief.base(format)}/chat/completions` } })
      await using t = await start({ [format]: { api_key: key('k-0123456789'), base_url: server.base(format) } }, [server])
      await assert.rejects(ask(t.models(), `${format}/m`), code('MODELS_BAD_REQUEST'))
      assert.equal(server.calls.length, 1)
    }
    assert.equal(thief.calls.length, 0)
  })
  it('keep what the vendor calls the model that answered', async () => {
    await using server = await startModelServer()
    const called = recordHook(ModelCalled)
    await using t = await start({ anthropic: { api_key: key('k-0123456789'), base_url: server.base('anthropic') } }, [server], [{ plugin: called.plugin }])
    await ask(t.models(), 'anthropic/claude-x')
    assert.deepEqual([called.calls[0]!.model, called.calls[0]!.response_model], ['claude-x', 'claude-x'])
  })
  it('use a connection again whose answer was read to its end', async () => {
    await using server = await startModelServer()
    await using t = await start({ anthropic: { api_key: key('k-0123456789'), base_url: server.base('anthropic') } }, [server])
    for (let i = 0; i < 6; i++) await ask(t.models(), 'anthropic/m')
    // The next call may begin before the end of the last one was read.
    assert.ok(server.connections <= 2, `${server.connections} connections`)
    assert.deepEqual(server.aborted, [])
  })
})

describe('models: the config of providers', () => {
  it('is refused with the place of the mistake', async () => {
    const k = key('k-0123456789')
    for (const [providers, says] of [
      [{ mine: { api_key: k } }, /mine.*say what it speaks/], [{ local: { type: 'openai-compatible' } }, /base_url.*needs a base_url/], [{ offline: { type: 'openai' } }, /built in/],
      [{ openai: { api_key: 'sk-plain' } }, /api_key/], [{ openai: { base_url: 'http://user:pass@x/v1' } }, /base_url/], [{ openai: { base_url: 'ftp://x' } }, /base_url/],
      [{ anthropic: { api: 'responses' } }, /api.*only openai/], [{ 'A B': { type: 'openai' } }, /providers/], [{ openai: { keys: 1 } }, /keys/],
    ] as const) await assert.rejects(start(providers), says, JSON.stringify(providers))
  })
})

describe('models: GET /api/v1/models', () => {
  it('lists models, aliases, what they lack and their fallbacks', async () => {
    await using t = await serve([{ plugin: models, config: { aliases: { fast: 'groq/llama' }, fallbacks: { fast: ['default'] }, providers: { groq: { models: ['llama'] } } } }])
    const { items } = await (await fetch(`${t.url}/api/v1/models`)).json() as { items: { id: string }[] }
    assert.deepEqual(items.find(each => each.id === 'fast'), {
      id: 'fast', provider: 'groq', alias_of: 'groq/llama', missing: ['GROQ_API_KEY, or plugins.models.config.providers.groq.api_key'], fallbacks: ['default'], circuit: 'closed',
    })
    assert.ok(['offline/deterministic', 'groq/llama', 'openai/*', 'default'].every(id => items.some(each => each.id === id)))
    assert.equal((await fetch(`${t.url}/api/v1/models`, { headers: { 'x-refuse': 'permission' } })).status, 403)
  })
})

describe('models: the CLI', function () {
  this.timeout(30_000)
  /** Tells on standard error of each package of a vendor that is loaded. */
  const hooks = `export async function resolve(name, context, next) {
    if (/^@ai-sdk\\/(?!provider)/.test(name) && !context.parentURL.includes('@ai-sdk')) process._rawDebug('LOADED ' + name)
    return next(name, context)
  }`
  const watch = (work: { readonly folder: string }) => ({ NODE_OPTIONS: `--import=${pathToFileURL(`${work.folder}/watch.mjs`)}` })
  const files = {
    'watch.mjs': 'import { register } from \'node:module\'\nregister(\'./hooks.mjs\', import.meta.url)\n', 'hooks.mjs': hooks,
  }
  const loaded = (err: string) => [...new Set([...err.matchAll(/LOADED (\S+)/g)].map(match => match[1]))]

  it('a server with keys loads no vendor\'s package; the first call of a model loads that one, and no other', async () => {
    await using server = await startModelServer({ text: ['from ', 'afar'] })
    await using work = workplace({
      ...files, 'more.yaml': [
        'plugins:', `  models: { config: { aliases: { default: anthropic/claude-x }, providers: { anthropic: { base_url: "${server.base('anthropic')}" } } } }`,
        '  agents: { config: { agents: { plain: { summary: Answers, instructions: Answer. } } } }', '',
      ].join('\n'),
    })
    const run = work.start(['start', '--config', 'more.yaml'], { ...watch(work), PORT: '0', ANTHROPIC_API_KEY: 'ak-0123456789', OPENAI_API_KEY: 'ok-0123456789' })
    const url = await eventually('the address', () => /http:\/\/127\.0\.0\.1:\d+/.exec(run.out)?.[0], 15_000)
    await eventually('readiness', async () => (await fetch(`${url}/health/ready`).catch(() => undefined))?.ok, 10_000)
    assert.deepEqual(loaded(run.err), [])
    const answer = await fetch(`${url}/api/v1/agents/plain/run`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ input: 'hello' }) })
    assert.match(await answer.text(), /from afar/)
    assert.deepEqual(loaded(run.err), ['@ai-sdk/anthropic'])
    assert.equal(server.calls[0]!.headers['x-api-key'], 'ak-0123456789')
    assert.doesNotMatch(run.out + run.err, /0123456789/)
  })
  it('lists models without a server, and takes a key from its well-known variable', async () => {
    await using work = workplace({})
    const run = work.start(['models', 'list'], { OPENAI_API_KEY: 'ok-0123456789' })
    assert.equal(await run.ended, 0, run.err)
    assert.match(run.out, /^openai\/\*$/m)
    assert.match(run.out, /^anthropic\/\* +lacks ANTHROPIC_API_KEY/m)
    assert.match(run.out, /^default +→ offline\/deterministic$/m)
  })
})
