/** The names between braces in a text: each becomes a required, typed parameter. */
type Holes<S extends string> = S extends `${string}{${infer Name}}${infer Rest}` ? Exclude<Name, ''> | Holes<Rest> : never

/** One row of an error table. `fix` is what the reader should do, never what went wrong again. */
export interface ErrorShape {
  readonly message: string
  readonly fix: string
  /** HTTP status of the problem answer; without one it is the cause's, else 500. */
  readonly status?: number
  /** May the same call succeed later? `jobs` retries only these. */
  readonly retryable?: boolean
  /** Is what it needs only away for a while? `jobs` then hands a run back, which costs it no attempt, or puts it off for `retry_after` seconds of its details. */
  readonly away?: boolean
  /** May message and details be shown to a caller from outside? */
  readonly expose?: boolean
}

type Hole<E extends ErrorShape> = Holes<E['message'] | E['fix']>
type Args<E extends ErrorShape> = [Hole<E>] extends [never]
  ? [details?: Record<string, unknown>, options?: ErrorOptions]
  : [details: { readonly [K in Hole<E>]: unknown } & Record<string, unknown>, options?: ErrorOptions]

export interface ErrorMaker<Code extends string, E extends ErrorShape> {
  (...args: Args<E>): BackplaneError
  readonly code: Code
  readonly shape: E
  /** Is this that error? Matches by code, so a second copy of the class does not matter. */
  is(error: unknown): error is BackplaneError
}
export type ErrorTable<P extends string, T extends Record<string, ErrorShape>> = { readonly [K in keyof T & string]: ErrorMaker<`${P}_${K}`, T[K]> }

/** Every failure that Backplane itself reports. Match by `code`; `fix` says what to do. */
export class BackplaneError extends Error {
  override readonly name = 'BackplaneError'
  readonly code: string
  readonly fix: string
  readonly status: number
  readonly retryable: boolean
  readonly away: boolean
  readonly expose: boolean
  readonly details: Readonly<Record<string, unknown>>

  constructor(code: string, shape: ErrorShape, details: Record<string, unknown> = {}, options?: ErrorOptions) {
    const fill = (text: string) => text.replace(/\{(\w+)\}/g, (hole, key: string) => (key in details ? String(details[key]) : hole))
    super(fill(shape.message), options)
    const cause = options?.cause instanceof BackplaneError ? options.cause : undefined
    this.code = code
    this.fix = fill(shape.fix)
    this.status = shape.status ?? cause?.status ?? 500
    this.retryable = shape.retryable ?? cause?.retryable ?? false
    this.away = shape.away ?? false
    this.expose = shape.expose ?? cause?.expose ?? false
    this.details = details
  }
}

/** Makes the table of one owner: `defineErrors('SECRETS', { NOT_FOUND: {…} }).NOT_FOUND({ name })` has the code `SECRETS_NOT_FOUND`. */
export function defineErrors<const P extends string, const T extends Record<string, ErrorShape>>(owner: P, table: T): ErrorTable<P, T> {
  const makers = Object.entries(table).map(([key, shape]) => {
    const code = `${owner}_${key}`
    const make = (details?: Record<string, unknown>, options?: ErrorOptions) => new BackplaneError(code, shape, details, options)
    const is = (error: unknown) => error instanceof Error && (error as Partial<BackplaneError>).code === code
    return [key, Object.assign(make, { code, shape, is })]
  })
  return Object.freeze(Object.fromEntries(makers)) as never
}

/** Boot tells every problem at once: nobody should fix a config one error per start. */
export class BootError extends AggregateError {
  override readonly name = 'BootError'
  readonly code = 'RUNTIME_BOOT_FAILED'
  declare readonly errors: BackplaneError[]
  constructor(errors: readonly BackplaneError[]) {
    const count = errors.length === 1 ? '1 problem' : `${errors.length} problems`
    super(errors, `cannot start, ${count}:\n${errors.map(e => `  - ${e.code}: ${e.message}\n    fix: ${e.fix}`).join('\n')}`)
  }
}

export const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** The error that an outside caller should hear of: what a hook's handler threw, not the wrapping that names the handler. */
export const rootOf = (error: unknown): unknown => (HookErrors.FAILED.is(error) && error.cause !== undefined ? rootOf(error.cause) : error)

