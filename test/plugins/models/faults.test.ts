import assert from 'node:assert/strict'
import { BackplaneError, Secret } from '#core'
import { createTestRuntime, eventually, recordHook } from '#core/testing'
import type { Caller } from '#contracts/access'
import { ModelCalled, Models, type LanguageModelV3CallOptions, type LanguageModelV3StreamPart } from '#contracts/models'
import models from '../../../plugins/models/index.ts'
import { retryAfterOf } from '../../../plugins/models/failure.ts'
import { startModelServer, type Reply } from '../../support/model-server.ts'
import type { Format } from '../../support/model-wire.ts'

const KEY = 'sk-test-0123456789abcdef'
const WORDS = 'a very private question about teapots'
const caller: Caller = { id: 'ann', kind: 'user', name: 'Ann', project_id: 'p1' }
const context = { caller, project_id: 'p1' }
const options: LanguageModelV3CallOptions = {
  prompt: [{ role: 'user', content: [{ type: 'text', text: WORDS }] }],
  tools: [{ type: 'function', name: 'add', inputSchema: { type: 'object', properties: { a: { type: 'number' } } } }],
}
const code = (expected: string) => (error: unknown) => error instanceof BackplaneError && error.code === `MODELS_${expected}`
const textOf = (parts: readonly LanguageModelV3StreamPart[]) => parts.flatMap(part => (part.type === 'text-delta' ? [part.delta] : [])).join('')

const VENDORS: Readonly<Record<string, { format: Format; provider: string; more?: object }>> = {
  'OpenAI over chat completions': { format: 'openai', provider: 'openai' },
  'OpenAI over the Responses API': { format: 'responses', provider: 'openai', more: { api: 'responses' } },
  Anthropic: { format: 'anthropic', provider: 'anthropic' },
  Google: { format: 'google', provider: 'google' },
  'an OpenAI-compatible server': { format: 'openai', provider: 'ollama', more: { type: 'openai-compatible' } },
}

async function setUp({ format, provider, more }: (typeof VENDORS)[string], script: Reply | Reply[], config: object = {}) {
  const server = await startModelServer(script)
  const called = recordHook(ModelCalled)
  const settings = { api_key: Secret.of('TEST_KEY', KEY), base_url: server.base(format), ...more }
  const t = await createTestRuntime({
    plugins: [{
      plugin: models, config: { providers: { [provider]: settings }, retries: { attempts: 1, max_wait_ms: 20 }, timeouts: { first_token_ms: 60_000, idle_ms: 60_000 }, ...config },
    }, called.plugin],
  })
  const parts: LanguageModelV3StreamPart[] = []
  return {
    server, called: called.calls, parts, lines: t.lines,
    async ask(more: Partial<LanguageModelV3CallOptions> = {}) {
      for await (const part of await t.get(Models).stream(context, `${provider}/m-1`, { ...options, ...more })) parts.push(part)
      return parts
    },
    async [Symbol.asyncDispose]() { await server[Symbol.asyncDispose](); await t[Symbol.asyncDispose]() },
  }
}

