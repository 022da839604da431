import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'
import { z } from 'zod'
import { definePlugin } from '#core'
import { contribute, createTestRuntime, eventually, fake, type TestPlugin } from '#core/testing'
import { Access } from '#contracts/access'
import { Agent, Agents, defineAgent, defineTool, Tool, type ToolContext } from '#contracts/agents'
import { Jobs, JobType } from '#contracts/jobs'
import { ModelProvider } from '#contracts/models'
import { Questions } from '#contracts/questions'
import accessOpen from '../../../plugins/access-open/index.ts'
import agents from '../../../plugins/agents/index.ts'
import database from '../../../plugins/database/index.ts'
import jobs from '../../../plugins/jobs/index.ts'
import models from '../../../plugins/models/index.ts'
import queue from '../../../plugins/queue-embedded/index.ts'
import { ann, runJob } from '../../support/job-run.ts'
import { answer, callTool, finish, hang, say, ScriptedModel, scriptedProvider, type Script } from '../../support/scripted-model.ts'

const word = z.strictObject({ word: z.string() })
const echo = defineTool({ name: 'echo', description: 'Echoes.', input: word, run: async ({ word }) => ({ said: word }) })
const operator = { id: 'operator', kind: 'operator', name: 'operator', project_id: 'default' } as const

async function setUp(agent: Partial<Agent>, { script = () => answer('ok'), tools = [echo] }: { script?: Script; tools?: Tool[] } = {}) {
  const model = new ScriptedModel(script)
  const tester: Agent = { name: 'tester', summary: '', model: 'scripted/m', tools: tools.map(tool => tool.name), ...agent }
  const t = await createTestRuntime({
    plugins: [models, agents, contribute(ModelProvider, scriptedProvider(model)), contribute(Tool, ...tools), contribute(Agent, tester)],
    services: [fake(Access, { async check() {} })],
  })
  const [type] = t.runtime.collect(JobType)
  const run = (input: unknown = 'please', options?: Parameters<typeof runJob>[2]) => runJob(type!, { agent: 'tester', input }, options)
  return { t, model, type: type!, run, [Symbol.asyncDispose]: () => t[Symbol.asyncDispose]() }
}
const done = { usage: { model_calls: 0, tool_calls: 0, input_tokens: 0, output_tokens: 0 }, model: null }

