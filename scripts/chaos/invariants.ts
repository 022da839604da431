import type { Stage } from './stage.ts'

/** Each job ended, with a result or in the dead-letter queue, and none is there with attempts left. */
export async function allEnded(stage: Stage, submitted: number): Promise<void> {
  const rows = await stage.rows<{ status: string; n: number | string }>('SELECT status, COUNT(*) AS n FROM jobs GROUP BY status')
  const count = Object.fromEntries(rows.map(({ status, n }) => [status, Number(n)]))
  const [completed, dead] = [count['completed'] ?? 0, count['dead'] ?? 0]
  stage.measure('completed', completed)
  stage.measure('dead', dead)
  stage.expect(completed + dead === submitted, `of ${submitted} jobs ${completed} were completed and ${dead} dead: ${JSON.stringify(count)}`)
  await noneDeadEarly(stage)
}

export async function noneDeadEarly(stage: Stage): Promise<void> {
  const early = await stage.rows(`SELECT id, attempt, max_attempts, error FROM jobs WHERE status = 'dead' AND attempt < max_attempts`)
  stage.expect(early.length === 0, `${early.length} jobs are dead with attempts left, such as ${JSON.stringify(early[0])}`)
}

/** What was acknowledged is there. */
export async function noneLost(stage: Stage, acknowledged: ReadonlySet<string>): Promise<void> {
  const there = new Set((await stage.rows<{ id: string }>('SELECT id FROM jobs')).map(each => each.id))
  const lost = [...acknowledged].filter(id => !there.has(id))
  stage.expect(lost.length === 0, `${lost.length} acknowledged jobs are lost, such as ${lost[0]}`)
}

/** A receiver with keys has done it once for each completed job. */
export async function effectsExact(stage: Stage, kind = 'effect'): Promise<void> {
  const completed = (await stage.rows<{ id: string }>(`SELECT id FROM jobs WHERE status = 'completed'`)).map(each => each.id)
  const effects = stage.sink.of(kind)
  const missing = completed.filter(id => !effects.has(id))
  stage.measure('effects', effects.size)
  stage.expect(missing.length === 0, `${missing.length} completed jobs had no effect, such as ${missing[0]}`)
}

export function duplicatesAtMost(stage: Stage, most: number, kind = 'naked'): void {
  const found = stage.sink.duplicates(kind)
  stage.measure('duplicates', found)
  stage.expect(found <= most, `${found} duplicates of the ${kind} effect, at most ${most} may be`)
}

/** One job has one final event, and its attempts agree with its row. */
export async function oneFinalState(stage: Stage): Promise<void> {
  const twice = await stage.rows(`SELECT job_id, COUNT(*) AS n FROM events WHERE type IN ('job.completed', 'job.dead', 'job.cancelled')
    GROUP BY job_id HAVING COUNT(*) > 1`)
  stage.expect(twice.length === 0, `${twice.length} jobs ended more than once, such as ${JSON.stringify(twice[0])}`)
  const open = await stage.rows('SELECT job_id FROM job_attempts WHERE finished_at IS NULL')
  stage.expect(open.length === 0, `${open.length} attempts have no end, such as that of ${JSON.stringify(open[0])}`)
  const won = await stage.rows(`SELECT job_id FROM job_attempts WHERE outcome = 'completed' GROUP BY job_id HAVING COUNT(*) > 1`)
  stage.expect(won.length === 0, `${won.length} jobs have two attempts that completed`)
}
