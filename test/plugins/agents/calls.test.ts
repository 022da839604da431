import assert from 'node:assert/strict'
import { request as ask, type IncomingMessage } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'
import { z } from 'zod'
import { contribute, createTestRuntime, eventually, fake, FakeClock, recordHook, type TestPlugin } from '#core/testing'
import { Access, AccessErrors } from '#contracts/access'
import { Agent, defineTool, Tool } from '#contracts/agents'
import { DatabaseErrors } from '#contracts/database'
import { HttpServer } from '#contracts/http'
import { Jobs, type Job } from '#contracts/jobs'
import { ModelCalled, ModelProvider } from '#contracts/models'
import { readEvents } from '../../../core/cli/events.ts'
import accessOpen from '../../../plugins/access-open/index.ts'
import agents from '../../../plugins/agents/index.ts'
import { MAX_WAITING, RunStream } from '../../../plugins/agents/stream.ts'
import cluster from '../../../plugins/cluster/index.ts'
import database from '../../../plugins/database/index.ts'
import events from '../../../plugins/events/index.ts'
import http from '../../../plugins/http/index.ts'
import jobs from '../../../plugins/jobs/index.ts'
import models from '../../../plugins/models/index.ts'
import queue from '../../../plugins/queue-embedded/index.ts'
import { startModelServer, type Reply } from '../../support/model-server.ts'
import { answer, callTool, finish, hang, say, ScriptedModel, scriptedProvider, type Script } from '../../support/scripted-model.ts'

const operator = { id: 'operator', kind: 'operator', name: 'operator', project_id: 'default' } as const
const echo = defineTool({ name: 'echo', description: 'Echoes.', input: z.strictObject({ word: z.string() }), run: async ({ word }) => ({ said: word }) })
const base: TestPlugin[] = [accessOpen, database, queue, { plugin: http, config: { port: 0 } }, contribute(Tool, echo)]
type Frame = Record<string, any> & { seq: number; type: string }

async function serve(script: Script, agent: Partial<Agent> = {}, more: TestPlugin[] = [], jobsConfig: Record<string, unknown> = {}, access?: Partial<Access>) {
  const model = new ScriptedModel(script)
  const tester: Agent = { name: 'tester', summary: '', model: 'scripted/m', tools: ['echo'], ...agent }
  const t = await createTestRuntime({
    plugins: [...base.slice(access ? 1 : 0), { plugin: jobs, config: { retry: { base_ms: 10, max_ms: 20 }, ...jobsConfig } }, models,
      { plugin: agents, config: { recheck_ms: 100 } }, contribute(ModelProvider, scriptedProvider(model)), contribute(Agent, tester), ...more],
    services: access ? [fake(Access, { identify: async () => operator, admitBind: async () => {}, projects: async () => 'all', ...access })] : [],
  })
  return { t, model, [Symbol.asyncDispose]: () => t[Symbol.asyncDispose](), ...callsTo(t.get(HttpServer).url!) }
}

function callsTo(url: string) {
  const post = (body: object, { accept = 'text/event-stream', name = 'tester', signal, headers = {} }: { accept?: string; name?: string; signal?: AbortSignal; headers?: object } = {}) =>
    fetch(`${url}/api/v1/agents/${name}/run`, { method: 'POST', headers: { accept, 'content-type': 'application/json', ...headers }, body: JSON.stringify(body), ...(signal && { signal }) })
  const frames = async (from: Response, until?: (frame: Frame) => boolean): Promise<Frame[]> => {
    const all: Frame[] = []
    for await (const { data } of readEvents(from)) {
      all.push(JSON.parse(data) as Frame)
      if (until?.(all.at(-1)!)) break
    }
    return all
  }
  return { url, post, frames }
}

const tooled: Script = ({ prompt }) => (prompt.at(-1)!.role === 'tool' ? answer('it said ', 'hi') : [callTool('echo', { word: 'hi' }), finish('tool-calls')])

