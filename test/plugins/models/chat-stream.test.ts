import assert from 'node:assert/strict'
import { createGroq } from '@ai-sdk/groq'
import { createOpenAI } from '@ai-sdk/openai'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import fc from 'fast-check'
import type { LanguageModelV3, LanguageModelV3StreamPart } from '#contracts/models'
import { quickChat } from '../../../plugins/models/chat-stream.ts'

const settings = { apiKey: 'k', baseURL: 'http://model.test/v1' }
const packages: Readonly<Record<string, (fetch: typeof globalThis.fetch) => LanguageModelV3>> = {
  'openai-compatible': fetch => createOpenAICompatible({ ...settings, name: 'local', includeUsage: true, fetch })('m'),
  openai: fetch => createOpenAI({ ...settings, fetch }).chat('m'),
  groq: fetch => createGroq({ ...settings, fetch })('m'),
}

const chunkOf = (delta: object, more: object = {}, top: object = {}) =>
  ({ id: 'c-1', object: 'chat.completion.chunk', created: 1_700_000_000, model: 'm', choices: [{ index: 0, delta, finish_reason: null, ...more }], ...top })
const piece = fc.oneof(fc.string({ unit: 'grapheme', maxLength: 6 }), fc.constantFrom('data: ', '\n\n', '[DONE]', '"', '\\', '😀', ''))
const text = piece.map(content => chunkOf({ content }))
const tool = fc.record({ index: fc.nat(1), a: fc.nat(99) }).map(({ index, a }) => [
  chunkOf({ tool_calls: [{ index, id: `call_${index}`, type: 'function', function: { name: 'add', arguments: '' } }] }),
  chunkOf({ tool_calls: [{ index, function: { arguments: `{"a":` } }] }), chunkOf({ tool_calls: [{ index, function: { arguments: `${a}}` } }] }),
])
const odd = fc.oneof(
  piece.map(reasoning => [chunkOf({ reasoning_content: reasoning, reasoning })]), tool,
  fc.constant([chunkOf({ content: null })]), fc.constant([chunkOf({ content: 'x', refusal: 'no' })]),
  fc.constant([{ ...chunkOf({ content: 'more' }), obfuscation: 'abc', system_fingerprint: 'fp', usage: null }]), fc.constant([{ ...chunkOf({}), choices: [] }]),
)
const usage = { prompt_tokens: 9, completion_tokens: 4, total_tokens: 13, prompt_tokens_details: { cached_tokens: 3 } }
const ending = fc.constantFrom(
  [chunkOf({}, { finish_reason: 'stop' }), { ...chunkOf({}), choices: [], usage }, '[DONE]'], [chunkOf({ content: 'end' }, { finish_reason: 'length' }, { usage }), '[DONE]'],
  [chunkOf({}, { finish_reason: 'tool_calls' }), '[DONE]'], ['{"not json'], [{ error: { message: 'overloaded', type: 'server_error' } }], [],
)
const answer = fc.tuple(fc.boolean(), fc.array(fc.oneof({ weight: 6, arbitrary: text.map(each => [each]) }, { weight: 1, arbitrary: odd }), { maxLength: 12 }), ending)
  .map(([role, middle, end]) => [...(role ? [chunkOf({ role: 'assistant', content: '' })] : []), ...middle.flat(), ...end])
const wire = fc.record({ chunks: answer, cuts: fc.array(fc.nat(2_000), { maxLength: 8 }), newline: fc.constantFrom('\n', '\r\n'), comment: fc.boolean() })
  .map(({ chunks, cuts, newline, comment }) => {
    const bytes = new TextEncoder().encode((comment ? `: hello${newline}${newline}` : '') + chunks.map(each => `data: ${typeof each === 'string' ? each : JSON.stringify(each)}${newline}${newline}`).join(''))
    const places = [0, ...cuts.map(cut => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]
    return places.slice(1).map((place, at) => bytes.slice(places[at], place)).filter(part => part.length)
  })

const served = (parts: readonly Uint8Array[]): typeof fetch => async () => {
  const left = [...parts]
  const body = new ReadableStream<Uint8Array>({ pull(controller) { const next = left.shift(); if (next) controller.enqueue(next); else controller.close() } })
  return new Response(body, { headers: { 'content-type': 'text/event-stream' } })
}

/** Neighbouring texts are one; of an error, its kind. */
async function partsOf(model: LanguageModelV3): Promise<unknown[]> {
  const parts: unknown[] = []
  try {
    const { stream } = await model.doStream({ prompt: [{ role: 'user', content: [{ type: 'text', text: 'Hi' }] }] })
    for await (const part of stream as ReadableStream<LanguageModelV3StreamPart> & AsyncIterable<LanguageModelV3StreamPart>) {
      const last = parts.at(-1) as { type: string; id: string; delta: string } | undefined
      if (part.type === 'text-delta' && last?.type === 'text-delta' && last.id === part.id) last.delta += part.delta
      else if (part.type === 'error') parts.push({ type: 'error', name: (part.error as Error).name ?? part.error })
      else if (part.type !== 'text-delta' || part.delta) parts.push({ ...part })
    }
  } catch (error) { parts.push((error as Error).name) }
  return parts
}

describe('models: the quick reader of chat completions', () => {
  for (const [name, create] of Object.entries(packages)) {
    it(`makes of any answer, however it is cut, what the package ${name} makes of it`, async () => {
      await fc.assert(fc.asyncProperty(wire, async parts => {
        const { fetch, wrap } = quickChat(served(parts))
        const [ours, theirs] = [await partsOf(wrap(create(fetch))), await partsOf(create(served(parts)))]
        // A package that throws drops what it had made and nobody had read yet.
        const length = typeof theirs.at(-1) === 'string' ? Math.min(ours.length, theirs.length) - 1 : Infinity
        assert.deepEqual(ours.slice(0, length), theirs.slice(0, length))
        if (length !== Infinity) assert.equal(ours.at(-1), theirs.at(-1))
      }), { numRuns: 200 })
    })
  }

  it('hands on each text as it comes, and is told when its reader leaves', async () => {
    let cancelled = false
    let tell!: (text: string) => void
    const body = new ReadableStream<Uint8Array>({
      start(controller) { tell = content => controller.enqueue(new TextEncoder().encode(`data: ${JSON.stringify(chunkOf({ content }))}\n\n`)) },
      cancel() { cancelled = true },
    })
    const { fetch, wrap } = quickChat(async () => new Response(body, { headers: { 'content-type': 'text/event-stream' } }))
    tell('one')
    const { stream, response } = await wrap(packages['openai-compatible']!(fetch)).doStream({ prompt: [{ role: 'user', content: [{ type: 'text', text: 'Hi' }] }] })
    assert.deepEqual(Object.keys(response!.headers!), ['content-type'])
    const reader = stream.getReader()
    const next = async () => { for (;;) { const { value } = await reader.read(); if (value!.type === 'text-delta') return value.delta } }
    assert.equal(await next(), 'one')
    for (const word of ['two', 'three']) { tell(word); assert.equal(await next(), word) }
    await reader.cancel()
    assert.ok(cancelled)
  })
})
