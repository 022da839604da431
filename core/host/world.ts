import { defineErrors, type BackplaneError } from '../errors.ts'

/** A failure that nobody caught. `plugin` is whose code it came from, if that is known. */
export interface Stray { readonly error: unknown; readonly where: 'unhandled rejection' | 'uncaught exception'; readonly plugin: string | undefined }

/** The process as the rest of the host sees it; only main.ts touches the real one. */
export interface World {
  readonly cwd: string
  readonly env: Readonly<Record<string, string | undefined>>
  readonly pid: number
  /** The Node that runs this. */
  readonly node: string
  /** Is standard output a terminal? */
  readonly tty: boolean
  /** Is there a process with this id? */
  alive(pid: number): boolean
  /** Aborts at the first SIGINT, SIGTERM or SIGHUP. */
  readonly signal: AbortSignal
  /** Standard input, from when it is first asked for; rejects when the signal aborts. */
  stdin(): AsyncIterable<Uint8Array>
  out(text: string): void
  err(text: string): void
  /** From now on strays go to this listener; without one they end the process, unless its work is over. */
  onStray(listener: ((stray: Stray) => void) | undefined): void
}

export const HostErrors = defineErrors('HOST', {
  DATA_DIR: { message: 'the data directory {folder} cannot be used: {reason}', fix: 'Make it writable for this user, or name another one with DATA_DIR or runtime.dataDir.' },
  SERVER_UNKNOWN: { message: 'no server is known here: there is no {file}', fix: 'Start one with `backplane start`, or name one with --url.' },
  SERVER_SILENT: { message: 'no server answers at {url}', fix: 'Start one with `backplane start`, or name another one with --url.' },
  SERVER_FOREIGN: { message: 'what answers at {url} is no Backplane server', fix: 'Start one with `backplane start`, or name another one with --url.' },
  SERVER_REFUSED: { message: 'the server refuses: {reason}', fix: '{advice}' },
  SERVER_BUSY: { message: 'the server can\'t answer now: {reason}', fix: '{advice}', retryable: true },
  URL: { message: '"{url}" is no URL of a server', fix: 'Write it like http://127.0.0.1:8000.' },
  NO_RUNTIME: { message: 'the command "{command}" asked for a service without saying `needs: \'runtime\'`', fix: 'Say it in its definition; with serverFirst there is no runtime while a server answers.' },
  NO_SNAPSHOT: { message: 'no server has recorded its configuration in {folder}', fix: 'Start one with `backplane start`; `backplane config check` needs none.' },
  DISABLED: { message: 'plugin "{plugin}" is turned off in {place}', fix: 'Give "{plugin}" settings there, or write `use: {plugin}`; a server that watches its config then loads it.', status: 409, expose: true },
  CONFIG_BROKEN: { message: 'the config has problems: {problems}', fix: 'Correct them; `backplane config check` shows all.', status: 409 },
  KIND: { message: 'there is no kind of plugin "{kind}"', fix: '{advice}' },
  PLUGIN_NAME: { message: '"{name}" cannot be the name of a plugin: {reason}', fix: 'Use lower-case letters, digits and single dashes, such as my-plugin; at most 60 characters.' },
  FOLDER_IN_USE: { message: '{folder} is there already{what}', fix: 'Take another name, or --out with another folder; nothing was written.' },
  TEST_FOLDER: { message: '{folder} {reason}', fix: 'Name the folder of a plugin that has tests: files that end in .test.ts or .test.js.' },
  NO_MOCHA: { message: 'mocha was found neither beside backplane nor in {folder}', fix: 'Install it there: `npm install --save-dev mocha`.' },
})

export const errorText = ({ code, message, fix }: Pick<BackplaneError, 'code' | 'message' | 'fix'>): string => `${code}: ${message}\n  fix: ${fix}`
