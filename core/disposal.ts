import { RuntimeErrors } from './errors.ts'

export type Disposer = () => unknown
export interface ReleaseFailure { readonly label: string; readonly error: unknown }

/** What a plugin holds. Released last in, first out; one bad disposer never keeps the others. */
export class Holdings {
  #entries = new Set<{ label: string; dispose: Disposer }>()
  #closed = false
  constructor(readonly owner: string) {}

  /** Returns a function that releases this one thing early. What comes after the end, from work that outlived its time, is undone at once. */
  defer(dispose: Disposer, label: string): Disposer {
    if (this.#closed) {
      try { Promise.resolve(dispose()).catch(() => {}) } catch { /* It is told that it is late. */ }
      throw RuntimeErrors.DISPOSED({ plugin: this.owner, what: label })
    }
    const entry = { label, dispose }
    this.#entries.add(entry)
    return () => (this.#entries.delete(entry) ? dispose() : undefined)
  }

  get held(): string[] { return [...this.#entries].map(entry => entry.label) }

  async close(within: <T>(work: () => T | Promise<T>) => T | Promise<T> = work => work()): Promise<ReleaseFailure[]> {
    this.#closed = true
    const failures: ReleaseFailure[] = []
    for (const entry of [...this.#entries].reverse()) {
      this.#entries.delete(entry)
      try { await within(entry.dispose) } catch (error) { failures.push({ label: entry.label, error }) }
    }
    return failures
  }
}

/** The one place that knows how foreign objects like to be released. */
export function disposerOf(resource: unknown): Disposer | undefined {
  const it = resource as { [Symbol.asyncDispose]?(): unknown; [Symbol.dispose]?(): unknown } | null | undefined
  if (typeof it?.[Symbol.asyncDispose] === 'function') return () => it[Symbol.asyncDispose]!()
  if (typeof it?.[Symbol.dispose] === 'function') return () => it[Symbol.dispose]!()
  return undefined
}
