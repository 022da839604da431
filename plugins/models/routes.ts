import { z } from 'zod'
import { defineRoute, type HttpRoute } from '#contracts/http'
import type { Models } from '#contracts/models'

const row = z.strictObject({
  id: z.string(), provider: z.string(), alias_of: z.string().optional(), missing: z.array(z.string()), fallbacks: z.array(z.string()).optional(),
  circuit: z.enum(['closed', 'open', 'half-open']),
})

export const routes = (models: Models): HttpRoute[] => [
  defineRoute({
    method: 'GET', path: '/api/v1/models', summary: 'Models and aliases, what each lacks to be used, and whether its provider is left alone', permission: 'models:read',
    answers: { 200: z.strictObject({ items: z.array(row) }) },
    handler: async () => ({ body: { items: await models.list() } }),
  }),
]
