import type { Secret } from 'backplane'
import type { LanguageModelV3, LanguageModelV3CallOptions, LanguageModelV3StreamPart } from 'backplane/contracts/models'
import { z } from 'zod'

type Generated = Awaited<ReturnType<LanguageModelV3['doGenerate']>>
type Prompt = LanguageModelV3CallOptions['prompt']

const answer = z.object({
  id: z.string().optional(),
  choices: z.array(z.object({ message: z.object({ content: z.string().nullable() }), finish_reason: z.string().nullable().optional() })).min(1),
  usage: z.object({ prompt_tokens: z.number(), completion_tokens: z.number() }).optional(),
})
const REASONS: Readonly<Record<string, Generated['finishReason']['unified']>> = { stop: 'stop', length: 'length', content_filter: 'content-filter' }

const textOf = (content: Prompt[number]['content']): string =>
  (typeof content === 'string' ? content : content.flatMap(part => (part.type === 'text' ? [part.text] : [])).join('\n'))

/** Text in, text out. It calls no tools: what it cannot do it says as a warning. */
export class ChatModel implements LanguageModelV3 {
  readonly specificationVersion = 'v3'
  readonly supportedUrls = {}
  constructor(readonly provider: string, readonly modelId: string, readonly url: string, readonly key: Secret | undefined) {}

  async doGenerate(options: LanguageModelV3CallOptions): Promise<Generated> {
    const body = {
      model: this.modelId, max_tokens: options.maxOutputTokens, temperature: options.temperature, top_p: options.topP, stop: options.stopSequences,
      messages: options.prompt.flatMap(({ role, content }) => (role === 'tool' ? [] : [{ role, content: textOf(content) }])),
    }
    const response = await fetch(`${this.url.replace(/\/$/, '')}/chat/completions`, {
      method: 'POST', body: JSON.stringify(body), signal: options.abortSignal ?? null,
      headers: { 'content-type': 'application/json', ...(this.key && { authorization: `Bearer ${await this.key.read()}` }) },
    })
    if (!response.ok) throw new Error(`${this.provider} answered ${response.status}: ${(await response.text()).slice(0, 500)}`)
    const { id, choices, usage } = answer.parse(await response.json())
    const { message, finish_reason: raw } = choices[0]!
    return {
      content: [{ type: 'text', text: message.content ?? '' }],
      finishReason: { unified: REASONS[raw ?? 'stop'] ?? 'other', raw: raw ?? undefined },
      usage: {
        inputTokens: { total: usage?.prompt_tokens, noCache: undefined, cacheRead: undefined, cacheWrite: undefined },
        outputTokens: { total: usage?.completion_tokens, text: undefined, reasoning: undefined },
      },
      response: { ...(id !== undefined && { id }), modelId: this.modelId },
      warnings: options.tools?.length ? [{ type: 'unsupported', feature: 'tools', details: 'this provider sends text only' }] : [],
    }
  }

  /** The server is asked once, and its answer handed on as a stream. */
  async doStream(options: LanguageModelV3CallOptions) {
    const { content, warnings, finishReason, usage } = await this.doGenerate(options)
    const stream = new ReadableStream<LanguageModelV3StreamPart>({
      start(controller) {
        controller.enqueue({ type: 'stream-start', warnings })
        for (const [at, part] of content.entries()) if (part.type === 'text') {
          controller.enqueue({ type: 'text-start', id: String(at) })
          controller.enqueue({ type: 'text-delta', id: String(at), delta: part.text })
          controller.enqueue({ type: 'text-end', id: String(at) })
        }
        controller.enqueue({ type: 'finish', finishReason, usage })
        controller.close()
      },
    })
    return { stream }
  }
}