describe('agents: a run by HTTP', () => {
  it('answers 200 with the job when it is completed', async () => {
    await using it = await serve(tooled)
    const answered = await it.post({ input: 'please', metadata: { from: 'test' } }, { accept: '*/*' })
    assert.deepEqual([answered.status, answered.headers.get('content-type')], [200, 'application/json; charset=utf-8'])
    const job = await answered.json() as Job
    assert.deepEqual([job.status, job.agent, (job.result as { text: string }).text, job.metadata], ['completed', 'tester', 'it said hi', { from: 'test' }])
    assert.equal(answered.headers.get('location'), `/api/v1/jobs/${job.id}`)
  })
  it('streams start, tools and words in order, and one end with what was used', async () => {
    await using it = await serve(tooled)
    const answered = await it.post({ input: 'please' })
    assert.deepEqual([answered.status, answered.headers.get('content-type'), answered.headers.get('x-accel-buffering')], [200, 'text/event-stream; charset=utf-8', 'no'])
    const frames = await it.frames(answered)
    assert.deepEqual(frames.map(each => each.seq), frames.map((_, at) => at + 1))
    assert.deepEqual(frames.map(each => each.type), ['start', 'tool_start', 'tool_end', 'token', 'token', 'done'])
    const [start, begun, ended, ...rest] = frames
    const job = await it.t.get(Jobs).get(operator, start!['job_id'])
    assert.deepEqual([start!['agent'], start!['model'], begun!['input'], ended!['output']], ['tester', 'scripted/m', { word: 'hi' }, { said: 'hi' }])
    const { duration_ms, ...done } = rest.at(-1)!
    assert.deepEqual(done, { seq: 6, type: 'done', job_id: job.id, ...job.result as object })
    assert.ok(duration_ms >= 0 && duration_ms < 5_000)
    assert.equal(rest.flatMap(each => each['content'] ?? []).join(''), 'it said hi')
  })
  it('sends the start in less than 100 ms, while the model is still silent', async () => {
    let speak = () => {}
    const waiting = new Promise<void>(resolve => { speak = resolve })
    await using it = await serve(async function* () { await waiting; yield* answer('late') })
    await (await it.post({ input: 'warm up' }, { name: 'nobody' })).body!.cancel()
    const from = performance.now()
    const answered = await it.post({ input: 'please' })
    const reader = readEvents(answered)[Symbol.asyncIterator]()
    const first = JSON.parse((await reader.next()).value!.data) as Frame
    assert.equal(first.type, 'start')
    assert.ok(performance.now() - from < 100, `${performance.now() - from} ms`)
    speak()
    assert.equal((JSON.parse((await reader.next()).value!.data) as Frame)['content'], 'late')
    await reader.return!(undefined)
  })
  it('refuses with a problem, streamed or not, what can\'t be run', async () => {
    await using it = await serve(tooled, { input: z.strictObject({ n: z.number() }) })
    for (const accept of ['application/json', 'text/event-stream']) {
      const refused = async (body: object, name?: string) => {
        const answered = await it.post(body, { accept, ...(name && { name }) })
        const { code, errors } = await answered.json() as { code: string; errors?: { path: string }[] }
        return [answered.status, code, ...(errors ?? []).map(each => each.path)]
      }
      assert.deepEqual(await refused({ input: 'x' }, 'nobody'), [404, 'AGENTS_UNKNOWN'])
      assert.deepEqual(await refused({ input: { n: 'x' } }), [400, 'AGENTS_INPUT', 'input.n'])
      assert.deepEqual(await refused({ input: { n: 1 }, timeout_ms: 600_001 }), [400, 'HTTP_INVALID', 'body.timeout_ms'])
      assert.deepEqual(await refused({ input: { n: 1 }, what: 1 }), [400, 'HTTP_INVALID', 'body.what'])
    }
  })
  it('tells of a dead job its own error, as a problem or as the last frame', async () => {
    await using it = await serve(() => [...say('half'), { type: 'error', error: new Error('cut') }])
    const answered = await it.post({ input: 'x' }, { accept: 'application/json' })
    const problem = await answered.json() as Record<string, string>
    assert.deepEqual([answered.status, answered.headers.get('content-type')!.split(';')[0], problem['code']], [502, 'application/problem+json', 'MODELS_FAILED'])
    assert.equal((await it.t.get(Jobs).get(operator, problem['job_id']!)).status, 'dead')
    const last = (await it.frames(await it.post({ input: 'x' }))).at(-1)!
    assert.deepEqual([last.type, last['code'], last['status'], last['retryable']], ['error', 'MODELS_FAILED', 'dead', false])
    assert.match(last['message'], /cut/)
  })
  it('answers 409 when somebody cancels it, and streams that as the end', async () => {
    await using it = await serve(async function* ({ abortSignal }) { yield* say('a'); await hang(abortSignal) })
    for (const accept of ['application/json', 'text/event-stream']) {
      const pending = it.post({ input: 'x' }, { accept })
      const [job] = await eventually('the job', async () => { const { items } = await it.t.get(Jobs).list(operator, { status: 'running' }); return items.length > 0 && items })
      await it.t.get(Jobs).cancel(operator, job!.id)
      const answered = await pending
      if (accept === 'application/json') assert.deepEqual([answered.status, (await answered.json() as { code: string }).code], [409, 'JOBS_CANCELLED'])
      else assert.deepEqual((await it.frames(answered)).map(({ type, code }) => [type, code]).at(-1), ['error', 'JOBS_CANCELLED'])
    }
  })
  it('says when what was said is said again, after an attempt that failed', async () => {
    await using it = await serve((_, nth) => (nth === 0 ? say('ha') : answer('half')), {}, [cluster, events])
    const frames = await it.frames(await it.post({ input: 'x' }))
    assert.deepEqual(frames.map(({ type, content, message, text }) => [type, content ?? message ?? text]), [
      ['start', undefined], ['token', 'ha'], ['metadata', 'attempt 2 of 3: what was said since the last finished step is said again'], ['token', 'half'], ['done', 'half'],
    ])
  })
  it('cancels the run within a second when the client goes, waiting or streaming', async () => {
    for (const accept of ['application/json', 'text/event-stream']) {
      let aborted = 0
      await using it = await serve(async function* ({ abortSignal }) {
        abortSignal!.addEventListener('abort', () => { aborted = performance.now() })
        yield* say('a')
        await hang(abortSignal)
      })
      const leave = new AbortController()
      const pending = it.post({ input: 'x' }, { accept, signal: leave.signal })
      pending.catch(() => {})
      await eventually('the model call', () => it.model.calls.length === 1)
      if (accept === 'text/event-stream') await it.frames(await pending, each => each.type === 'token').catch(() => {})
      const from = performance.now()
      leave.abort()
      await eventually('the end of the model call', () => aborted > 0)
      assert.ok(aborted - from < 1_000, `${aborted - from} ms`)
      await eventually('the job', async () => (await it.t.get(Jobs).list(operator, { status: 'cancelled' })).items.length === 1)
    }
  })
  for (const [what, refuses] of [['the key is revoked', 'restore'], ['the role is taken away', 'agents:run'], ['the agent\'s own permission is', 'math:use']] as const) {
    it(`ends a stream, and the run, once ${what}; while nobody can say, both go on`, async () => {
      const state: { asked: number; refuses?: string; with: Error } = { asked: 0, with: DatabaseErrors.UNAVAILABLE({ reason: 'away' }) }
      const ask = (permission: string) => { state.asked++; if (state.refuses === permission) throw state.with }
      await using it = await serve(async function* ({ abortSignal }) { yield* say('a'); await hang(abortSignal) }, { permission: 'math:use' }, [], {}, {
        check: async (_caller, permission) => ask(permission), restore: async (id, project_id) => { ask('restore'); return { ...operator, id, project_id } },
      })
      const answered = await it.post({ input: 'x' })
      await eventually('the model call', () => it.model.calls.length === 1)
      state.refuses = refuses
      const { asked } = state
      await eventually('some checks', () => state.asked > asked + 6)
      const job = async () => (await it.t.get(Jobs).list(operator)).items[0]!
      assert.equal((await job()).status, 'running')
      state.with = AccessErrors.FORBIDDEN({ permission: refuses, reason: 'no more' })
      const last = (await it.frames(answered)).at(-1)!
      assert.deepEqual([last.type, last['code'], last['retryable'], last['job_id']], ['error', 'ACCESS_FORBIDDEN', false, (await job()).id])
      await eventually('the job', async () => (await job()).status === 'cancelled')
      const after = state.asked
      await pause(250)
      assert.equal(state.asked, after, 'nobody asks any more')
    })
  }

  it('asks no more about one whose run has ended', async () => {
    let asked = 0
    await using it = await serve(() => answer('x'), {}, [], {}, { check: async () => {}, restore: async (id, project_id) => { asked++; return { ...operator, id, project_id } } })
    await it.frames(await it.post({ input: 'x' }))
    await pause(250)
    assert.equal(asked, 1, 'before the attempt')
  })

  it('does not cancel what runs when its own plugin is swapped: the job goes on with the steps it had', async () => {
    let hanging = true
    await using it = await serve(async function* (options) {
      yield* say('a').slice(0, 2)
      if (hanging) { hanging = false; await hang(options.abortSignal) }
      yield* answer('b')
    })
    const reader = (await it.post({ input: 'x' })).body!.getReader()
    const { id } = (await it.t.get(Jobs).list(operator)).items[0]!
    await eventually('the first word', async () => Buffer.from((await reader.read()).value!).includes('"token"'))
    const entry = it.t.runtime.options.plugins.find(each => (each.name ?? each.plugin.name) === 'agents')!
    await it.t.runtime.change(new Map([['agents', entry]]), true)
    await assert.rejects(async () => { while (!(await reader.read()).done); }, /terminated/)
    const job = await eventually('the job', async () => { const each = await it.t.get(Jobs).get(operator, id); return each.finished_at !== null && each })
    assert.deepEqual([job.status, job.attempt, it.model.calls.length], ['completed', 1, 2])
  })
  it('drops a client that does not read, and goes on with the run even when that client leaves', async function () {
    this.timeout(120_000)
    let [said, go] = [0, () => {}]
    const reading = new Promise<void>(resolve => { go = resolve })
    await using it = await serve(() => answer('x'), { async run(ctx) {
      for (; said < 400; said++) { ctx.emit({ type: 'token', content: 'x'.repeat(64 * 1024) }); await pause(0) }
      await reading
      return 'all said'
    } })
    const { port } = new URL(it.url)
    const client = ask({ port, method: 'POST', path: '/api/v1/agents/tester/run', headers: { accept: 'text/event-stream', 'content-type': 'application/json' } })
    client.on('error', () => {})
    const response = new Promise<IncomingMessage>(resolve => client.on('response', resolve))
    client.end(JSON.stringify({ input: 'x' }))
    const paused = await response
    await eventually('more than any socket holds', () => said === 400, 5_000, () => said)
    let text = ''
    for await (const chunk of paused) text = (text + String(chunk)).slice(-2_000)
    assert.match(text, /"type":"error".*"code":"AGENTS_STREAM_SLOW"/)
    client.destroy()
    go()
    const job = await eventually('the job', async () => { const { items: [each] } = await it.t.get(Jobs).list(operator); return each!.finished_at !== null && each })
    assert.deepEqual([job!.status, (job!.result as { text: string }).text], ['completed', 'all said'])
  })
  it('gives the same run to whoever sends the same idempotency key', async () => {
    await using it = await serve(tooled)
    const body = { input: 'please', idempotency_key: 'k1' }
    const first = await (await it.post(body, { accept: 'application/json' })).json() as Job
    const again = await it.frames(await it.post(body))
    assert.deepEqual(again.map(each => [each.type, each['job_id']]), [['start', first.id], ['done', first.id]])
    assert.equal(it.model.calls.length, 2)
  })

  it('takes the key from the header Idempotency-Key too, and refuses two that differ', async () => {
    await using it = await serve(tooled)
    const run = async (key: string, more = {}) =>
      await (await it.post({ input: 'please', ...more }, { accept: 'application/json', headers: { 'idempotency-key': key } })).json() as Job & { code: string }
    const first = await run('k2')
    assert.deepEqual([(await run('"k2"')).id, (await run('k2', { idempotency_key: 'k2' })).id], [first.id, first.id])
    assert.equal(it.model.calls.length, 2)
    for (const [key, more] of [['k2', { idempotency_key: 'k3' }], ['', {}], ['x'.repeat(201), {}]] as const) assert.equal((await run(key, more)).code, 'HTTP_INVALID')
  })
})

