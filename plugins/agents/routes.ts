import { z } from 'zod'
import type { Agents } from '#contracts/agents'
import { defineRoute, type HttpRoute } from '#contracts/http'

const info = z.strictObject({ name: z.string(), summary: z.string(), plugin: z.string(), model: z.string(), tools: z.array(z.string()) })

export const routes = (agents: Agents): HttpRoute[] => [
  defineRoute({
    method: 'GET', path: '/api/v1/agents', summary: 'The agents that can be run', permission: 'agents:read',
    answers: { 200: z.strictObject({ items: z.array(info) }) },
    handler: async ({ caller }) => ({ body: { items: await agents.list(caller) } }),
  }),
  defineRoute({
    method: 'GET', path: '/api/v1/agents/:name', summary: 'One agent', permission: 'agents:read',
    params: z.strictObject({ name: z.string().min(1).max(64) }), answers: { 200: info },
    handler: async ({ caller, params }) => ({ body: await agents.get(caller, params.name) }),
  }),
]
