import assert from 'node:assert/strict'
import { z } from 'zod'
import { definePlugin } from '#core'
import { contribute, createTestRuntime, fake, recordHook } from '#core/testing'
import { Access, AccessErrors } from '#contracts/access'
import { Agent, defineTool, Tool, type ToolContext } from '#contracts/agents'
import { JobType } from '#contracts/jobs'
import { ModelCalled, ModelProvider } from '#contracts/models'
import agents from '../../../plugins/agents/index.ts'
import models from '../../../plugins/models/index.ts'
import { ann, runJob } from '../../support/job-run.ts'
import { answer, callTool, finish, hang, say, ScriptedModel, scriptedProvider, type Script } from '../../support/scripted-model.ts'

const allow = (denied: string[] = []) => fake(Access, {
  async check(_, permission) { if (denied.includes(permission)) throw AccessErrors.FORBIDDEN({ permission, reason: 'the test says so' }) },
})
const echo = defineTool({ name: 'echo', description: 'Echoes.', input: z.strictObject({ word: z.string() }), run: async ({ word }) => ({ said: word }) })
const input = { agent: 'tester', input: 'please' }

async function setUp(
  script: Script, { tools = [echo], agent = {}, denied = [] }: { tools?: Tool[]; agent?: Partial<Agent>; denied?: string[] } = {},
) {
  const model = new ScriptedModel(script)
  const called = recordHook(ModelCalled)
  const tester: Agent = { name: 'tester', summary: 'For tests', model: 'scripted/m', instructions: 'Be brief.', tools: tools.map(tool => tool.name), ...agent }
  const t = await createTestRuntime({
    plugins: [
      models, agents, contribute(ModelProvider, scriptedProvider(model)), contribute(Tool, ...tools), contribute(Agent, tester),
      called.plugin,
    ],
    services: [allow(denied)],
  })
  return { t, model, called: called.calls, type: t.runtime.collect(JobType)[0]!, [Symbol.asyncDispose]: () => t[Symbol.asyncDispose]() }
}
/** Calls the tool once, or as often as there are arguments, then answers. */
const calls = (name: string, ...each: unknown[]): Script => (_, nth) => (nth < each.length ? [callTool(name, each[nth], `c${nth}`), finish('tool-calls')] : answer('done'))
const told = (model: ScriptedModel, nth: number): unknown => {
  const last = model.calls[nth]!.prompt.at(-1)!
  return last.role === 'tool' ? last.content.map(part => (part.type === 'tool-result' ? part.output : part)) : last
}

