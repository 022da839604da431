import { z } from 'zod'

const MIB = 1_048_576
/** As much as an event takes: those of a job have its result, unless it is kept apart. */
export const INLINE_RESULT_BYTES = 32_768
const DAY = 86_400_000
const interval = (min: number) => z.int().min(min).max(DAY)
const timeout = (min: number) => z.int().min(min).max(30 * DAY)

const limit = z.strictObject({
  concurrency: z.int().min(1).max(100_000).optional().describe('Jobs that run at once.'),
  per_minute: z.int().min(1).max(10_000_000).optional().describe('Attempts that begin in one minute of the clock.'),
})

export const config = z.strictObject({
  concurrency: z.int().min(0).max(1_000).default(10).describe('Jobs that this process runs at once from the queue; 0 takes none.'),
  lease: z.strictObject({
    ms: interval(100).default(8_000).describe('How long a worker holds a job without a sign of life.'),
    renew_ms: interval(20).default(2_500).describe('How often it gives one.'),
  }).prefault({}).refine(({ ms: length, renew_ms }) => renew_ms * 2 <= length, {
    message: 'renew_ms must be at most half of ms', path: ['renew_ms'],
  }),
  sweep_ms: interval(20).default(1_000).describe('How often jobs whose worker is gone, or whose time has come, are looked for.'),
  rehand_ms: interval(100).default(60_000).describe('After this time in the queue a job is handed to it again, should the queue have lost it.'),
  max_attempts: z.int().min(1).max(100).default(3).describe('For jobs that name none.'),
  timeout_ms: timeout(1).default(600_000).describe('Of one attempt, for jobs that name none.'),
  retry: z.strictObject({
    base_ms: interval(1).default(1_000).describe('Pause after the first failed attempt; it doubles with each.'),
    max_ms: interval(1).default(60_000).describe('Where it stops doubling. Each pause is up to a fifth shorter or longer.'),
  }).prefault({}),
  limits: z.strictObject({
    per_project: limit.prefault({}).describe('Of each project.'),
    per_agent: limit.prefault({}).describe('Of each agent.'),
    projects: z.record(z.string().min(1).max(200), limit).default({}).describe('Of these projects, by id; what is left out is that of `per_project`.'),
    agents: z.record(z.string().min(1).max(200), limit).default({}).describe('Of these agents, by name; what is left out is that of `per_agent`.'),
  }).prefault({}).describe('Counted over all processes that share the database. A job beyond them waits and holds up no other.'),
  aging_ms: interval(100).default(60_000).describe('A queued job gains one priority for each such time that it waits; it is looked at every `rehand_ms`.'),
  max_queued: z.int().min(1).max(10_000_000).default(100_000)
    .describe('Jobs that may wait (queued, delayed, or between attempts); more are answered 429 with Retry-After.'),
  max_children: z.int().min(1).max(100_000).default(1_000).describe('Children of one job, in all.'),
  cancel_children: z.boolean().default(true).describe('Whether the unfinished children of a cancelled job are cancelled with it.'),
  max_batch: z.int().min(1).max(10_000).default(1_000).describe('Jobs of one batch.'),
  max_input_bytes: z.int().min(1).default(MIB).describe('Of the input as JSON.'),
  max_result_bytes: z.int().min(1).max(256 * MIB).default(16 * MIB).describe('Of a result, or of the result of one step, as JSON.'),
  inline_result_bytes: z.int().min(0).max(INLINE_RESULT_BYTES).default(INLINE_RESULT_BYTES)
    .describe('A result that is larger is kept apart: jobs, lists and events have `result_ref` instead, and GET /api/v1/jobs/:id/result has it.'),
})
export type JobsConfig = z.output<typeof config>
