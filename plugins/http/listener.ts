import { randomUUID } from 'node:crypto'
import { createServer as createPlain, type IncomingMessage, type RequestListener, type Server } from 'node:http'
import { createServer as createSecure, type Server as SecureServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { createSecureContext } from 'node:tls'
import { reasonOf, type BackplaneError, type Clock, type Host, type Live, type Logger } from '#core'
import { AccessErrors, type Access } from '#contracts/access'
import { HttpErrors, type HttpServer } from '#contracts/http'
import { Announcement } from './announcement.ts'
import type { HttpConfig } from './config.ts'
import type { Gate } from './gate.ts'
import type { Headers } from './headers.ts'
import { problemAnswer } from './problem.ts'
import type { Proxies } from './proxies.ts'
import { refuse, type Upgrades } from './upgrade.ts'

export interface ListenerDeps {
  readonly gate: Gate
  readonly access: Live<Access>
  readonly host: Host
  readonly log: Logger
  readonly clock: Clock
  readonly headers: Headers
  readonly proxies: Proxies
  readonly requests: RequestListener
  readonly upgrades: Upgrades
}

const LISTEN_REASONS: Readonly<Record<string, string>> = {
  EADDRINUSE: 'the port is taken',
  EACCES: 'this user may not take the port',
  EADDRNOTAVAIL: 'this machine does not have the address',
  ENOTFOUND: 'there is no such address',
}

const TLS_REASONS: Readonly<Record<string, string>> = {
  ERR_OSSL_X509_KEY_VALUES_MISMATCH: 'the key belongs to another certificate',
  ERR_OSSL_PEM_NO_START_LINE: 'it is no PEM',
  ERR_OSSL_UNSUPPORTED: 'it is no PEM that OpenSSL can read',
}

/** Of this machine alone, and known to be without asking a resolver. */
const isLoopback = (host: string): boolean => host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host)

