import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'

/** The world outside, which counts what jobs do to it. It outlives every process of the product. */
export class Sink implements AsyncDisposable {
  readonly #counts = new Map<string, Map<string, number>>()
  readonly #server: Server
  /** What `brittle` jobs hear. */
  fails = false
  readonly #scopes = new Map<string, { now: Set<string>; most: number }>()

  constructor() {
    this.#server = createServer((request, response) => {
      const [, kind = '', ...key] = (request.url ?? '').split('/')
      const counts = this.of(kind)
      const id = key.join('/')
      counts.set(id, (counts.get(id) ?? 0) + 1)
      const scopes = request.headers['x-scopes']
      if (typeof scopes === 'string') for (const scope of scopes.split(',')) this.#note(scope, kind, id)
      request.resume()
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ fails: this.fails }))
    })
  }

  async listen(): Promise<this> {
    await new Promise<void>(done => this.#server.listen(0, '127.0.0.1', done))
    return this
  }
  get url(): string { return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}` }

  /** A job is at work in its scopes from the first that it tells to the last. */
  #note(scope: string, kind: string, job: string): void {
    const at = this.#scopes.get(scope) ?? { now: new Set(), most: 0 }
    this.#scopes.set(scope, at)
    if (kind === 'begun') at.now.add(job)
    if (kind === 'naked') at.now.delete(job)
    at.most = Math.max(at.most, at.now.size)
  }
  /** How many jobs of each scope were ever at work at once. Where processes are killed it says too much. */
  get most(): ReadonlyMap<string, number> { return new Map([...this.#scopes].map(([scope, { most }]) => [scope, most])) }

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
