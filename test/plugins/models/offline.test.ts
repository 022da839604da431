import assert from 'node:assert/strict'
import fc from 'fast-check'
import { z } from 'zod'
import { recordLog } from '#core/testing'
import { defineTool, type Tool } from '#contracts/agents'
import type { LanguageModelV3CallOptions, LanguageModelV3StreamPart } from '#contracts/models'
import { CANNOT, COMPOSED, OfflineModel } from '../../../plugins/models/offline.ts'
import { countTokens, pieces } from '../../../plugins/models/tokens.ts'

const shout = defineTool({
  name: 'shout', description: 'Says a word loudly. Ask with an exclamation mark.', input: z.strictObject({ word: z.string() }),
  recognize: text => (text.includes('!') ? { word: text.slice(0, text.indexOf('!')) } : undefined), run: async ({ word }) => word.toUpperCase(),
})
const quiet = defineTool({ name: 'quiet', description: 'Only for real models.', input: z.strictObject({}), run: async () => '' })
const broken = defineTool({ name: 'broken', description: 'Fails.', input: z.strictObject({}), recognize: () => { throw new Error('broken') }, run: async () => '' })
const contributions = (...tools: Tool[]) => Object.assign(tools, { all: [], away: [], watch() {} })
const log = recordLog()
const model = new OfflineModel(contributions(shout, quiet, broken) as never, log)
const offer = (...tools: Tool[]): LanguageModelV3CallOptions['tools'] => tools.map(({ name, description }) => ({
  type: 'function', name, description, inputSchema: { type: 'object' },
}))
const user = (text: string): LanguageModelV3CallOptions['prompt'] => [{ role: 'user', content: [{ type: 'text', text }] }]

async function ask(options: LanguageModelV3CallOptions): Promise<{ parts: LanguageModelV3StreamPart[]; text: string; deltas: number }> {
  const parts: LanguageModelV3StreamPart[] = []
  for await (const part of (await model.doStream(options)).stream) parts.push(part)
  const deltas = parts.flatMap(part => (part.type === 'text-delta' ? [part.delta] : []))
  return { parts, text: deltas.join(''), deltas: deltas.length }
}
const result = (...outputs: { type: string; value?: unknown }[]): LanguageModelV3CallOptions['prompt'] => [
  ...user('hey!'), { role: 'tool', content: outputs.map((output, i) => ({ type: 'tool-result', toolCallId: `c${i}`, toolName: 'shout', output: output as never })) },
]

