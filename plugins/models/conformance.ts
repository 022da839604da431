import assert from 'node:assert/strict'
import { defineConformance } from '#core/testing'
import { ModelProvider, type LanguageModelV3, type LanguageModelV3CallOptions, type LanguageModelV3StreamPart } from '#contracts/models'

export interface ModelSubject {
  readonly model: LanguageModelV3
  /** A request that is answered by a text of several pieces. */
  readonly text: LanguageModelV3CallOptions
  /** A request that is answered by a call of the one tool that it offers, with these arguments; and by a text once it has the result. */
  readonly tool: LanguageModelV3CallOptions
  readonly args: unknown
  /** Resolves when the vendor's side has noticed that its caller left. */
  left?(): Promise<unknown>
}
type Part = LanguageModelV3StreamPart
type Of<T extends Part['type']> = Extract<Part, { type: T }>

async function read({ model }: ModelSubject, options: LanguageModelV3CallOptions): Promise<Part[]> {
  const parts: Part[] = []
  for await (const part of (await model.doStream(options)).stream) parts.push(part)
  const broken = parts.find(part => part.type === 'error')
  assert.equal(broken, undefined, `an error in the stream: ${String(broken?.error)}`)
  return parts
}
const of = <T extends Part['type']>(parts: readonly Part[], type: T): Of<T>[] => parts.filter((part): part is Of<T> => part.type === type)
const textOf = (parts: readonly Part[]): string => of(parts, 'text-delta').map(part => part.delta).join('')

async function soon(what: string, work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`${what} took more than a second`)), 1_000) })
  try { await Promise.race([work, late]) } finally { clearTimeout(timer) }
}

/** What `models` asks of a provider's LanguageModelV3. */
export const modelConformance = defineConformance<ModelSubject>(ModelProvider, {
  'says what it is': {
    run({ model }) {
      assert.equal(model.specificationVersion, 'v3')
      assert.ok(model.provider && model.modelId)
    },
  },
  'streams a text in order, in several pieces, between its start and its end': {
    async run(subject) {
      const parts = await read(subject, subject.text)
      const kinds = parts.map(part => part.type)
      assert.ok(of(parts, 'text-delta').length > 1, `one piece only: ${kinds.join(' ')}`)
      const open = new Set<string>()
      for (const part of parts) {
        if (part.type === 'text-start') open.add(part.id)
        if (part.type === 'text-delta') assert.ok(open.has(part.id), 'a piece of a text that is not open')
        if (part.type === 'text-end') assert.ok(open.delete(part.id), 'an end of a text that is not open')
      }
      assert.equal(open.size, 0, 'a text was not ended')
      assert.equal(kinds[0], 'stream-start')
    },
  },
  'ends a stream with exactly one finish, which tells why and what was used': {
    async run(subject) {
      const parts = await read(subject, subject.text)
      const finishes = of(parts, 'finish')
      assert.deepEqual([finishes.length, parts.at(-1)!.type], [1, 'finish'])
      const { finishReason, usage } = finishes[0]!
      assert.equal(finishReason.unified, 'stop')
      assert.ok(usage.inputTokens.total! > 0 && usage.outputTokens.total! > 0, JSON.stringify(usage))
    },
  },
  'generates at once what it streams': {
    async run(subject) {
      const { content, usage } = await subject.model.doGenerate(subject.text)
      assert.equal(content.flatMap(part => (part.type === 'text' ? [part.text] : [])).join(''), textOf(await read(subject, subject.text)))
      assert.ok(usage.inputTokens.total! > 0 && usage.outputTokens.total! > 0)
    },
  },
  'calls a tool with its arguments, and answers when it has the result': {
    async run(subject) {
      const { tool, args } = subject
      const parts = await read(subject, tool)
      const [call] = of(parts, 'tool-call')
      assert.ok(call && tool.tools!.some(each => each.name === call.toolName), 'the tool was not called')
      assert.deepEqual(JSON.parse(call.input), args)
      assert.equal(of(parts, 'finish')[0]!.finishReason.unified, 'tool-calls')
      const { toolCallId, toolName } = call
      // What some vendors attach to a call they want back with it.
      const signed = call.providerMetadata && { providerOptions: call.providerMetadata }
      const prompt: LanguageModelV3CallOptions['prompt'] = [
        ...tool.prompt,
        { role: 'assistant', content: [{ type: 'tool-call', toolCallId, toolName, input: args, ...signed }] },
        { role: 'tool', content: [{ type: 'tool-result', toolCallId, toolName, output: { type: 'text', value: 'The result is 3.' } }] },
      ]
      const answer = await read(subject, { ...tool, prompt })
      assert.equal(of(answer, 'tool-call').length, 0)
      assert.ok(textOf(answer).length > 0)
    },
  },
  'ends at the abort signal, in the middle': {
    async run(subject) {
      const stop = new AbortController()
      const { stream } = await subject.model.doStream({ ...subject.text, abortSignal: stop.signal })
      const reader = stream.getReader()
      for (;;) {
        const { value } = await reader.read()
        if (value?.type === 'text-delta' && value.delta) break
      }
      stop.abort()
      await soon('the end', assert.rejects(async () => { while (!(await reader.read()).done); }))
      if (subject.left) await soon('the vendor\'s notice', subject.left())
    },
  },
  'refuses when it is aborted before it begins': {
    async run(subject) {
      await soon('the refusal', assert.rejects(async () => read(subject, { ...subject.text, abortSignal: AbortSignal.abort() })))
    },
  },
  'keeps calls apart, and does not touch their options': {
    async run(subject) {
      const before = structuredClone(subject.text)
      const [first, second] = await Promise.all([read(subject, subject.text), read(subject, subject.text)])
      assert.equal(textOf(first), textOf(second))
      assert.deepEqual(subject.text, before)
    },
  },
})