interface Fault {
  readonly name: string
  readonly reply: Reply
  readonly code: string
  /** Calls that the server sees, with one retry allowed. */
  readonly calls: number
  /** What had been said. */
  readonly said?: string
  readonly retryable: boolean
}
const FAULTS: readonly Fault[] = [
  { name: '401', reply: { status: 401, error: `Incorrect API key provided: ${KEY}` }, code: 'AUTH_FAILED', calls: 1, retryable: false },
  { name: '403', reply: { status: 403 }, code: 'AUTH_FAILED', calls: 1, retryable: false },
  { name: '400', reply: { status: 400, error: `invalid: "${WORDS}"` }, code: 'BAD_REQUEST', calls: 1, retryable: false },
  { name: '404', reply: { status: 404, error: 'there is no such model' }, code: 'BAD_REQUEST', calls: 1, retryable: false },
  { name: '422', reply: { status: 422 }, code: 'BAD_REQUEST', calls: 1, retryable: false },
  { name: '429 that asks for a short pause', reply: { status: 429, headers: { 'retry-after-ms': '15' } }, code: 'RATE_LIMITED', calls: 2, retryable: true },
  { name: '429 that asks for a long one', reply: { status: 429, headers: { 'retry-after': '30' } }, code: 'RATE_LIMITED', calls: 1, retryable: true },
  { name: '500', reply: { status: 500 }, code: 'OVERLOADED', calls: 2, retryable: true },
  { name: '529', reply: { status: 529 }, code: 'OVERLOADED', calls: 2, retryable: true },
  { name: 'silence before the headers', reply: { delay: 5_000 }, code: 'TIMEOUT', calls: 2, retryable: true },
  { name: 'silence before the first token', reply: { first: 5_000 }, code: 'TIMEOUT', calls: 2, retryable: true },
  { name: 'silence after it', reply: { text: ['one', ' two'], fault: 'hang', after: 1 }, code: 'TIMEOUT', calls: 1, said: 'one', retryable: true },
  { name: 'a stream cut before the first token', reply: { fault: 'cut' }, code: 'STREAM_BROKEN', calls: 2, retryable: true },
  { name: 'a stream cut after it', reply: { text: ['one', ' two'], fault: 'cut', after: 1 }, code: 'STREAM_BROKEN', calls: 1, said: 'one', retryable: true },
  { name: 'a stream that ends too early', reply: { text: ['one', ' two'], fault: 'end', after: 1 }, code: 'STREAM_BROKEN', calls: 1, said: 'one', retryable: true },
  { name: 'a stream that ends with nothing', reply: { fault: 'end' }, code: 'STREAM_BROKEN', calls: 2, retryable: true },
  { name: 'a malformed chunk', reply: { text: ['one', ' two'], fault: 'malformed', after: 1 }, code: 'STREAM_BROKEN', calls: 1, said: 'one', retryable: true },
  { name: 'a malformed chunk at first', reply: { fault: 'malformed' }, code: 'STREAM_BROKEN', calls: 2, retryable: true },
  { name: 'an error event after the first token', reply: { text: ['one', ' two'], fault: 'error', after: 1 }, code: 'OVERLOADED', calls: 1, said: 'one', retryable: true },
  { name: 'an error event before it', reply: { fault: 'error' }, code: 'OVERLOADED', calls: 2, retryable: true },
]

