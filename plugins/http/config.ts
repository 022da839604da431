import { z } from 'zod'

const ms = (fallback: number) => z.number().int().min(1).max(3_600_000).default(fallback)

export const config = z.strictObject({
  host: z.string().min(1).default('127.0.0.1').describe('Address to listen on. Beyond loopback only if the access plugin admits it.'),
  port: z.number().int().min(0).max(65_535).default(8000).describe('Port to listen on; 0 takes a free one.'),
  maxConcurrentRequests: z.number().int().min(1).default(100).describe('Short requests under way at once; more are answered 503 with Retry-After.'),
  maxStreams: z.number().int().min(1).default(1_000).describe('Streams open at once, counted apart from short requests.'),
  maxConnections: z.number().int().min(1).default(5_000).describe('Connections open at once; more are closed as they come.'),
  requestTimeoutMs: ms(30_000).describe('Time for a handler to answer, unless its route says otherwise; and for a client to send its whole request.'),
  headersTimeoutMs: ms(10_000).describe('Time for a client to send the headers of a request.'),
  keepAliveMs: ms(5_000).describe('How long an idle connection is kept.'),
  streamGraceMs: z.number().int().min(0).max(3_600_000).default(5_000).describe('How long open streams may go on once the process is draining.'),
  bodyLimit: z.number().int().min(1).default(1_048_576).describe('Bytes of a request body, unless its route says otherwise.'),
  bodyMemory: z.number().int().min(1).default(67_108_864).describe('Bytes of all bodies being received at once; more are answered 503.'),
  jsonDepth: z.number().int().min(1).max(500).default(64).describe('How deep a JSON body may be nested.'),
  maxHeaderBytes: z.number().int().min(1_024).max(1_048_576).default(16_384).describe('Bytes of request line and headers together.'),
})
export type HttpConfig = z.output<typeof config>