/** The one server socket of the process. */
export class Listener implements HttpServer {
  #server: Server | undefined
  #url: string | undefined
  #unwatch = () => {}
  #hurry = () => {}
  readonly #announcement: Announcement
  constructor(readonly deps: ListenerDeps) { this.#announcement = new Announcement(deps.host, deps.log) }

  get url(): string | undefined { return this.#url }

  async start(): Promise<void> {
    const { access, clock, gate, log, requests } = this.deps
    const { host, port } = gate.settings
    if (access.current) await access.current.admitBind(host)
    else if (!isLoopback(host)) throw AccessErrors.BIND_REFUSED({ host, reason: 'no plugin is loaded that says who may come in' })
    const options = { maxHeaderSize: gate.settings.maxHeaderBytes, connectionsCheckingInterval: 1_000 }
    const { tls } = gate.settings
    const server = tls ? createSecure({ ...options, ...await this.#credentials(tls) }, requests) : createPlain(options, requests)
    this.#watchKey(tls)
    this.#server = server
    this.tune(gate.settings)
    // Whether the body is wanted is said only when the request has been let in.
    server.on('checkContinue', requests)
    server.on('clientError', refuseBroken)
    // Who does not get through the handshake is told by TLS itself; node would keep the socket.
    server.on('tlsClientError', (_error, socket) => socket.destroy())
    this.listenForUpgrades()
    await this.#listen(server, host, port)
    this.#url = urlOf(tls ? 'https' : 'http', host, (server.address() as AddressInfo).port)
    if (gate.roles.includes('api')) await this.#announcement.make(this.#url, clock.now())
    log.info('listening', { url: this.#url })
  }

  /** A port that another process of this machine has is no reason to end for one that only answers for its health. */
  async #listen(server: Server, host: string, port: number): Promise<void> {
    try { await listen(server, host, port) } catch (error) {
      if (this.deps.gate.roles.includes('api') || ((error as Error).cause as NodeJS.ErrnoException)?.code !== 'EADDRINUSE') throw error
      this.deps.log.warn(`port ${port} is taken: the health of this process is told on another one`, { port })
      await listen(server, host, 0)
    }
  }

  /** What can be changed while it listens. */
  tune(settings: HttpConfig): void {
    this.deps.gate.settings = settings
    this.deps.headers.update(settings.cors)
    this.deps.proxies.update(settings.trustedProxies)
    if (!this.#server) return
    Object.assign(this.#server, {
      headersTimeout: settings.headersTimeoutMs, requestTimeout: settings.requestTimeoutMs, keepAliveTimeout: settings.keepAliveMs,
      maxConnections: settings.maxConnections,
    })
  }

  /** New connections get this certificate; those that are open stay. Throws HTTP_TLS_INVALID, and then all is as before. */
  async renew(tls: HttpConfig['tls']): Promise<void> {
    if (!this.#server || !tls) return
    const next = await this.#credentials(tls)
    ;(this.#server as SecureServer).setSecureContext(next)
    this.#watchKey(tls)
  }

  async #credentials({ cert, key, minVersion }: NonNullable<HttpConfig['tls']>) {
    try {
      const options = { cert, key: await key.read(), minVersion }
      createSecureContext(options)
      return options
    } catch (cause) { throw HttpErrors.TLS_INVALID({ reason: TLS_REASONS[(cause as NodeJS.ErrnoException).code ?? ''] ?? reasonOf(cause) }, { cause }) }
  }

  /** A rotated key comes with the certificate that config has now. */
  #watchKey(tls: HttpConfig['tls']): void {
    this.#unwatch()
    this.#unwatch = tls ? tls.key.watch(() => {
      this.renew(this.deps.gate.settings.tls).catch((error: unknown) => this.deps.log.error(`the rotated key is not taken up: ${reasonOf(error)}`, { err: error }))
    }) : () => {}
  }

  /** With a listener, node hands over every request that asks for some upgrade, such as curl's h2c; without one, it serves them as they are. */
  listenForUpgrades(): void {
    this.#server?.off('upgrade', this.#upgrade)
    if (this.deps.upgrades.wanted) this.#server?.on('upgrade', this.#upgrade)
  }
  readonly #upgrade = (req: IncomingMessage, socket: Duplex, head: Buffer): void => void this.deps.upgrades.handle(req, socket, head)

  /** The process is to end: `/health/ready` says so already, but balancers go on sending until they have asked. */
  leave(): void {
    const { gate } = this.deps
    gate.state = gate.settings.drainDelayMs > 0 && gate.roles.includes('api') ? 'leaving' : 'draining'
  }

  /** Goes on listening, so that whoever asks for readiness hears 503, and lets what is under way finish. */
  async drain(): Promise<void> {
    const { gate } = this.deps
    if (gate.state === 'leaving') await this.#pause(gate.settings.drainDelayMs)
    gate.state = 'draining'
    // Idle connections stay until stop(): one that is closed now would reset the request that is just on its way to it.
    await gate.empty('request')
    await Promise.race([gate.empty('stream'), this.#pause(gate.settings.streamGraceMs)])
    this.#hurry()
    gate.abortStreams(HttpErrors.STARTING({ state: 'draining' }))
    await gate.empty('stream')
  }

  #pause(ms: number): Promise<void> {
    return new Promise(resolve => {
      const cancel = this.deps.clock.after(ms, resolve)
      this.#hurry = () => { cancel(); resolve() }
    })
  }

  async stop(): Promise<void> {
    const { gate, upgrades } = this.deps
    const server = this.#server
    if (!server) return
    this.#server = undefined
    this.#unwatch()
    this.#hurry()
    gate.state = 'draining'
    const closed = new Promise<void>(resolve => server.close(() => resolve()))
    gate.abort(HttpErrors.STARTING({ state: 'draining' }))
    // What was aborted answers within this turn of the event loop; then the connections go.
    for (let turn = 0; turn < 3; turn++) await new Promise<void>(resolve => setImmediate(resolve))
    upgrades.closeAll()
    server.closeAllConnections()
    await closed
    this.#url = undefined
    await this.#announcement.withdraw()
  }
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (cause: NodeJS.ErrnoException) =>
      reject(HttpErrors.LISTEN_FAILED({ host, port, reason: LISTEN_REASONS[cause.code ?? ''] ?? cause.message }, { cause }))
    server.once('error', failed)
    server.listen({ host, port }, () => { server.off('error', failed); resolve() })
  })
}

/** As a client on this machine would write it: an address that means "all" is reached by loopback. */
function urlOf(scheme: string, host: string, port: number): string {
  const name = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host
  return `${scheme}://${name.includes(':') ? `[${name}]` : name}:${port}`
}

const BROKEN: Readonly<Record<string, readonly [number, BackplaneError]>> = {
  HPE_HEADER_OVERFLOW: [431, HttpErrors.TOO_LARGE({ what: 'head of the request', limit: 'allowed' })],
  ERR_HTTP_REQUEST_TIMEOUT: [408, HttpErrors.INVALID({ reason: 'it came too slowly' })],
}

/** What is no HTTP, or came too slowly, gets an answer of the usual form where one can still be sent. */
function refuseBroken(error: NodeJS.ErrnoException, socket: Duplex): void {
  const id = randomUUID()
  const [status, failure] = BROKEN[error.code ?? ''] ?? [400, HttpErrors.INVALID({ reason: 'it is not well-formed HTTP' })]
  const { problem } = problemAnswer(failure, id)
  refuse(socket, status, JSON.stringify({ ...problem, status }), { 'X-Request-Id': id })
}