describe('agents: the stream of a run', () => {
  const job = (parts: Partial<Job> = {}) => ({ id: 'j1', agent: 'a', status: 'completed', result: { text: 'x', usage: {}, model: null }, error: null, ...parts }) as Job

  it('gives signs of life while nothing happens', async () => {
    const clock = new FakeClock()
    const stream = new RunStream(clock, () => {})[Symbol.asyncIterator]()
    const next = stream.next()
    await clock.advance(15_000)
    assert.deepEqual(await next, { done: false, value: ': still there\n\n' })
    await stream.return!()
  })
  it('drops who reads too slowly, saying why and where it goes on, and keeps no more than its bound', async () => {
    let dropped = 0
    const stream = new RunStream(new FakeClock(), () => dropped++)
    stream.start(job(), 'm')
    for (let at = 0; at < 30; at++) stream.progress({ type: 'token', content: 'x'.repeat(MAX_WAITING / 20) })
    stream.end(job(), 1)
    let text = ''
    for await (const each of stream) text += each
    const [last, ...more] = text.split('\n\n').filter(Boolean).map(each => JSON.parse(each.slice('data: '.length)) as Frame)
    assert.deepEqual([dropped, more.length, last!.type, last!['code']], [1, 0, 'error', 'AGENTS_STREAM_SLOW'])
    assert.match(last!['fix'], /\/sse\/jobs\/j1/)
  })
  it('has one end, whatever comes after', async () => {
    const stream = new RunStream(new FakeClock(), () => {})
    stream.start(job(), 'm')
    stream.end(job(), 1)
    stream.progress({ type: 'token', content: 'late' })
    stream.fail(new Error('late'))
    let text = ''
    for await (const each of stream) text += each
    assert.deepEqual([...text.matchAll(/"type":"(\w+)"/g)].map(each => each[1]), ['start', 'done'])
  })
})

