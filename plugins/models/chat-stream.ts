import type { LanguageModelV3, LanguageModelV3StreamPart } from '#contracts/models'
import { streamOf } from './parts.ts'

type Part = LanguageModelV3StreamPart
const MARK = 'x-backplane-chat-stream'
const CHUNK_KEYS: ReadonlySet<string> = new Set(['id', 'object', 'created', 'model', 'choices', 'system_fingerprint', 'service_tier', 'obfuscation', 'usage'])
const CHOICE_KEYS: ReadonlySet<string> = new Set(['index', 'delta', 'finish_reason', 'logprobs'])
const DELTA_KEYS: ReadonlySet<string> = new Set(['role', 'content', 'refusal'])

interface Choice {
  readonly index?: number
  readonly delta?: { readonly content?: string; readonly refusal?: unknown }
  readonly finish_reason?: unknown
  readonly logprobs?: unknown
}
interface Chunk { readonly usage?: unknown; readonly choices?: readonly Choice[] }

const only = (value: object, known: ReadonlySet<string>): boolean => {
  for (const key in value) if (!known.has(key)) return false
  return true
}

/** The text of a chunk that holds a piece of text and nothing else; of any other, nothing. */
function plainText(chunk: Chunk | null): string | undefined {
  const choice = chunk?.choices?.length === 1 ? chunk.choices[0] : undefined
  const { delta } = choice ?? {}
  if (!chunk || !choice || typeof delta?.content !== 'string') return undefined
  if (choice.finish_reason != null || choice.logprobs != null || (choice.index ?? 0) !== 0) return undefined
  if (chunk.usage != null || delta.refusal != null) return undefined
  return only(chunk, CHUNK_KEYS) && only(choice, CHOICE_KEYS) && only(delta, DELTA_KEYS) ? delta.content : undefined
}

/** The next whole event of a text, if it is one line of data: what it holds, and where the one after it begins. */
function nextEvent(text: string, from: number, whole: boolean): { readonly data: string | undefined; readonly end: number } | undefined {
  for (let at = from, end: number; (end = text.indexOf('\n', at)) >= 0; at = end + 1) {
    const line = text.slice(at, text[end - 1] === '\r' ? end - 1 : end)
    if (line === '' || line.startsWith(':')) continue
    const blank = text[end + 1] === '\r' ? end + 2 : end + 1
    if (blank >= text.length && !whole) return undefined
    return { data: line.startsWith('data:') && text[blank] === '\n' ? line.slice(5) : undefined, end: blank + 1 }
  }
  return undefined
}

function parsed(data: string | undefined): Chunk | null {
  try { return data === undefined ? null : JSON.parse(data) as Chunk | null } catch { return null }
}

/**
 * Reads an answer of OpenAI's chat completions beside the package of the vendor: plain text is read here, in one loop over what came from the
 * network; all else, from the first chunk on that is more than text, goes to the package, which knows tools, reasoning, usage, errors and the rest.
 * The package's own reader takes each token through four streams and a schema, which was three quarters of the time of a whole run.
 */
class ChatStream {
  readonly #source: ReadableStreamDefaultReader<Uint8Array>
  readonly #decoder = new TextDecoder()
  readonly #encoder = new TextEncoder()
  /** What came and was not taken yet. */
  #text = ''
  #ended = false
  /** `first`: the package reads, up to the first text, since it opens the answer. `own`: plain text is read here. `theirs`: the package reads all. */
  #mode: 'first' | 'own' | 'theirs' = 'first'
  #leave!: () => void
  readonly #left = new Promise<void>(resolve => { this.#leave = resolve })
  /** What the package reads. */
  readonly rest: ReadableStream<Uint8Array>

