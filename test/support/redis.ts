import { spawn, type ChildProcess } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { Redis } from 'ioredis'
import { freePort, install, sharedServer } from './shared.ts'

const STARTED_MS = 20_000
const PASSWORD = 'not-a-secret-of-anybody'
const DATABASES = 64

/** There is no Redis on this machine, and none could be installed. */
export class NoRedis extends Error {}

/** Ends the server as soon as standard input ends, however its other end died. The word `keep` leaves its folder; `cut` leaves the folder and kills it. */
const WATCH = `folder=$1; shift; "$@" & pid=$!; read -r word
case "$word" in cut) kill -KILL $pid ;; *) kill -TERM $pid ;; esac; wait $pid
case "$word,$(dirname "$folder")" in keep,*|cut,*) ;; ,*/backplane-test-*) rm -rf "$(dirname "$folder")" ;; *) rm -rf "$folder" ;; esac`

const find = () => (process.env['PATH'] ?? '').split(delimiter).map(folder => join(folder, 'redis-server')).find(file => existsSync(file))

function binary(): string {
  let file = find()
  if (!file) {
    install('Redis', 'redis-server', NoRedis)
    file = find()
  }
  if (!file) throw new NoRedis('no Redis is installed (looked for redis-server on PATH)')
  return file
}

/** A logical database of its own for one test. */
export interface TestRedis extends AsyncDisposable {
  readonly url: string
  readonly number: number
}
export interface RedisOptions {
  /** Default: it keeps everything, as a server that is not for tests does. */
  readonly settings?: readonly string[]
  /** Watches over others, instead of keeping anything. */
  readonly sentinel?: boolean
  /** Instead of one that is free. */
  readonly port?: number
}

/** A real server in a folder of its own, on a free port of 127.0.0.1. It ends with this process, however that ends. */
export class RedisServer {
  #process: ChildProcess | undefined
  #free = Array.from({ length: DATABASES - 1 }, (_, at) => at + 1)
  private constructor(readonly folder: string, readonly file: string, readonly port: number, readonly options: RedisOptions) {}

  static async start(options: RedisOptions = {}): Promise<RedisServer> {
    const file = binary()
    const folder = mkdtempSync(join(tmpdir(), 'backplane-redis-'))
    try {
      const server = new RedisServer(folder, file, options.port ?? await freePort(), options)
      await server.restart()
      return server
    } catch (error) {
      rmSync(folder, { recursive: true, force: true })
      throw error
    }
  }

  urlOf(database: number): string { return `redis://:${PASSWORD}@127.0.0.1:${this.port}/${database}` }
  get url(): string { return this.urlOf(0) }
  get password(): string { return PASSWORD }

  /** After crash(); resolves when it answers. */
  async restart(): Promise<void> {
    const { sentinel, settings = ['--appendonly', 'yes', '--appendfsync', 'everysec', '--save', '', '--databases', String(DATABASES)] } = this.options
    const common = ['--port', String(this.port), '--bind', '127.0.0.1', '--dir', this.folder, '--requirepass', PASSWORD, '--daemonize', 'no']
    // Sentinel writes what it learns into its settings, so it wants a file.
    const file = join(this.folder, 'sentinel.conf')
    if (sentinel && !existsSync(file)) writeFileSync(file, '')
    const command = sentinel ? [this.file, file, ...common, '--sentinel'] : [this.file, ...common, '--masterauth', PASSWORD, '--repl-diskless-sync-delay', '0', ...settings]
    // A session of its own: Ctrl-C is for the tests, which then end it.
    const child = spawn('sh', ['-c', WATCH, 'sh', this.folder, ...command], { cwd: '/', detached: true, stdio: ['pipe', 'pipe', 'ignore'] })
    let said = ''
    child.stdout.on('data', chunk => { said = (said + chunk).slice(-2_000) })
    child.stdin.on('error', () => {})
    this.#process = child
    for (const until = performance.now() + STARTED_MS; ;) {
      try {
        await this.call('PING')
        break
      } catch (error) {
        if (child.exitCode !== null || performance.now() > until) throw new NoRedis(`Redis did not start: ${said.trim() || String(error)}`, { cause: error })
      }
      await new Promise(resolve => setTimeout(resolve, 20))
    }
    // It must not keep the tests alive: closing its standard input is what ends it.
    child.unref()
    for (const stream of [child.stdin, child.stdout]) (stream as unknown as { unref(): void }).unref()
  }

  /** An empty logical database; dispose of it at the end. */
  async newDatabase(): Promise<TestRedis> {
    const number = this.#free.shift()
    if (number === undefined) throw new Error(`all ${DATABASES} databases of the test server are in use`)
    await this.flush(number)
    return {
      number, url: this.urlOf(number),
      [Symbol.asyncDispose]: async () => { await this.flush(number); this.#free.push(number) },
    }
  }

  async flush(database: number): Promise<void> { await this.call('FLUSHDB', [], database) }
  async flushAll(): Promise<void> { await this.call('FLUSHALL') }

  /** On a connection of its own. */
  async call(command: string, args: readonly (string | number)[] = [], database = 0): Promise<any> {
    const client = new Redis(this.urlOf(database), { lazyConnect: true, retryStrategy: () => null, maxRetriesPerRequest: 0, disconnectTimeout: 50 })
    client.on('error', () => {})
    try {
      await client.connect()
      return await client.call(command, ...args)
    } finally { client.disconnect() }
  }

  /** As a machine that is gone without a word, until it is told to go on: connections stand and are taken, and nothing is answered. */
  async freeze(): Promise<() => void> {
    const pid = Number(/process_id:(\d+)/.exec(await this.call('INFO', ['server']))![1])
    process.kill(pid, 'SIGSTOP')
    return () => { process.kill(pid, 'SIGCONT') }
  }

  /** Kills it, as a power cut would; `restart()` brings it back with what was on its disk. */
  async crash(): Promise<void> { await this.#end('cut\n') }

  async stop(): Promise<void> {
    await this.#end('keep\n')
    rmSync(this.folder, { recursive: true, force: true })
  }

  async #end(word: string): Promise<void> {
    const child = this.#process
    this.#process = undefined
    if (!child || child.exitCode !== null) return
    child.ref()
    const ended = new Promise(resolve => child.once('exit', resolve))
    child.stdin!.end(word)
    await ended
    child.stdout!.destroy()
  }
}

const shared = sharedServer(() => RedisServer.start(), NoRedis)
/** The server of this run of tests; rejects with NoRedis where there is none. Do not crash it: start one for that. */
export const redis = shared.get
export const redisOrSkip = shared.orSkip
export const stopRedis = shared.stop
