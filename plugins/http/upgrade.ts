import { randomUUID } from 'node:crypto'
import { STATUS_CODES, type IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { reasonOf, scope, type Clock, type Contribution, type Contributions, type Live, type Logger } from '#core'
import { AccessErrors, type Access, type Caller, type Credentials, type Permission } from '#contracts/access'
import { HttpErrors, type HttpUpgrade } from '#contracts/http'
import { Timeout, unlessAborted } from './abort.ts'
import type { Gate } from './gate.ts'
import { PROBLEM_TYPE, problemAnswer } from './problem.ts'
import type { Proxies } from './proxies.ts'

export interface UpgradeDeps {
  readonly gate: Gate
  readonly access: Live<Access>
  readonly log: Logger
  readonly clock: Clock
  readonly proxies: Proxies
  readonly upgrades: Pick<Contributions<HttpUpgrade>, 'all' | 'away'>
}

/** Hands connections that ask for another protocol to whom they are for. The server forgets such sockets, so this is who closes them. */
export class Upgrades {
  readonly #sockets = new Map<Duplex, HttpUpgrade>()
  constructor(readonly deps: UpgradeDeps) {}

  get wanted(): boolean { return this.deps.upgrades.all.length + this.deps.upgrades.away.length > 0 }
  get open(): number { return this.#sockets.size }

  /** What a plugin took goes with it. */
  update(all: readonly Contribution<HttpUpgrade>[]): void {
    for (const [socket, owner] of this.#sockets) if (!all.some(each => each.value === owner)) socket.destroy()
  }

  closeAll(): void { for (const socket of this.#sockets.keys()) socket.destroy() }

  /** As long as for a request, and no longer. */
  async #admit(asked: Credentials, { permission }: HttpUpgrade): Promise<Caller> {
    const { access, clock, gate } = this.deps
    const ms = gate.settings.requestTimeoutMs
    const late = new AbortController()
    const deadline = new Timeout(() => late.abort(HttpErrors.TIMEOUT({ ms })))
    clock.deadlines.arm(deadline, ms)
    try { return await unlessAborted(identify(access, asked, permission), late.signal) } finally { clock.deadlines.disarm(deadline) }
  }

  async handle(req: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const { gate, log, upgrades } = this.deps
    const { address, id = randomUUID() } = this.deps.proxies.originOf(req)
    // Without a listener, the reset of one client would end the process.
    socket.on('error', () => socket.destroy())
    try {
      const { path, token } = targetOf(req)
      const found = [...upgrades.all, ...upgrades.away].find(({ value }) => same(value.path, path))
      if (!found) throw HttpErrors.NOT_FOUND({ method: 'UPGRADE', path, advice: 'Correct the path: nothing takes a connection over here.' })
      const { plugin, value } = found
      gate.open(value.path)
      if (upgrades.away.some(each => each.plugin === plugin)) throw HttpErrors.AWAY({ path: value.path, plugin })
      const { maxStreams } = gate.settings
      if (this.#sockets.size >= maxStreams) throw HttpErrors.BUSY({ limit: maxStreams })
      const asked = { headers: req.headers, address, method: req.method ?? 'GET', path, ...(token !== null && { token }) }
      const caller = await this.#admit(asked, value)
      if (socket.destroyed) return
      if (!upgrades.all.some(each => each.value === value)) throw HttpErrors.AWAY({ path: value.path, plugin })
      this.#sockets.set(socket, value)
      socket.once('close', () => this.#sockets.delete(socket))
      log.debug('upgrade', { request_id: id, path: value.path, plugin })
      scope.run({ request_id: id, plugin }, () => value.upgrade(req, socket, head, caller))
    } catch (error) {
      const { problem, headers, hidden } = problemAnswer(error, id)
      if (hidden) log.error(`an upgrade failed: ${reasonOf(error)}`, { request_id: id, err: error })
      refuse(socket, problem.status, JSON.stringify(problem), { ...headers, 'X-Request-Id': id })
    }
  }
}

/** Who is asking, and may they? Never open: without an access plugin nobody is let in. */
async function identify(access: Live<Access>, credentials: Credentials, permission: Permission): Promise<Caller> {
  const guard = access.current
  if (!guard) throw AccessErrors.UNAVAILABLE()
  const caller = await guard.identify(credentials)
  await guard.check(caller, permission)
  return caller
}

/** Says no on a socket that no longer belongs to the HTTP server, and closes it. */
export function refuse(socket: Duplex, status: number, text: string, headers: Readonly<Record<string, string>> = {}): void {
  if (socket.destroyed || !socket.writable) { socket.destroy(); return }
  const lines = Object.entries({ ...headers, 'Content-Type': PROBLEM_TYPE, 'Content-Length': String(Buffer.byteLength(text)), Connection: 'close' })
  const fields = lines.map(([name, value]) => `${name}: ${value}\r\n`).join('')
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? 'Error'}\r\n${fields}\r\n${text}`, () => socket.destroy())
}

function targetOf({ url = '/' }: IncomingMessage): { path: string; token: string | null } {
  const at = url.indexOf('?')
  return at < 0 ? { path: url, token: null } : { path: url.slice(0, at), token: new URLSearchParams(url.slice(at)).get('token') }
}

/** A last slash makes no difference. */
const same = (a: string, b: string): boolean => a === b || `${a}/` === b || a === `${b}/`
