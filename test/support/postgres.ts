import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import pg from 'pg'
import { freePort, install, sharedServer } from './shared.ts'

const STARTED_MS = 30_000
const PASSWORD = 'not-a-secret-of-anybody'
const NEEDED = ['initdb', 'postgres', 'pg_dump', 'pg_restore']

/** There is no PostgreSQL on this machine, and none could be installed. */
export class NoPostgres extends Error {}

/**
 * Ends the server as soon as standard input ends, however its other end died. The word `keep` leaves its folder, `stop` removes it;
 * without a word the tests were killed, and what they had no time to remove is removed too.
 */
const WATCH = `folder=$1; shift; "$@" & pid=$!; read -r word; kill -INT "$(head -n 1 "$folder/data/postmaster.pid")"; wait $pid
case "$word,$(dirname "$folder")" in keep,*) ;; ,*/backplane-test-*) rm -rf "$(dirname "$folder")" ;; *) rm -rf "$folder" ;; esac`

const folders = (): string[] => {
  const debian = '/usr/lib/postgresql'
  const versions = existsSync(debian) ? readdirSync(debian).sort((a, b) => Number(b) - Number(a)).map(version => join(debian, version, 'bin')) : []
  return [...(process.env['PATH'] ?? '').split(delimiter), ...versions]
}
const findFolder = () => folders().find(folder => NEEDED.every(name => existsSync(join(folder, name))))

const asRoot = () => process.getuid?.() === 0

function binaries(): string {
  let folder = findFolder()
  if (!folder) {
    install('PostgreSQL', 'postgresql', NoPostgres)
    folder = findFolder()
  }
  if (!folder) throw new NoPostgres('no PostgreSQL is installed (looked for initdb and postgres on PATH and in /usr/lib/postgresql)')
  return folder
}

/** PostgreSQL refuses to run as root. Nothing stays between as `runuser` does, which stands still by itself when its child is made to. */
const asUser = (command: readonly string[]): readonly string[] =>
  (asRoot() ? ['setpriv', '--reuid=postgres', '--regid=postgres', '--init-groups', '--', ...command] : command)

/** A database of its own for one test. */
export interface TestDatabase extends AsyncDisposable {
  readonly url: string
  readonly name: string
  drop(): Promise<void>
}
export interface PostgresOptions {
  /** Waits for the disk, as a server that is not for tests does. */
  readonly fsync?: boolean
}

/** A real server in a folder of its own, on a free port of 127.0.0.1. It ends with this process, however that ends. */
export class PostgresServer {
  #process: ChildProcess | undefined
  #next = 1
  private constructor(readonly folder: string, readonly bin: string, readonly port: number, readonly options: PostgresOptions) {}

  static async start(options: PostgresOptions = {}): Promise<PostgresServer> {
    const bin = binaries()
    const folder = mkdtempSync(join(tmpdir(), 'backplane-postgres-'))
    try {
      if (asRoot()) spawnSync('chown', ['postgres', folder])
      chmodSync(folder, 0o700)
      const passwords = join(folder, 'password')
      writeFileSync(passwords, PASSWORD, { mode: 0o644 })
      const [command, ...args] = asUser([join(bin, 'initdb'), '-D', join(folder, 'data'), '-U', 'backplane', '-A', 'scram-sha-256', `--pwfile=${passwords}`,
        '-E', 'UTF8', '--locale=C.UTF-8', '--no-sync'])
      const made = spawnSync(command!, args, { encoding: 'utf8', cwd: '/' })
      if (made.status !== 0) throw new NoPostgres(`initdb failed: ${(made.error?.message ?? made.stderr).trim().split('\n').at(-1)}`)
      const server = new PostgresServer(folder, bin, await freePort(), options)
      await server.restart()
      return server
    } catch (error) {
      rmSync(folder, { recursive: true, force: true })
      throw error
    }
  }

  urlOf(database: string): string { return `postgres://backplane:${PASSWORD}@127.0.0.1:${this.port}/${database}` }
  get url(): string { return this.urlOf('postgres') }
  get password(): string { return PASSWORD }