export const PluginErrors = defineErrors('PLUGIN', {
  INVALID: { message: 'plugin "{plugin}" is not valid: {reason}', fix: 'Export default definePlugin(…) from its entry file.' },
  LOAD_FAILED: { message: 'plugin "{plugin}" could not be loaded: {reason}', fix: 'Correct the module, or mark the plugin `optional: true`.' },
  CONFIG_INVALID: { message: 'plugins.{plugin}.config.{path}: {reason}', fix: 'Correct this setting; `backplane plugins info {plugin}` lists what it takes.' },
  DUPLICATE: { message: 'two plugins are named "{plugin}"', fix: 'Give one of them another instance name, with `use:` naming the plugin.' },
  UNKNOWN: { message: 'no plugin is named "{plugin}"', fix: '{advice}', status: 404, expose: true },
  UNAVAILABLE: {
    message: 'plugin "{plugin}", which guards "{hook}", is {state}', status: 503, retryable: true, expose: true,
    fix: 'Try again; if it stays away, see `backplane plugins list`. Only disabling it in config removes a guard.',
  },
})
export const ServiceErrors = defineErrors('SERVICE', {
  MISSING: { message: 'plugin "{plugin}" needs service "{service}", which nothing provides', fix: 'Add a plugin that offers it ({candidates}), or have "{plugin}" use it with live().' },
  VERSION: { message: 'plugin "{plugin}" needs service "{service}" version {wanted}, but "{provider}" provides version {found}', fix: 'Install a release of "{plugin}" or of "{provider}" made for the same version.' },
  DUPLICATE: { message: 'service "{service}" is provided by both "{first}" and "{second}"', fix: 'Keep one: set `plugins.{second}: false` (or "{first}") in config.' },
  CYCLE: { message: 'plugins wait for each other: {path}', fix: 'Break the circle with live() on one edge, or move the shared part into a plugin of its own.' },
  NOT_PROVIDED: { message: 'plugin "{plugin}" declares service "{service}", but its setup() did not provide it', fix: 'Call ctx.provide() in setup(), or take the ref out of `provides`.' },
  UNDECLARED: { message: 'plugin "{plugin}" touched "{ref}" without declaring it', fix: 'Add the ref to `{list}` in definePlugin().' },
  UNAVAILABLE: { message: 'service "{service}" is not there now', fix: 'Its provider is stopped or being swapped; hold it with live() to outlive it.', status: 503, retryable: true, expose: true },
})
export const PointErrors = defineErrors('POINT', {
  DUPLICATE: { message: 'point "{point}" already has "{key}" from plugin "{first}"; "{second}" contributed it again', fix: 'Give it another key, or disable one of the two plugins.' },
})
export const HookErrors = defineErrors('HOOK', {
  FAILED: { message: 'hook "{hook}" failed in plugin "{plugin}": {reason}', fix: 'See the cause.' },
  TIMEOUT: { message: 'hook "{hook}": the handler of plugin "{plugin}" did not settle within {ms} ms', fix: 'Pass call.signal to what it awaits, or raise `timeout` where the hook is defined.', status: 503, retryable: true },
})
export const LifecycleErrors = defineErrors('LIFECYCLE', {
  FAILED: { message: '{phase} of plugin "{plugin}" failed: {reason}', fix: '{advice}' },
  TIMEOUT: { message: '{phase} of plugin "{plugin}" did not settle within {ms} ms', fix: 'Move slow work to the background, or raise `{setting}`.' },
  LEFT_OUT: { message: 'plugin "{plugin}" is left out because it needs "{provider}", which is left out', fix: 'Mend "{provider}".' },
})
export const RuntimeErrors = defineErrors('RUNTIME', {
  STATE: { message: 'the runtime cannot {action} while it is {state}', fix: 'A runtime starts once; wait until it runs, or create a new one.', status: 503 },
  DISPOSED: { message: 'plugin "{plugin}" used its context after it was released ({what})', fix: 'End the work in stop(), or watch ctx.signal.' },
  ROLLBACK_FAILED: { message: 'plugin "{plugin}" could not be put back after a failed swap: {reason}', fix: 'Correct it and run `backplane plugins reload {plugin}`; the rest goes on.' },
  LEAK: { message: 'after stop, {count} thing(s) are still held:\n{list}', fix: 'Take them with ctx.own() or ctx.defer(), so that they leave with the plugin.' },
})
export const SecretErrors = defineErrors('SECRET', {
  NOT_FOUND: { message: 'secret "{name}" was found in no store', fix: 'Set it in a store that is loaded, or add a plugin with a secret store.', status: 503, retryable: true },
  UNDECLARED: { message: 'plugin "{plugin}" may not read the secret "{name}"', fix: 'Add it to `secrets` in definePlugin(), or let the operator hand it over by a reference in its settings.' },
  CYCLE: { message: 'plugin "{plugin}" needs a secret, and every secret store needs "{plugin}": {stores}', fix: 'Add a store that does not stand on it, such as env-secrets, or write an environment reference instead.' },
})

/** All of the core's own tables, for the generated reference and for matching. */
export const CoreErrors = { Plugin: PluginErrors, Service: ServiceErrors, Point: PointErrors, Hook: HookErrors, Lifecycle: LifecycleErrors, Runtime: RuntimeErrors, Secret: SecretErrors }
