import { connect, type Socket } from 'node:net'
import { definePlugin, type PluginEntry } from '#core'
import { Access, AccessErrors, type Access as AccessService, type Caller, type Credentials } from '#contracts/access'
import { HttpRoute, HttpServer, type HttpAnswer, type HttpRequest } from '#contracts/http'
import { createTestRuntime, type TestPlugin, type TestRuntime, type TestRuntimeOptions } from '#core/testing'
import http from '../../plugins/http/index.ts'

export const OPERATOR: Caller = { id: 'operator', kind: 'operator', name: 'operator', project_id: 'default' }

/** Access that lets everybody in who sends no `x-refuse`, and keeps what it was asked. */
export function fakeAccess(asked: Credentials[] = []): AccessService {
  return {
    async identify(credentials) {
      asked.push(credentials)
      if (credentials.headers['x-refuse'] === 'identity') throw AccessErrors.UNAUTHENTICATED({ reason: 'no key was sent' })
      return { ...OPERATOR, name: String(credentials.headers['x-refuse'] ?? 'operator') }
    },
    async check(caller, permission) { if (caller.name === 'permission') throw AccessErrors.FORBIDDEN({ permission, reason: 'no role has it' }) },
    projects: async () => 'all', restore: async () => OPERATOR, admitBind: async () => {},
  }
}

export const httpEntry = (config: Record<string, unknown> = {}): PluginEntry => ({ plugin: http, config: { port: 0, ...config } })
export const fakeAccessPlugin = (asked?: Credentials[]) => definePlugin({ name: 'access', provides: [Access],
  setup(ctx) { ctx.provide(Access, fakeAccess(asked)) } })

/** A plugin of routes. */
export const routesPlugin = (name: string, ...routes: HttpRoute[]) =>
  definePlugin({ name, contributes: [HttpRoute], setup(ctx) { for (const route of routes) ctx.contribute(HttpRoute, route) } })

type Handler = (request: HttpRequest) => Promise<HttpAnswer> | HttpAnswer
export const route = (path: string, handler: Handler = () => ({ body: { path } }), more: Partial<HttpRoute> = {}): HttpRoute =>
  ({ method: 'GET', path, summary: path, ...(more.public ? {} : { permission: 'test:use' as const }), ...more,
    handler: async request => await handler(request) })

export interface Served extends TestRuntime { readonly url: string }
/** A runtime with http on a free port and everybody let in; `access: false` leaves the access plugin out. */
export async function serve(plugins: readonly TestPlugin[], { config, access = true,
  ...options }: Partial<TestRuntimeOptions> & { config?: Record<string, unknown>; access?: boolean } = {}): Promise<Served> {
  const t = await createTestRuntime({ ...options, plugins: [...(access ? [fakeAccessPlugin()] : []), httpEntry(config), ...plugins] })
  return Object.defineProperty(t, 'url', { get: () => t.get(HttpServer).url }) as Served
}

/** A bare connection; `text` grows as it is answered. */
export interface RawConnection extends AsyncDisposable { readonly socket: Socket; readonly text: string; readonly closed: Promise<string> }
export async function open(url: string, ...lines: string[]): Promise<RawConnection> {
  const { hostname, port } = new URL(url)
  const socket = connect({ host: hostname.replace(/^\[|\]$/g, ''), port: Number(port) })
  let text = ''
  socket.on('data', chunk => { text += chunk.toString('latin1') })
  socket.on('error', () => {})
  const closed = new Promise<string>(resolve => socket.once('close', () => resolve(text)))
  await new Promise<void>(resolve => socket.once('connect', resolve))
  if (lines.length > 0) socket.write(lines.join('\r\n'))
  return { socket, closed, get text() { return text }, async [Symbol.asyncDispose]() { socket.destroy(); await closed } }
}

/** The head of a request, with the Host header that node demands. */
export const head = (first: string, ...headers: string[]): string => [`${first} HTTP/1.1`, 'Host: 127.0.0.1', ...headers, '', ''].join('\r\n')

export const problemOf = async (response: Response): Promise<Record<string, any>> => await response.json() as Record<string, any>
export const post = (url: string, body: string | Uint8Array | unknown, headers: Record<string, string> = {}): Promise<Response> =>
  fetch(url, { method: 'POST', body: typeof body === 'string' || body instanceof Uint8Array ? body as string : JSON.stringify(body),
    headers: { 'content-type': 'application/json', ...headers } })
