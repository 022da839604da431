import { once } from 'node:events'
import { validateHeaderName, validateHeaderValue, type IncomingMessage, type ServerResponse } from 'node:http'
import { setTimeout as wait } from 'node:timers/promises'
import type { HttpAnswer, Problem } from '#contracts/http'
import { unlessAborted } from './abort.ts'
import type { Exchange } from './exchange.ts'
import { hasBody } from './input.ts'
import { PROBLEM_TYPE } from './problem.ts'

const LINGER_MS = 500
/** What frames the message is the server's to say. */
const OURS = new Set(['connection', 'content-length', 'transfer-encoding', 'keep-alive', 'upgrade', 'trailer', 'x-request-id', 'date'])
const NONE: Readonly<Record<string, string>> = {}

/** Name, value, name, value: what node writes without looking anything up. */
export type FlatHeaders = readonly string[]

/** The head of an answer: what every answer has, unless the handler says otherwise, and what is its own. */
function headOf(id: string, base: FlatHeaders, own: Readonly<Record<string, string>>, type: string | undefined): string[] {
  const named = Object.keys(own).filter(name => !OURS.has(name.toLowerCase()))
  if (named.length === 0) {
    const head = [...base, 'X-Request-Id', id]
    if (type !== undefined) head.push('Content-Type', type)
    return head
  }
  const lower = new Set(named.map(name => name.toLowerCase()))
  const head = ['X-Request-Id', id]
  for (let at = 0; at < base.length; at += 2) if (!lower.has(base[at]!.toLowerCase())) head.push(base[at]!, base[at + 1]!)
  for (const name of named) {
    // Before writeHead: one that throws half way leaves a response that can't send another answer.
    validateHeaderName(name)
    validateHeaderValue(name, own[name]!)
    head.push(name, own[name]!)
  }
  if (type !== undefined && !lower.has('content-type')) head.push('Content-Type', type)
  return head
}

/** Sends everything but a stream. Throws, before anything was sent, if the answer can't be sent as it is. */
export function answer({ id, res }: Exchange, { status, headers = NONE, body }: HttpAnswer, base: FlatHeaders): void {
  const code = status ?? (body === undefined ? 204 : 200)
  if (!Number.isInteger(code) || code < 200 || code > 599) throw new TypeError(`the handler answered with the status ${String(code)}`)
  let data: string | Buffer = ''
  let type: string | undefined
  if (typeof body === 'string') { data = body; type = TEXT }
  else if (body instanceof Uint8Array) { data = Buffer.from(body.buffer, body.byteOffset, body.byteLength); type = BYTES }
  else if (body !== undefined) { data = encode(body); type = JSON_TYPE }
  const bare = code === 204 || code === 304
  const head = headOf(id, base, headers, bare ? undefined : type)
  if (!bare) head.push('Content-Length', String(typeof data === 'string' ? Buffer.byteLength(data) : data.length))
  res.writeHead(code, head)
  res.end(bare ? '' : data)
}
const [TEXT, BYTES, JSON_TYPE] = ['text/plain; charset=utf-8', 'application/octet-stream', 'application/json; charset=utf-8']

function encode(body: unknown): string {
  const data: string | undefined = JSON.stringify(body)
  if (data === undefined) throw new TypeError(`a body of type ${typeof body} can't be sent as JSON`)
  return data
}

/**
 * Sends a stream as it comes, no faster than the client reads, until it ends, the client leaves or the signal aborts; then it is told
 * to stop. A stream that fails breaks the connection: half an answer must not look like a whole one.
 */
export async function answerStream(exchange: Exchange, { status = 200, headers = NONE, stream }: HttpAnswer, base: FlatHeaders): Promise<void> {
  const { id, req, res, signal } = exchange
  const iterator = stream![Symbol.asyncIterator]()
  try {
    res.writeHead(status, headOf(id, base, headers, BYTES))
    res.flushHeaders()
    while (req.method !== 'HEAD') {
      const next = await unlessAborted(Promise.resolve(iterator.next()), signal)
      if (next.done) break
      if (!res.write(next.value)) await once(res, 'drain', { signal })
    }
    res.end()
  } catch (error) {
    if (res.headersSent) res.destroy()
    throw signal.aborted ? signal.reason : error
  } finally {
    // Not awaited: a generator that waits for something answers return() only after that has come.
    try { iterator.return?.()?.then(undefined, () => {}) } catch { /* it is over either way */ }
  }
}

/** A stream of events that says when to come back, and nothing else. */
export function answerLater({ id, res }: Exchange, seconds: number, base: FlatHeaders): void {
  res.writeHead(200, headOf(id, base, { 'Cache-Control': 'no-store' }, 'text/event-stream; charset=utf-8'))
  // No empty line after it: that may reset the last id.
  res.end(`retry: ${seconds * 1_000}\n`)
}

/** Sends a problem; if part of the request is still on its way, it is let run dry for a moment, since closing on it would cut off the answer. */
export async function answerProblem(exchange: Exchange, problem: Problem, own: Readonly<Record<string, string>>, base: FlatHeaders): Promise<void> {
  const { id, req, res } = exchange
  const text = JSON.stringify(problem)
  const head = headOf(id, base, own, PROBLEM_TYPE)
  head.push('Content-Length', String(Buffer.byteLength(text)))
  const whole = req.complete || !hasBody(req)
  if (!whole && !head.includes('Connection')) head.push('Connection', 'close')
  res.writeHead(problem.status, head)
  if (whole) { res.end(text); return }
  if (req.method === 'HEAD') res.flushHeaders()
  else res.write(text)
  await runDry(req, res)
  res.end()
}

async function runDry(req: IncomingMessage, res: ServerResponse): Promise<void> {
  const stop = new AbortController()
  const over = [once(req, 'end', stop), once(res, 'close', stop), wait(LINGER_MS, undefined, stop)]
  req.resume()
  await Promise.race(over.map(each => each.catch(() => {})))
  stop.abort()
}
