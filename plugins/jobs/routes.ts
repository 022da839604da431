import { z } from 'zod'
import { defineRoute, type HttpRoute } from '#contracts/http'
import { JobErrors } from '#contracts/jobs'
import { ID_PATTERN } from './id.ts'
import type { JobService } from './jobs.ts'

const STATUSES = ['queued', 'delayed', 'running', 'waiting', 'completed', 'failed', 'dead', 'cancelled'] as const
const name = z.string().min(1).max(200)
const id = z.string().regex(ID_PATTERN, 'not the id of a job')

const request = z.strictObject({
  agent: name.optional().describe('The agent to run. Give this, or `type`.'),
  type: name.optional().describe('Another type of job.'),
  input: z.unknown().describe('What the agent, or the type, is to work on.'),
  project_id: name.optional(),
  priority: z.int().min(0).max(9).optional().describe('The highest goes first; 5.'),
  max_attempts: z.int().min(1).max(100).optional(),
  timeout_ms: z.int().min(1).max(86_400_000).optional().describe('Of one attempt.'),
  idempotency_key: z.string().min(1).max(200).optional().describe('Your same request with this key gets the first job.'),
  metadata: z.record(z.string().max(200), z.unknown()).optional(),
}).refine(({ agent, type }) => (agent === undefined) !== (type === undefined), { message: 'give either "agent" or "type"', path: ['agent'] })

const error = z.strictObject({ code: z.string(), message: z.string(), retryable: z.boolean() })
const job = z.object({
  id, type: z.string(), agent: z.string().nullable(), project_id: z.string(), created_by: z.string(), status: z.enum(STATUSES),
  input: z.unknown(), result: z.unknown(), error: error.nullable(),
  priority: z.int(), attempt: z.int(), max_attempts: z.int(), seq: z.int(),
  created_at: z.string(), run_at: z.string(), started_at: z.string().nullable(), finished_at: z.string().nullable(),
  metadata: z.record(z.string(), z.unknown()),
})
const detail = job.extend({
  attempts: z.array(z.object({
    attempt: z.int(), worker: z.string(), started_at: z.string(), finished_at: z.string().nullable(),
    outcome: z.string().nullable(), error: error.nullable(),
  })),
  steps: z.array(z.object({ name: z.string(), attempt: z.int(), started_at: z.string(), finished_at: z.string() })),
})

export const routes = (jobs: JobService): HttpRoute[] => [
  defineRoute({
    method: 'POST', path: '/api/v1/jobs', summary: 'Submits a job', permission: 'jobs:submit', body: request, answers: { 202: job },
    async handler({ caller, body: { agent, type, input, ...rest } }) {
      const work = agent === undefined ? { type: type!, input } : { type: 'agent', agent, input: { agent, input } }
      const made = await jobs.submit(caller, { ...rest, ...work })
      return { status: 202, headers: { Location: `/api/v1/jobs/${made.id}` }, body: made }
    },
  }),
  defineRoute({
    method: 'GET', path: '/api/v1/jobs', summary: 'Lists jobs, the newest first', permission: 'jobs:read',
    query: z.strictObject({
      status: z.enum(STATUSES).optional(), agent: name.optional(), cursor: id.optional(),
      limit: z.coerce.number().int().min(1).max(100).optional().describe('20.'),
    }),
    answers: { 200: z.object({ items: z.array(job), next: z.string().nullable() }) },
    handler: async ({ caller, query }) => ({ body: await jobs.list(caller, query) }),
  }),
  defineRoute({
    method: 'GET', path: '/api/v1/jobs/:id', summary: 'Shows a job with its attempts and steps', permission: 'jobs:read',
    params: z.strictObject({ id: z.string() }), answers: { 200: detail },
    async handler({ caller, params }) {
      if (params.id.length > 200) throw JobErrors.NOT_FOUND({ id: `${params.id.slice(0, 40)}…` })
      return { body: await jobs.detail(caller, params.id) }
    },
  }),
]