describe('agents: in code', () => {
  it('take data that fits their schema, as it makes of it, and refuse at submit what does not, naming the fields', async () => {
    const sum = defineAgent({ name: 'tester', summary: '', input: z.strictObject({ n: z.array(z.number()).default([1]) }), run: async (_, { n }) => String(n.reduce((a, b) => a + b)) })
    await using it = await setUp(sum)
    assert.deepEqual((await it.run({ n: [1, 2] })).result, { text: '3', ...done })
    assert.equal((await it.run({})).result.text, '1')
    const refused = await it.type.admit!(ann, { type: 'agent', input: { agent: 'tester', input: { n: ['x'], m: 1 } } }).catch(error => error)
    assert.equal(refused.code, 'AGENTS_INPUT')
    assert.deepEqual(refused.details.errors.map((each: { path: string }) => each.path), ['input.n.0', 'input.m'])
    assert.equal((await it.run('text')).error.code, 'AGENTS_INPUT')
  })
  it('answer with a text, with data, or with what their output schema makes of it', async () => {
    const cases: [Partial<Agent>, object][] = [
      [{ run: async () => 'text' }, { text: 'text', ...done }],
      [{ run: async () => ({ n: 1 }) }, { text: '{"n":1}', output: { n: 1 }, ...done }],
      [{ run: async () => undefined }, { text: '', ...done }],
      [{ output: z.object({ n: z.number() }), run: async () => ({ n: 1, more: 2 }) }, { text: '{"n":1,"more":2}', output: { n: 1 }, ...done }],
    ]
    for (const [agent, result] of cases) {
      await using it = await setUp(agent)
      assert.deepEqual((await it.run()).result, result)
    }
    for (const run of [async () => ({ n: 'x' }), async () => 5n, async () => 'text']) {
      await using it = await setUp({ output: z.object({ n: z.number() }), run })
      assert.deepEqual([(await it.run()).error.code, (await it.run()).error.retryable], ['AGENTS_OUTPUT', false])
    }
  })
  it('of a generator each text is streamed, and all together are the answer if it returns nothing', async () => {
    await using it = await setUp({ async *run() { yield 'a'; yield 'b' } })
    const { result, text, progress } = await it.run()
    assert.deepEqual([result.text, text, progress.length], ['ab', 'ab', 2])
    await using other = await setUp({ async *run(ctx) { yield 'a'; return ctx.answer({ input: 'x' }) } })
    assert.equal((await other.run()).result.text, 'ok')
    await using wrong = await setUp({ async *run() { yield 5 as never } })
    assert.equal((await wrong.run()).error.code, 'AGENTS_OUTPUT')
  })
  it('are over when their time is, though they do not heed it, and can\'t go on', async () => {
    let after: unknown
    await using it = await setUp({ timeout: 20, run: async ctx => {
      await pause(60)
      ctx.emit({ type: 'token', content: 'late' })
      after = await ctx.step('late', async () => 1).catch((error: unknown) => error)
      return 'x'
    } })
    const { error, text } = await it.run()
    assert.equal(error.code, 'JOBS_TIMEOUT')
    await eventually('its code', () => after !== undefined)
    assert.deepEqual([text, (after as { code: string }).code], ['', 'JOBS_TIMEOUT'])
  })
  it('call a tool as a step, once whatever crashes later, and get what it returned', async () => {
    let runs = 0
    const count = defineTool({ ...echo, run: async ({ word }) => ({ said: `${word}${++runs}` }) })
    const steps = new Map<string, string>()
    await using it = await setUp({ run: async ctx => (await ctx.tool('echo', { word: 'a' })).said + (await ctx.step('last', async () => 'z')) }, { tools: [count] })
    const first = await it.run('x', { steps, crashAt: 'last#1' })
    assert.match(first.error.message, /died/)
    const { result, progress } = await it.run('x', { steps })
    assert.deepEqual([result.text, result.usage.tool_calls, runs, progress], ['a1z', 1, 1, []])
    assert.deepEqual(first.progress.map(each => each.type), ['tool_start', 'tool_end'])
  })
  it('ask for answers side by side, and after a crash each goes on with its own steps, whichever was first', async () => {
    const of = (prompt: readonly { role: string; content: unknown }[]) => JSON.stringify(prompt.find(each => each.role === 'user')).includes('left') ? 'left' : 'right'
    const pay: ToolContext[] = []
    const tool = defineTool({ ...echo, sideEffects: true, async run({ word }, ctx) { pay.push(ctx); return { said: word } } })
    let slow = true
    await using it = await setUp({ run: async ctx => (await Promise.all(['left', 'right'].map(input => ctx.answer({ input })))).map(({ text }) => text).join(', ') }, {
      tools: [tool],
      async *script({ prompt }) {
        if (slow && of(prompt) === 'left') await pause(50)
        if (prompt.at(-1)!.role === 'tool') return yield* answer(`${of(prompt)}: ${JSON.stringify(prompt.at(-1)).includes(`"said":"${of(prompt)}"`)}`)
        yield callTool('echo', { word: of(prompt) })
        yield finish('tool-calls')
      },
    })
    const steps = new Map<string, string>()
    await it.run('x', { steps, crashAt: 'answer#1/model#2' })
    const calls = it.model.calls.length
    slow = false
    const { result } = await it.run('x', { steps })
    assert.deepEqual([result.text, it.model.calls.length - calls], ['left: true, right: true', 1])
    assert.deepEqual(pay.map(({ effect_key }) => effect_key).toSorted(), ['job-1/answer#1/tool:echo#1', 'job-1/answer#2/tool:echo#1'])
  })
  it('hear of a tool\'s failure as an error, which is not kept', async () => {
    const seen: unknown[] = []
    const broken = defineTool({ ...echo, run: async () => { throw new Error('broken') } })
    await using it = await setUp({ run: async ctx => {
      for (const input of [{ word: 'x' }, { wort: 'x' }]) await ctx.tool('echo', input).catch(error => seen.push(error.code))
      await ctx.tool('gone', {}).catch(error => seen.push(error.code))
      return 'x'
    } }, { tools: [broken as Tool] })
    const { steps } = await it.run()
    assert.deepEqual([seen, [...steps.keys()]], [['AGENTS_TOOL_FAILED', 'AGENTS_TOOL_INPUT', 'AGENTS_TOOL_UNKNOWN'], []])
  })
})

