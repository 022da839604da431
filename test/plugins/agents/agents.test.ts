import assert from 'node:assert/strict'
import { z } from 'zod'
import { definePlugin, type Clock, type Command, type CommandIo, type Live } from '#core'
import { contribute, createTestRuntime, eventually, fake, type TestPlugin, type TestRuntime } from '#core/testing'
import { Access, AccessErrors } from '#contracts/access'
import { Agent, Agents, defineAgent } from '#contracts/agents'
import { HealthCheck } from '#contracts/health'
import { HttpServer, type HttpRequest } from '#contracts/http'
import { Jobs, JobType, type Job } from '#contracts/jobs'
import { ModelProvider, type LanguageModelV3CallOptions } from '#contracts/models'
import { serverAt } from '../../../core/cli/client.ts'
import accessOpen from '../../../plugins/access-open/index.ts'
import pack from '../../../plugins/agent-pack-core/index.ts'
import { AgentCalls } from '../../../plugins/agents/calls.ts'
import commands from '../../../plugins/agents/commands.ts'
import agents from '../../../plugins/agents/index.ts'
import type { AgentRegistry } from '../../../plugins/agents/registry.ts'
import cluster from '../../../plugins/cluster/index.ts'
import database from '../../../plugins/database/index.ts'
import events from '../../../plugins/events/index.ts'
import http from '../../../plugins/http/index.ts'
import jobs from '../../../plugins/jobs/index.ts'
import models from '../../../plugins/models/index.ts'
import queue from '../../../plugins/queue-embedded/index.ts'
import { ann } from '../../support/job-run.ts'
import { answer, callTool, finish, hang, say, ScriptedModel, scriptedProvider } from '../../support/scripted-model.ts'

const QUESTION = 'What is (2+3)*7, and 15% of 80?'
const ANSWER = /^\(2\+3\)\*7 = 35\n15% of 80 = 12\n\nThis answer was composed offline/
const operator = { id: 'operator', kind: 'operator', name: 'operator', project_id: 'default' } as const
const all: TestPlugin[] = [accessOpen, database, queue, jobs, models, agents, pack]
const everything = (...more: TestPlugin[]) => createTestRuntime({ plugins: [...all, ...more] })
const served = (...more: TestPlugin[]) => everything({ plugin: http, config: { port: 0 } }, ...more)
const request = (input: string, agent = 'math') => ({ type: 'agent', agent, input: { agent, input } })

describe('agents: the main job, with everything real', () => {
  it('runs here, in words that come one by one, with 35 and 12', async () => {
    await using t = await everything()
    const tokens: string[] = []
    const tools: string[] = []
    const job = await t.get(Jobs).run(
      operator, request(QUESTION), { onProgress: each => void (each.type === 'token' ? tokens.push(each.content) : tools.push(each.type)) },
    )
    const { text, usage, model } = job.result as { text: string; usage: Record<string, number>; model: string }
    assert.equal(job.status, 'completed')
    assert.match(text, ANSWER)
    assert.equal(tokens.join(''), text)
    assert.ok(tokens.length > 10)
    assert.deepEqual([usage['model_calls'], usage['tool_calls'], model, tools], [2, 1, 'offline/deterministic', ['tool_start', 'tool_end']])
    assert.ok(usage['input_tokens']! > 0 && usage['output_tokens']! > tokens.length)
  })
  it('runs through the queue, by the API, from POST to completed', async () => {
    await using t = await served()
    const { url } = t.get(HttpServer)
    const answered = await fetch(`${url}/api/v1/jobs`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ agent: 'math', input: QUESTION }) })
    assert.equal(answered.status, 202)
    const { id } = await answered.json() as Job
    const job = await eventually('the job', async () => { const each = await (await fetch(`${url}/api/v1/jobs/${id}`)).json() as Job; return each.status === 'completed' && each })
    assert.match((job.result as { text: string }).text, ANSWER)
    assert.equal(job.agent, 'math')
  })
  it('says that it can\'t do what can\'t be computed', async () => {
    await using t = await everything()
    const job = await t.get(Jobs).run(operator, request('Who wrote Hamlet?'))
    assert.equal(job.status, 'completed')
    assert.match((job.result as { text: string }).text, /I can only do what my tools recognize .* found nothing in this one\. They are:\n- calculator/)
  })
  it('refuses at submit an unknown agent, naming the known, and an input that does not fit', async () => {
    await using t = await served()
    const { url } = t.get(HttpServer)
    const post = async (body: unknown) => {
      const answered = await fetch(`${url}/api/v1/jobs`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })
      return { status: answered.status, ...await answered.json() as { code: string; fix: string } }
    }
    const unknown = await post({ agent: 'maths', input: 'x' })
    assert.deepEqual([unknown.status, unknown.code], [404, 'AGENTS_UNKNOWN'])
    assert.match(unknown.fix, /^Did you mean "math"\? Known agents: .*math/)
    for (const body of [
      { agent: 'math', input: '' }, { agent: 'math', input: 5 }, { agent: 'math', input: { text: 'x' } }, { agent: 'math' }, { agent: 'math', input: 'ä'.repeat(33_000) }, { agent: '', input: 'x' },
      { agent: '__proto__', input: 'x' },
    ]) {
      const refused = await post(body)
      assert.ok([400, 404].includes(refused.status), JSON.stringify(refused))
      if (body.agent === 'math' && 'input' in body) assert.equal(refused.code, 'AGENTS_INPUT')
    }
  })
})

