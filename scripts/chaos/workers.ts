import { allEnded, duplicatesAtMost, effectsExact, oneFinalState } from './invariants.ts'
import { submitAll } from './load.ts'
import { pause } from './random.ts'
import type { Show } from './show.ts'

const CONCURRENCY = 10

export const workers: Show = {
  number: 8,
  title: 'many workers share the work and nobody is killed',
  async run(stage) {
    const jobs = stage.many(10_000, 200)
    // A SQLite file takes four processes.
    const count = stage.engine.database === 'sqlite' ? 3 : 4
    const api = await stage.start(0)
    const instances = await Promise.all(Array.from({ length: count }, () => stage.start(CONCURRENCY)))
    let over = false
    let [samples, most] = [0, 0]
    const sampling = (async () => {
      while (!over) {
        const rows = await stage.rows(`SELECT lease_owner, COUNT(*) AS n FROM jobs WHERE status = 'running' GROUP BY lease_owner`)
        samples++
        for (const { lease_owner, n } of rows) {
          most = Math.max(most, Number(n))
          stage.expect(Number(n) <= CONCURRENCY, `worker ${lease_owner} had ${n} jobs at once, and ${CONCURRENCY} is its limit`)
        }
        await pause(100)
      }
    })()
    const from = performance.now()
    await submitAll(api.url, Array.from({ length: jobs }, () => ({ type: 'effect', input: { ms: Math.round(stage.random() * 10) } })))
    await stage.settled()
    const seconds = (performance.now() - from) / 1_000
    over = true
    await sampling
    stage.measure('jobs', jobs)
    stage.measure('workers', count)
    stage.measure('jobs/s', Math.round(jobs / seconds))
    stage.measure('samples', samples)
    stage.measure('most at once in a worker', most)
    await allEnded(stage, jobs)
    await effectsExact(stage)
    await oneFinalState(stage)
    duplicatesAtMost(stage, 0)
    duplicatesAtMost(stage, 0, 'begun')
    const by = await stage.rows('SELECT worker, COUNT(*) AS n FROM job_attempts GROUP BY worker')
    stage.measure('jobs of each worker', by.map(each => Number(each['n'])).join(' / '))
    const ends = await Promise.all([...instances, api].map(each => each.kill('SIGTERM')))
    stage.expect(ends.every(each => each === 0), `processes ended with ${ends.join(', ')}`)
  },
}
