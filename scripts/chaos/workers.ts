import { allEnded, duplicatesAtMost, effectsExact, oneFinalState } from './invariants.ts'
import { keepsTo, watchLimits, type LimitOf } from './limits.ts'
import { submitAll } from './load.ts'
import type { Show } from './show.ts'

const CONCURRENCY = 10
/** Over all processes. `default` and `wide` together have fewer places than the workers. */
const LIMITS = { per_project: { concurrency: 12 }, projects: { narrow: { concurrency: 3 } }, agents: { scarce: { concurrency: 4 } } }

const limitOf: LimitOf = scope => {
  if (scope.startsWith('worker:')) return CONCURRENCY
  if (scope.startsWith('project:')) return scope === 'project:narrow' ? LIMITS.projects.narrow.concurrency : LIMITS.per_project.concurrency
  return scope === 'agent:scarce' ? LIMITS.agents.scarce.concurrency : undefined
}

export const workers: Show = {
  number: 8,
  title: 'many workers share the work within limits, and nobody is killed',
  async run(stage) {
    const jobs = stage.many(10_000, 200)
    // A SQLite file takes four processes.
    const count = stage.engine.database === 'sqlite' ? 3 : 4
    stage.configure({ plugins: { models: {}, agents: {} }, jobs: {
      limits: LIMITS,
      // Nobody dies, so nobody waits for a lease; a machine that is busy with other things must not end one.
      lease: { ms: 20_000, renew_ms: 5_000 },
      // And nothing is taken from the queue: what it loses all the same is to be missed.
      rehand_ms: 3_600_000,
    } })
    const api = await stage.start(0)
    const instances = await Promise.all(Array.from({ length: count }, () => stage.start(CONCURRENCY, 'worker')))
    const stop = watchLimits(stage, limitOf)
    const from = performance.now()
    await submitAll(api.url, Array.from({ length: jobs }, () => {
      const [share, input] = [stage.random(), { ms: Math.round(stage.random() * 10) }]
      if (share < 0.1) return { type: 'effect', project_id: 'narrow', input }
      if (share < 0.2) return { agent: 'scarce', project_id: 'wide', input }
      return { type: 'effect', project_id: share < 0.6 ? 'wide' : 'default', input }
    }))
    await stage.settled(60_000 + jobs * 100)
    const seconds = (performance.now() - from) / 1_000
    stage.measure('jobs', jobs)
    stage.measure('workers', count)
    stage.measure('jobs/s', Math.round(jobs / seconds))
    await stop()
    keepsTo(stage, stage.sink.most, limitOf, 'outside')
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