describe('agents: swaps under a run', () => {
  for (const name of ['models', 'agents']) {
    it(`hands a run back when ${name} is swapped, and finishes it with the steps it had, in the same attempt`, async () => {
      let hanging = true
      const model = new ScriptedModel(async function* ({ prompt, abortSignal }) {
        if (prompt.at(-1)!.role !== 'tool') { yield callTool('calculator', { expressions: ['1+1'] }); yield finish('tool-calls'); return }
        yield* say('a').slice(0, 2)
        if (hanging) { hanging = false; await hang(abortSignal) }
        yield* answer('b')
      })
      const mine = definePlugin({
        name: 'mine', contributes: [Agent, ModelProvider],
        setup(ctx) {
          ctx.contribute(ModelProvider, scriptedProvider(model))
          ctx.contribute(Agent, { name: 'slow', summary: '', model: 'scripted/m', tools: ['calculator'] })
        },
      })
      await using t = await everything(mine)
      const { id } = await t.get(Jobs).submit(operator, request('x', 'slow'))
      await eventually('the second model call', () => model.calls.length === 2)
      await t.runtime.change(new Map([[name, t.runtime.options.plugins.find(each => (each.name ?? each.plugin.name) === name)!]]), true)
      const job = await eventually('the job', async () => {
        const each = await t.get(Jobs).get(operator, id)
        return ['completed', 'dead'].includes(each.status) && each
      })
      assert.deepEqual([job.status, job.error, job.attempt, model.calls.length], ['completed', null, 1, 3])
    })
  }
})

describe('agents: the provider swapped under a run', () => {
  it('ends the model call in flight and hands the run back: it goes on with the steps that there are, in the same attempt', async () => {
    const tooled = ({ prompt }: LanguageModelV3CallOptions) => prompt.at(-1)!.role === 'tool'
    const first = new ScriptedModel(async function* (options) {
      if (!tooled(options)) { yield callTool('calculator', { expressions: ['1+1'] }); yield finish('tool-calls'); return }
      yield* say('a').slice(0, 2)
      await new Promise(() => {})
    })
    const second = new ScriptedModel(options => (tooled(options) ? answer('b') : []))
    const vendor = (model: ScriptedModel) => definePlugin({
      name: 'vendor', contributes: [ModelProvider], setup(ctx) { ctx.contribute(ModelProvider, scriptedProvider(model)) },
    })
    const slow = contribute(Agent, { name: 'slow', summary: '', model: 'scripted/m', tools: ['calculator'] })
    const quick: TestPlugin = { plugin: jobs, config: { retry: { base_ms: 10, max_ms: 20 } } }
    await using t = await createTestRuntime({ plugins: [accessOpen, database, queue, quick, models, agents, pack, slow, vendor(first)] })
    const { id } = await t.get(Jobs).submit(operator, request('x', 'slow'))
    await eventually('the second model call', () => first.calls.length === 2)
    await t.runtime.swap('vendor', vendor(second))
    const job = await eventually('the job', async () => {
      const each = await t.get(Jobs).get(operator, id)
      return ['completed', 'dead'].includes(each.status) && each
    })
    assert.deepEqual([job.status, job.error, job.attempt, first.calls.length, second.calls.length], ['completed', null, 1, 2, 1])
  })
})

