import { spawn, type ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'
import { join } from 'node:path'

const LINES_KEPT = 200
const START_MS = 60_000
const STOP_MS = 45_000

/** What a process does, as config/scaled.yaml says it; one with `all` does both. */
export type Roles = 'api' | 'worker' | 'all'
const ROLES = { api: 'api,scheduler', worker: 'worker', all: 'all' } as const

export interface InstanceOptions {
  readonly host: string
  readonly roles: Roles
  readonly cwd: string
  readonly env: Readonly<Record<string, string>>
}

/** Every process that was begun and has not ended, to be ended with the command. */
export const living = new Set<ChildProcess>()

function deferred<T>() {
  let [resolve, reject]: [(value: T) => void, (error: Error) => void] = [() => {}, () => {}]
  const promise = new Promise<T>((...both) => { [resolve, reject] = both })
  return { promise, resolve, reject }
}

/** One `backplane start`, as a process of its own. */
export class Instance {
  readonly process: ChildProcess
  /** Resolves to its code, or the signal that ended it. */
  readonly ended: Promise<number | string>
  /** Resolves to its address once it has one; rejects if it ends before. */
  readonly listening: Promise<string>
  /** Resolves when it works; rejects if it ends before. */
  readonly started: Promise<void>
  /** The last ones that it wrote. */
  readonly lines: string[] = []
  state: 'starting' | 'running' | 'stopping' | 'ended' = 'starting'
  url = ''
  #asked = false

  constructor({ host, roles, cwd, env }: InstanceOptions) {
    const { PATH, HOME, TMPDIR } = process.env
    const given = Object.fromEntries(Object.entries({ PATH, HOME, TMPDIR, ...env }).filter(([, value]) => value !== undefined))
    this.process = spawn(process.execPath, [join(host, 'scripts/backplane.mjs'), 'start', '--no-watch', '--roles', ROLES[roles]],
      { cwd, env: given, stdio: ['ignore', 'pipe', 'pipe'] })
    living.add(this.process)
    const listening = deferred<string>()
    const started = deferred<void>()
    this.listening = listening.promise
    this.started = started.promise
    for (const each of [this.listening, this.started]) each.catch(() => {})
    for (const stream of [this.process.stdout!, this.process.stderr!]) createInterface({ input: stream }).on('line', line => {
      this.lines.push(line)
      if (this.lines.length > LINES_KEPT) this.lines.shift()
      if (this.state !== 'starting') return
      if (line.includes('"msg":"listening"')) listening.resolve(this.url = (JSON.parse(line) as { url: string }).url)
      if (line.includes('"msg":"started"')) { this.state = 'running'; started.resolve() }
    })
    this.ended = new Promise(resolve => {
      this.process.once('error', error => resolve(String(error)))
      this.process.once('close', (code, signal) => {
        const early = this.state === 'starting'
        this.state = 'ended'
        living.delete(this.process)
        if (early) for (const each of [listening, started]) each.reject(this.#failure(`ended with ${code ?? signal} before it had started`))
        resolve(code ?? signal!)
      })
    })
    const timer = setTimeout(() => started.reject(this.#failure(`had not started after ${START_MS} ms`)), START_MS)
    timer.unref()
    void Promise.allSettled([this.started, this.ended]).then(() => clearTimeout(timer))
  }

  get up(): boolean { return this.state === 'running' }

  /** Resolves to how it ended; what does not heed a SIGTERM is killed. */
  async kill(signal: 'SIGKILL' | 'SIGTERM'): Promise<number | string> {
    if (this.state === 'ended') return this.ended
    if (this.state === 'running') this.state = 'stopping'
    // What does so already would take a second one for haste.
    if (signal === 'SIGKILL' || !this.#asked) this.process.kill(signal)
    this.#asked = true
    const timer = setTimeout(() => { this.lines.push('SIGTERM was not heeded'); this.process.kill('SIGKILL') }, STOP_MS)
    try { return await this.ended } finally { clearTimeout(timer) }
  }

  #failure(what: string): Error { return new Error(`a process ${what}; it said:\n${this.lines.slice(-20).join('\n')}`) }
}

/** Starts a process again whenever it ends, as a supervisor does. */
export class Kept {
  current: Instance
  /** Ends that nobody here asked for. */
  deaths = 0
  /** Of starts that led to nothing. */
  readonly failures: string[] = []
  #left = false
  constructor(readonly begin: () => Instance) { this.current = this.#begin() }

  #begin(): Instance {
    const instance = this.begin()
    void instance.ended.then(how => {
      if (this.#left) return
      if (how !== 'SIGKILL' && how !== 0) this.failures.push(`ended with ${how}: ${instance.lines.slice(-8).join('\n')}`)
      this.deaths++
      this.current = this.#begin()
    })
    return instance
  }

  async leave(signal: 'SIGKILL' | 'SIGTERM' = 'SIGTERM'): Promise<number | string> {
    this.#left = true
    // Before it listens for signals it would end by the signal, and not in order.
    if (signal === 'SIGTERM') await this.current.started.catch(() => {})
    return this.current.kill(signal)
  }
}