describe('agents: settings, limits and output of a model', () => {
  it('hands the settings to every call, those of the request first', async () => {
    await using it = await setUp({ settings: { temperature: 0.2, top_p: 0.9, stop: ['END'], max_output_tokens: 50 }, run: ctx => ctx.answer({ input: 'x', settings: { temperature: 1 } }) })
    await it.run()
    const { temperature, topP, stopSequences, maxOutputTokens } = it.model.calls[0]!
    assert.deepEqual([temperature, topP, stopSequences, maxOutputTokens], [1, 0.9, ['END'], 50])
  })
  it('ends a run before it makes more tool calls than allowed', async () => {
    let runs = 0
    const count = defineTool({ ...echo, run: async () => { runs++; return { said: String(runs) } } })
    await using it = await setUp({ limits: { max_tool_calls: 3 } }, { tools: [count], script: (_, nth) => [callTool('echo', { word: `${nth}a` }, `a${nth}`), callTool('echo', { word: `${nth}b` }, `b${nth}`), finish('tool-calls')] })
    assert.deepEqual([(await it.run()).error.code, runs, it.model.calls.length], ['AGENTS_TOO_MANY_TOOL_CALLS', 2, 2])
  })
  it('lets the model write no more tokens than the run may, over all its calls', async () => {
    await using it = await setUp({ limits: { max_output_tokens: 8 } }, { script: (_, nth) => (nth < 2 ? [callTool('echo', { word: String(nth) }), finish('tool-calls', 10, 4)] : answer('late')) })
    assert.equal((await it.run()).error.code, 'AGENTS_TOO_MANY_TOKENS')
    assert.deepEqual(it.model.calls.map(each => each.maxOutputTokens), [8, 4])
  })
  it('asks the model for JSON of the output schema, and checks what it says', async () => {
    const output = z.strictObject({ city: z.string() })
    await using it = await setUp({ output, input: z.strictObject({ about: z.string() }) }, { script: (_, nth) => answer(['{"city":"Bern"}', '{"town":1}', 'Bern'][nth]!) })
    const { result } = await it.run({ about: 'Swiss capital' })
    assert.deepEqual([result.text, result.output], ['{"city":"Bern"}', { city: 'Bern' }])
    const { responseFormat, prompt } = it.model.calls[0]!
    assert.deepEqual([responseFormat!.type, (responseFormat as { schema: { required: string[] } }).schema.required], ['json', ['city']])
    assert.match(JSON.stringify(prompt.at(-1)), /about.*Swiss capital/)
    for (const reason of [/city/, /not JSON/]) {
      const { error } = await it.run({ about: 'x' })
      assert.equal(error.code, 'AGENTS_OUTPUT')
      assert.match(error.message, reason)
    }
  })
})

describe('agents: several calls in one turn', () => {
  const turn = (...names: string[]): Script => ({ prompt }) =>
    (prompt.at(-1)!.role === 'tool' ? answer('done') : [...names.map((name, at) => callTool(name, { word: String(at) }, `c${at}`)), finish('tool-calls')])

  it('run side by side without side effects, and each gets its own result again after a crash', async () => {
    let [now, most, runs] = [0, 0, 0]
    const slow = defineTool({ ...echo, run: async ({ word }: { word: string }) => {
      runs++
      most = Math.max(most, ++now)
      await pause(20 - 4 * Number(word))
      now--
      return { said: word }
    } })
    const steps = new Map<string, string>()
    await using it = await setUp({}, { tools: [slow], script: turn('echo', 'echo', 'echo', 'echo') })
    await it.run('x', { steps, crashAt: 'model#2' })
    const { result } = await it.run('x', { steps })
    assert.deepEqual([result.text, most, runs], ['done', 4, 4])
    const last = it.model.calls.at(-1)!.prompt.at(-1)!
    assert.deepEqual(last.role === 'tool' && last.content.map(part => part.type === 'tool-result' && [part.toolCallId, part.output]),
      ['0', '1', '2', '3'].map(said => [`c${said}`, { type: 'json', value: { said } }]))
    assert.deepEqual([...steps].filter(([key]) => key.startsWith('tool:')).map(([key, value]) => [key, JSON.parse(value).output.value.said]).sort(),
      [1, 2, 3, 4].map(nth => [`tool:echo#${nth}`, String(nth - 1)]))
  })
  it('at most eight of them at once', async () => {
    let [now, most] = [0, 0]
    const slow = defineTool({ ...echo, run: async ({ word }: { word: string }) => { most = Math.max(most, ++now); await pause(2); now--; return { said: word } } })
    await using it = await setUp({}, { tools: [slow], script: turn(...Array<string>(20).fill('echo')) })
    assert.equal((await it.run()).result.text, 'done')
    assert.equal(most, 8)
  })
  it('one by one and in order with side effects, each with its own key', async () => {
    const done: string[] = []
    const pay = defineTool({ ...echo, name: 'pay', sideEffects: true, run: async ({ word }: { word: string }, { effect_key }: ToolContext) => {
      done.push(`+${word}`)
      await pause(10 - 3 * Number(word))
      done.push(`-${word} ${effect_key}`)
      return { said: word }
    } })
    await using it = await setUp({}, { tools: [pay as Tool, echo], script: turn('pay', 'echo', 'pay') })
    const { steps } = await it.run()
    assert.deepEqual(done, ['+0', '-0 job-1/tool:pay#1', '+2', '-2 job-1/tool:pay#2'])
    assert.deepEqual([...steps.keys()], ['model#1', 'effect:pay#1', 'tool:pay#1', 'tool:echo#1', 'effect:pay#2', 'tool:pay#2', 'model#2'])
  })
})

