import type {
  JSONValue, LanguageModelV3FunctionTool, LanguageModelV3GenerateResult, LanguageModelV3Message, LanguageModelV3Prompt,
  LanguageModelV3ToolResultPart,
} from '@ai-sdk/provider'
import { BackplaneError, type Contributions, type Logger } from '#core'
import type { Tool } from '#contracts/agents'
import { ModelErrors, type LanguageModelV3, type LanguageModelV3CallOptions, type LanguageModelV3StreamPart, type ModelProvider } from '#contracts/models'
import { countPrompt, countTokens, pieces, usageOf } from './tokens.ts'

const MODEL = 'deterministic'
export const COMPOSED = 'This answer was composed offline from what the tools returned, without a language model.'
export const CANNOT = 'I work offline, without a language model, so I can only do what my tools recognize in a request'

type ToolMessage = Extract<LanguageModelV3Message, { role: 'tool' }>

/** The text that people wrote last. */
function request(prompt: LanguageModelV3Prompt): string {
  const last = prompt.findLast(message => message.role === 'user')
  return last?.role === 'user' ? last.content.flatMap(part => (part.type === 'text' ? [part.text] : [])).join('\n') : ''
}

/** What the tools returned since then. */
function results(prompt: LanguageModelV3Prompt): LanguageModelV3ToolResultPart[] {
  const since = prompt.slice(prompt.findLastIndex(message => message.role === 'user') + 1)
  const messages = since.filter((message): message is ToolMessage => message.role === 'tool')
  return messages.flatMap(message => message.content.flatMap(part => (part.type === 'tool-result' ? [part] : [])))
}

/** A result in words: a text as it is, of an object the `text` that it brings for people, else its JSON. */
function inWords(value: JSONValue): string {
  if (typeof value === 'string') return value
  if (value !== null && typeof value === 'object' && !Array.isArray(value) && typeof value['text'] === 'string') return value['text']
  return JSON.stringify(value, null, 2)
}

function sentence({ toolName, output }: LanguageModelV3ToolResultPart): string {
  switch (output.type) {
    case 'text': return output.value
    case 'json': return inWords(output.value)
    case 'error-text': return `The tool "${toolName}" failed: ${output.value}`
    case 'error-json': return `The tool "${toolName}" failed: ${inWords(output.value)}`
    case 'execution-denied': return `The tool "${toolName}" was not allowed to run${output.reason ? `: ${output.reason}` : '.'}`
    case 'content': return output.value.flatMap(part => (part.type === 'text' ? [part.text] : [])).join('\n')
  }
}

const firstSentence = (text: string): string => /^.*?\.(?=\s|$)/s.exec(text)?.[0].slice(0, -1) ?? text

/**
 * A model without a model: it asks the offered tools which of them recognize the request, calls those, and composes
 * the answer of what they return. The same request always gets the same answer, and every answer says how it was made.
 */
export class OfflineModel implements LanguageModelV3 {
  readonly specificationVersion = 'v3'
  readonly provider = 'offline'
  readonly modelId = MODEL
  readonly supportedUrls = {}
  constructor(readonly tools: Contributions<Tool>, readonly log: Logger) {}

  async doStream(options: LanguageModelV3CallOptions): Promise<{ stream: ReadableStream<LanguageModelV3StreamPart> }> {
    const { abortSignal } = options
    abortSignal?.throwIfAborted()
    const parts = this.#parts(options)
    return {
      stream: new ReadableStream<LanguageModelV3StreamPart>({
        pull(controller) {
          if (abortSignal?.aborted) return controller.error(abortSignal.reason)
          const { done, value } = parts.next()
          if (done) controller.close()
          else controller.enqueue(value)
        },
        cancel() { parts.return() },
      }, { highWaterMark: 0 }),
    }
  }