describe('agents: registry', () => {
  it('keeps no timer for a stream that could not begin', async () => {
    let timers = 0
    const clock = { every() { timers++; return () => { timers-- } } } as unknown as Clock
    const calls = new AgentCalls({ current: undefined } as Live<Jobs>, { find: () => ({ value: {} }) } as unknown as AgentRegistry, clock, 30_000)
    const request = { headers: { accept: 'text/event-stream' }, signal: new AbortController().signal } as unknown as HttpRequest
    await assert.rejects(calls.answer(request, { type: 'agent', agent: 'a', input: {} }), { code: 'SERVICE_UNAVAILABLE' })
    assert.equal(timers, 0)
  })
  const config = { agents: { helper: { summary: 'Helps', model: 'offline/deterministic', instructions: 'Help.', tools: ['calculator'], max_steps: 3 } } }
  const declared: TestPlugin = { plugin: agents, config }
  const plugins: TestPlugin[] = [accessOpen, database, queue, jobs, models, declared, pack]

  it('knows agents from config and from code alike', async () => {
    await using t = await createTestRuntime({ plugins })
    const found = await t.get(Agents).list(ann)
    const resting = { version: null, state: 'idle', running: 0 }
    assert.deepEqual(found.find(each => each.name === 'helper'), { name: 'helper', summary: 'Helps', plugin: 'agents', model: 'offline/deterministic', tools: ['calculator'], ...resting })
    const { summary, tools, ...math } = found.find(each => each.name === 'math')!
    assert.ok(summary && tools.includes('calculator'))
    assert.deepEqual(math, { name: 'math', plugin: 'agent-pack-core', model: 'default', ...resting })
    const job = await t.get(Jobs).run(operator, request('2+2?', 'helper'))
    assert.match((job.result as { text: string }).text, /^2\+2 = 4\n/)
  })
  it('forgets the agents of a plugin that leaves', async () => {
    await using t = await createTestRuntime({ plugins })
    await t.runtime.change(new Map([['agent-pack-core', undefined]]))
    assert.deepEqual((await t.get(Agents).list(ann)).map(each => each.name), ['helper'])
    await assert.rejects(t.get(Agents).get(ann, 'math'), { code: 'AGENTS_UNKNOWN' })
    const check = t.runtime.collect(HealthCheck).find(each => each.name === 'agents')!
    assert.deepEqual(await check.check(AbortSignal.timeout(1_000)), { status: 'degraded', message: 'agent "helper" names the tool "calculator", which nothing contributes' })
  })
  it('answers GET /api/v1/agents and /api/v1/agents/:name', async () => {
    await using t = await createTestRuntime({ plugins: [...plugins, { plugin: http, config: { port: 0 } }] })
    const { url } = t.get(HttpServer)
    const list = await (await fetch(`${url}/api/v1/agents`)).json() as { items: { name: string }[] }
    assert.ok(['helper', 'math'].every(name => list.items.some(each => each.name === name)))
    assert.equal((await (await fetch(`${url}/api/v1/agents/math`)).json() as { plugin: string }).plugin, 'agent-pack-core')
    const missing = await fetch(`${url}/api/v1/agents/toString`)
    assert.deepEqual([missing.status, (await missing.json() as { code: string }).code], [404, 'AGENTS_UNKNOWN'])
  })
  it('asks who may see them, and shows nobody anything without an access plugin', async () => {
    const denied = fake(Access, { async check(_, permission) { throw AccessErrors.FORBIDDEN({ permission, reason: 'no' }) } })
    await using t = await createTestRuntime({ plugins: [models, agents], services: [denied] })
    await assert.rejects(t.get(Agents).list(ann), { code: 'ACCESS_FORBIDDEN' })
    await assert.rejects(t.get(Agents).get(ann, 'math'), { code: 'ACCESS_FORBIDDEN' })
    await using bare = await createTestRuntime({ plugins: [models, agents] })
    await assert.rejects(bare.get(Agents).list(ann), { code: 'ACCESS_UNAVAILABLE' })
  })
  it('refuses in config what can\'t be an agent', async () => {
    for (const bad of [{ Helper: { summary: 'x' } }, { helper: {} }, { helper: { summary: 'x', max_steps: 0 } }, { helper: { summary: 'x', tool: [] } }]) {
      await assert.rejects(createTestRuntime({ plugins: [models, { plugin: agents, config: { agents: bad } }] }), /config\.agents/, JSON.stringify(bad))
    }
  })
  it('warns at start of an agent that names a tool which nothing contributes, with the nearest names, wherever the tools come from', async () => {
    const helper = { summary: 'x', tools: ['calculater', 'calculator', 'web'] }
    const plugins = [accessOpen, models, { plugin: agents, config: { agents: { helper } } }, pack]
    await using t = await createTestRuntime({ plugins })
    const warned = t.lines.filter(line => line.level === 'warn').map(line => line.message)
    assert.equal(warned[0], 'agent "helper" names the tool "calculater", which nothing contributes. Did you mean "calculator"?')
    assert.match(warned[1]!, /^agent "helper" names the tool "web", which nothing contributes\. Known tools: .*calculator/)
  })
  it('refuses two agents of one name', async () => {
    await assert.rejects(
      createTestRuntime({ plugins: [models, agents, contribute(Agent, { name: 'a', summary: '' }), contribute(Agent, { name: 'a', summary: '' })] }),
      /POINT_DUPLICATE|"a"/,
    )
  })
})

