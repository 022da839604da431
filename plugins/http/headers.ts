import type { IncomingMessage } from 'node:http'
import helmet from 'helmet'
import type { HttpConfig } from './config.ts'
import type { FlatHeaders } from './answer.ts'

const EXPOSED = 'X-Request-Id, Retry-After, RateLimit, RateLimit-Policy, Location'
const ASKED = 'Authorization, Content-Type, Accept, Idempotency-Key, Last-Event-ID, X-API-Key, traceparent'

/** What helmet would set, asked once: it is the same for every answer, and asking each time costs more than the rest of the way. */
function security(secure: boolean): string[] {
  const found: string[] = []
  const none = ["'none'"]
  const apply = helmet({
    // For answers that are data. A page that a plugin serves brings a policy of its own.
    contentSecurityPolicy: { useDefaults: false, directives: { defaultSrc: none, baseUri: none, formAction: none, frameAncestors: none } },
    strictTransportSecurity: secure,
  })
  const response = { setHeader: (name: string, value: string) => { found.push(name, value) }, removeHeader: () => {} }
  apply({} as never, response as never, () => {})
  return [...found, 'Cache-Control', 'no-store']
}

/** The headers that every answer has. A handler that sets one of them wins. */
export class Headers {
  readonly #plain = security(false)
  readonly #secure = security(true)
  #cors: HttpConfig['cors']
  #byOrigin = new Map<string, readonly string[]>()

  update(cors: HttpConfig['cors']): void {
    this.#cors = cors
    this.#byOrigin = new Map((cors?.origins ?? []).map(origin => [origin, ['Access-Control-Allow-Origin', origin, 'Access-Control-Expose-Headers', EXPOSED,
      ...(cors?.credentials ? ['Access-Control-Allow-Credentials', 'true'] : [])]]))
  }

  of(req: IncomingMessage, secure: boolean, closing: boolean): FlatHeaders {
    const base = secure ? this.#secure : this.#plain
    if (!closing && !this.#cors) return base
    const head = [...base]
    if (closing) head.push('Connection', 'close')
    if (this.#cors) head.push('Vary', 'Origin', ...this.#allowed(req))
    return head
  }

  /** What a browser wants to know before it sends a request to another origin. */
  preflight(req: IncomingMessage, methods: string): Record<string, string> {
    if (!this.#cors || req.headers['access-control-request-method'] === undefined || this.#allowed(req).length === 0) return {}
    return { 'Access-Control-Allow-Methods': methods, 'Access-Control-Allow-Headers': ASKED, 'Access-Control-Max-Age': String(this.#cors.maxAgeS) }
  }

  #allowed({ headers: { origin } }: IncomingMessage): readonly string[] { return (origin !== undefined && this.#byOrigin.get(origin)) || [] }
}
