import { randomUUID } from 'node:crypto'
import type { BackplaneError, Logger } from '#core'
import {
  ModelErrors, type LanguageModelV3, type LanguageModelV3CallOptions, type LanguageModelV3StreamPart, type LanguageModelV3Usage,
  type ModelCall, type ModelCallContext, type ModelProvider,
} from '#contracts/models'
import { modelFailed, refusalOf, shownOf } from './failure.ts'
import { countPrompt, countTokens, usageOf } from './tokens.ts'

type HookInput = ModelCallContext & Pick<Call, 'id' | 'provider' | 'model' | 'options'>

export interface CallHooks {
  /** Rejects to refuse the call. */
  before(call: HookInput): Promise<void>
  /** Tells of the end. Nobody waits for it: whoever listens may hang. */
  called(call: ModelCall): Promise<void>
  readonly log: Logger
}

/** One call of a model: told of exactly once when it is over, however it ends. */
export class Call {
  readonly id = randomUUID()
  readonly #abort = new AbortController()
  readonly #from = performance.now()
  readonly #unlink: () => void
  #over = false
  #firstToken: number | undefined
  #usage: LanguageModelV3Usage | undefined
  #output = 0

  constructor(
    readonly context: ModelCallContext, readonly source: ModelProvider, readonly model: string, readonly options: LanguageModelV3CallOptions,
    readonly hooks: CallHooks, readonly ended: (call: Call) => void,
  ) {
    const { abortSignal } = options
    const abort = () => this.abort()
    abortSignal?.addEventListener('abort', abort, { once: true })
    this.#unlink = () => abortSignal?.removeEventListener('abort', abort)
  }

  /** Ends it, whether or not somebody reads on. */
  abort(reason: BackplaneError = ModelErrors.ABORTED({ model: this.#name })): void {
    if (this.#over) return
    this.#abort.abort(reason)
    this.#end('aborted', reason)
  }
  get provider(): string { return this.source.name }
  get #name(): string { return `${this.provider}/${this.model}` }

  async stream(create: () => Promise<LanguageModelV3>): Promise<ReadableStream<LanguageModelV3StreamPart>> {
    if (this.options.abortSignal?.aborted) this.abort()
    const { id, context, provider, model } = this
    const options = { ...this.options, abortSignal: this.#abort.signal }
    let source: ReadableStreamDefaultReader<LanguageModelV3StreamPart>
    try {
      this.#abort.signal.throwIfAborted()
      try { await this.#orAborted(this.hooks.before({ ...context, id, provider, model, options })) } catch (error) { throw this.#refused(error) }
      const { stream } = await this.#orAborted((async () => (await create()).doStream(options))(), late => void late.stream.cancel().catch(() => {}))
      source = stream.getReader()
    } catch (error) { throw this.#failed(error) }
    return this.#pass(source)
  }

  /** What a guard threw is not the provider's word, and may hold a query or a path. */
  #refused(error: unknown): BackplaneError {
    const refusal = refusalOf(this.#name, error)
    if (ModelErrors.GUARD_FAILED.is(refusal)) this.hooks.log.error('a guard of a model call failed', { model: this.#name, id: this.id, err: error })
    return refusal
  }

  /** A provider that does not heed the signal must not keep its caller waiting. */
  #orAborted<T>(work: PromiseLike<T>, late?: (value: T) => void): Promise<T> {
    const { signal } = this.#abort
    return new Promise<T>((resolve, reject) => {
      const aborted = () => reject(signal.reason)
      if (signal.aborted) aborted()
      signal.addEventListener('abort', aborted, { once: true })
      const off = () => signal.removeEventListener('abort', aborted)
      work.then(value => { off(); if (signal.aborted) late?.(value); resolve(value) }, error => { off(); reject(error) })
    })
  }

  #pass(source: ReadableStreamDefaultReader<LanguageModelV3StreamPart>): ReadableStream<LanguageModelV3StreamPart> {
    let finished = false
    const leave = () => void source.cancel().catch(() => {})
    return new ReadableStream<LanguageModelV3StreamPart>({
      pull: async controller => {
        try {
          const { done, value } = await this.#orAborted(source.read())
          if (done) {
            if (!finished) throw modelFailed(this.#name, new Error('its stream ended before it was finished'), { retryable: true })
            return controller.close()
          }
          if (value.type === 'error') throw value.error
          this.#see(value)
          if (value.type === 'finish') {
            finished = true
            this.#end('completed')
          }
          controller.enqueue(value)
        } catch (error) {
          leave()
          controller.error(this.#failed(error))
        }
      },
      cancel: () => {
        this.abort()
        leave()
      },
    }, { highWaterMark: 0 })
  }

  #see(part: LanguageModelV3StreamPart): void {
    const text = part.type === 'text-delta' || part.type === 'reasoning-delta' || part.type === 'tool-input-delta' ? part.delta : undefined
    if (text !== undefined || part.type === 'tool-call') this.#firstToken ??= performance.now() - this.#from
    if (text !== undefined) this.#output += countTokens(text)
    if (part.type === 'finish' && part.usage.inputTokens.total !== undefined && part.usage.outputTokens.total !== undefined) this.#usage = part.usage
  }

  #failed(error: unknown): BackplaneError {
    const { signal } = this.#abort
    const typed = signal.aborted ? signal.reason as BackplaneError : modelFailed(this.#name, error)
    this.#end(ModelErrors.ABORTED.is(typed) ? 'aborted' : 'failed', typed)
    return typed
  }

  /** The first end is the one that counts. */
  #end(status: ModelCall['status'], error?: BackplaneError): void {
    if (this.#over) return
    this.#over = true
    this.#unlink()
    this.ended(this)
    const { id, context, provider, model } = this
    // A call that never got an answer may have been refused before a token was read.
    const unanswered = this.#firstToken === undefined && status !== 'completed'
    const estimate = () => (unanswered ? usageOf(0, 0) : usageOf(countPrompt(this.options.prompt), this.#output))
    const call: ModelCall = {
      ...context, id, provider, model, status, usage: this.#usage ?? estimate(), estimated: this.#usage === undefined,
      duration_ms: performance.now() - this.#from, first_token_ms: this.#firstToken,
      ...(error && { error: { code: error.code, message: shownOf(error) } }),
    }
    // Handlers begin before the last part is handed on; waiting for them would let a slow one hold up every run.
    this.hooks.called(call).catch((cause: unknown) => this.hooks.log.error('the end of a model call could not be told', { id, err: cause }))
  }
}
