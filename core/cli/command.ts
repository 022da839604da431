import type { ServiceRef } from '../refs.ts'

export type CommandNeeds = 'nothing' | 'config' | 'runtime' | 'server'

/** What a command gets to work with. Output goes to `out`, talk about the work to `err`. */
export interface CommandIo {
  readonly args: readonly string[]
  readonly options: Readonly<Record<string, any>>
  readonly json: boolean
  /** Is standard output a terminal? */
  readonly tty: boolean
  readonly signal: AbortSignal
  /** Standard input; rejects when the signal aborts. */
  stdin(): AsyncIterable<Uint8Array>
  /** One line, or several; the last line's end is added. */
  out(text: string): void
  /** As `out`, with nothing added: for an answer that comes in pieces. */
  write(text: string): void
  /** One line on standard error. */
  err(text: string): void
  /** A service of the runtime; for `needs: 'runtime'`. */
  get<T>(ref: ServiceRef<T>): T
  /** The running server, if one answers. Always there for `needs: 'server'`. */
  readonly server: Server | undefined
}

/** One event of a text/event-stream; `id` is the last that was sent, and empty if none was. */
export interface ServerEvent { readonly id: string; readonly event: string; readonly data: string }

export interface Server {
  readonly url: string
  fetch(path: string, init?: RequestInit): Promise<Response>
  /**
   * The events of a path, from whatever connection: one that breaks is made again with `Last-Event-ID`, until the server answers 204. Or those of an
   * answer, until it ends. Ends with the signal; rejects with what the server says if it refuses.
   */
  events(from: string | Response, options: { readonly signal: AbortSignal; readonly lastEventId?: string }): AsyncIterable<ServerEvent>
}

/** One command of the CLI. `name` may have two words: `jobs list`. */
export interface Command {
  readonly name: string
  readonly summary: string
  /**
   * `nothing`; `config`: it is read and checked; `server`: talks to a running one; `runtime`: what the plugin needs is set up
   * (never started: no port, no worker). With `serverFirst`, the runtime is set up only if no server answers.
   */
  readonly needs: CommandNeeds
  readonly serverFirst?: boolean
  /** With `needs: 'runtime'`: every plugin of the config is set up, not only what this one needs. */
  readonly everyPlugin?: boolean
  /** As commander writes them: `<agent>`, `[input...]`. */
  readonly arguments?: readonly { readonly name: string; readonly summary: string }[]
  readonly options?: readonly { readonly flags: string; readonly summary: string; readonly default?: string | boolean }[]
  readonly examples?: readonly string[]
  /** Resolves to the exit code; nothing is 0. */
  run(io: CommandIo): Promise<number | void>
}
