import type { LanguageModelV3StreamPart } from '#contracts/models'

type Part = LanguageModelV3StreamPart

/** Where parts come from, by what came together; `undefined` after the last. */
export interface PartSource {
  next(): Promise<readonly Part[] | undefined>
  cancel(reason?: unknown): Promise<void>
}

const sources = new WeakMap<ReadableStream<Part>, PartSource>()

/** A stream of what the source gives, until the signal. What came together is handed over at once: under AsyncLocalStorage each promise costs. */
export function streamOf(source: PartSource, signal?: AbortSignal): ReadableStream<Part> {
  const stream = new ReadableStream<Part>({
    // Else what was handed over before would still be read.
    start(controller) { signal?.addEventListener('abort', () => controller.error(signal.reason), { once: true }) },
    async pull(controller) {
      const parts = await source.next()
      if (!parts) return controller.close()
      for (const part of parts) controller.enqueue(part)
    },
    cancel: reason => source.cancel(reason),
  }, { highWaterMark: 0 })
  sources.set(stream, source)
  return stream
}

/** What is behind a stream that nobody has begun to read. */
export function sourceOf(stream: ReadableStream<Part>): PartSource {
  const own = sources.get(stream)
  if (own) return own
  const reader = stream.getReader()
  return {
    async next() {
      const { done, value } = await reader.read()
      return done ? undefined : [value]
    },
    cancel: reason => reader.cancel(reason),
  }
}