describe('agents: over the wire format of OpenAI', () => {
  async function wired(script: (nth: number) => Reply) {
    const server = await startModelServer(({ nth }) => script(nth))
    const called = recordHook(ModelCalled)
    const tester: Agent = { name: 'tester', summary: '', model: 'local/m', tools: ['echo'], settings: { temperature: 0.5, max_output_tokens: 100, stop: ['END'] } }
    const provider = { type: 'openai-compatible', base_url: server.base('openai') }
    const t = await createTestRuntime({ plugins: [...base, jobs, { plugin: models, config: { providers: { local: provider } } }, agents, contribute(Agent, tester), called.plugin] })
    return { t, server, called: called.calls, ...callsTo(t.get(HttpServer).url!), async [Symbol.asyncDispose]() { await server[Symbol.asyncDispose](); await t[Symbol.asyncDispose]() } }
  }

  it('calls a tool and answers, with settings, results and usage on the wire', async () => {
    await using it = await wired(nth => (nth === 0
      ? { text: [], tools: [{ name: 'echo', arguments: { word: 'hi' } }], usage: { input: 20, output: 5 } } : { text: ['it said', ' hi'], usage: { input: 30, output: 6 } }))
    const frames = await it.frames(await it.post({ input: 'please' }))
    assert.deepEqual(frames.map(each => each.type), ['start', 'tool_start', 'tool_end', 'token', 'token', 'done'])
    const { text, usage } = frames.at(-1)!
    assert.deepEqual([text, usage], ['it said hi', { model_calls: 2, tool_calls: 1, input_tokens: 50, output_tokens: 11 }])
    const [first, second] = it.server.calls.map(call => call.body)
    assert.deepEqual([first.temperature, first.max_tokens, first.stop, first.tools[0].function.name], [0.5, 100, ['END'], 'echo'])
    assert.deepEqual(second.messages.at(-1).role, 'tool')
    assert.match(second.messages.at(-1).content, /"said":"hi"/)
  })
  it('stops the provider\'s call within a second when the client goes, and records what it used', async () => {
    await using it = await wired(() => ({ text: Array<string>(500).fill('word '), between: 20 }))
    const { port } = new URL(it.url)
    const client = ask({ port, method: 'POST', path: '/api/v1/agents/tester/run', headers: { accept: 'text/event-stream', 'content-type': 'application/json' } })
    client.on('error', () => {})
    let text = ''
    client.on('response', response => response.on('data', chunk => { text += chunk }).on('error', () => {}))
    client.end(JSON.stringify({ input: 'x' }))
    await eventually('some words', () => text.includes('"token"'))
    const from = performance.now()
    client.destroy()
    const [call] = await eventually('the end of the provider\'s call', () => it.server.aborted.length === 1 && it.server.aborted)
    assert.ok(call!.aborted_at! - from < 1_000, `${call!.aborted_at! - from} ms`)
    await eventually('its record', () => it.called.length === 1)
    assert.deepEqual([it.called[0]!.status, it.called[0]!.estimated, it.called[0]!.usage.outputTokens.total! > 0], ['aborted', true, true])
    await pause(50)
    assert.equal(it.server.calls.length, 1)
  })
})
