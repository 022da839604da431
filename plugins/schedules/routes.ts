import { z } from 'zod'
import { defineRoute, type HttpRoute } from '#contracts/http'
import type { Schedules } from '#contracts/schedules'
import { body } from './config.ts'
import { scheduleOf } from './schedules.ts'

const name = z.string().max(200)
const one = z.strictObject({ name })
const where = z.strictObject({ project_id: name.min(1).optional() })
const time = z.string().nullable()
const schedule = z.object({
  id: z.string(), name, project_id: z.string(), created_by: z.string(), principal_id: z.string(), declared: z.boolean(),
  cron: z.string(), time_zone: z.string(), request: z.object({ type: z.string(), input: z.unknown() }).loose(),
  missed: z.enum(['skip', 'once', 'all']), overlap: z.enum(['allow', 'skip']), enabled: z.boolean(),
  starts_at: time, ends_at: time, next_at: time, last_at: time, last_job_id: z.string().nullable(),
  last_error: z.object({ code: z.string(), message: z.string(), retryable: z.boolean() }).nullable(), created_at: z.string(), updated_at: z.string(),
})

/** Without a project it is the caller's. */
const refOf = (params: { name: string }, query: { project_id?: string | undefined }) =>
  ({ name: params.name, ...(query.project_id !== undefined && { project_id: query.project_id }) })

export const routes = (schedules: Schedules): HttpRoute[] => [
  defineRoute({
    method: 'GET', path: '/api/v1/schedules', summary: 'Lists schedules, by project and name', permission: 'schedules:read',
    query: where.extend({ cursor: z.string().max(1_000).optional(), limit: z.coerce.number().int().min(1).max(100).optional().describe('50.') }),
    answers: { 200: z.object({ items: z.array(schedule), next: z.string().nullable() }) },
    handler: async ({ caller, query }) => ({ body: await schedules.list(caller, query as NonNullable<Parameters<Schedules['list']>[1]>) }),
  }),
  defineRoute({
    method: 'GET', path: '/api/v1/schedules/:name', summary: 'Shows a schedule', permission: 'schedules:read',
    params: one, query: where, answers: { 200: schedule },
    handler: async ({ caller, params, query }) => ({ body: await schedules.get(caller, refOf(params, query)) }),
  }),
  defineRoute({
    method: 'PUT', path: '/api/v1/schedules/:name', summary: 'Makes a schedule, or puts this one in its place', permission: 'schedules:write',
    params: one, query: where, body, answers: { 200: schedule },
    handler: async ({ caller, params, query, body }) => ({ body: await schedules.put(caller, scheduleOf(params.name, body, query.project_id)) }),
  }),
  defineRoute({
    method: 'DELETE', path: '/api/v1/schedules/:name', summary: 'Removes a schedule; its jobs stay', permission: 'schedules:write',
    params: one, query: where,
    async handler({ caller, params, query }) {
      await schedules.remove(caller, refOf(params, query))
      return { status: 204 }
    },
  }),
  defineRoute({
    method: 'POST', path: '/api/v1/schedules/:name/pause', summary: 'Lets a schedule rest', permission: 'schedules:write',
    params: one, query: where, answers: { 200: schedule },
    handler: async ({ caller, params, query }) => ({ body: await schedules.pause(caller, refOf(params, query)) }),
  }),
  defineRoute({
    method: 'POST', path: '/api/v1/schedules/:name/resume', summary: 'Lets a schedule go on', permission: 'schedules:write',
    params: one, query: where, answers: { 200: schedule },
    handler: async ({ caller, params, query }) => ({ body: await schedules.resume(caller, refOf(params, query)) }),
  }),
  defineRoute({
    method: 'POST', path: '/api/v1/schedules/:name/run', summary: 'Submits the job now, as the caller\'s', permission: 'schedules:write',
    params: one, query: where,
    async handler({ caller, params, query }) {
      const job = await schedules.runNow(caller, refOf(params, query))
      return { status: 202, headers: { Location: `/api/v1/jobs/${job.id}` }, body: job }
    },
  }),
]
