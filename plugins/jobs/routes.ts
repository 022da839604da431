import { z } from 'zod'
import { defineRoute, idempotencyKeyOf, type HttpRoute } from '#contracts/http'
import { JobErrors, type JobRequest } from '#contracts/jobs'
import { ID_PATTERN } from './tables/id.ts'
import type { JobQuestions } from './intake/answers.ts'
import type { JobService } from './intake/jobs.ts'
import { LONGEST_DELAY_MS, LONGEST_PAUSE_MS } from './intake/schedule.ts'

const BATCH_BYTES = 16 * 1_048_576
const JSON_TYPE = 'application/json; charset=utf-8'
const REPLAY_MS = 300_000

const STATUSES = ['queued', 'delayed', 'running', 'waiting', 'completed', 'failed', 'dead', 'cancelled'] as const
const name = z.string().min(1).max(200)
const id = z.string().regex(ID_PATTERN, 'not the id of a job')

/** Told together with what is wrong with single fields. */
const when = ({ value }: { readonly value: unknown }) => typeof value === 'object' && value !== null && !Array.isArray(value)
const pause = z.int().min(1).max(LONGEST_PAUSE_MS)
const request = z.strictObject({
  agent: name.optional().describe('The agent to run. Give this, or `type`.'),
  type: name.optional().describe('Another type of job.'),
  input: z.unknown().optional().describe('What the agent, or the type, is to work on. Needed; null is something.'),
  project_id: name.optional(),
  parent_id: id.optional().describe('The unfinished job that it is a part of.'),
  priority: z.int().min(0).max(9).optional().describe('The highest goes first; 5.'),
  delay_ms: z.int().min(0).max(LONGEST_DELAY_MS).optional().describe('Not before so many milliseconds have passed.'),
  run_at: z.iso.datetime({ offset: true, error: 'not a moment such as 2026-01-31T09:00:00Z' }).optional().describe('Not before this moment. Give this, or `delay_ms`.'),
  max_attempts: z.int().min(1).max(100).optional(),
  backoff: z.strictObject({ base_ms: pause.optional(), max_ms: pause.optional() }).optional().describe('The pause after a failed attempt, and where it stops doubling.'),
  timeout_ms: z.int().min(1).max(86_400_000).optional().describe('Of one attempt.'),
  idempotency_key: z.string().min(1).max(200).optional().describe('Your same request with this key gets the first job.'),
  dedupe: z.strictObject({
    key: name,
    mode: z.enum(['keep', 'replace']).optional().describe('`keep`: you get the job that has it. `replace`: that becomes yours if it has not begun; else a new one takes the key.'),
    ttl_ms: z.int().min(1).max(LONGEST_DELAY_MS).optional().describe('With `keep`: the job has the key for so long after it was made, even if it has ended.'),
  }).refine(({ mode, ttl_ms }) => mode !== 'replace' || ttl_ms === undefined, { message: 'goes with the mode keep only', path: ['ttl_ms'] })
    .optional().describe('No two unfinished jobs of a project have one key.'),
  metadata: z.record(z.string().max(200), z.unknown()).optional(),
}).refine(({ agent, type }) => (agent === undefined) !== (type === undefined), { message: 'give either "agent" or "type"', path: ['agent'], when })
  .refine(({ input }) => input !== undefined, { message: 'is missing; null is something', path: ['input'], when })
  .refine(({ delay_ms, run_at }) => delay_ms === undefined || run_at === undefined, { message: 'give either "delay_ms" or "run_at"', path: ['run_at'], when })

/** What a request asks for, as the service takes it. */
const workOf = ({ agent, type, input, ...rest }: z.output<typeof request>): JobRequest =>
  ({ ...rest, ...(agent === undefined ? { type: type!, input } : { type: 'agent', agent, input: { agent, input } }) })