describe('agents: calls of code', () => {
  it('with side effects run one by one even if the code does not wait, each under its own key', async () => {
    const seen: string[] = []
    const pay = defineTool({ ...echo, name: 'pay', sideEffects: true, run: async ({ word }: { word: string }, { effect_key }: ToolContext) => {
      seen.push(`+${word} ${effect_key}`)
      await pause(word === 'a' ? 10 : 0)
      seen.push(`-${word}`)
      return word
    } })
    await using it = await setUp({ run: async ctx => (await Promise.all(['a', 'b'].map(word => ctx.tool('pay', { word })))).join('') }, { tools: [pay as Tool] })
    const { result, steps } = await it.run()
    assert.deepEqual([result.text, seen], ['ab', ['+a job-1/tool:pay#1', '-a', '+b job-1/tool:pay#2', '-b']])
    assert.deepEqual([...steps.keys()], ['effect:pay#1', 'tool:pay#1', 'effect:pay#2', 'tool:pay#2'])
  })
})

describe('agents: what leaves in the middle of a run', () => {
  const all: TestPlugin[] = [accessOpen, database, queue, { plugin: jobs, config: { retry: { base_ms: 10, max_ms: 20 } } }, models, agents]

  /** A plugin with an agent in code and a tool, which hang in their first life. */
  const owner = (life: number, seen: string[], hangs: 'agent' | 'tool') => definePlugin({
    name: 'owner', contributes: [Agent, Tool],
    setup(ctx) {
      ctx.contribute(Tool, defineTool({ ...echo, name: 'slow', async run(_, { signal }) {
        seen.push(`tool ${life}`)
        if (life === 1 && hangs === 'tool') await hang(signal)
        return { said: `tool ${life}` }
      } }))
      ctx.contribute(Agent, defineAgent({ name: 'owned', summary: '', async run(run) {
        const first = await run.step('first', async () => { seen.push(`step ${life}`); return life })
        // Heeds nothing: it must not be waited for.
        if (life === 1 && hangs === 'agent') await new Promise(() => {})
        return `began in life ${first}, ended in life ${life}`
      } }))
    },
  })
  const ended = (t: { get: (ref: typeof Jobs) => Jobs }, id: string) =>
    eventually('the job', async () => { const job = await t.get(Jobs).get(operator, id); return job.finished_at !== null && job })

  it('is handed back with the steps it had, and costs no attempt: an agent whose plugin is swapped', async () => {
    const seen: string[] = []
    await using t = await createTestRuntime({ plugins: [...all, owner(1, seen, 'agent')] })
    const { id } = await t.get(Jobs).submit(operator, { type: 'agent', agent: 'owned', input: { agent: 'owned', input: 'x' } })
    await eventually('the run', () => seen.length === 1)
    const { state, running } = await t.get(Agents).get(operator, 'owned')
    assert.deepEqual([state, running], ['busy', 1])
    await t.runtime.swap('owner', owner(2, seen, 'agent'))
    const job = await ended(t, id)
    assert.deepEqual([job.status, job.attempt, (job.result as { text: string }).text, seen], ['completed', 1, 'began in life 1, ended in life 2', ['step 1']])
    assert.equal((await t.get(Agents).get(operator, 'owned')).state, 'idle')
  })
  it('is handed back: a run whose tool is swapped while it works', async () => {
    const seen: string[] = []
    const model = new ScriptedModel(({ prompt }) => (prompt.at(-1)!.role === 'tool' ? answer(JSON.stringify(prompt.at(-1))) : [callTool('slow', { word: 'x' }), finish('tool-calls')]))
    const user = contribute(Agent, { name: 'user', summary: '', model: 'scripted/m', tools: ['slow'] })
    await using t = await createTestRuntime({ plugins: [...all, owner(1, seen, 'tool'), contribute(ModelProvider, scriptedProvider(model)), user] })
    const { id } = await t.get(Jobs).submit(operator, { type: 'agent', agent: 'user', input: { agent: 'user', input: 'x' } })
    await eventually('the tool', () => seen.length === 1)
    await t.runtime.swap('owner', owner(2, seen, 'tool'))
    const job = await ended(t, id)
    assert.deepEqual([job.status, job.attempt, seen, model.calls.length], ['completed', 1, ['tool 1', 'tool 2'], 2])
    assert.match((job.result as { text: string }).text, /tool 2/)
  })
  it('fails when it is gone for good', async () => {
    const seen: string[] = []
    await using t = await createTestRuntime({ plugins: [...all, owner(1, seen, 'agent')] })
    const { id } = await t.get(Jobs).submit(operator, { type: 'agent', agent: 'owned', input: { agent: 'owned', input: 'x' } })
    await eventually('the run', () => seen.length === 1)
    await t.runtime.change(new Map([['owner', undefined]]))
    const job = await ended(t, id)
    assert.deepEqual([job.status, job.error!.code], ['dead', 'AGENTS_UNKNOWN'])
  })
  it('is shown offline, and refused for the moment, while its plugin is being swapped', async () => {
    const seen: string[] = []
    await using t = await createTestRuntime({ plugins: [...all, owner(1, seen, 'agent')] })
    let shown: unknown
    let refused: unknown
    const slow = definePlugin({ name: 'owner', contributes: [Agent], async setup(ctx) {
      shown = (await t.get(Agents).list(operator)).map(each => [each.name, each.state])
      refused = await t.get(Jobs).submit(operator, { type: 'agent', agent: 'owned', input: { agent: 'owned', input: 'x' } }).catch(error => [error.code, error.retryable])
      ctx.contribute(Agent, { name: 'owned', summary: '' })
    } })
    await t.runtime.swap('owner', slow)
    assert.deepEqual([shown, refused], [[['owned', 'offline']], ['AGENTS_AWAY', true]])
  })
  it('is shown with an error after a run that failed, until one succeeds', async () => {
    await using it = await setUp({}, { script: (_, nth) => (nth === 0 ? [...say('x'), { type: 'error', error: new Error('cut') }] : answer('ok')) })
    const state = async () => (await it.t.get(Agents).get(ann, 'tester')).state
    await it.run()
    assert.equal(await state(), 'error')
    await it.run()
    assert.equal(await state(), 'idle')
  })
})

