import { randomUUID } from 'node:crypto'
import { Deadline, type BackplaneError, type Clock, type Logger } from '#core'
import {
  ModelErrors, type LanguageModelV3, type LanguageModelV3CallOptions, type LanguageModelV3StreamPart, type LanguageModelV3Usage,
  type ModelCall, type ModelCallContext, type ModelProvider,
} from '#contracts/models'
import { brokenOff, modelFailed, refusalOf, shownOf } from './failure.ts'
import { sourceOf, streamOf, type PartSource } from './parts.ts'
import { countPrompt, countTokens, usageOf } from './tokens.ts'

type HookInput = ModelCallContext & Pick<Call, 'id' | 'provider' | 'model' | 'options'>
type Part = LanguageModelV3StreamPart

export interface CallHooks {
  /** Rejects to refuse the call. */
  before(call: HookInput): Promise<void>
  /** Tells of the end. Nobody waits for it: whoever listens may hang. */
  called(call: ModelCall): Promise<void>
  readonly log: Logger
  readonly clock: Clock
}
export interface Timeouts { readonly first_token_ms: number; readonly idle_ms: number; readonly total_ms: number }

class Expiry extends Deadline {
  constructor(readonly expire: () => void) { super() }
}

const READ_OUT_MS = 1_000
/** What is no content: a call that fails before any can be made again, and nobody has seen it. */
const FRAME: ReadonlySet<Part['type']> = new Set([
  'stream-start', 'response-metadata', 'raw', 'text-start', 'text-end', 'reasoning-start', 'reasoning-end', 'tool-input-start', 'tool-input-end',
])
const deltaOf = (part: Part): string | undefined =>
  (part.type === 'text-delta' || part.type === 'reasoning-delta' || part.type === 'tool-input-delta' ? part.delta : undefined)
const isContent = (part: Part): boolean => !FRAME.has(part.type) && deltaOf(part) !== ''

/** One call of a model: told of exactly once when it is over, however it ends. */
export class Call {
  readonly id = randomUUID()
  readonly #abort = new AbortController()
  readonly #from = performance.now()
  readonly #unlink: () => void
  readonly #total = new Expiry(() => this.#expire('whole answer', 'total_ms'))
  readonly #silence = new Expiry(() => (this.#begun ? this.#expire('next part', 'idle_ms') : this.#expire('first token', 'first_token_ms')))
  #sent = false
  #begun = false
  #over = false
  #responseModel: string | undefined
  #firstToken: number | undefined
  #usage: LanguageModelV3Usage | undefined
  #error: { readonly value: unknown } | undefined
  #output = 0

  constructor(
    readonly context: ModelCallContext, readonly source: ModelProvider, readonly model: string, readonly options: LanguageModelV3CallOptions,
    readonly timeouts: Timeouts, readonly hooks: CallHooks, readonly ended: (call: Call, told: ModelCall, error?: BackplaneError) => void,
  ) {
    const { abortSignal } = options
    const abort = () => this.abort()
    abortSignal?.addEventListener('abort', abort, { once: true })
    this.#unlink = () => abortSignal?.removeEventListener('abort', abort)
  }