/** What a command prints, and how it ends. */
function terminal(t: TestRuntime, args: string[], { url, ...parts }: Partial<CommandIo> & { url?: string | undefined } = {}) {
  const printed = { out: '', err: '', pieces: 0 }
  const io: CommandIo = {
    args, options: {}, json: false, tty: false, signal: new AbortController().signal, get: ref => t.get(ref), stdin: async function* () {},
    out: text => { printed.out += `${text}\n` }, write: text => { printed.out += text; printed.pieces++ }, err: text => { printed.err += `${text}\n` },
    server: url === undefined ? undefined : serverAt(url), ...parts,
  }
  return { io, printed }
}
const command = (name: string): Command => commands.find(each => each.name === name)!

describe('agents: commands', () => {
  it('run: without a server in this process, the words as they come, the tools beside them', async () => {
    await using t = await createTestRuntime({ plugins: all, setupOnly: true })
    const { io, printed } = terminal(t, ['math', 'What', 'is', '(2+3)*7,', 'and', '15%', 'of', '80?'])
    assert.equal(await command('run').run(io), 0)
    assert.match(printed.out, /^\(2\+3\)\*7 = 35\n15% of 80 = 12\n\nThis answer.*model\.\n$/s)
    assert.ok(printed.pieces > 10)
    assert.equal(printed.err, '→ calculator {"expressions":["(2+3)*7","15% of 80"]}\n')
  })
  it('run: by the server that is there, with the same answer', async () => {
    await using t = await served()
    const { io, printed } = terminal(t, ['math', QUESTION], { url: t.get(HttpServer).url })
    assert.equal(await command('run').run(io), 0)
    assert.match(printed.out, ANSWER)
  })
  it('run --json: the job', async () => {
    await using t = await everything()
    const { io, printed } = terminal(t, ['math', '2+2'], { json: true })
    assert.equal(await command('run').run(io), 0)
    const job = JSON.parse(printed.out) as Job
    assert.deepEqual([job.status, job.agent], ['completed', 'math'])
  })
  it('run: an answer that is kept apart is told in full, here and by the server', async () => {
    const text = 'x'.repeat(40_000)
    const long = [contribute(ModelProvider, scriptedProvider(new ScriptedModel(() => answer(text)))), contribute(Agent, { name: 'long', summary: '', model: 'scripted/m' })]
    await using t = await served(...long)
    for (const url of [undefined, t.get(HttpServer).url]) {
      const [said, shown] = [terminal(t, ['long', 'x'], { url }), terminal(t, ['long', 'x'], { url, json: true })]
      assert.deepEqual([await command('run').run(said.io), await command('run').run(shown.io)], [0, 0])
      assert.equal(said.printed.out.trim(), text)
      const job = JSON.parse(shown.printed.out) as Job
      assert.deepEqual([(job.result as { text: string }).text, job.result_ref], [text, null])
      assert.equal((await t.get(Jobs).get(operator, job.id)).result_ref!.bytes > 40_000, true)
    }
    const answered = await fetch(`${t.get(HttpServer).url}/api/v1/agents/long/run`, { method: 'POST', headers: { 'content-type': 'application/json', accept: 'application/json' }, body: '{"input":"x"}' })
    assert.equal((await answered.json() as { result: { text: string } }).result.text, text)
  })
  it('run: ends with 1 when the job is dead, and says why', async () => {
    const model = new ScriptedModel(() => [...say('half'), { type: 'error', error: new Error('cut') }])
    const broken = [contribute(ModelProvider, scriptedProvider(model)), contribute(Agent, { name: 'broken', summary: '', model: 'scripted/m' })]
    await using t = await served(...broken)
    for (const url of [undefined, t.get(HttpServer).url]) {
      const { io, printed } = terminal(t, ['broken', 'x'], { url })
      assert.equal(await command('run').run(io), 1)
      assert.match(printed.err, /is dead: model "scripted\/m" failed: cut \(MODELS_FAILED\)\n {2}fix: See the provider.s status page and the log\.\n$/)
    }
  })
  it('run: refuses an unknown agent, here and by the server', async () => {
    await using t = await served()
    for (const url of [undefined, t.get(HttpServer).url]) await assert.rejects(command('run').run(terminal(t, ['nobody', 'x'], { url }).io), { code: 'AGENTS_UNKNOWN', fix: /^Known agents: .*math/ })
  })
  it('run: says what holds it up, where no process runs jobs', async () => {
    const plugins = [...all, cluster, events, { plugin: http, config: { port: 0 } }]
    await using t = await createTestRuntime({ plugins, host: { roles: ['api'] } })
    const stop = new AbortController()
    const { io, printed } = terminal(t, ['math', '1+1'], { url: t.get(HttpServer).url, signal: stop.signal })
    const pending = command('run').run(io)
    await eventually('the reason', () => /held up: no process that runs jobs is alive\n {2}fix: Start one/.test(printed.err), 6_000)
    stop.abort(new Error('Ctrl-C'))
    assert.equal(await pending, 130)
  })
  it('run: Ctrl-C aborts the model\'s call and cancels the job', async () => {
    let aborted = false
    const model = new ScriptedModel(async function* ({ abortSignal }) {
      yield* say('a')
      abortSignal!.addEventListener('abort', () => { aborted = true })
      await hang(abortSignal)
    })
    await using t = await everything(contribute(ModelProvider, scriptedProvider(model)), contribute(Agent, { name: 'slow', summary: '', model: 'scripted/m' }))
    const stop = new AbortController()
    const { io, printed } = terminal(t, ['slow', 'x'], { signal: stop.signal })
    const pending = command('run').run(io)
    await eventually('the first word', () => printed.out.length > 0)
    stop.abort(new Error('Ctrl-C'))
    assert.equal(await pending, 130)
    assert.match(printed.err, /is cancelled/)
    assert.ok(aborted)
  })
  it('run: Ctrl-C with a server cancels the job there, too', async () => {
    let aborted = 0
    const model = new ScriptedModel(async function* ({ abortSignal }) {
      yield* say('a')
      abortSignal!.addEventListener('abort', () => { aborted = performance.now() })
      await hang(abortSignal)
    })
    await using t = await served(contribute(ModelProvider, scriptedProvider(model)), contribute(Agent, { name: 'slow', summary: '', model: 'scripted/m' }))
    const stop = new AbortController()
    const { io, printed } = terminal(t, ['slow', 'x'], { url: t.get(HttpServer).url, signal: stop.signal })
    const pending = command('run').run(io)
    await eventually('the first word', () => printed.out === 'a')
    const from = performance.now()
    stop.abort(new Error('Ctrl-C'))
    assert.equal(await pending, 130)
    const [, id] = /^job (\S+) is cancelled\n$/.exec(printed.err)!
    const job = await eventually('the job', async () => { const each = await t.get(Jobs).get(operator, id!); return each.status !== 'running' && each })
    assert.deepEqual([job.status, job.error?.code], ['cancelled', 'JOBS_CANCELLED'])
    assert.ok(aborted - from < 1_000, `${aborted - from} ms`)
  })
  it('run: reads standard input for `-`, until Ctrl-C', async () => {
    await using t = await everything()
    const { io, printed } = terminal(t, ['math', '-'], { stdin: async function* () { yield Buffer.from('What is 2+'); yield Buffer.from('2?\n') } })
    assert.deepEqual([await command('run').run(io), printed.out.split('\n')[0]], [0, '2+2 = 4'])
    const large = async function* () { for (;;) yield Buffer.alloc(64 * 1024, 'x') }
    await assert.rejects(command('run').run(terminal(t, ['math', '-'], { stdin: large }).io) as Promise<unknown>, { code: 'AGENTS_INPUT', message: /more than/ })
    const stop = new AbortController()
    const stdin = async function* () { yield Buffer.from('2+2'); stop.abort(new Error('Ctrl-C')); throw new Error('aborted') }
    assert.equal(await command('run').run(terminal(t, ['math', '-'], { stdin, signal: stop.signal }).io), 130)
  })
  it('run: keeps control characters of what a model says from a terminal, and from no file', async () => {
    const model = new ScriptedModel(() => answer('a\x1b[2J', 'b\u009b1m\tc'))
    await using t = await everything(contribute(ModelProvider, scriptedProvider(model)), contribute(Agent, { name: 'sly', summary: '', model: 'scripted/m' }))
    for (const tty of [true, false]) {
      const { io, printed } = terminal(t, ['sly', 'x'], { tty })
      await command('run').run(io)
      assert.equal(printed.out, tty ? 'a[2Jb1m\tc\n' : 'a\x1b[2Jb\u009b1m\tc\n')
    }
  })
  it('run: takes data with --input-json, and says what is missing or no JSON', async () => {
    const double = defineAgent({ name: 'double', summary: '', input: z.strictObject({ n: z.number() }), run: async (_, { n }) => ({ twice: 2 * n }) })
    await using t = await served(contribute(Agent, double))
    for (const url of [undefined, t.get(HttpServer).url]) {
      const { io, printed } = terminal(t, ['double'], { url, options: { inputJson: '{"n":21}' } })
      assert.equal(await command('run').run(io), 0)
      assert.equal(printed.out, '{"twice":42}\n')
      const wrong = (options: object) => command('run').run(terminal(t, ['double'], { url, options }).io) as Promise<unknown>
      await assert.rejects(wrong({}), { code: 'AGENTS_NO_INPUT' })
      await assert.rejects(wrong({ inputJson: '{' }), { code: 'AGENTS_INPUT', message: /--input-json was given is not JSON/, fix: /Quote it/ })
      await assert.rejects(wrong({ inputJson: '{"n":"1"}' }), { code: 'AGENTS_INPUT', message: /input\.n/ })
    }
  })
  it('agents list and agents info: the same from here and from the server', async () => {
    await using t = await served()
    const { url } = t.get(HttpServer)
    for (const [name, args] of [['agents list', []], ['agents info', ['math']]] as const) {
      for (const json of [false, true]) {
        const [here, there] = [terminal(t, [...args], { json }), terminal(t, [...args], { json, url })]
        await command(name).run(here.io)
        await command(name).run(there.io)
        assert.equal(here.printed.out, there.printed.out)
        assert.match(here.printed.out, /math/)
      }
    }
    await assert.rejects(command('agents info').run(terminal(t, ['nobody'], { url }).io), { code: 'AGENTS_UNKNOWN' })
  })
  it('each has a name, a summary and an example', () => {
    for (const each of commands) assert.ok(each.summary && each.examples?.length && each.serverFirst && each.needs === 'runtime')
  })
})

describe('agents: the job type', () => {
  it('takes a text of at most 64 KiB', async () => {
    const allow = fake(Access, { async check() {} })
    await using t = await createTestRuntime({ plugins: [models, agents, contribute(Agent, { name: 'a', summary: '' })], services: [allow] })
    const [type] = t.runtime.collect(JobType)
    const check = async (input: unknown) => type!.admit!(operator, { type: 'agent', input: { agent: 'a', input } }).then(() => true, (error: { code: string }) => error.code)
    assert.deepEqual(
      await Promise.all(['x'.repeat(65_536), 'x'.repeat(65_537), 'ä'.repeat(32_769), '', {}].map(check)),
      [true, ...Array<string>(4).fill('AGENTS_INPUT')],
    )
  })
})