describe('agents: the loop', () => {
  it('gives the model instructions, request and tools, streams its words, and sums what was used', async () => {
    await using it = await setUp((_, nth) => (nth === 0 ? [...say('let me ', 'see'), callTool('echo', { word: 'hi' }), finish('tool-calls', 20, 4)] : [...say('it said ', 'hi'), finish('stop', 30, 6)]))
    const { result, text, progress, steps } = await runJob(it.type, input)
    assert.deepEqual(result, { text: 'it said hi', model: 'scripted/m', usage: { model_calls: 2, tool_calls: 1, input_tokens: 50, output_tokens: 10 } })
    assert.equal(text, 'let me seeit said hi')
    assert.deepEqual(it.model.calls[0]!.prompt, [{ role: 'system', content: 'Be brief.' }, { role: 'user', content: [{ type: 'text', text: 'please' }] }])
    const [tool] = it.model.calls[0]!.tools!
    assert.ok(tool?.type === 'function')
    assert.deepEqual(
      [tool.name, tool.description, tool.inputSchema.type, tool.inputSchema.required, tool.inputSchema.additionalProperties],
      ['echo', 'Echoes.', 'object', ['word'], false],
    )
    assert.deepEqual(told(it.model, 1), [{ type: 'json', value: { said: 'hi' } }])
    assert.deepEqual(progress.filter(each => each.type !== 'token'), [
      { type: 'tool_start', tool: 'echo', call_id: 'c-echo', input: { word: 'hi' } }, { type: 'tool_end', tool: 'echo', call_id: 'c-echo', output: { said: 'hi' } },
    ])
    assert.deepEqual([...steps.keys()], ['model#1', 'tool:echo#1', 'model#2'])
    assert.deepEqual(it.called.map(({ agent, job_id, step, caller }) => [agent, job_id, step, caller.id]), [['tester', 'job-1', 'model#1', 'ann'], ['tester', 'job-1', 'model#2', 'ann']])
  })
  it('runs several calls of one turn in order, and gives all results in one message', async () => {
    await using it = await setUp((_, nth) => (nth === 0 ? [callTool('echo', { word: 'a' }, 'c1'), callTool('echo', { word: 'b' }, 'c2'), finish('tool-calls')] : answer('ok')))
    const { steps } = await runJob(it.type, input)
    assert.deepEqual(told(it.model, 1), [{ type: 'json', value: { said: 'a' } }, { type: 'json', value: { said: 'b' } }])
    assert.deepEqual([...steps.keys()], ['model#1', 'tool:echo#1', 'tool:echo#2', 'model#2'])
  })
  it('does not repeat finished steps after a crash: no model call is paid for twice', async () => {
    let runs = 0
    const count = defineTool({ ...echo, run: async ({ word }) => { runs++; return { said: word } } })
    for (const crashAt of ['model#1', 'tool:echo#1', 'model#2']) {
      runs = 0
      await using it = await setUp(
        ({ prompt }) => (prompt.at(-1)!.role === 'tool' ? answer('done') : [callTool('echo', { word: 'hi' }), finish('tool-calls')]),
        { tools: [count] },
      )
      const first = await runJob(it.type, input, { crashAt })
      assert.match(first.error.message, /died/)
      const { result } = await runJob(it.type, input, { steps: first.steps })
      assert.deepEqual([result.text, result.usage.model_calls], ['done', 2], crashAt)
      assert.deepEqual([it.model.calls.length, runs], { 'model#1': [3, 1], 'tool:echo#1': [2, 2], 'model#2': [3, 1] }[crashAt], crashAt)
    }
  })
  it('gives thoughts and their signatures back to the model', async () => {
    const signed = { providerMetadata: { vendor: { signature: 's' } } }
    await using it = await setUp((_, nth) => (nth === 0
      ? [{ type: 'reasoning-start', id: 'r' }, { type: 'reasoning-delta', id: 'r', delta: 'hm' }, { type: 'reasoning-end', id: 'r', ...signed }, callTool('echo', { word: 'a' }), finish('tool-calls')] : answer('ok')))
    const { text } = await runJob(it.type, input)
    assert.equal(text, 'ok')
    assert.deepEqual((it.model.calls[1]!.prompt.at(-2)!.content as unknown[])[0], { type: 'reasoning', text: 'hm', providerOptions: { vendor: { signature: 's' } } })
  })
  it('lets an agent in code use the loop, with its own model, instructions and tools unless it says others', async () => {
    const run: Agent['run'] = async (ctx, text) => {
      const first = await ctx.answer({ input: `${text}?` })
      await ctx.answer({ input: first.text, instructions: '', tools: [] })
      return { ...first, text: `<${first.text}>` }
    }
    await using it = await setUp(() => answer('42'), { agent: { run } })
    const { result } = await runJob(it.type, input)
    assert.deepEqual(result, { text: '<42>', model: 'scripted/m', usage: { model_calls: 2, tool_calls: 0, input_tokens: 20, output_tokens: 10 } })
    const [own, other] = it.model.calls
    assert.deepEqual(own!.prompt, [{ role: 'system', content: 'Be brief.' }, { role: 'user', content: [{ type: 'text', text: 'please?' }] }])
    assert.equal(own!.tools!.length, 1)
    assert.deepEqual([other!.prompt, other!.tools], [[{ role: 'user', content: [{ type: 'text', text: '42' }] }], undefined])
  })
})