  /** After crash(), and nothing if it runs; resolves when it answers. */
  async restart(): Promise<void> {
    if (this.#process?.exitCode === null) return
    const on = this.options.fsync ? 'on' : 'off'
    const settings = [`port=${this.port}`, 'listen_addresses=127.0.0.1', `unix_socket_directories=${this.folder}`, 'max_connections=200', 'shared_buffers=32MB',
      // A crash of the server alone loses nothing without fsync; a commit must be written all the same.
      `fsync=${on}`, `full_page_writes=${on}`, 'synchronous_commit=on', 'restart_after_crash=off']
    const server = [join(this.bin, 'postgres'), '-D', join(this.folder, 'data'), ...settings.flatMap(each => ['-c', each])]
    // A session of its own: Ctrl-C is for the tests, which then end it.
    const child = spawn('sh', ['-c', WATCH, 'sh', this.folder, ...asUser(server)], { cwd: '/', detached: true, stdio: ['pipe', 'ignore', 'pipe'] })
    let said = ''
    child.stderr.on('data', chunk => { said = (said + chunk).slice(-2_000) })
    child.stdin.on('error', () => {})
    this.#process = child
    for (const until = performance.now() + STARTED_MS; ;) {
      const client = new pg.Client({ connectionString: this.url })
      client.on('error', () => {})
      try {
        await client.connect()
        await client.end()
        break
      } catch (error) {
        await client.end().catch(() => {})
        if (child.exitCode !== null || performance.now() > until) throw new NoPostgres(`PostgreSQL did not start: ${said.trim() || String(error)}`, { cause: error })
      }
      await new Promise(resolve => setTimeout(resolve, 50))
    }
    // It must not keep the tests alive: closing its standard input is what ends it.
    child.unref()
    for (const stream of [child.stdin, child.stderr]) (stream as unknown as { unref(): void }).unref()
  }

  /** An empty database; drop it at the end. */
  async newDatabase(): Promise<TestDatabase> {
    const name = `test_${process.pid}_${this.#next++}`
    await this.query(`CREATE DATABASE ${name}`)
    const drop = async () => { await this.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`) }
    return { name, url: this.urlOf(name), drop, [Symbol.asyncDispose]: drop }
  }

  /** As the owner of the server, on a connection of its own. */
  async query(sql: string, database = 'postgres'): Promise<any[]> {
    const client = new pg.Client({ connectionString: this.urlOf(database) })
    client.on('error', () => {})
    await client.connect()
    try { return (await client.query(sql)).rows } finally { await client.end() }
  }

  /** As a machine that is gone without a word, until it is told to go on: connections stand and are taken, and nothing is answered. */
  freeze(): () => void {
    const signal = (pids: readonly number[], name: NodeJS.Signals) => {
      // One of them may have ended meanwhile.
      for (const each of pids) try { process.kill(each, name) } catch (error) { if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error }
    }
    // First the one that makes new ones.
    signal([this.#pid], 'SIGSTOP')
    const backends = this.#backends
    signal(backends, 'SIGSTOP')
    return () => signal([...backends, this.#pid], 'SIGCONT')
  }

  get #pid(): number { return Number(readFileSync(join(this.folder, 'data/postmaster.pid'), 'utf8').split('\n')[0]) }
  get #backends(): number[] { return readFileSync(`/proc/${this.#pid}/task/${this.#pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number) }

  /** Kills it, as a power cut would; `restart()` brings it back with the same data. */
  async crash(): Promise<void> {
    process.kill(this.#pid, 'SIGKILL')
    await this.#end('keep\n')
  }

  async stop(): Promise<void> {
    await this.#end('stop\n')
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
    child.stderr!.destroy()
  }
}

const shared = sharedServer(() => PostgresServer.start(), NoPostgres)
/** The server of this run of tests; rejects with NoPostgres where there is none. */
export const postgres = shared.get
export const postgresOrSkip = shared.orSkip
export const stopPostgres = shared.stop
