import type { Stage } from './stage.ts'

export interface Engine {
  readonly name: string
  readonly queue: 'embedded' | 'bullmq'
  readonly database: 'sqlite' | 'postgres'
}
export const ENGINES: readonly Engine[] = (['embedded', 'bullmq'] as const).flatMap(queue =>
  (['sqlite', 'postgres'] as const).map(database => ({ name: `${queue}-${database}`, queue, database })))

export interface Show {
  readonly number: number
  /** What is promised, in one line. */
  readonly title: string
  /** Where there is something to see; everywhere if it does not say. */
  on?(engine: Engine): boolean
  run(stage: Stage): Promise<void>
}

/** What one show on one engine came to. */
export interface Result {
  readonly show: number
  readonly title: string
  readonly engine: string
  readonly seed: number
  readonly scale: number
  readonly seconds: number
  readonly numbers: Readonly<Record<string, number | string>>
  /** Promises that were broken; none is what everybody wants. */
  readonly violations: readonly string[]
}