describe('agents: what a model gets wrong', () => {
  it('is told of arguments that do not fit, and may correct them', async () => {
    await using it = await setUp(calls('echo', { wort: 'x' }, 'not json', { word: 'x' }))
    const { result } = await runJob(it.type, input)
    assert.equal(result.text, 'done')
    assert.match(JSON.stringify(told(it.model, 1)), /error-text.*word.*wort/s)
    assert.match(JSON.stringify(told(it.model, 2)), /not JSON/)
    assert.deepEqual(told(it.model, 3), [{ type: 'json', value: { said: 'x' } }])
  })
  it('ends with AGENTS_TOOL_INPUT after three that do not fit in a row', async () => {
    await using it = await setUp(calls('echo', {}, { word: 1 }, '[]', { word: 'late' }))
    const { error } = await runJob(it.type, input)
    assert.deepEqual([error.code, error.retryable, it.model.calls.length], ['AGENTS_TOOL_INPUT', false, 3])
    assert.match(error.message, /^the arguments for tool "echo" do not fit: must be a map with word, not a list/)
  })
  it('may be wrong again after it was right', async () => {
    await using it = await setUp(calls('echo', {}, { word: 1 }, { word: 'x' }, { word: 2 }, '[]', { word: 'y' }))
    assert.equal((await runJob(it.type, input)).result.text, 'done')
  })
  it('is told of a tool that there is not, and what there is', async () => {
    await using it = await setUp(calls('shell', { cmd: 'x' }))
    const { result, steps } = await runJob(it.type, input)
    assert.equal(result.text, 'done')
    assert.match(JSON.stringify(told(it.model, 1)), /no such tool; there are echo/)
    assert.ok(steps.has('tool:unknown#1'))
  })
  it('ends with AGENTS_LOOP at the third same call with the same result', async () => {
    await using it = await setUp(() => [callTool('echo', { word: 'again' }), finish('tool-calls')])
    const { error } = await runJob(it.type, input)
    assert.deepEqual([error.code, it.model.calls.length], ['AGENTS_LOOP', 3])
  })
  it('knows the same call in other blanks and another order', async () => {
    const both = defineTool({ name: 'echo', description: 'Echoes.', input: z.strictObject({ a: z.number(), b: z.number() }), run: async () => 'same' })
    const ways = ['{"a":1,"b":2}', '{ "a": 1, "b": 2 }', '{"b":2,"a":1}']
    await using it = await setUp((_, nth) => (nth < 6 ? [{ ...callTool('echo', {}), input: ways[nth % 3]! } as never, finish('tool-calls')] : answer('done')), { tools: [both] })
    assert.deepEqual([(await runJob(it.type, input)).error?.code, it.model.calls.length], ['AGENTS_LOOP', 3])
  })
  it('is told of what fails, or is the same, in one turn, however many calls that has', async () => {
    for (const word of [5, 'same']) {
      const many = [0, 1, 2, 3].map(nth => callTool('echo', { word }, `c${nth}`))
      await using it = await setUp((_, nth) => (nth === 0 ? [...many, finish('tool-calls')] : answer('done')))
      assert.equal((await runJob(it.type, input)).result.text, 'done')
    }
  })
  it('fails when the provider withholds the answer, rather than to answer with less', async () => {
    await using it = await setUp(() => [...say('Well'), finish('content-filter')])
    const { error, result } = await runJob(it.type, input)
    assert.deepEqual([error?.code, error?.retryable, result], ['AGENTS_WITHHELD', false, undefined])
  })
  it('may repeat a call whose result changes', async () => {
    let n = 0
    await using it = await setUp(
      calls('tick', {}, {}, {}, {}),
      { tools: [defineTool({ name: 'tick', description: 'Counts.', input: z.strictObject({}), run: async () => ++n })] },
    )
    assert.equal((await runJob(it.type, input)).result.text, 'done')
  })
  it('ends with AGENTS_TOO_MANY_STEPS at max_steps, without running what nobody would read', async () => {
    let n = 0
    const tick = defineTool({ name: 'tick', description: 'Counts.', input: z.strictObject({}), run: async () => ++n })
    await using it = await setUp(() => [callTool('tick', {}), finish('tool-calls')], { tools: [tick], agent: { max_steps: 4 } })
    const { error } = await runJob(it.type, input)
    assert.deepEqual([error.code, it.model.calls.length, n], ['AGENTS_TOO_MANY_STEPS', 4, 3])
  })
  it('ends with the provider\'s error when the stream breaks in the middle, and the step is not kept', async () => {
    await using it = await setUp(() => [...say('half').slice(0, 2), { type: 'error', error: new Error('cut') }])
    const { error, text, steps } = await runJob(it.type, input)
    assert.deepEqual([error.code, text, steps.size], ['MODELS_FAILED', 'half', 0])
    assert.deepEqual(it.called.map(call => call.status), ['failed'])
  })
})

