import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { formats, type Format, type Frame } from './model-wire.ts'

/** What the server does with one call. Everything has a default: it says `Hello there!`. */
export interface Reply {
  /** The text, in the pieces in which it is streamed. */
  readonly text?: string | readonly string[]
  /** Arguments that are a string are sent as they are, valid or not. */
  readonly tools?: readonly { readonly name: string; readonly arguments: unknown; readonly id?: string }[]
  /** `input` counts the cached ones too. */
  readonly usage?: { readonly input: number; readonly output: number; readonly cached?: number }
  readonly finish?: 'stop' | 'length' | 'tool-calls'
  /** Anything but 200 is an error in the vendor's own form. */
  readonly status?: number
  readonly headers?: Readonly<Record<string, string>>
  readonly error?: string
  /** Of the error, where the vendor has such a thing (`insufficient_quota`). */
  readonly code?: string
  /** Milliseconds before the headers, before the first piece, and between the pieces. */
  readonly delay?: number
  readonly first?: number
  readonly between?: number
  /** After so many pieces (0): the connection is destroyed, a chunk is no JSON, the body ends too early, nothing more comes, or the vendor's error event. */
  readonly fault?: 'cut' | 'malformed' | 'end' | 'hang' | 'error'
  readonly after?: number
}
export interface ServedCall {
  readonly nth: number
  readonly format: Format
  readonly path: string
  readonly headers: IncomingMessage['headers']
  readonly body: any
  /** As performance.now(). */
  readonly at: number
  /** When the client closed the connection before the answer was whole. */
  aborted_at: number | undefined
  done: boolean
}
type Script = Reply | readonly Reply[] | ((call: ServedCall) => Reply | Promise<Reply>)

const PATHS: readonly [RegExp, Format, boolean?][] = [
  [/^\/openai\/v1\/chat\/completions$/, 'groq'], [/^\/xai\/v1\/chat\/completions$/, 'xai'], [/\/chat\/completions$/, 'openai'], [/\/responses$/, 'responses'], [/\/messages$/, 'anthropic'],
  [/\/models\/[^/]+:streamGenerateContent$/, 'google', true], [/\/models\/[^/]+:generateContent$/, 'google', false],
]

/** Speaks the documented wire formats of OpenAI (chat completions and responses), Anthropic and Google over real HTTP, faults included. */
export class ModelServer implements AsyncDisposable {
  readonly calls: ServedCall[] = []
  /** How many connections were opened to it. */
  connections = 0
  readonly #server: Server
  /** An array is worked off call by call; its last entry answers the rest. */
  script: Script
  constructor(script: Script) {
    this.script = script
    this.#server = createServer((request, response) => void this.#serve(request, response).catch(() => response.destroy()))
    this.#server.on('connection', () => { this.connections++ })
  }

  async listen(): Promise<this> {
    await new Promise<void>(listening => this.#server.listen(0, '127.0.0.1', listening))
    return this
  }
  get url(): string { return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}` }
  /** What an SDK takes as its base URL. */
  base(format: Format): string { return `${this.url}/${{ google: 'v1beta', groq: 'openai/v1', xai: 'xai/v1' }[format as string] ?? 'v1'}` }
  get aborted(): ServedCall[] { return this.calls.filter(call => call.aborted_at !== undefined) }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = new URL(request.url!, 'http://x').pathname
    const known = PATHS.find(([pattern]) => pattern.test(path))
    let text = ''
    for await (const chunk of request) text += chunk
    if (request.method !== 'POST' || !known) return void response.writeHead(404, { 'content-type': 'application/json' }).end('{"error":{"message":"no such path"}}')
    const [, format, streams] = known
    const call: ServedCall = {
      nth: this.calls.length, format, path, headers: request.headers, body: JSON.parse(text), at: performance.now(), aborted_at: undefined, done: false,
    }
    this.calls.push(call)
    const gone = new AbortController()
    response.on('close', () => {
      if (!call.done) call.aborted_at = performance.now()
      gone.abort()
    })
    const { script } = this
    const reply = typeof script === 'function' ? await script(call) : Array.isArray(script) ? script[Math.min(call.nth, script.length - 1)]! : script as Reply
    await pause(reply.delay, gone.signal)
    if (!gone.signal.aborted) await answer(call, reply, streams ?? call.body.stream === true, response, gone.signal)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise(done => this.#server.close(done))
    this.#server.closeAllConnections()
    await closed
  }
}

function pause(ms: number | undefined, signal: AbortSignal): Promise<void> {
  if (!ms || signal.aborted) return Promise.resolve()
  return new Promise(resolve => {
    const done = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    signal.addEventListener('abort', done)
  })
}

async function answer(call: ServedCall, reply: Reply, streamed: boolean, response: ServerResponse, gone: AbortSignal): Promise<void> {
  const { status = 200, headers = {}, after = 0, fault } = reply
  const wire = formats[call.format]
  const model = String(call.body.model ?? /\/models\/([^/:]+)/.exec(call.path)?.[1] ?? 'model')
  const whole = (code: number, body: unknown) => {
    call.done = true
    response.writeHead(code, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body))
  }
  if (status !== 200) return whole(status, wire.error(status, reply.error ?? `status ${status}`, reply.code))
  const text = typeof reply.text === 'string' ? [reply.text] : reply.text ?? (reply.tools ? [] : ['Hello', ' there', '!'])
  const tools = (reply.tools ?? []).map((tool, index) => ({
    name: tool.name, id: tool.id ?? `call_${call.nth}_${index}`, arguments: typeof tool.arguments === 'string' ? tool.arguments : JSON.stringify(tool.arguments),
  }))
  const turn = {
    model, id: `r-${call.nth}`, text, tools, finish: reply.finish ?? (tools.length ? 'tool-calls' as const : 'stop' as const),
    usage: { cached: 0, ...(reply.usage ?? { input: 12, output: 7 }) },
  }
  if (!streamed) return whole(200, wire.whole(turn))
  const { head, pieces, tail } = wire.stream(turn)
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache', ...headers })
  response.flushHeaders()
  const send = (frames: readonly Frame[]) => { for (const { event, data } of frames) response.write(`${event ? `event: ${event}\n` : ''}data: ${data}\n\n`) }
  const end = () => { call.done = true; response.end() }
  send(head)
  await pause(reply.first, gone)
  for (const [nth, piece] of [...pieces, tail].entries()) {
    if (gone.aborted) return
    if (fault && nth === after) {
      // What was written must arrive first: a client drops what it has buffered when the connection breaks.
      if (fault === 'cut') { await pause(20, gone); call.done = true; return void response.destroy() }
      if (fault === 'malformed') { response.write('data: {"not json\n\n'); send(tail); return end() }
      if (fault === 'end') return end()
      if (fault === 'error') { send(wire.failure(reply.error ?? 'the server is overloaded')); return end() }
      return
    }
    if (nth > 0) await pause(reply.between, gone)
    if (!gone.aborted) send(piece)
  }
  if (!gone.aborted) end()
}

/** `await using server = await startModelServer({ text: ['a', 'b'] })`; a script may be a list, one reply a call, or a function of the call. */
export const startModelServer = (script: Script = {}): Promise<ModelServer> => new ModelServer(script).listen()
