import { X509Certificate } from 'node:crypto'
import { z } from 'zod'
import { Secret } from '#core'
import { isNetwork } from './proxies.ts'

const ms = (fallback: number) => z.number().int().min(1).max(3_600_000).default(fallback)

const isOrigin = (text: string): boolean => !text.includes('*') && URL.canParse(text) && /^https?:$/.test(new URL(text).protocol) && new URL(text).origin === text

/** Told before anything is touched: a server that can't come back with its new certificate would have let go of its connections. */
const isCertificate = (pem: string): boolean => { try { return new X509Certificate(pem).raw.length > 0 } catch { return false } }

const tls = z.strictObject({
  cert: z.string().refine(isCertificate, 'is not a certificate as PEM').describe('The certificate and its chain, as PEM; write `${file:server.crt}`.'),
  key: z.instanceof(Secret).meta({ type: 'string' }).describe('The private key, as PEM; write `${file:server.key}` or `${secret:tls-key}`.'),
  minVersion: z.enum(['TLSv1.2', 'TLSv1.3']).default('TLSv1.2').describe('The oldest version of TLS that is spoken.'),
})

const cors = z.strictObject({
  origins: z.array(z.string().refine(isOrigin, 'must be an origin, such as https://app.example.com, without a path; there is no "*"')).min(1)
    .describe('Origins whose pages may call, each written out.'),
  credentials: z.boolean().default(false).describe('May these pages send cookies along?'),
  maxAgeS: z.number().int().min(0).max(86_400).default(600).describe('How long a browser may remember what it was allowed, in seconds.'),
})

export const config = z.strictObject({
  host: z.string().min(1).default('127.0.0.1').describe('Address to listen on. Beyond loopback only if the access plugin admits it.'),
  port: z.number().int().min(0).max(65_535).default(8000).describe('Port to listen on; 0 takes a free one.'),
  maxConcurrentRequests: z.number().int().min(1).default(100).describe('Short requests under way at once; more are answered 503 with Retry-After.'),
  maxStreams: z.number().int().min(1).default(1_000).describe('Streams open at once, counted apart from short requests.'),
  maxConnections: z.number().int().min(1).default(5_000).describe('Connections open at once; more are closed as they come.'),
  requestTimeoutMs: ms(30_000).describe('Time for a handler to answer, unless its route says otherwise; and for a client to send its whole request.'),
  headersTimeoutMs: ms(10_000).describe('Time for a client to send the headers of a request.'),
  keepAliveMs: ms(5_000).describe('How long an idle connection is kept.'),
  drainDelayMs: z.number().int().min(0).max(60_000).default(0)
    .describe('How long requests are served on once the process is to end and `/health/ready` says so, for balancers that hear of it late. Part of runtime.graceMs.'),
  streamGraceMs: z.number().int().min(0).max(3_600_000).default(5_000).describe('How long open streams may go on once the process is draining.'),
  bodyLimit: z.number().int().min(1).default(1_048_576).describe('Bytes of a request body, unless its route says otherwise.'),
  bodyMemory: z.number().int().min(1).default(67_108_864).describe('Bytes of all bodies being received at once; more are answered 503.'),
  jsonDepth: z.number().int().min(1).max(500).default(64).describe('How deep a JSON body may be nested.'),
  tls: tls.optional().describe('Speak https and wss. A renewed certificate is taken up without closing a connection.'),
  cors: cors.optional().describe('Lets pages of other origins call. Without it, none may.'),
  trustedProxies: z.array(z.string().refine(isNetwork, 'must be an address or a network, such as 10.0.0.0/8')).default([])
    .describe('Proxies whose X-Forwarded-For, X-Forwarded-Proto and X-Request-Id are believed; those of all others are not.'),
  maxHeaderBytes: z.number().int().min(1_024).max(1_048_576).default(16_384).describe('Bytes of request line and headers together.'),
})
export type HttpConfig = z.output<typeof config>
