import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { defineErrors, definePoint, defineService, type Schema } from '#core'
import type { Caller, Permission } from '#contracts/access'

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
type Maybe = Schema | undefined
type Out<S> = S extends Schema ? Schema.InferOutput<S> : undefined

/** What a handler gets: everything was checked by the route's schemas. */
export interface HttpRequest<P = any, Q = any, B = any> {
  readonly id: string
  readonly method: string
  /** As it was asked for, without the query. */
  readonly path: string
  readonly params: P
  readonly query: Q
  readonly body: B
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  /** Anonymous on a public route: `undefined`. */
  readonly caller: Caller
  /** Aborts when the client goes away, when the time is up, or when the route's plugin leaves. */
  readonly signal: AbortSignal
  /** Address of the client. */
  readonly address: string
}

/** A value is sent as JSON, a string or bytes as they are, an iterable is streamed until it ends or the client leaves. */
export interface HttpAnswer {
  readonly status?: number
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: unknown
  readonly stream?: AsyncIterable<string | Uint8Array>
}

export interface RouteLimits {
  /** Bytes of the body after decoding. 1 MiB. */
  readonly body?: number
  /** Milliseconds until the answer; 30,000. A stream has no such end. */
  readonly timeout?: number
}

/** A route is data. Exactly one of `permission` and `public` must be given, or it can't be registered. */
export interface HttpRoute {
  readonly method: Method
  /** `/api/v1/jobs/:id`; no patterns. */
  readonly path: string
  readonly summary: string
  readonly permission?: Permission
  readonly public?: true
  /** Unknown fields are refused: make the schemas strict. A route without `body` takes none. */
  readonly params?: Schema
  readonly query?: Schema
  readonly body?: Schema
  /** By status: what the answer looks like. For the generated API description. */
  readonly answers?: Readonly<Record<number, Schema>>
  readonly limits?: RouteLimits
  /** Stays open and is counted apart from short requests. A GET may take `token` in its query: it goes to `Access`, and into no log. */
  readonly streams?: boolean
  /** Answers while the process is starting, draining or busy too; for health. */
  readonly early?: boolean
  handler(request: HttpRequest): Promise<HttpAnswer>
}
export const HttpRoute = definePoint<HttpRoute>('http.route', { key: route => `${route.method} ${route.path}` })

type Typed<P, Q, B> = Omit<HttpRoute, 'params' | 'query' | 'body' | 'handler'> & {
  readonly params?: P
  readonly query?: Q
  readonly body?: B
  handler(request: HttpRequest<Out<P>, Out<Q>, Out<B>>): Promise<HttpAnswer>
}
/** Types the handler's request from the route's schemas. */
export const defineRoute = <P extends Maybe = undefined, Q extends Maybe = undefined, B extends Maybe = undefined>(route: Typed<P, Q, B>): HttpRoute =>
  route as HttpRoute

/** Stands around every handler, after identity and schemas. `pre` is outermost. */
export interface HttpMiddleware {
  readonly name: string
  readonly order?: 'pre' | 'normal' | 'post'
  handle(request: HttpRequest, route: HttpRoute, next: () => Promise<HttpAnswer>): Promise<HttpAnswer>
}
export const HttpMiddleware = definePoint<HttpMiddleware>('http.middleware', { key: each => each.name })

/** Takes over a connection, such as a WebSocket's. The caller was identified and has the permission. Local: sockets don't travel. */
export interface HttpUpgrade {
  readonly path: string
  readonly permission: Permission
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer, caller: Caller): void
}
export const HttpUpgrade = definePoint<HttpUpgrade>('http.upgrade', { key: each => each.path })

/** The one server socket of the process. */
export interface HttpServer {
  /** As a client on this machine would write it; `undefined` until it listens. */
  readonly url: string | undefined
}
export const HttpServer = defineService<HttpServer>('http.server')

/** `application/problem+json` (RFC 9457), the form of every error answer. */
export interface Problem {
  readonly type: string
  readonly title: string
  readonly status: number
  readonly code: string
  readonly detail?: string
  readonly fix?: string
  readonly request_id: string
  /** What is wrong with which field: `{ path: 'body.agent', message }`. */
  readonly errors?: readonly { readonly path: string; readonly message: string }[]
}

export const HttpErrors = defineErrors('HTTP', {
  NOT_FOUND: { message: 'there is no {method} {path}', fix: '{advice}', status: 404, expose: true },
  METHOD_NOT_ALLOWED: { message: '{path} does not take {method}', fix: 'Use {allowed}.', status: 405, expose: true },
  INVALID: { message: 'the request does not fit: {reason}', fix: 'Correct the fields named in `errors`.', status: 400, expose: true },
  TOO_LARGE: { message: 'the {what} is larger than {limit}', fix: 'Send less, or raise the limit in plugins.http.config.', status: 413, expose: true },
  MEDIA_TYPE: { message: 'a body of type "{type}" is not understood here', fix: 'Send `Content-Type: application/json`.', status: 415, expose: true },
  TIMEOUT: { message: 'no answer within {ms} ms', fix: 'Try again; for long work submit a job and watch it.', status: 503, retryable: true, expose: true },
  BUSY: { message: 'the server has {limit} requests under way', fix: 'Try again after the time in Retry-After.', status: 503, retryable: true, expose: true },
  ROLE: { message: '{path} is not served by this process, which has the roles {roles}', fix: 'Ask a process that has the role api, or give it to this one (runtime.roles).', status: 503, expose: true },
  AWAY: { message: '{path} belongs to plugin "{plugin}", which is being restarted', fix: 'Try again after the time in Retry-After.', status: 503, retryable: true, expose: true },
  STARTING: { message: 'the server is {state}', fix: 'Try again after the time in Retry-After.', status: 503, retryable: true, expose: true },
  UNAVAILABLE: { message: 'something that this needs does not answer', fix: 'Try again after the time in Retry-After; request {request_id} in the server\'s log has the reason.', status: 503, retryable: true, expose: true },
  INTERNAL: { message: 'something went wrong here', fix: 'Look for request {request_id} in the server\'s log.', status: 500, expose: true },
  ROUTE_INVALID: { message: 'route {method} {path} of plugin "{plugin}" can\'t be registered: {reason}', fix: 'Give it a `permission`, or `public: true` if everybody may call it.' },
  TLS_INVALID: { message: 'the certificate or key of the server can\'t be used: {reason}', fix: 'Set plugins.http.config.tls to a certificate and its key as PEM, each by a `file` reference.' },
  LISTEN_FAILED: { message: 'can\'t listen on {host}:{port}: {reason}', fix: 'Set another port with PORT or plugins.http.config.port (0 takes a free one).' },
})

/** The key of a request that may be sent again: the header `Idempotency-Key` (quoted or not), or what its body says. Throws HTTP_INVALID. */
export function idempotencyKeyOf({ headers }: Pick<HttpRequest, 'headers'>, inBody?: string): string | undefined {
  const header = headers['idempotency-key']
  if (header === undefined) return inBody
  const key = String(header).replace(/^"(.*)"$/, '$1')
  const message = key === '' || key.length > 200 ? 'must have 1 to 200 characters' : inBody !== undefined && inBody !== key ? 'is not the idempotency_key of the body' : undefined
  if (message === undefined) return key
  const path = 'headers.idempotency-key'
  throw HttpErrors.INVALID({ reason: `${path} ${message}`, errors: [{ path, message }] })
}
