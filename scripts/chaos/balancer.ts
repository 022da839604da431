import { createServer, request as open, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { pause } from './random.ts'

const PROBE_MS = 200
/** How long a request may look for somebody who takes it. */
const PATIENCE_MS = 15_000

interface Reply { readonly status: number; readonly headers: IncomingMessage['headers']; readonly body: Buffer }

/**
 * The least that every balancer does: sends nothing to who is not ready,
 * and tries 503 with Retry-After, or a connection that does not come about, elsewhere.
 */
export class Balancer implements AsyncDisposable {
  /** Requests that were tried again. */
  retried = 0
  readonly #targets = new Map<string, boolean>()
  readonly #server: Server
  readonly #timer: NodeJS.Timeout
  #next = 0

  constructor() {
    this.#server = createServer((request, response) => {
      this.#serve(request, response).catch(error => response.writeHead(502).end(JSON.stringify({ balancer: String(error) })))
    })
    this.#timer = setInterval(() => { for (const target of this.#targets.keys()) void this.probe(target) }, PROBE_MS)
  }

  async listen(): Promise<this> {
    await new Promise<void>(done => this.#server.listen(0, '127.0.0.1', done))
    return this
  }
  get url(): string { return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}` }

  add(target: string): void { this.#targets.set(target, false) }
  remove(target: string): void { this.#targets.delete(target) }
  isReady(target: string): boolean { return this.#targets.get(target) === true }

  async probe(target: string): Promise<void> {
    const ready = await this.#send(target, 'GET', '/health/ready', {}).then(({ status }) => status === 200, () => false)
    if (this.#targets.has(target)) this.#targets.set(target, ready)
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const { host: _, connection: __, ...headers } = request.headers
    const { status, headers: answered, body } = await this.#deliver(request.method!, request.url!, headers, Buffer.concat(chunks))
    const { 'transfer-encoding': ___, connection: ____, ...rest } = answered
    response.writeHead(status, rest).end(body)
  }

  async #deliver(method: string, path: string, headers: IncomingMessage['headers'], body: Buffer): Promise<Reply> {
    for (const until = performance.now() + PATIENCE_MS; ;) {
      const ready = [...this.#targets].filter(([, is]) => is).map(([target]) => target)
      const target = ready[this.#next++ % Math.max(1, ready.length)]
      if (target !== undefined) {
        try {
          const reply = await this.#send(target, method, path, headers, body)
          if (reply.status !== 503 || reply.headers['retry-after'] === undefined || performance.now() > until) return reply
          this.#targets.set(target, false)
        } catch (error) {
          // It was never sent. What breaks after that may have been done, and nobody may do it again unasked.
          if ((error as { syscall?: string }).syscall !== 'connect' || performance.now() > until) throw error
          this.#targets.set(target, false)
        }
        this.retried++
      } else if (performance.now() > until) throw new Error('nobody is ready')
      else await pause(20)
    }
  }

  #send(target: string, method: string, path: string, headers: IncomingMessage['headers'], body?: Buffer): Promise<Reply> {
    return new Promise((resolve, reject) => {
      // A connection for each, as nginx does it by itself: one that is kept may be closed at the moment of the next request.
      const sent = open(target + path, { method, headers, agent: false }, answer => {
        const chunks: Buffer[] = []
        answer.on('data', chunk => chunks.push(chunk as Buffer))
        answer.on('error', reject)
        answer.on('end', () => resolve({ status: answer.statusCode!, headers: answer.headers, body: Buffer.concat(chunks) }))
      })
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
