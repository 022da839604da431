import type { BackplaneError, Clock } from '#core'

export interface Update { readonly cursor: string }
type Result = IteratorResult<Update, unknown>

export interface FrameOptions {
  readonly clock: Clock
  readonly heartbeatMs: number
  readonly retryMs: number
  /** Where the client stands before the first update; empty if that is the beginning. */
  readonly cursor: string
  /** Calls back when whoever reads may do so no more. */
  onRefusal(refused: (why: BackplaneError) => void): void
  /** Runs when the last frame was taken, or nobody wants the next. */
  done(): void
}

/** What is sent of updates; `first` is the answer to a next() that was asked already. */
export function frames(first: Promise<Result>, updates: AsyncIterator<Update>, options: FrameOptions): AsyncIterable<string> {
  // First `done`, which wakes whoever waits for an update: until then it does not return.
  const done = () => { options.done(); updates.return?.().catch(() => {}) }
  const all = generate(first, updates, { ...options, done })
  // A generator that was never begun, as for HEAD, runs no `finally`.
  const end = () => { done(); return all.return() }
  return { [Symbol.asyncIterator]: () => ({ next: () => all.next(), return: end }) }
}

async function* generate(first: Promise<Result>, updates: AsyncIterator<Update>, options: FrameOptions): AsyncGenerator<string, void> {
  const { clock, heartbeatMs, retryMs, cursor, onRefusal, done } = options
  let arrived: Result | undefined
  let failed: { readonly error: unknown } | undefined
  let refusal: BackplaneError | undefined
  let wake = () => {}
  const pull = (next: Promise<Result>) => void next.then(result => { arrived = result }, error => { failed = { error } }).finally(() => wake())
  try {
    pull(first)
    onRefusal(why => { refusal = why; wake() })
    yield `retry: ${retryMs}\n${cursor && `id: ${cursor}\n`}\n`
    for (;;) {
      if (!arrived && !failed && !refusal) await new Promise<void>(resolve => {
        const cancel = clock.after(heartbeatMs, resolve)
        wake = () => { cancel(); resolve() }
      })
      if (refusal) {
        const { code, message, fix } = refusal
        yield `event: refused\ndata: ${JSON.stringify({ type: 'refused', error: { code, message, fix, retryable: false } })}\n\n`
        return
      }
      if (failed) throw failed.error
      if (!arrived) { yield ':\n\n'; continue }
      const { done: over, value } = arrived as Result
      if (over) return
      arrived = undefined
      yield `id: ${(value as Update).cursor}\ndata: ${JSON.stringify(value)}\n\n`
      pull(updates.next())
    }
  } finally { done() }
}
