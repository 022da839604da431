import type { LanguageModelV3, LanguageModelV3CallOptions, LanguageModelV3StreamPart, LanguageModelV3Usage, ModelProvider } from '#contracts/models'

type Parts = Iterable<LanguageModelV3StreamPart> | AsyncIterable<LanguageModelV3StreamPart>
/** What the model says to its nth call (from 0). A throw is a failure of the provider: before the stream if `Refuse` is thrown, else within. */
export type Script = (options: LanguageModelV3CallOptions, nth: number) => Parts

export const usage = (input: number, output: number): LanguageModelV3Usage => ({
  inputTokens: { total: input, noCache: input, cacheRead: 0, cacheWrite: 0 }, outputTokens: { total: output, text: output, reasoning: 0 },
})
export const finish = (reason: 'stop' | 'tool-calls' | 'content-filter' = 'stop', input = 10, output = 5): LanguageModelV3StreamPart =>
  ({ type: 'finish', finishReason: { unified: reason, raw: undefined }, usage: usage(input, output) })
export const say = (...words: string[]): LanguageModelV3StreamPart[] =>
  [{ type: 'text-start', id: 't' }, ...words.map(delta => ({ type: 'text-delta' as const, id: 't', delta })), { type: 'text-end', id: 't' }]
export const answer = (...words: string[]): LanguageModelV3StreamPart[] => [{ type: 'stream-start', warnings: [] }, ...say(...words), finish()]
export const callTool = (toolName: string, input: unknown, toolCallId = `c-${toolName}`): LanguageModelV3StreamPart =>
  ({ type: 'tool-call', toolCallId, toolName, input: typeof input === 'string' ? input : JSON.stringify(input) })
/** Waits until the signal aborts, and fails with its reason. */
export const hang = (signal: AbortSignal | undefined): Promise<never> => new Promise((_, reject) => {
  const fail = () => reject(signal!.reason as Error)
  if (signal?.aborted) fail()
  signal?.addEventListener('abort', fail, { once: true })
})

/** A model that follows a script, and keeps what it was asked. */
export class ScriptedModel implements LanguageModelV3 {
  readonly specificationVersion = 'v3'
  readonly provider = 'scripted'
  readonly supportedUrls = {}
  readonly calls: LanguageModelV3CallOptions[] = []
  cancelled = 0
  /** What doStream rejects with, if anything. */
  refuse: unknown
  constructor(readonly script: Script, readonly modelId = 'm') {}

  async doStream(options: LanguageModelV3CallOptions) {
    const nth = this.calls.push(structuredClone({ ...options, abortSignal: undefined })) - 1
    if (this.refuse) throw this.refuse
    const parts = this.script(options, nth)
    const iterator = Symbol.asyncIterator in parts ? parts[Symbol.asyncIterator]() : parts[Symbol.iterator]()
    const stream = new ReadableStream<LanguageModelV3StreamPart>({
      pull: async controller => {
        try {
          const { done, value } = await iterator.next()
          if (done) controller.close()
          else controller.enqueue(value)
        } catch (error) { controller.error(error) }
      },
      cancel: () => { this.cancelled++ },
    }, { highWaterMark: 0 })
    return { stream }
  }
  async doGenerate(): Promise<never> { throw new Error('the tests stream') }
}

/** A provider `scripted` that makes this model under every name. */
export const scriptedProvider = (model: LanguageModelV3, parts: Partial<ModelProvider> = {}): ModelProvider & { created: number } => {
  const provider = { name: 'scripted', missing: [], created: 0, async create() { provider.created++; return model }, ...parts }
  return provider
}