const error = z.strictObject({ code: z.string(), message: z.string(), fix: z.string().optional(), retryable: z.boolean() })
const job = z.object({
  id, type: z.string(), agent: z.string().nullable(), project_id: z.string(), created_by: z.string(), parent_id: z.string().nullable(),
  status: z.enum(STATUSES),
  input: z.unknown(), result: z.unknown(),
  result_ref: z.object({ bytes: z.int(), url: z.string() }).nullable().describe('Where a large result is; `result` is null then.'), error: error.nullable(),
  priority: z.int(), attempt: z.int(), max_attempts: z.int(), seq: z.int(),
  created_at: z.string(), run_at: z.string(), started_at: z.string().nullable(), finished_at: z.string().nullable(),
  metadata: z.record(z.string(), z.unknown()),
})
const question = z.object({
  job_id: z.string(), name: z.string(), project_id: z.string(), to: z.string().nullable(), question: z.string(),
  options: z.array(z.string()).nullable(), schema: z.record(z.string(), z.unknown()).nullable(), state: z.enum(['open', 'answered', 'expired']),
  asked_at: z.string(), expires_at: z.string().nullable(), answer: z.unknown(),
  answered_by: z.string().nullable(), answered_at: z.string().nullable(),
})
const detail = job.extend({
  questions: z.array(question),
  attempts: z.array(z.object({
    attempt: z.int(), worker: z.string(), started_at: z.string(), finished_at: z.string().nullable(),
    outcome: z.string().nullable(), error: error.nullable(),
  })),
  steps: z.array(z.object({ name: z.string(), attempt: z.int(), started_at: z.string(), finished_at: z.string() })),
  events: z.array(z.object({ seq: z.int(), type: z.string(), at: z.string(), data: z.unknown() })).describe('The last 100 that are logged.'),
  held_up: z.object({ reason: z.enum(['no_worker', 'limit', 'not_handed_over']), message: z.string(), fix: z.string() }).nullable().describe('Why it has not begun though it could, if that is known.'),
})

const filter = {
  agent: name.optional(), type: name.optional(), project_id: name.optional(), parent_id: id.optional(), code: name.optional().describe('Of its error.'),
}
const paging = { cursor: id.optional(), limit: z.coerce.number().int().min(1).max(100).optional().describe('20.') }
const page = z.object({ items: z.array(job), next: z.string().nullable() })
const replayed = z.object({ replayed: z.int() })
const oneJob = z.strictObject({ id: z.string() })

/** No id is longer, and nothing is looked up or shown that is no id. */
function known({ id }: { readonly id: string }): string {
  if (!ID_PATTERN.test(id)) throw JobErrors.NOT_FOUND({ id: id.length > 40 ? `${id.slice(0, 40)}…` : id })
  return id
}