describe('agents: tools', () => {
  const tool = (parts: Partial<Tool>) => defineTool({ ...echo, ...parts } as typeof echo)
  it('tells the model of a failure, with no more than may be shown', async () => {
    const { DatabaseErrors } = await import('#contracts/database')
    const failures: [() => Promise<never>, RegExp, RegExp][] = [
      [async () => { throw new Error('ENOENT: no such file, open \'/home/ann/.ssh/id_rsa\'') }, /\\"echo\\" failed: see the log/, /ENOENT|ann\/|id_rsa/],
      [async () => { throw AccessErrors.UNAUTHENTICATED({ reason: 'the key is too old' }) }, /failed: the key is too old/, /see the log/],
      [async () => { throw DatabaseErrors.UNAVAILABLE({ reason: '10.0.0.7 refused' }) }, /DATABASE_UNAVAILABLE, see the log/, /10\.0\.0\.7/],
    ]
    for (const [run, shown, hidden] of failures) {
      await using it = await setUp(calls('echo', { word: 'x' }), { tools: [tool({ run })] })
      const { result, progress, lines } = await runJob(it.type, input)
      assert.equal(result.text, 'done')
      assert.match(JSON.stringify(told(it.model, 1)), shown)
      assert.doesNotMatch(JSON.stringify([told(it.model, 1), progress]), hidden)
      assert.equal(progress.find(each => each.type === 'tool_end')!.error!.code, 'AGENTS_TOOL_FAILED')
      assert.ok(lines.some(line => line.message === 'a tool failed' && line.fields['err']))
    }
  })
  it('ends the run at the third failure in a row', async () => {
    await using it = await setUp(calls('echo', { word: '1' }, { word: '2' }, { word: '3' }), { tools: [tool({ run: async () => { throw new Error('broken') } })] })
    assert.equal((await runJob(it.type, input)).error.message, 'tool "echo" failed: see the log')
  })
  it('has a time, at whose end its signal aborts', async () => {
    let aborted = false
    const slow = tool({
      timeout: 20,
      run: (_: unknown, { signal }: ToolContext) => { signal.addEventListener('abort', () => { aborted = true }); return new Promise(() => {}) },
    })
    await using it = await setUp(calls('echo', { word: 'x' }), { tools: [slow] })
    assert.equal((await runJob(it.type, input)).result.text, 'done')
    assert.match(JSON.stringify(told(it.model, 1)), /longer than 20 ms/)
    assert.ok(aborted)
  })
  it('gives at most 64 KiB, and says what was cut', async () => {
    await using it = await setUp(calls('echo', { word: 'x' }), { tools: [tool({ run: async () => 'ä'.repeat(50_000) as never })] })
    await runJob(it.type, input)
    const [output] = told(it.model, 1) as { type: string; value: string }[]
    assert.match(output!.value, /^ä+\n\[cut: 100000 bytes were returned, 65536 are shown\]$/)
  })
  it('fails properly when its result is no data', async () => {
    await using it = await setUp(calls('echo', { word: 'x' }), { tools: [tool({ run: async () => ({ n: 1n }) as never })] })
    await runJob(it.type, input)
    assert.match(JSON.stringify(told(it.model, 1)), /failed: what it returned is neither text nor JSON/)
  })
  it('needs its permission', async () => {
    await using it = await setUp(calls('echo', { word: 'x' }), { tools: [tool({ permission: 'echo:use' })], denied: ['echo:use'] })
    const { error, steps } = await runJob(it.type, input)
    assert.deepEqual([error.code, [...steps.keys()]], ['ACCESS_FORBIDDEN', ['model#1']])
  })
  it('gets whom it works for, and with side effects a key that is recorded first and stays the same', async () => {
    const seen: (ToolContext & { recorded: boolean })[] = []
    const steps = new Map<string, string>()
    const pay = tool({
      sideEffects: true,
      run: async (_: unknown, ctx: ToolContext) => { seen.push({ ...ctx, recorded: steps.has('effect:echo#1') }); return { said: '' } },
    })
    await using it = await setUp(options => (options.prompt.at(-1)!.role === 'tool' ? answer('done') : [callTool('echo', { word: 'x' }), finish('tool-calls')]), { tools: [pay] })
    await runJob(it.type, input, { steps, crashAt: 'tool:echo#1' })
    await runJob(it.type, input, { steps })
    assert.deepEqual(
      seen.map(({ effect_key, recorded, caller, agent, project_id }) => [effect_key, recorded, caller.id, agent, project_id]),
      Array(2).fill(['job-1/tool:echo#1', true, 'ann', 'tester', 'p1']),
    )
  })
  it('gets no key without side effects', async () => {
    let seen: ToolContext | undefined
    await using it = await setUp(
      calls('echo', { word: 'x' }), { tools: [tool({ run: async (_: unknown, ctx: ToolContext) => { seen = ctx; return { said: '' } } })] },
    )
    await runJob(it.type, input)
    assert.ok(seen && !('effect_key' in seen))
  })
})

