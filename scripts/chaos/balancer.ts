import { createServer, request as open, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { pipeline } from 'node:stream/promises'
import { pause } from './random.ts'

const PROBE_MS = 200
/** How long a request may look for somebody who takes it. */
const PATIENCE_MS = 15_000

/** A request, seen from between. */
export interface Served {
  readonly method: string
  readonly path: string
  readonly status: number
  readonly ms: number
  /** Why it was tried elsewhere, each time. */
  readonly refusals: readonly string[]
  /** It was answered by an instance that had been told to stop by then. */
  readonly leaving: boolean
}

/**
 * The least that every balancer does: sends nothing to who is not ready,
 * and tries 503 with Retry-After, or a connection that does not come about, elsewhere.
 */
export class Balancer implements AsyncDisposable {
  readonly served: Served[] = []
  readonly #targets = new Map<string, boolean>()
  readonly #leaving = new Set<string>()
  readonly #server: Server
  readonly #timer: NodeJS.Timeout
  #next = 0

  constructor() {
    this.#server = createServer((request, response) => {
      this.#serve(request, response).catch(error => {
        // Half an answer must not look like a whole one.
        if (response.headersSent) response.destroy()
        else response.writeHead(502).end(JSON.stringify({ balancer: String(error) }))
      })
    })
    this.#timer = setInterval(() => { for (const target of this.#targets.keys()) void this.probe(target) }, PROBE_MS)
  }

  async listen(): Promise<this> {
    await new Promise<void>(done => this.#server.listen(0, '127.0.0.1', done))
    return this
  }
  get url(): string { return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}` }

  add(target: string): void { this.#targets.set(target, false) }
  /** For the records alone: that it leaves, the balancer learns as any other, by asking. */
  note(target: string): void { this.#leaving.add(target) }
  remove(target: string): void { this.#targets.delete(target) }
  isReady(target: string): boolean { return this.#targets.get(target) === true }

  async probe(target: string): Promise<void> {
    const ready = await this.#send(target, 'GET', '/health/ready', {}).then(answer => { answer.resume(); return answer.statusCode === 200 }, () => false)
    if (this.#targets.has(target)) this.#targets.set(target, ready)
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const from = performance.now()
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const { host: _, connection: __, ...headers } = request.headers
    const { method = 'GET', url = '/' } = request
    const refusals: string[] = []
    const { target, answer } = await this.#deliver(refusals, method, url, headers, Buffer.concat(chunks))
    const { 'transfer-encoding': ___, connection: ____, ...rest } = answer.headers
    response.writeHead(answer.statusCode!, rest)
    response.flushHeaders()
    try { await pipeline(answer, response) } finally {
      this.served.push({ method, path: url, status: answer.statusCode!, ms: performance.now() - from, refusals, leaving: this.#leaving.has(target) })
    }
  }

  async #deliver(refusals: string[], method: string, path: string, headers: IncomingMessage['headers'], body: Buffer) {
    for (const until = performance.now() + PATIENCE_MS; ;) {
      const ready = [...this.#targets].filter(([, is]) => is).map(([target]) => target)
      const target = ready[this.#next++ % Math.max(1, ready.length)]
      if (target !== undefined) {
        try {
          const answer = await this.#send(target, method, path, headers, body)
          if (answer.statusCode !== 503 || answer.headers['retry-after'] === undefined || performance.now() > until) return { target, answer }
          let text = ''
          for await (const chunk of answer) text += String(chunk)
          refusals.push(text)
        } catch (error) {
          // It was never sent. What breaks after that may have been done, and nobody may do it again unasked.
          if ((error as { syscall?: string }).syscall !== 'connect' || performance.now() > until) throw error
          refusals.push(String(error))
        }
        this.#targets.set(target, false)
      } else if (performance.now() > until) throw new Error('nobody is ready')
      else await pause(20)
    }
  }

  #send(target: string, method: string, path: string, headers: IncomingMessage['headers'], body?: Buffer): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      // A connection for each, as nginx does it by itself: one that is kept may be closed at the moment of the next request.
      const sent = open(target + path, { method, headers, agent: false }, resolve)
      sent.on('error', reject)
      sent.end(body)
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer)
    const closed = new Promise(done => this.#server.close(done))
    this.#server.closeAllConnections()
    await closed
  }
}
