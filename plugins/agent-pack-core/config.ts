import { z } from 'zod'

export const config = z.strictObject({
  timeout_ms: z.int().min(50).max(20_000).default(1_000).describe('Milliseconds that one expression of the calculator may take'),
  memory_mb: z.int().min(32).max(1_024).default(96).describe('MiB of heap that the calculator\'s thread may have'),
})
export type Config = z.output<typeof config>
