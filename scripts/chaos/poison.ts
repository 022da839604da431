import { oneFinalState, noneDeadEarly } from './invariants.ts'
import { submitAll } from './load.ts'
import type { Show } from './show.ts'

export const poison: Show = {
  number: 4,
  title: 'a job kills every process that runs it',
  async run(stage) {
    const jobs = stage.many(500, 40)
    const api = await stage.start(0)
    const effects = (count: number) => Array.from({ length: count }, () => ({ type: 'effect', input: { ms: Math.round(stage.random() * 40) } }))
    const ids = await submitAll(api.url, [...effects(Math.floor(jobs / 2)), { type: 'poison', input: {} }, ...effects(jobs - Math.floor(jobs / 2) - 1)])
    const workers = await Promise.all([stage.keep(10, 'worker'), stage.keep(10, 'worker')])
    await stage.settled()
    const [job] = await stage.rows(`SELECT id, status, attempt, max_attempts, error FROM jobs WHERE type = 'poison'`)
    stage.measure('jobs', ids.length)
    stage.measure('processes killed', workers.reduce((sum, each) => sum + each.deaths, 0))
    stage.measure('attempts of the poison', Number(job!['attempt']))
    stage.measure('its reason', (JSON.parse(job!['error'] ?? '{}') as { code?: string }).code ?? 'none')
    stage.expect(job!['status'] === 'dead' && job!['attempt'] === job!['max_attempts'] && job!['error'] !== null, `the poison is ${JSON.stringify(job)}`)
    const completed = await stage.count(`status = 'completed'`)
    stage.measure('completed', completed)
    stage.expect(completed === jobs - 1, `${completed} of the other ${jobs - 1} were completed`)
    await noneDeadEarly(stage)
    await oneFinalState(stage)
    await Promise.all([...workers.map(each => each.leave()), api.kill('SIGTERM')])
  },
}