  constructor(body: ReadableStream<Uint8Array>) {
    this.#source = body.getReader()
    this.rest = new ReadableStream<Uint8Array>({
      pull: async controller => {
        if (this.#mode === 'own') await this.#left
        const text = await (this.#mode === 'first' ? this.#firstEvent() : this.#whatever())
        if (text) controller.enqueue(this.#encoder.encode(text))
        if (this.#ended && !this.#text) controller.close()
      },
      cancel: reason => this.#source.cancel(reason),
    }, { highWaterMark: 0 })
  }

  async #read(): Promise<void> {
    const { done, value } = await this.#source.read()
    this.#ended = done
    this.#text += this.#decoder.decode(value, { stream: !done })
  }

  async #firstEvent(): Promise<string> {
    let event
    while (!(event = nextEvent(this.#text, 0, this.#ended)) && !this.#ended) await this.#read()
    const said = plainText(parsed(event?.data))
    if (said !== '') this.#mode = said === undefined ? 'theirs' : 'own'
    return said === undefined ? this.#whatever() : this.#cut(event!.end)
  }

  async #whatever(): Promise<string> {
    while (!this.#text && !this.#ended) await this.#read()
    return this.#cut(this.#text.length)
  }

  #cut(at: number): string {
    const text = this.#text.slice(0, at)
    this.#text = this.#text.slice(at)
    return text
  }

  /** What the package makes of the answer, with the plain text amid it. */
  join(theirs: ReadableStream<Part>, raw: boolean): ReadableStream<Part> {
    const reader = theirs.getReader()
    let id: string | undefined
    return streamOf({
      next: async () => {
        while (id !== undefined && this.#mode === 'own') {
          const parts = await this.#parts(id, raw)
          if (parts.length) return parts
        }
        const { done, value } = await reader.read()
        if (done) return undefined
        // The one text that it was given.
        if (value.type === 'text-delta' && value.delta) id ??= value.id
        return [value]
      },
      cancel: async reason => {
        this.#leave()
        await Promise.allSettled([this.#source.cancel(reason), reader.cancel(reason)])
      },
    })
  }

  /** What the events that are there say, as long as they are plain; reads on if there are none. */
  async #parts(id: string, raw: boolean): Promise<Part[]> {
    if (!nextEvent(this.#text, 0, this.#ended)) await this.#read()
    const parts: Part[] = []
    let at = 0
    for (let event; (event = nextEvent(this.#text, at, this.#ended)); at = event.end) {
      const chunk = parsed(event.data)
      const delta = plainText(chunk)
      if (delta === undefined) {
        this.#mode = 'theirs'
        break
      }
      if (raw) parts.push({ type: 'raw', rawValue: chunk })
      if (delta) parts.push({ type: 'text-delta', id, delta })
    }
    this.#cut(at)
    if (this.#ended) this.#mode = 'theirs'
    if (this.#mode === 'theirs') this.#leave()
    return parts
  }
}

/** Gives the models of a package that speaks chat completions the quicker reader. `fetch` is what its package is to use. */
export function quickChat(send: typeof fetch): { readonly fetch: typeof fetch; wrap(model: LanguageModelV3): LanguageModelV3 } {
  /** By the mark of the call, which stays on this side: only answers of calls that are being made are in here. */
  const streams = new Map<string, ChatStream | undefined>()
  let count = 0
  return {
    async fetch(input, init) {
      const headers = new Headers(init?.headers)
      const mark = headers.get(MARK)
      headers.delete(MARK)
      const answer = await send(input, { ...init, headers })
      if (mark === null || !streams.has(mark) || !answer.ok || !answer.body || !answer.headers.get('content-type')?.includes('text/event-stream')) return answer
      const stream = new ChatStream(answer.body)
      streams.set(mark, stream)
      return new Response(stream.rest, answer)
    },
    wrap: model => new Proxy(model, {
      get: (target, key) => {
        if (key !== 'doStream') return Reflect.get(target, key, target)
        return async (options: Parameters<LanguageModelV3['doStream']>[0]) => {
          const mark = String(++count)
          streams.set(mark, undefined)
          try {
            const result = await target.doStream({ ...options, headers: { ...options.headers, [MARK]: mark } })
            const stream = streams.get(mark)
            return stream ? { ...result, stream: stream.join(result.stream, options.includeRawChunks === true) } : result
          } finally { streams.delete(mark) }
        }
      },
    }),
  }
}
