import { z } from 'zod'
import { faultOf, isTimeZone } from './cron.ts'

const ms = (least: number) => z.int().min(least).max(86_400_000)
const word = z.string().min(1).max(200)
const pause = z.int().min(1).max(86_400_000)

export const NAME = /^[A-Za-z0-9][\w.-]{0,199}$/
export const scheduleName = z.string().regex(NAME, 'not a name: letters, digits, dots, dashes and underscores')

/** What a schedule says besides its name, for the API and for the config. */
export const fields = z.strictObject({
  cron: z.string().max(200).superRefine((value, { addIssue }) => {
    const fault = faultOf(value)
    if (fault !== undefined) addIssue({ code: 'custom', message: `not a cron expression: ${fault}` })
  }).describe('Minute, hour, day of month, month, day of week; six fields begin with seconds.'),
  time_zone: z.string().min(1).max(100).refine(isTimeZone, 'not a time zone such as Europe/Berlin').optional()
    .describe('Where its hours are read; UTC.'),
  agent: word.optional().describe('The agent to run. Give this, or `type`.'),
  type: word.optional().describe('Another type of job.'),
  input: z.unknown().describe('What the agent, or the type, is to work on.'),
  priority: z.int().min(0).max(9).optional().describe('The highest goes first; 5.'),
  max_attempts: z.int().min(1).max(100).optional().describe('Of each job.'),
  timeout_ms: z.int().min(1).max(86_400_000).optional().describe('Of one attempt.'),
  backoff: z.strictObject({ base_ms: pause.optional(), max_ms: pause.optional() }).optional()
    .describe('The pause after a failed attempt, and where it stops doubling.'),
  metadata: z.record(z.string().max(200), z.unknown()).optional().describe('Of each job; `schedule` and `scheduled_at` are added.'),
  missed: z.enum(['skip', 'once', 'all']).optional()
    .describe('Of times that passed while nobody fired: none, one job for all, or one for each of the last 100; once.'),
  overlap: z.enum(['allow', 'skip']).optional().describe('May a job begin while the one before it has not ended? allow.'),
  enabled: z.boolean().optional().describe('False: paused.'),
  starts_at: z.iso.datetime({ offset: true, error: 'not a moment such as 2026-01-31T09:00:00Z' }).optional().describe('Not before this moment.'),
  ends_at: z.iso.datetime({ offset: true, error: 'not a moment such as 2026-01-31T09:00:00Z' }).optional().describe('Not after this moment.'),
})
interface Kind { readonly agent?: string | undefined; readonly type?: string | undefined }
const hasKind = ({ agent, type }: Kind): boolean => (agent === undefined) !== (type === undefined)
const noKind = { message: 'give either "agent" or "type"', path: ['agent'] }
export const body = fields.refine(hasKind, noKind)
export type ScheduleBody = z.output<typeof body>

const declared = fields.extend({
  project_id: word.default('default').describe('Where its jobs belong.'),
  principal: word.default('operator').describe('With whose rights they are submitted.'),
}).refine(hasKind, noKind)
export type DeclaredSchedule = z.output<typeof declared>

export const config = z.strictObject({
  schedules: z.record(scheduleName, declared).default({}).describe('Schedules by name. One that is taken out here is removed.'),
  late_ms: ms(1_000).default(60_000).describe('A time that passed longer ago than this, with nobody there to fire it, was missed.'),
  retry_ms: ms(100).default(10_000)
    .describe('When a firing is tried again that could not be done for now: a full queue, a plugin that is being restarted.'),
  sweep_ms: ms(100).default(5_000).describe('How often the leader looks for changes that it was not told of.'),
  max_schedules: z.int().min(1).max(100_000).default(1_000).describe('Of one project.'),
})
export type SchedulesConfig = z.output<typeof config>
