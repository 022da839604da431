import { oneFinalState } from './invariants.ts'
import { submitAll } from './load.ts'
import type { Show } from './show.ts'

export const stall: Show = {
  number: 5,
  title: 'a worker\'s event loop is blocked longer than its lease',
  async run(stage) {
    const ms = stage.options.scale >= 1 ? 8_000 : 2_000
    stage.configure({ jobs: { lease: { ms, renew_ms: Math.round(ms / 4) } } })
    const api = await stage.start(0)
    const first = await stage.start(10, 'worker')
    const blocked = ms * 2 + 2_000
    // The others sleep in the same process while it is blocked: their leases end too.
    const others = Array.from({ length: 9 }, () => ({ type: 'effect', input: { ms: 1_500 } }))
    await submitAll(api.url, [...others, { type: 'block', input: { ms: blocked } }])
    const from = performance.now()
    await stage.until('the event loop to be blocked', async () => Number((await stage.rows(`SELECT attempt FROM jobs WHERE type = 'block'`))[0]!['attempt']) === 1)
    const second = await stage.start(10, 'worker')
    await stage.settled(60_000)
    stage.measure('lease ms', ms)
    stage.measure('blocked ms', blocked)
    stage.measure('ms to the end', Math.round(performance.now() - from))
    // The late ones must have had their say.
    await stage.until('the first worker to come back', () => first.lines.some(line => line.includes('result of an attempt is dropped')), blocked + 10_000)
    const [job] = await stage.rows(`SELECT status, attempt, result FROM jobs WHERE type = 'block'`)
    stage.expect(job!['status'] === 'completed' && job!['result'] === '{"attempt":2}', `the blocking job is ${JSON.stringify(job)}`)
    const late = await stage.rows(`SELECT outcome, COUNT(*) AS n FROM job_attempts GROUP BY outcome`)
    for (const { outcome, n } of late) stage.measure(`attempts ${outcome}`, Number(n))
    stage.expect(await stage.count(`status = 'completed'`) === 10, 'not all were completed')
    await oneFinalState(stage)
    const ends = await Promise.all([api, first, second].map(each => each.kill('SIGTERM')))
    stage.expect(ends.every(each => each === 0), `the processes ended with ${ends.join(', ')}`)
  },
}
