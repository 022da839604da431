import { z } from 'zod'

export const config = z.strictObject({
  heartbeatMs: z.int().min(100).max(600_000).default(15_000).describe('After so long a silence a comment is sent, so that no proxy takes the connection for dead.'),
  retryMs: z.int().min(1).max(600_000).default(2_000).describe('How long a client is to wait before it connects again.'),
  recheckMs: z.int().min(100).max(3_600_000).default(30_000).describe('How often it is asked again whether who reads an open stream still may.'),
  maxStreams: z.int().min(1).max(100_000).default(1_000).describe('Streams that may be open in this process.'),
  maxPerCaller: z.int().min(1).max(100_000).default(50).describe('And by one caller.'),
})
export type SseConfig = z.output<typeof config>
