import { z } from 'zod'
import type { Agents } from '#contracts/agents'
import { defineRoute, idempotencyKeyOf, type HttpRoute } from '#contracts/http'
import { MAX_WAIT_MS, type AgentCalls } from './calls.ts'

const info = z.strictObject({
  name: z.string(), summary: z.string(), version: z.string().nullable(), plugin: z.string(), model: z.string(), tools: z.array(z.string()),
  state: z.enum(['idle', 'busy', 'error', 'offline']), running: z.int(),
})
const params = z.strictObject({ name: z.string().min(1).max(64) })
const request = z.strictObject({
  input: z.unknown().describe('A text, or what the agent\'s input schema says.'),
  project_id: z.string().min(1).max(200).optional(),
  timeout_ms: z.int().min(1).max(MAX_WAIT_MS).optional().describe('Of one attempt. What takes longer is submitted as a job.'),
  idempotency_key: z.string().min(1).max(200).optional().describe('Your same request with this key gets the first run.'),
  metadata: z.record(z.string().max(200), z.unknown()).optional(),
})

export const routes = (agents: Agents, calls: AgentCalls): HttpRoute[] => [
  defineRoute({
    method: 'GET', path: '/api/v1/agents', summary: 'The agents that can be run', permission: 'agents:read',
    answers: { 200: z.strictObject({ items: z.array(info) }) },
    handler: async ({ caller }) => ({ body: { items: await agents.list(caller) } }),
  }),
  defineRoute({
    method: 'GET', path: '/api/v1/agents/:name', summary: 'One agent', permission: 'agents:read', params, answers: { 200: info },
    handler: async ({ caller, params }) => ({ body: await agents.get(caller, params.name) }),
  }),
  defineRoute({
    method: 'POST', path: '/api/v1/agents/:name/run', summary: 'Runs an agent: waits for its job, or streams it to who accepts text/event-stream',
    permission: 'agents:run', params, body: request, streams: true, limits: { timeout: MAX_WAIT_MS },
    answers: { 200: z.looseObject({ id: z.string(), status: z.literal('completed'), result: z.unknown() }) },
    handler(http) {
      const { params: { name: agent }, body: { input, ...rest } } = http
      return calls.answer(http, { ...rest, idempotency_key: idempotencyKeyOf(http, rest.idempotency_key), type: 'agent', agent, input: { agent, input } })
    },
  }),
]
