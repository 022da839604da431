import { spawn, type ChildProcess } from 'node:child_process'
import type { Readable, Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'

export interface Task {
  readonly code: string
  readonly timeout_ms: number
  readonly memory_mb: number
  /** Bytes of what it prints, and characters of its result. */
  readonly max_output: number
}

const failure = z.strictObject({
  kind: z.enum(['thrown', 'timeout', 'memory', 'stack', 'pending']),
  message: z.string(),
  /** Of the code, where it is known. */
  line: z.int().optional(),
})
const outcome = z.strictObject({
  /** What it printed. */
  output: z.string(),
  /** It printed more than that. */
  cut: z.boolean(),
  /** The value of its last expression, as JSON where it is a text or an object; missing if there is an error. */
  result: z.string().optional(),
  error: failure.optional(),
})
const reply = z.union([z.strictObject({ ready: z.literal(true) }), z.strictObject({ outcome })])
export type Failure = z.output<typeof failure>
export type Outcome = z.output<typeof outcome>
export type Reply = z.output<typeof reply>

/** How a process ended, when it was not to end. */
export class Death extends Error {
  constructor(readonly how: string, readonly said: string) { super(`the sandbox's process ended: ${how}`) }
}

const MAX_REPLY = 2 ** 20
const MAX_SAID = 2_000
/** The engine's memory is not on the heap of V8, which has little to do. */
const FLAGS = ['--max-old-space-size=64', '--disallow-code-generation-from-strings']
const here = import.meta.url

function start(): ChildProcess & { stdin: Writable; stdout: Readable; stderr: Readable } {
  const file = new URL(here.endsWith('.ts') ? './sandbox-child.ts' : './sandbox-child.js', here)
  const loader = here.endsWith('.ts') ? ['--import', import.meta.resolve('tsx/esm')] : []
  return spawn(process.execPath, [...FLAGS, ...loader, fileURLToPath(file)], { cwd: '/', env: {}, stdio: ['pipe', 'pipe', 'pipe'], windowsHide: true })
}

/** A process that runs sandbox-child.ts, with an empty environment and nothing of ours but three pipes. One task at a time. */
export class SandboxProcess {
  readonly #child = start()
  /** Resolves when it is gone. */
  readonly ended: Promise<void>
  dead: Death | undefined
  #text = ''
  #said = ''
  #listener: { heard(reply: Reply): void; died(death: Death): void } | undefined

  constructor() {
    const { stdin, stdout, stderr } = this.#child
    this.ended = new Promise(resolve => {
      const end = (how: string) => { this.#die(how); resolve() }
      this.#child.once('error', error => end(error.message))
      // One that ends by itself may have answered; what that was comes before `close`.
      this.#child.once('exit', (_, signal) => { if (signal) end(signal) })
      this.#child.once('close', (code, signal) => end(signal ?? `exit code ${code}`))
    })
    stdin.on('error', () => {})
    stdout.setEncoding('utf8').on('data', (chunk: string) => this.#take(chunk))
    stderr.setEncoding('utf8').on('data', (chunk: string) => { this.#said = (this.#said + chunk).slice(-MAX_SAID) })
    this.#hold(false)
  }

  get pid(): number | undefined { return this.#child.pid }

  /** Resolves when it can take a task. Rejects with a Death. */
  async ready(): Promise<void> { await this.#next(() => {}) }

  /** Rejects with a Death. */
  async run(task: Task): Promise<Outcome> {
    const answer = await this.#next(() => this.#child.stdin.write(`${JSON.stringify(task)}\n`))
    if ('outcome' in answer) return answer.outcome
    throw this.kill('it spoke out of turn')
  }

  kill(why: string): Death {
    const death = this.#die(why)
    this.#child.kill('SIGKILL')
    return death
  }

  #next(begin: () => void): Promise<Reply> {
    if (this.dead) return Promise.reject(this.dead)
    return new Promise<Reply>((resolve, reject) => {
      const done = () => { this.#listener = undefined; this.#hold(false) }
      this.#listener = { heard: answer => { done(); resolve(answer) }, died: death => { done(); reject(death) } }
      this.#hold(true)
      begin()
    })
  }

  #take(chunk: string): void {
    this.#text += chunk
    if (this.#text.length > MAX_REPLY) return void this.kill('it said too much')
    const end = this.#text.indexOf('\n')
    if (end === -1) return
    const line = this.#text.slice(0, end)
    this.#text = this.#text.slice(end + 1)
    try {
      const answer = reply.parse(JSON.parse(line))
      if (!this.#listener || this.#text) throw new Error('nobody asked')
      this.#listener.heard(answer)
    } catch { this.kill('what it said makes no sense') }
  }

  #die(how: string): Death {
    this.dead ??= new Death(how, this.#said)
    this.#listener?.died(this.dead)
    return this.dead
  }

  /** At rest it must not keep our process alive. */
  #hold(on: boolean): void {
    const { stdin, stdout, stderr } = this.#child
    for (const each of [this.#child, stdin, stdout, stderr] as unknown as { ref?(): void; unref?(): void }[]) (on ? each.ref : each.unref)?.call(each)
  }
}
