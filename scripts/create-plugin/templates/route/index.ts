import { definePlugin } from 'backplane'
import { PermissionInfo } from 'backplane/contracts/access'
import { HttpRoute, defineRoute } from 'backplane/contracts/http'
import { z } from 'zod'

/** The schemas are checked before the handler runs; keep them strict. */
export const greet = defineRoute({
  method: 'GET',
  path: '/api/v1/{{name}}/:name',
  summary: 'Greets somebody',
  permission: '{{name}}:read',
  params: z.strictObject({ name: z.string().min(1).max(100) }),
  query: z.strictObject({ loud: z.enum(['true', 'false']).default('false') }),
  async handler({ params, query }) {
    const greeting = `Hello, ${params.name}`
    return { body: { greeting: query.loud === 'true' ? greeting.toUpperCase() : greeting } }
  },
})

export default definePlugin({
  name: '{{name}}',
  summary: 'Answers GET /api/v1/{{name}}/:name',
  contributes: [HttpRoute, PermissionInfo],
  setup(ctx) {
    ctx.contribute(HttpRoute, greet)
    ctx.contribute(PermissionInfo, { name: '{{name}}:read', summary: 'Be greeted' })
  },
})
