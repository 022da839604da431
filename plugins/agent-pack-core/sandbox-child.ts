import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import variant from '@jitl/quickjs-wasmfile-release-sync'
import { newQuickJSWASMModuleFromVariant, newVariant, type QuickJSContext, type QuickJSHandle, type QuickJSSyncVariant } from 'quickjs-emscripten-core'
import { PRELUDE } from './prelude.ts'
import type { Failure, Outcome, Reply, Task } from './sandbox-process.ts'

const PAGES_PER_MIB = 16
/** Pages that QuickJS itself starts with. */
const OWN_PAGES = 256
const STACK_BYTES = 256 * 1024
const JOBS_AT_ONCE = 100
/** A script in which `await` may stand outside of a function; its value comes as a promise of `{ value }`. */
const ASYNC_SCRIPT = 1 << 7
const FILE = 'code.js'

/** Who started us: when that dies, code that runs can't hear it on our input. */
const parent = process.ppid

/** What Node has of it, and its types have not. */
interface Wasm {
  compile(bytes: Uint8Array): Promise<object>
  readonly Memory: new (pages: { initial: number; maximum: number }) => { readonly buffer: ArrayBuffer }
}
const { WebAssembly } = globalThis as unknown as { WebAssembly: Wasm }
const engine = await WebAssembly.compile(readFileSync(createRequire(import.meta.url).resolve('@jitl/quickjs-wasmfile-release-sync/wasm')))

/** The package types its CommonJS form. */
const sync = variant as unknown as QuickJSSyncVariant

/** What the code prints, up to a number of bytes. */
class Output {
  text = ''
  cut = false
  #bytes = 0
  constructor(readonly most: number) {}
  add(line: string): void {
    if (this.cut) return
    const bytes = Buffer.from(`${line}\n`)
    const room = this.most - this.#bytes
    this.cut = bytes.length > room
    this.text += this.cut ? new TextDecoder().decode(bytes.subarray(0, room), { stream: true }) : `${line}\n`
    this.#bytes += Math.min(bytes.length, room)
  }
}

/** A string of the sandbox, unless it is too long: the code may have changed what was to shorten it. */
function read(context: QuickJSContext, handle: QuickJSHandle, most: number): string | undefined {
  if (context.typeof(handle) !== 'string' || context.getNumber(context.getProp(handle, 'length')) > most) return undefined
  return context.getString(handle)
}

const MESSAGES = {
  timeout: (task: Task) => `it took longer than ${task.timeout_ms} ms`,
  memory: (task: Task) => `it needs more than ${task.memory_mb} MiB of memory`,
  stack: () => 'it is nested too deeply',
  pending: () => 'it awaits a promise that nothing will settle (there are no timers and no network here)',
}

/** Each task has an instance of the engine to itself, and memory that can't grow beyond the limit whatever happens in it. */
async function run(task: Task): Promise<Outcome> {
  const wasmMemory = new WebAssembly.Memory({ initial: OWN_PAGES, maximum: OWN_PAGES + task.memory_mb * PAGES_PER_MIB })
  const quickjs = await newQuickJSWASMModuleFromVariant(newVariant(sync, { wasmModule: engine, wasmMemory }))
  const runtime = quickjs.newRuntime({ memoryLimitBytes: task.memory_mb * 2 ** 20, maxStackSizeBytes: STACK_BYTES })
  const deadline = performance.now() + task.timeout_ms
  const late = () => performance.now() > deadline
  runtime.setInterruptHandler(() => late() || process.ppid !== parent)
  const context = runtime.newContext()
  const output = new Output(task.max_output)
  const print = context.newFunction('print', line => { if (!output.cut) output.add(read(context, line, task.max_output) ?? '') })
  const prelude = context.unwrapResult(context.evalCode(PRELUDE))
  const words = context.unwrapResult(context.callFunction(prelude, context.undefined, print, context.newNumber(task.max_output)))
  const [inWords, asError] = [context.getProp(words, 'result'), context.getProp(words, 'error')]

  const failed = (kind: Failure['kind'], message: string, line?: number): Outcome =>
    ({ output: output.text, cut: output.cut, error: { kind, message, ...(line !== undefined && { line }) } })
  const bound = (kind: keyof typeof MESSAGES) => failed(kind, MESSAGES[kind](task))
  const exhausted = () => wasmMemory.buffer.byteLength > task.memory_mb * 2 ** 19 + OWN_PAGES * 2 ** 16
  const threw = (error: QuickJSHandle): Outcome => {
    if (late()) return bound('timeout')
    // Where not even the error could be made, the engine throws null.
    if (context.eq(error, context.null) && exhausted()) return bound('memory')
    const told = context.callFunction(asError, context.undefined, error)
    const text = told.error ? undefined : read(context, told.value, 20 * task.max_output)
    if (late()) return bound('timeout')
    if (text === undefined) return bound('memory')
    const { message, stack } = JSON.parse(text) as { message: string; stack?: string }
    if (message === 'InternalError: out of memory') return bound('memory')
    if (/^(?:InternalError|RangeError): (?:stack overflow|Maximum call stack size exceeded)$/.test(message)) return bound('stack')
    const line = new RegExp(`${FILE}:(\\d+)`).exec(stack ?? '')?.[1]
    return failed('thrown', message, line === undefined ? undefined : Number(line))
  }
  /** Lets the code's promises go on until this one is settled. */
  const settle = (promise: QuickJSHandle): { value: QuickJSHandle } | Outcome => {
    for (;;) {
      const state = context.getPromiseState(promise)
      if (state.type === 'fulfilled') return { value: state.value }
      if (state.type === 'rejected') return threw(state.error)
      if (late()) return bound('timeout')
      if (!runtime.hasPendingJob()) return bound(exhausted() ? 'memory' : 'pending')
      runtime.executePendingJobs(JOBS_AT_ONCE)
    }
  }

  try {
    const started = context.evalCode(task.code, FILE, ASYNC_SCRIPT)
    if (started.error) return threw(started.error)
    const script = settle(started.value)
    if (!('value' in script)) return script
    const last = settle(context.getProp(script.value, 'value'))
    if (!('value' in last)) return last
    const told = context.callFunction(inWords, context.undefined, last.value)
    if (told.error) return threw(told.error)
    const result = read(context, told.value, task.max_output)
    return { output: output.text, cut: output.cut, ...(result !== undefined && { result }) }
  } catch (error) {
    // The engine's own stack overflowed in V8, or it was aborted.
    return late() ? bound('timeout') : error instanceof RangeError ? bound('stack') : bound('memory')
  }
}

/** After these the engine may have left anything behind. */
const spoils = ({ error }: Outcome): boolean => error !== undefined && ['timeout', 'memory', 'stack'].includes(error.kind)

const tell = (reply: Reply) => new Promise<void>(done => { process.stdout.write(`${JSON.stringify(reply)}\n`, () => done()) })

await tell({ ready: true })
for await (const line of createInterface({ input: process.stdin })) {
  const outcome = await run(JSON.parse(line) as Task)
  await tell({ outcome })
  if (spoils(outcome)) process.exit()
}
