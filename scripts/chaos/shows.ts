import { kills } from './kills.ts'
import { outages } from './outages.ts'
import { poison } from './poison.ts'
import { repeats } from './repeats.ts'
import { rolling } from './rolling.ts'
import type { Engine, Result, Show } from './show.ts'
import { Stage, type StageOptions } from './stage.ts'
import { stall } from './stall.ts'
import { steps } from './steps.ts'
import { submissions } from './submissions.ts'
import { workers } from './workers.ts'

export const SHOWS: readonly Show[] = [kills, submissions, outages, poison, stall, repeats, steps, workers, rolling]

export const isOn = (show: Show, engine: Engine): boolean => show.on?.(engine) ?? true

/** A show that throws has broken its promise too. */
export async function perform(show: Show, options: StageOptions): Promise<Result> {
  const { engine, seed, scale } = options
  const from = performance.now()
  const result = (numbers: Result['numbers'], violations: readonly string[]): Result => ({
    show: show.number, title: show.title, engine: engine.name, seed, scale,
    seconds: Math.round((performance.now() - from) / 100) / 10, numbers, violations,
  })
  await using stage = await Stage.open(options)
  try { await show.run(stage) } catch (error) { stage.expect(false, `the show could not go on: ${(error as Error).stack ?? String(error)}`) }
  return result(stage.numbers, stage.violations)
}