describe('agents: bounds of a run', () => {
  it('aborts model and tool when the job is aborted, and fails with the reason of that', async () => {
    for (const place of ['model', 'tool']) {
      let aborted = false
      const slow = defineTool({ ...echo, run: async (_, { signal }) => { signal.addEventListener('abort', () => { aborted = true }); return hang(signal) } })
      const stop = new AbortController()
      await using it = await setUp(async function* ({ abortSignal }) {
        if (place === 'tool') { yield callTool('echo', { word: 'x' }); yield finish('tool-calls'); return }
        yield* say('a')
        abortSignal!.addEventListener('abort', () => { aborted = true })
        setTimeout(() => stop.abort(new Error('cancelled by Ann')), 5)
        await hang(abortSignal)
      }, { tools: [slow] })
      if (place === 'tool') setTimeout(() => stop.abort(new Error('cancelled by Ann')), 20)
      const { error } = await runJob(it.type, input, { signal: stop.signal })
      assert.deepEqual([error.message, aborted], ['cancelled by Ann', true], place)
      if (place === 'model') assert.deepEqual(it.called.map(call => call.status), ['aborted'])
    }
  })
  it('ends with JOBS_TIMEOUT when the agent\'s time is up', async () => {
    await using it = await setUp(async function* ({ abortSignal }) { yield* say('a'); await hang(abortSignal) }, { agent: { timeout: 20 } })
    const { error } = await runJob(it.type, input)
    assert.deepEqual([error.code, error.retryable], ['JOBS_TIMEOUT', true])
  })
  it('names the tool that nothing contributes', async () => {
    await using it = await setUp(() => answer(''), { agent: { tools: ['gone'] } })
    const { error } = await runJob(it.type, input)
    assert.deepEqual([error.code, error.fix], ['AGENTS_TOOL_UNKNOWN', 'Known tools: echo.'])
  })
  it('keeps to the permission of the agent, at submit and again when it runs', async () => {
    await using it = await setUp(() => answer('x'), { agent: { permission: 'secrets:all' }, denied: ['secrets:all'] })
    await assert.rejects(it.type.admit!(ann, { type: 'agent', input }), { code: 'ACCESS_FORBIDDEN' })
    assert.equal((await runJob(it.type, input)).error.code, 'ACCESS_FORBIDDEN')
    assert.equal(it.model.calls.length, 0)
  })
  it('goes on with the tools of a plugin that was swapped in between', async () => {
    const tools = (said: string) => definePlugin({
      name: 'tools', contributes: [Tool],
      setup(ctx) { ctx.contribute(Tool, defineTool({ ...echo, name: 'swap', run: async () => ({ said }) })) },
    })
    const model = new ScriptedModel((_, nth) => (nth % 2 === 0 ? [callTool('swap', { word: '' }), finish('tool-calls')] : answer('done')))
    await using t = await createTestRuntime({
      plugins: [
        models, agents, tools('old'), contribute(ModelProvider, scriptedProvider(model)),
        contribute(Agent, { name: 'tester', summary: '', model: 'scripted/m', tools: ['swap'] }),
      ],
      services: [allow()],
    })
    const [type] = t.runtime.collect(JobType)
    await runJob(type!, input)
    await t.runtime.swap('tools', tools('new'))
    await runJob(type!, input)
    assert.deepEqual([told(model, 1), told(model, 3)], [[{ type: 'json', value: { said: 'old' } }], [{ type: 'json', value: { said: 'new' } }]])
  })
})