for (const [name, vendor] of Object.entries(VENDORS)) {
  describe(`models: the faults of ${name}`, () => {
    for (const fault of FAULTS) {
      it(`${fault.name}: ${fault.code}, ${fault.calls} call${fault.calls > 1 ? 's' : ''}, and a record of each`, async () => {
        await using it = await setUp(vendor, fault.reply, fault.code === 'TIMEOUT' ? { timeouts: { first_token_ms: 200, idle_ms: 200 } } : {})
        const error: unknown = await it.ask().then(() => assert.fail('it answered'), (thrown: unknown) => thrown)
        assert.ok(code(fault.code)(error), String(error))
        assert.equal((error as BackplaneError).retryable, fault.retryable)
        assert.equal(it.server.calls.length, fault.calls)
        assert.equal(textOf(it.parts), fault.said ?? '')
        assert.deepEqual(it.called.map(call => [call.status, call.error?.code]), Array(fault.calls).fill(['failed', `MODELS_${fault.code}`]))
        assert.equal(new Set(it.called.map(call => call.id)).size, fault.calls)
        if (fault.said) assert.ok(it.called[0]!.usage.inputTokens.total! > 0 && it.called[0]!.usage.outputTokens.total! > 0)
        const { message, fix, details, cause } = error as BackplaneError
        const told = `${message} ${fix} ${JSON.stringify(details)} ${String(cause)} ${JSON.stringify(it.called)} ${JSON.stringify(it.lines)}`
        assert.doesNotMatch(told, /teapots|0123456789abcdef/)
        if (fault.code === 'AUTH_FAILED') assert.match(fix, new RegExp(`plugins\\.models\\.config\\.providers\\.${vendor.provider}\\.api_key`))
        if (fault.name.includes('a long one')) assert.equal(details['retry_after'], 30)
      })
    }
    it('a failure that passes: the second answer, and the usage that its vendor tells', async () => {
      await using it = await setUp(vendor, [{ status: 500 }, { text: ['yes', '!'], usage: { input: 20, output: 3, cached: 5 } }])
      assert.equal(textOf(await it.ask()), 'yes!')
      assert.deepEqual(it.called.map(call => call.status), ['failed', 'completed'])
      const { usage, estimated } = it.called[1]!
      assert.deepEqual([usage.inputTokens.total, usage.inputTokens.cacheRead, usage.outputTokens.total, estimated], [20, 5, 3, false])
      assert.equal(it.called[0]!.usage.inputTokens.total, 0)
    })
    it('wrong tool arguments are handed on as the model wrote them: the agent answers for it', async () => {
      const wrong = vendor.format === 'google' ? { b: 'three' } : '{"a": 1,'
      await using it = await setUp(vendor, { tools: [{ name: 'add', arguments: wrong }] })
      const call = (await it.ask()).find(part => part.type === 'tool-call')
      assert.equal(call?.type === 'tool-call' && call.input, typeof wrong === 'string' ? wrong : JSON.stringify(wrong))
      assert.deepEqual(it.called.map(each => each.status), ['completed'])
    })
    for (const [when, reply] of [['in the middle', { text: ['one', ' two'], between: 20_000 }], ['before it answers', { delay: 20_000 }]] as const) {
      it(`an abort ${when} ends the connection to the vendor within a second`, async () => {
        await using it = await setUp(vendor, reply)
        const stop = new AbortController()
        const answer = assert.rejects(it.ask({ abortSignal: stop.signal }), code('ABORTED'))
        await eventually('the call', () => (when === 'in the middle' ? textOf(it.parts) === 'one' : it.server.calls.length === 1))
        const from = performance.now()
        stop.abort()
        await answer
        const gone = await eventually('the connection to be closed', () => it.server.calls[0]!.aborted_at, 1_000)
        assert.ok(gone - from < 1_000, `${gone - from} ms`)
        assert.deepEqual(it.called.map(call => [call.status, call.estimated]), [['aborted', true]])
        assert.ok(it.called[0]!.usage.inputTokens.total! > 0, 'what was read is paid for')
      })
    }
    it('a vendor that nobody answers at', async () => {
      await using it = await setUp(vendor, {})
      await it.server[Symbol.asyncDispose]()
      await assert.rejects(it.ask(), code('UNREACHABLE'))
      assert.deepEqual(it.called.map(call => call.status), ['failed', 'failed'])
    })
  })
}

describe('models: Retry-After', () => {
  it('is read as seconds, as a date and in milliseconds; nonsense is none', () => {
    const now = Date.parse('2026-01-01T00:00:00Z')
    const table: [Record<string, string>, number | undefined][] = [
      [{ 'retry-after': '7' }, 7], [{ 'retry-after': '0' }, 0], [{ 'retry-after': '1.5' }, 1.5], [{ 'retry-after': 'Thu, 01 Jan 2026 00:01:00 GMT' }, 60],
      [{ 'retry-after': 'Wed, 31 Dec 2025 00:00:00 GMT' }, 0], [{ 'retry-after-ms': '250', 'retry-after': '7' }, 0.25], [{ 'retry-after': 'soon' }, undefined], [{}, undefined],
    ]
    for (const [headers, seconds] of table) assert.equal(retryAfterOf(headers, now), seconds, JSON.stringify(headers))
  })
})
