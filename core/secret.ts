import { defineHook } from './refs.ts'

/** Who reads which secret. The stores answer; once `secrets` is up, it answers for all of them. */
export const SecretResolve = defineHook.first<{ readonly name: string; readonly plugin: string }, string>('core.secret-resolve', { early: true })
/** A secret got a new value. Carries the name only. */
export const SecretRotated = defineHook.notify<{ readonly name: string }>('core.secret-rotated')

/** How Node asks what to print; `inspect.custom` by its name, since node:util is one more module to load. */
const INSPECT = Symbol.for('nodejs.util.inspect.custom')

export type SecretPart = string | { readonly secret: string }
/** What a bound handle asks. */
export interface SecretSource { read(name: string): Promise<string>; watch(names: readonly string[], changed: () => void): () => void }

/** Every value that was read, the longest first: one may be the beginning of another. */
let known: readonly string[] = []

function remember(value: string): void {
  // Short values would mask half of every line.
  const added = [value, encodeURIComponent(value)].filter(each => each.length >= 8 && !known.includes(each))
  if (added.length) known = [...new Set([...known, ...added])].sort((a, b) => b.length - a.length)
}

/** Replaces every secret value that was read in this process; for logs, errors and answers. */
export function maskSecrets(text: string): string {
  let masked = text
  for (const value of known) if (masked.includes(value)) masked = masked.replaceAll(value, '[secret]')
  return masked
}

/** Is this name among what a definition's `secrets` lists? `*` stands for any part of a name. */
export const mayRead = (globs: readonly string[] | undefined, name: string): boolean =>
  (globs ?? []).some(glob => new RegExp(`^${glob.split('*').map(part => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('.*')}$`).test(name))

/**
 * What a reference such as `${secret:smtp-password}` in config becomes. It prints as `[secret smtp-password]`
 * wherever it goes; only `read()` gives the value, afresh each time, so hold the handle and not the string.
 */
export class Secret {
  readonly name: string
  readonly #parts: readonly SecretPart[]
  readonly #source: SecretSource | undefined

  constructor(parts: readonly SecretPart[], source?: SecretSource, name?: string) {
    this.#parts = parts
    this.#source = source
    this.name = name ?? this.references.join(',')
  }

  /** A value that is known already, such as one of an environment variable; `name` is what it prints as. */
  static of(name: string, value: string): Secret { return new Secret([value], undefined, name) }

  /** The names that this handle asks the stores for; none if it was made of a known value. */
  get references(): string[] { return this.#parts.flatMap(part => (typeof part === 'string' ? [] : [part.secret])) }

  bind(source: SecretSource): Secret { return new Secret(this.#parts, source, this.name) }

  /** Rejects with `SECRET_NOT_FOUND`. */
  async read(): Promise<string> {
    const values = await Promise.all(this.#parts.map(part => (typeof part === 'string' ? part : this.#ask().read(part.secret))))
    const value = values.join('')
    // What stands around a reference is no secret: masked by itself, it would cut the value in pieces.
    for (const [at, part] of this.#parts.entries()) if (typeof part !== 'string') remember(values[at]!)
    remember(value)
    return value
  }

  /** Calls back after each rotation; returns a function that ends it. */
  watch(changed: (secret: Secret) => void): () => void {
    return this.references.length ? this.#ask().watch(this.references, () => changed(this)) : () => {}
  }

  #ask(): SecretSource {
    if (!this.#source) throw new TypeError(`${this} is not bound to a runtime: read it in setup() or later, through ctx.config`)
    return this.#source
  }

  toString(): string { return `[secret ${this.name}]` }
  toJSON(): string { return this.toString() }
  [INSPECT](): string { return this.toString() }
}

/** The same config with every handle bound; what holds no handle is not copied. */
export function bindSecrets(value: unknown, source: SecretSource): unknown {
  if (value instanceof Secret) return value.bind(source)
  if (Array.isArray(value)) return value.map(each => bindSecrets(each, source))
  if (typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype) {
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, bindSecrets(each, source)]))
  }
  return value
}

/** Does any handle in here ask the stores? */
export function asksStores(value: unknown): boolean {
  if (value instanceof Secret) return value.references.length > 0
  return typeof value === 'object' && value !== null && Object.values(value).some(asksStores)
}
