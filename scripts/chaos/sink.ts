import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'

/** The world outside, which counts what jobs do to it. It outlives every process of the product. */
export class Sink implements AsyncDisposable {
  readonly #counts = new Map<string, Map<string, number>>()
  readonly #server: Server
  /** What `brittle` jobs hear. */
  fails = false

  constructor() {
    this.#server = createServer((request, response) => {
      const [, kind = '', ...key] = (request.url ?? '').split('/')
      const counts = this.of(kind)
      const id = key.join('/')
      counts.set(id, (counts.get(id) ?? 0) + 1)
      request.resume()
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ fails: this.fails }))
    })
  }

  async listen(): Promise<this> {
    await new Promise<void>(done => this.#server.listen(0, '127.0.0.1', done))
    return this
  }
  get url(): string { return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}` }

  /** How often each key was heard. */
  of(kind: string): Map<string, number> {
    const found = this.#counts.get(kind) ?? new Map<string, number>()
    this.#counts.set(kind, found)
    return found
  }
  /** How many keys there are: what an idempotent receiver has done. */
  effects(kind: string): number { return this.of(kind).size }
  /** How many were heard in all. */
  heard(kind: string): number { return [...this.of(kind).values()].reduce((sum, each) => sum + each, 0) }
  /** What a receiver without keys has done too often. */
  duplicates(kind: string): number { return this.heard(kind) - this.effects(kind) }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise(done => this.#server.close(done))
    this.#server.closeAllConnections()
    await closed
  }
}
