import { z } from 'zod'

const ms = (least: number, most: number) => z.int().min(least).max(most)

export const config = z.strictObject({
  retention: z.strictObject({
    count: z.int().min(1).default(1_000_000).describe('Events that are kept at most.'),
    days: z.number().positive().max(36_500).default(7).describe('How long an event is kept.'),
    sweepMs: ms(20, 86_400_000).default(60_000).describe('How often old events are looked for, on one process.'),
    batch: z.int().min(1).max(5_000).default(200).describe('Events that are removed in one transaction: others wait for it.'),
  }).prefault({}),
  pollMs: ms(20, 60_000).default(1_000).describe('How often the log is looked into though nobody said that there is news.'),
  buffer: z.int().min(1).max(1_000_000).default(1_000).describe('Events that wait in memory for one slow reader; it reads the rest from the database.'),
  consumer: z.strictObject({
    batch: z.int().min(1).max(1_000).default(100).describe('Events that a consumer is given at once.'),
    retryMs: ms(1, 600_000).default(1_000).describe('Pause after a batch failed; it doubles with each failure.'),
    retryMaxMs: ms(1, 3_600_000).default(60_000).describe('The longest pause.'),
  }).prefault({}),
})
export type EventsConfig = z.output<typeof config>
