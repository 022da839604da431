import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { setTimeout as wait } from 'node:timers/promises'
import type { Context } from 'koa'
import type { HttpAnswer, Problem } from '#contracts/http'
import { unlessAborted } from './abort.ts'
import { hasBody } from './input.ts'
import { PROBLEM_TYPE } from './problem.ts'

const LINGER_MS = 500
/** What frames the message is the server's to say. */
const OURS = new Set(['connection', 'content-length', 'transfer-encoding', 'keep-alive', 'upgrade', 'trailer', 'x-request-id'])

/** Sends everything but a stream. Throws, before anything was sent, if the answer can't be sent as it is. */
export function answer(ctx: Context, { status, headers, body }: HttpAnswer): void {
  const payload = body === undefined ? undefined : encode(body)
  const code = status ?? (body === undefined ? 204 : 200)
  if (!Number.isInteger(code) || code < 200 || code > 599) throw new TypeError(`the handler answered with the status ${String(code)}`)
  setHeaders(ctx, headers)
  if (payload && !ctx.response.get('Content-Type')) ctx.set('Content-Type', payload.type)
  ctx.status = code
  ctx.body = payload?.data ?? (code === 204 || code === 304 ? null : '')
}

function encode(body: unknown): { data: string | Buffer; type: string } {
  if (typeof body === 'string') return { data: body, type: 'text/plain; charset=utf-8' }
  if (body instanceof Uint8Array) return { data: Buffer.from(body.buffer, body.byteOffset, body.byteLength), type: 'application/octet-stream' }
  const data: string | undefined = JSON.stringify(body)
  if (data === undefined) throw new TypeError(`a body of type ${typeof body} can't be sent as JSON`)
  return { data, type: 'application/json; charset=utf-8' }
}

function setHeaders(ctx: Context, headers: HttpAnswer['headers'] = {}): void {
  for (const [name, value] of Object.entries(headers)) if (!OURS.has(name.toLowerCase())) ctx.set(name, value)
}

/**
 * Sends a stream as it comes, no faster than the client reads, until it ends, the client leaves or the signal aborts; then it is told
 * to stop. A stream that fails breaks the connection: half an answer must not look like a whole one.
 */
export async function answerStream(ctx: Context, { status = 200, headers, stream }: HttpAnswer, signal: AbortSignal): Promise<void> {
  const { res } = ctx
  const iterator = stream![Symbol.asyncIterator]()
  let sent = false
  try {
    setHeaders(ctx, headers)
    if (!ctx.response.get('Content-Type')) ctx.set('Content-Type', 'application/octet-stream')
    ctx.status = status
    ctx.respond = false
    res.flushHeaders()
    sent = true
    while (ctx.method !== 'HEAD') {
      const next = await unlessAborted(Promise.resolve(iterator.next()), signal)
      if (next.done) break
      if (!res.write(next.value)) await once(res, 'drain', { signal })
    }
    res.end()
  } catch (error) {
    if (sent) res.destroy()
    else ctx.respond = true
    throw signal.aborted ? signal.reason : error
  } finally {
    // Not awaited: a generator that waits for something answers return() only after that has come.
    try { iterator.return?.()?.then(undefined, () => {}) } catch { /* it is over either way */ }
  }
}

/** Sends a problem; if part of the request is still on its way, it is let run dry for a moment, since closing on it would cut off the answer. */
export async function answerProblem(ctx: Context, problem: Problem, headers: Readonly<Record<string, string>>): Promise<void> {
  const { req, res } = ctx
  for (const name of res.getHeaderNames()) if (name === 'content-type' || name === 'content-encoding' || name === 'etag') res.removeHeader(name)
  ctx.set({ ...headers, 'Content-Type': PROBLEM_TYPE })
  ctx.status = problem.status
  const text = JSON.stringify(problem)
  if (req.complete || !hasBody(req)) { ctx.body = text; return }
  ctx.respond = false
  ctx.set({ Connection: 'close', 'Content-Length': String(Buffer.byteLength(text)) })
  if (ctx.method === 'HEAD') res.flushHeaders()
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
