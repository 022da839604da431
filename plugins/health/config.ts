import { z } from 'zod'

const percent = (fallback: number) => z.number().min(0).max(100).default(fallback)
const levels = (degraded: number, unhealthy: number) => z.strictObject({
  degradedPercent: percent(degraded).describe('In use from which the check is degraded.'),
  unhealthyPercent: percent(unhealthy).describe('In use from which the check is unhealthy.'),
}).prefault({})

export const config = z.strictObject({
  memory: levels(90, 98).describe('Memory of the machine, or of the container if that has less.'),
  disk: levels(90, 97).describe('The file system that holds the data folder.'),
  eventLoop: z.strictObject({
    degradedMs: z.number().min(1).default(200).describe('Delay of the slowest hundredth of turns, in ms, from which the check is degraded.'),
    unhealthyMs: z.number().min(1).default(2_000).describe('The same, from which it is unhealthy.'),
  }).prefault({}).describe('How long the event loop keeps its work waiting.'),
})
export type HealthConfig = z.output<typeof config>
