import { z } from 'zod'
import { defineRoute, type HttpRoute } from '#contracts/http'
import { dot, mermaid } from './drawing.ts'
import type { Action, Switchboard } from './switchboard.ts'

/** A change waits for what runs to drain. */
const CHANGE_MS = 120_000
const params = z.strictObject({ name: z.string().min(1).max(200) })
const problem = z.strictObject({ phase: z.string(), code: z.string(), message: z.string(), fix: z.string() })
const row = z.strictObject({
  name: z.string(), plugin: z.string(), summary: z.string(), state: z.string(), optional: z.boolean(), problem: problem.nullable(),
  faults: z.number(), uses: z.array(z.string()), provides: z.array(z.string()), contributes: z.array(z.string()),
  ms: z.record(z.string(), z.number()),
})
const changed = z.strictObject({ name: z.string(), state: z.string(), restarted: z.array(z.string()), accepted: z.literal(true).optional() })

export function routes(switchboard: Switchboard): HttpRoute[] {
  const change = (action: Action, summary: string) => defineRoute({
    method: 'POST', path: `/api/v1/plugins/:name/${action}`, summary, permission: 'plugins:write', params,
    limits: { timeout: CHANGE_MS }, answers: { 200: changed, 202: changed },
    async handler({ params: { name } }) {
      const body = await switchboard.change(action, name)
      return { status: body.accepted ? 202 : 200, body }
    },
  })
  return [
    defineRoute({
      method: 'GET', path: '/api/v1/plugins', summary: 'Every plugin, its state, what it stands on and how long each step took', permission: 'plugins:read',
      answers: { 200: z.strictObject({ items: z.array(row) }) },
      handler: async () => ({ body: { items: switchboard.list() } }),
    }),
    defineRoute({
      method: 'GET', path: '/api/v1/plugins/graph', summary: 'Which plugin stands on which: as data, for Mermaid or for Graphviz', permission: 'plugins:read',
      query: z.strictObject({ format: z.enum(['json', 'mermaid', 'dot']).default('json') }),
      async handler({ query: { format } }) {
        const graph = switchboard.graph()
        if (format === 'json') return { body: { nodes: graph.order, edges: graph.edges } }
        return { body: (format === 'mermaid' ? mermaid : dot)(graph) }
      },
    }),
    change('enable', 'Starts a plugin of the config that was disabled'),
    change('disable', 'Stops a plugin and those that stand on it, until it is enabled or the config is edited'),
    change('reload', 'Restarts a plugin and those that stand on it'),
  ]
}
