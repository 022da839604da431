import type { LanguageModelV3Message, LanguageModelV3Usage } from '@ai-sdk/provider'
import type { LanguageModelV3CallOptions, ModelCallContext, Models } from '#contracts/models'

export type AssistantPart = Extract<LanguageModelV3Message, { role: 'assistant' }>['content'][number]
export interface ToolRequest { readonly id: string; readonly name: string; /** As the model wrote it: JSON, or not. */ readonly input: string }

/** What one model call gave; plain data, as a step stores it. */
export interface Turn {
  /** Goes back to the model with the next call. */
  readonly content: AssistantPart[]
  readonly text: string
  readonly calls: readonly ToolRequest[]
  readonly usage: LanguageModelV3Usage
  readonly finish: string
  /** The `provider/model` that really answered: an alias has fallbacks. */
  readonly model: string
}

type Options = Parameters<Models['stream']>[2]
type TextPart = { type: 'text' | 'reasoning'; text: string; providerOptions?: LanguageModelV3CallOptions['providerOptions'] }

const NOTHING: LanguageModelV3Usage = {
  inputTokens: { total: 0, noCache: undefined, cacheRead: undefined, cacheWrite: undefined },
  outputTokens: { total: 0, text: undefined, reasoning: undefined },
}

/** Vendors take the arguments back as an object only. */
function asInput(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value
  } catch { /* the model hears of it from the tool's result */ }
  return { invalid: text }
}

/** Lets the model speak once. `onText` hears every piece of the text as it comes. */
export async function takeTurn(
  models: Models, context: ModelCallContext, model: string, options: Options, onText: (text: string) => void,
): Promise<Turn> {
  const content: AssistantPart[] = []
  const open = new Map<string, TextPart>()
  const calls: ToolRequest[] = []
  let [usage, finish, answering] = [NOTHING, 'other', model]
  const stream = await models.stream(context, model, options)
  for await (const part of stream) {
    switch (part.type) {
      case 'text-start': case 'reasoning-start': {
        const begun: TextPart = { type: part.type === 'text-start' ? 'text' : 'reasoning', text: '' }
        open.set(`${begun.type} ${part.id}`, begun)
        content.push(begun)
        break
      }
      case 'text-delta': case 'reasoning-delta': {
        const kind = part.type === 'text-delta' ? 'text' : 'reasoning'
        const at = open.get(`${kind} ${part.id}`)
        if (at) at.text += part.delta
        if (kind === 'text') onText(part.delta)
        break
      }
      case 'text-end': case 'reasoning-end': {
        // Some vendors sign what was thought, and want the signature back.
        const at = open.get(`${part.type === 'text-end' ? 'text' : 'reasoning'} ${part.id}`)
        if (at && part.providerMetadata) at.providerOptions = part.providerMetadata
        break
      }
      case 'tool-call': {
        const { toolCallId, toolName, input, providerMetadata, providerExecuted } = part
        content.push({
          type: 'tool-call', toolCallId, toolName, input: asInput(input), ...(providerMetadata && { providerOptions: providerMetadata }),
          ...(providerExecuted && { providerExecuted }),
        })
        if (!providerExecuted) calls.push({ id: toolCallId, name: toolName, input })
        break
      }
      case 'response-metadata':
        answering = part.modelId ?? answering
        break
      case 'finish':
        usage = part.usage
        finish = part.finishReason.unified
        break
      default:
    }
  }
  return { content, text: content.flatMap(part => (part.type === 'text' ? [part.text] : [])).join(''), calls, usage, finish, model: answering }
}