describe('the offline model', () => {
  it('calls the offered tools that recognize the request, with the arguments that they found', async () => {
    const { parts } = await ask({ prompt: user('hey! there'), tools: offer(shout, quiet) })
    assert.deepEqual(parts.filter(part => part.type === 'tool-call'), [{ type: 'tool-call', toolCallId: 'call_1_1', toolName: 'shout', input: '{"word":"hey"}' }])
    assert.equal(parts.flatMap(part => (part.type === 'tool-input-delta' ? [part.delta] : [])).join(''), '{"word":"hey"}')
    const end = parts.at(-1)!
    assert.ok(end.type === 'finish' && end.finishReason.unified === 'tool-calls')
    assert.equal(end.usage.outputTokens.total, countTokens('{"word":"hey"}'))
  })
  it('calls no tool that was not offered, or that the caller ruled out', async () => {
    assert.ok(!(await ask({ prompt: user('hey!') })).parts.some(part => part.type === 'tool-call'))
    assert.ok(!(await ask({ prompt: user('hey!'), tools: offer(shout), toolChoice: { type: 'none' } })).parts.some(part => part.type === 'tool-call'))
    assert.ok(!(await ask({ prompt: user('hey!'), tools: offer(shout, quiet), toolChoice: { type: 'tool', toolName: 'quiet' } })).parts.some(part => part.type === 'tool-call'))
  })
  it('composes the answer of what the tools returned, and says how it was made', async () => {
    for (const [output, expected] of [
      [{ type: 'text', value: 'HEY' }, 'HEY'], [{ type: 'json', value: { text: 'a = b', more: 1 } }, 'a = b'], [{ type: 'json', value: [1, 2] }, '[\n  1,\n  2\n]'],
      [{ type: 'error-text', value: 'no voice' }, 'The tool "shout" failed: no voice'], [{ type: 'execution-denied' }, 'The tool "shout" was not allowed to run.'],
    ] as const) assert.equal((await ask({ prompt: result(output), tools: offer(shout) })).text, `${expected}\n\n${COMPOSED}`)
  })
  it('answers the last request of a conversation, not an earlier one', async () => {
    const { text } = await ask({ prompt: [...result({ type: 'text', value: 'OLD' }), ...user('and now?')], tools: offer(shout) })
    assert.ok(text.startsWith(CANNOT))
  })
  it('says what it can do, and what to configure, when no tool recognizes the request', async () => {
    const { text } = await ask({ prompt: user('Who are you?'), tools: offer(shout, quiet) })
    assert.ok(text.startsWith(CANNOT))
    assert.match(text, /- shout: Says a word loudly\n/)
    assert.doesNotMatch(text, /quiet/)
    assert.match(text, /configure a model provider/)
  })
  it('goes on when a tool fails to recognize', async () => {
    const { parts } = await ask({ prompt: user('hey!'), tools: offer(broken, shout) })
    assert.equal(parts.filter(part => part.type === 'tool-call').length, 1)
    assert.ok(log.lines.some(line => line.fields['tool'] === 'broken'))
  })
  it('tells what a tool says of a request that it can\'t look through', async () => {
    const { CalculatorErrors } = await import('#contracts/agent-pack-core')
    const shy = defineTool({ ...quiet, name: 'shy', recognize: () => { throw CalculatorErrors.UNREADABLE({ reason: 'it is too long' }) } })
    const { stream } = await new OfflineModel(contributions(shy) as never, log).doStream({ prompt: user('1+1'), tools: offer(shy) })
    let text = ''
    for await (const part of stream) if (part.type === 'text-delta') text += part.delta
    assert.match(text, /^The tool "shy" did not look for anything: .* it is too long\. Send the expression alone\.\n\nI work offline/)
  })
  it('is deterministic, and streams and generates the same', async () => {
    const options = { prompt: user('hey! you'), tools: offer(shout) }
    assert.deepEqual((await ask(options)).parts, (await ask(options)).parts)
    const { content, finishReason, usage } = await model.doGenerate({ prompt: result({ type: 'text', value: 'HEY' }) })
    const { text, parts } = await ask({ prompt: result({ type: 'text', value: 'HEY' }) })
    assert.deepEqual(content, [{ type: 'text', text }])
    assert.deepEqual(parts.at(-1), { type: 'finish', finishReason, usage })
  })
  it('streams piece by piece and counts what it streamed', async () => {
    const { parts, text, deltas } = await ask({ prompt: user('Who?') })
    const end = parts.at(-1)!
    assert.ok(end.type === 'finish')
    assert.deepEqual([end.usage.outputTokens.total, end.usage.inputTokens.total], [deltas, 2])
    assert.equal(countTokens(text), deltas)
    assert.ok(deltas > 20)
  })
  it('keeps to maxOutputTokens', async () => {
    const { parts, deltas } = await ask({ prompt: user('Who?'), maxOutputTokens: 3 })
    const end = parts.at(-1)!
    assert.ok(end.type === 'finish' && end.finishReason.unified === 'length')
    assert.equal(deltas, 3)
  })
  it('stops when it is aborted', async () => {
    const stop = new AbortController()
    const reader = (await model.doStream({ prompt: user('Who?'), abortSignal: stop.signal })).stream.getReader()
    await reader.read()
    stop.abort(new Error('enough'))
    await assert.rejects(reader.read(), /enough/)
    await assert.rejects(model.doStream({ prompt: user('Who?'), abortSignal: stop.signal }), /enough/)
  })
})

describe('counting tokens', () => {
  it('cuts any text into pieces that joined are the text again', () => {
    fc.assert(fc.property(fc.string({ unit: 'grapheme', maxLength: 200 }), text => {
      assert.equal(pieces(text).join(''), text)
      assert.equal(countTokens(text), pieces(text).length)
    }))
  })
})