export const routes = (jobs: JobService, questions: JobQuestions): HttpRoute[] => [
  defineRoute({
    method: 'POST', path: '/api/v1/jobs', summary: 'Submits a job', permission: 'jobs:submit', body: request, answers: { 202: job },
    async handler(http) {
      const { caller, body } = http
      const idempotency_key = idempotencyKeyOf(http, body.idempotency_key)
      const made = await jobs.submit(caller, workOf({ ...body, idempotency_key }))
      return { status: 202, headers: { Location: `/api/v1/jobs/${made.id}` }, body: made }
    },
  }),
  defineRoute({
    method: 'POST', path: '/api/v1/jobs/batch', summary: 'Submits many jobs, all or none', permission: 'jobs:submit',
    body: z.strictObject({ jobs: z.array(request).min(1).max(10_000) }), limits: { body: BATCH_BYTES },
    answers: { 202: z.object({ items: z.array(job) }) },
    handler: async ({ caller, body }) => ({ status: 202, body: { items: await jobs.submitMany(caller, body.jobs.map(workOf)) } }),
  }),
  defineRoute({
    method: 'GET', path: '/api/v1/jobs', summary: 'Lists jobs, the newest first', permission: 'jobs:read',
    query: z.strictObject({ status: z.enum(STATUSES).optional(), ...filter, ...paging }), answers: { 200: page },
    handler: async ({ caller, query }) => ({ body: await jobs.list(caller, query) }),
  }),
  defineRoute({
    method: 'GET', path: '/api/v1/jobs/:id', summary: 'Shows a job with its attempts, steps and events', permission: 'jobs:read',
    params: oneJob, answers: { 200: detail },
    handler: async ({ caller, params }) => ({ body: await jobs.detail(caller, known(params)) }),
  }),
  defineRoute({
    method: 'GET', path: '/api/v1/jobs/:id/result', summary: 'Answers the result of a job itself', permission: 'jobs:read', params: oneJob, answers: { 200: z.unknown() },
    async handler({ caller, params, headers }) {
      const { tag, text } = await jobs.resultText(caller, known(params), headers['if-none-match'] as string | undefined)
      const head = { ETag: tag, 'Cache-Control': 'private, no-cache', 'Content-Type': JSON_TYPE }
      return text === undefined ? { status: 304, headers: head } : { headers: head, body: text }
    },
  }),
  defineRoute({
    method: 'POST', path: '/api/v1/jobs/:id/cancel', summary: 'Cancels a job; what runs is told to stop', permission: 'jobs:cancel',
    params: oneJob, answers: { 200: job },
    handler: async ({ caller, params }) => ({ body: await jobs.cancel(caller, known(params)) }),
  }),
  defineRoute({
    method: 'POST', path: '/api/v1/jobs/:id/answer', summary: 'Answers what a job asks; it goes on with the answer', permission: 'jobs:answer',
    params: oneJob, body: z.strictObject({ answer: z.unknown(), question: z.string().min(1).max(210).optional().describe('Its name, if the job asks more than one.') })
      .refine(({ answer }) => answer !== undefined, { message: 'give an answer', path: ['answer'] }),
    answers: { 200: question },
    handler: async ({ caller, params, body }) => ({ body: await questions.answer(caller, known(params), body) }),
  }),
  defineRoute({
    method: 'GET', path: '/api/v1/questions', summary: 'Lists what jobs ask and nobody has answered yet', permission: 'jobs:read',
    query: z.strictObject({
      job_id: id.optional(), to: name.optional(), project_id: name.optional(), limit: paging.limit, cursor: z.string().max(250).optional(),
    }),
    answers: { 200: z.object({ items: z.array(question), next: z.string().nullable() }) },
    handler: async ({ caller, query }) => ({ body: await questions.list(caller, query) }),
  }),
  defineRoute({
    method: 'POST', path: '/api/v1/jobs/:id/retry', summary: 'Runs a job again, or at once', permission: 'jobs:retry', params: oneJob, answers: { 202: job },
    handler: async ({ caller, params }) => ({ status: 202, body: await jobs.retry(caller, known(params)) }),
  }),
  defineRoute({
    method: 'GET', path: '/api/v1/dlq', summary: 'Lists the dead-letter queue: jobs that ended without a result', permission: 'jobs:read',
    query: z.strictObject({ ...filter, ...paging }), answers: { 200: page },
    handler: async ({ caller, query }) => ({ body: await jobs.list(caller, { ...query, status: 'dead' }) }),
  }),
  defineRoute({
    method: 'POST', path: '/api/v1/dlq/:id/replay', summary: 'Runs a dead job again, with all its attempts', permission: 'jobs:retry',
    params: oneJob, answers: { 202: replayed },
    handler: async ({ caller, params }) => ({ status: 202, body: { replayed: await jobs.replay(caller, { id: known(params) }) } }),
  }),
  defineRoute({
    method: 'POST', path: '/api/v1/dlq/replay', summary: 'Runs every dead job again that the filter fits; all, if it is empty', permission: 'jobs:retry',
    body: z.strictObject(filter), limits: { timeout: REPLAY_MS }, answers: { 202: replayed },
    handler: async ({ caller, body }) => ({ status: 202, body: { replayed: await jobs.replay(caller, body) } }),
  }),
  defineRoute({
    method: 'DELETE', path: '/api/v1/dlq/:id', summary: 'Deletes a dead job with all that belongs to it', permission: 'jobs:discard', params: oneJob,
    async handler({ caller, params }) {
      await jobs.discard(caller, known(params))
      return { status: 204 }
    },
  }),
]