describe('agents: that ask a person, and other agents', () => {
  it('wait without being busy, and go on with the answer', async () => {
    const parts = [
      { name: 'asker', summary: '', run: async ctx => {
        const who = await ctx.ask<string>({ question: 'who?' })
        const [greeted] = await ctx.children([{ type: 'agent', agent: 'greeter', input: { agent: 'greeter', input: who } }])
        return greeted!.result
      } },
      { name: 'greeter', summary: '', run: async (_, who) => `hello ${who}` },
    ] satisfies Agent[]
    await using t = await createTestRuntime({ plugins: [database, queue, { plugin: jobs, config: { sweep_ms: 20 } }, models, accessOpen, agents, contribute(Agent, ...parts)] })
    const job = await t.get(Jobs).submit(operator, { type: 'agent', agent: 'asker', input: { agent: 'asker', input: 'please' } })
    await eventually('the question', async () => (await t.get(Jobs).get(operator, job.id)).status === 'waiting')
    assert.deepEqual((await t.get(Agents).get(operator, 'asker')), { ...(await t.get(Agents).get(operator, 'asker')), state: 'idle', running: 0 })
    await t.get(Questions).answer(operator, job.id, { answer: 'Ann' })
    const done = await eventually('the end', async () => { const now = await t.get(Jobs).get(operator, job.id); return now.finished_at !== null && now })
    assert.equal((done.result as any)?.text, 'hello Ann', JSON.stringify(done))
  })
})