  /** Ends it, whether or not somebody reads on. */
  abort(reason: BackplaneError = ModelErrors.ABORTED({ model: this.#name }), status: 'aborted' | 'failed' = 'aborted'): void {
    if (this.#over) return
    this.#abort.abort(reason)
    this.#end(status, reason)
  }
  get provider(): string { return this.source.name }
  get #name(): string { return `${this.provider}/${this.model}` }

  /** Resolves when the first content is there; until then a failure rejects. */
  async stream(create: () => Promise<LanguageModelV3>): Promise<ReadableStream<Part>> {
    if (this.options.abortSignal?.aborted) this.abort()
    const { id, context, provider, model } = this
    const options = { ...this.options, abortSignal: this.#abort.signal }
    let source: PartSource | undefined
    try {
      this.#abort.signal.throwIfAborted()
      try { await this.#orAborted(this.hooks.before({ ...context, id, provider, model, options })) } catch (error) { throw this.#refused(error) }
      this.#arm()
      const { stream } = await this.#orAborted(this.#ask(create, options), late => void late.stream.cancel().catch(() => {}))
      source = sourceOf(stream)
      return this.#pass(source, await this.#begin(source))
    } catch (error) {
      void source?.cancel().catch(() => {})
      throw this.#failed(error)
    }
  }

  async #ask(create: () => Promise<LanguageModelV3>, options: LanguageModelV3CallOptions) {
    const model = await create()
    this.#sent = true
    return model.doStream(options)
  }

  /** Reads to the first content, and says beforehand which model it is of. */
  async #begin(source: PartSource): Promise<Part[]> {
    const head: Part[] = []
    while (!head.some(isContent)) head.push(...await this.#read(source))
    this.#begun = true
    this.hooks.clock.deadlines.disarm(this.#silence)
    if (!head.slice(0, head.findIndex(isContent)).some(each => each.type === 'response-metadata')) {
      head.splice(head[0]?.type === 'stream-start' ? 1 : 0, 0, { type: 'response-metadata', modelId: this.#name })
    }
    return head
  }

  #pass(source: PartSource, head: Part[]): ReadableStream<Part> {
    let parts: readonly Part[] | undefined = head
    let finished = false
    const leave = () => void source.cancel().catch(() => {})
    return streamOf({
      next: async () => {
        try {
          this.#abort.signal.throwIfAborted()
          if (finished) {
            void this.#readOut(source)
            return undefined
          }
          const next = parts ?? await this.#read(source)
          parts = undefined
          finished = next.at(-1)?.type === 'finish'
          return next
        } catch (error) {
          leave()
          throw this.#failed(error)
        }
      },
      cancel: async () => {
        this.abort()
        leave()
      },
    }, this.#abort.signal)
  }

  /** A connection whose answer was read to its end is used again; one that was left is closed. */
  async #readOut(source: PartSource): Promise<void> {
    const leave = () => void source.cancel().catch(() => {})
    const lagging = new Expiry(leave)
    this.hooks.clock.deadlines.arm(lagging, READ_OUT_MS)
    try { while (await source.next()); } catch { leave() }
    this.hooks.clock.deadlines.disarm(lagging)
  }

  /** The next parts, within their time. Rejects if the stream ends before it was finished; what came before an error is handed on first. */
  async #read(source: PartSource): Promise<Part[]> {
    if (this.#error) throw this.#error.value
    if (this.#begun) this.hooks.clock.deadlines.arm(this.#silence, this.timeouts.idle_ms)
    const came = await this.#orAborted(source.next())
    // Whoever reads slowly does not make the provider silent.
    if (this.#begun) this.hooks.clock.deadlines.disarm(this.#silence)
    if (!came) throw brokenOff(this.#name)
    const parts: Part[] = []
    for (const part of came) {
      // Vendors' packages make up a finish for a stream that was cut.
      const cut = part.type === 'finish' && part.finishReason.unified === 'other' && part.finishReason.raw === undefined
      if (part.type === 'error' || cut) {
        this.#error = { value: part.type === 'error' ? part.error : brokenOff(this.#name) }
        if (!parts.length) throw this.#error.value
        break
      }
      this.#see(part)
      parts.push(part.type === 'response-metadata' ? { ...part, modelId: this.#name } : part)
      if (part.type !== 'finish') continue
      this.#end('completed')
      break
    }
    return parts
  }

  #see(part: Part): void {
    const text = deltaOf(part)
    if (text || part.type === 'tool-call') this.#firstToken ??= performance.now() - this.#from
    if (text) this.#output += countTokens(text)
    if (part.type === 'response-metadata') this.#responseModel = part.modelId
    if (part.type === 'finish' && part.usage.inputTokens.total !== undefined && part.usage.outputTokens.total !== undefined) this.#usage = part.usage
  }

  #arm(): void {
    const { deadlines } = this.hooks.clock
    deadlines.arm(this.#total, this.timeouts.total_ms)
    deadlines.arm(this.#silence, this.timeouts.first_token_ms)
  }
  #expire(what: string, setting: keyof Timeouts): void {
    this.abort(ModelErrors.TIMEOUT({ model: this.#name, what, setting, ms: this.timeouts[setting] }), 'failed')
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

  #failed(error: unknown): BackplaneError {
    const { signal } = this.#abort
    const typed = signal.aborted ? signal.reason as BackplaneError : modelFailed(this.#name, error, this.options.prompt, this.#begun)
    this.#end(ModelErrors.ABORTED.is(typed) ? 'aborted' : 'failed', typed)
    return typed
  }

  /** The first end is the one that counts. */
  #end(status: ModelCall['status'], error?: BackplaneError): void {
    if (this.#over) return
    this.#over = true
    this.#unlink()
    this.hooks.clock.deadlines.disarm(this.#total)
    this.hooks.clock.deadlines.disarm(this.#silence)
    const { id, context, provider, model } = this
    const call: ModelCall = {
      ...context, id, provider, model, status, usage: this.#usage ?? this.#estimate(error), estimated: this.#usage === undefined,
      duration_ms: performance.now() - this.#from, first_token_ms: this.#firstToken,
      ...(this.#responseModel !== undefined && { response_model: this.#responseModel }),
      ...(error && { error: { code: error.code, message: shownOf(error) } }),
    }
    this.ended(this, call, error)
    // Handlers begin before the last part is handed on; waiting for them would let a slow one hold up every run.
    this.hooks.called(call).catch((cause: unknown) => this.hooks.log.error('the end of a model call could not be told', { id, err: cause }))
  }

  /** A provider that refused has read nothing; one that was left, or was silent, is paid for what it read. */
  #estimate(error: BackplaneError | undefined): LanguageModelV3Usage {
    const left = [ModelErrors.ABORTED, ModelErrors.TIMEOUT, ModelErrors.STREAM_BROKEN, ModelErrors.PROVIDER_AWAY].some(each => each.is(error))
    const read = this.#firstToken !== undefined || !error || (this.#sent && left)
    return read ? usageOf(countPrompt(this.options.prompt), this.#output) : usageOf(0, 0)
  }
}
