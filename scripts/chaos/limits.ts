import { pause } from './random.ts'
import type { Stage } from './stage.ts'

const SAMPLE_MS = 100

/** A scope is what the receiver outside calls it: `project:x`, `agent:x`, `worker:x`. */
export type LimitOf = (scope: string) => number | undefined

/** Looks at the tables until it is told to stop: what runs, by whom, and whether that is more than may run. */
export function watchLimits(stage: Stage, limitOf: LimitOf): () => Promise<void> {
  let over = false
  let samples = 0
  const most = new Map<string, number>()
  const sampling = (async () => {
    while (!over) {
      const rows = await stage.rows<{ lease_owner: string; project_id: string; agent: string | null; n: number | string }>(
        `SELECT lease_owner, project_id, agent, COUNT(*) AS n FROM jobs WHERE status = 'running' GROUP BY lease_owner, project_id, agent`)
      const now = new Map<string, number>()
      const add = (scope: string, n: number) => now.set(scope, (now.get(scope) ?? 0) + n)
      for (const { lease_owner, project_id, agent, n } of rows) {
        add(`worker:${lease_owner}`, Number(n))
        add(`project:${project_id}`, Number(n))
        if (agent !== null) add(`agent:${agent}`, Number(n))
      }
      samples++
      for (const [scope, n] of now) most.set(scope, Math.max(most.get(scope) ?? 0, n))
      await pause(SAMPLE_MS)
    }
  })()
  return async () => {
    over = true
    await sampling
    stage.measure('samples', samples)
    keepsTo(stage, most, limitOf, 'in the tables')
  }
}

/** One number for each limited scope, the fullest worker for all workers. */
export function keepsTo(stage: Stage, most: ReadonlyMap<string, number>, limitOf: LimitOf, where: string): void {
  const told = new Map<string, number>()
  for (const [scope, n] of most) {
    const limit = limitOf(scope)
    if (limit === undefined) continue
    stage.expect(n <= limit, `${n} jobs of ${scope} ran at once ${where}, and ${limit} is its limit`)
    const name = scope.startsWith('worker:') ? 'a worker' : scope
    told.set(name, Math.max(told.get(name) ?? 0, n))
  }
  stage.measure(`most at once ${where}`, [...told].sort().map(([name, n]) => `${name} ${n}`).join(', '))
}