  async doGenerate(options: LanguageModelV3CallOptions): Promise<LanguageModelV3GenerateResult> {
    options.abortSignal?.throwIfAborted()
    const parts = [...this.#parts(options)]
    const text = parts.flatMap(part => (part.type === 'text-delta' ? [part.delta] : [])).join('')
    const finish = parts.find(part => part.type === 'finish')!
    return {
      content: [...(text ? [{ type: 'text' as const, text }] : []), ...parts.filter(part => part.type === 'tool-call')],
      finishReason: finish.finishReason, usage: finish.usage, warnings: [],
    }
  }

  *#parts(options: LanguageModelV3CallOptions): Generator<LanguageModelV3StreamPart, void> {
    const { prompt, toolChoice, maxOutputTokens = Infinity } = options
    yield { type: 'stream-start', warnings: [] }
    yield { type: 'response-metadata', modelId: this.modelId }
    const offered = toolChoice?.type === 'none' ? [] : (options.tools ?? []).filter((tool): tool is LanguageModelV3FunctionTool => tool.type === 'function')
    const wanted = toolChoice?.type === 'tool' ? offered.filter(tool => tool.name === toolChoice.toolName) : offered
    const input = countPrompt(prompt)
    const told = results(prompt)
    const { calls, refusals } = told.length ? { calls: [], refusals: [] } : this.#recognized(wanted, request(prompt))
    let output = 0
    for (const [index, { name, args }] of calls.entries()) {
      const id = `call_${prompt.length}_${index + 1}`
      yield { type: 'tool-input-start', id, toolName: name }
      for (const delta of pieces(args)) { output++; yield { type: 'tool-input-delta', id, delta } }
      yield { type: 'tool-input-end', id }
      yield { type: 'tool-call', toolCallId: id, toolName: name, input: args }
    }
    if (calls.length) return yield { type: 'finish', finishReason: { unified: 'tool-calls', raw: undefined }, usage: usageOf(input, output) }
    const text = told.length ? `${told.map(sentence).join('\n')}\n\n${COMPOSED}` : this.#cannot(offered, refusals)
    yield { type: 'text-start', id: 'text' }
    for (const delta of pieces(text)) {
      if (output >= maxOutputTokens) break
      output++
      yield { type: 'text-delta', id: 'text', delta }
    }
    yield { type: 'text-end', id: 'text' }
    yield { type: 'finish', finishReason: { unified: output < countTokens(text) ? 'length' : 'stop', raw: undefined }, usage: usageOf(input, output) }
  }

  #recognized(offered: readonly LanguageModelV3FunctionTool[], text: string): { calls: { name: string; args: string }[]; refusals: string[] } {
    const refusals: string[] = []
    const calls = offered.flatMap(({ name }) => {
      try {
        const args = [...this.tools].find(tool => tool.name === name)?.recognize?.(text)
        return args === undefined ? [] : [{ name, args: JSON.stringify(args) }]
      } catch (error) {
        if (error instanceof BackplaneError && error.expose) refusals.push(`The tool "${name}" did not look for anything: ${error.message}. ${error.fix}\n\n`)
        else this.log.warn('a tool failed to recognize a request', { tool: name, err: error })
        return []
      }
    })
    return { calls, refusals }
  }

  #cannot(offered: readonly LanguageModelV3FunctionTool[], refusals: readonly string[]): string {
    const able = offered.filter(({ name }) => [...this.tools].some(tool => tool.name === name && tool.recognize))
    const told = able.length ? `${CANNOT}, and they found nothing in this one. They are:\n${able.map(({ name, description }) => `- ${name}: ${firstSentence(description ?? '')}`).join('\n')}\n`
      : `${CANNOT}, and I was given none that do. `
    return `${refusals.join('')}${told}For anything else, configure a model provider and set plugins.models.config.aliases.default to one of its models.`
  }
}

export const offlineProvider = (tools: Contributions<Tool>, log: Logger): ModelProvider => ({
  name: 'offline',
  missing: [],
  models: [MODEL],
  async create(model) {
    if (model !== MODEL) throw ModelErrors.UNKNOWN({ model: `offline/${model}`, known: `offline/${MODEL}` })
    return new OfflineModel(tools, log)
  },
})
