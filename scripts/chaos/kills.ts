import { allEnded, duplicatesAtMost, effectsExact, oneFinalState } from './invariants.ts'
import { submitAll } from './load.ts'
import { pause } from './random.ts'
import type { Show } from './show.ts'
import type { Stage } from './stage.ts'

const CONCURRENCY = 10
const WORKERS = 2

/** Spread over the whole work: the nth kill comes when so much of it is done, so that none hits idle processes. */
async function round(stage: Stage, signal: 'SIGKILL' | 'SIGTERM', jobs: number, kills: number): Promise<number> {
  const before = stage.sink.effects('naked')
  const done = () => stage.sink.effects('naked') - before
  const api = await stage.start(0)
  const workers = await Promise.all(Array.from({ length: WORKERS }, () => stage.keep(CONCURRENCY, 'worker')))
  await submitAll(api.url, Array.from({ length: jobs }, () => ({ type: 'effect', input: { ms: Math.round(stage.random() * 60) } })))
  let made = 0
  for (let nth = 1; nth <= kills; nth++) {
    const share = Math.floor(jobs * nth / (kills + 1))
    if (!await stage.until(`${share} of ${jobs} jobs to be done`, () => done() >= share && workers.some(each => each.current.up), 120_000, 10)) break
    const up = workers.filter(each => each.current.up)
    const worker = up[Math.floor(stage.random() * up.length)]!
    await pause(stage.random() * 100)
    void worker.current.kill(signal)
    made++
    if (nth % 10 === 0) stage.say(`${nth} of ${kills} ${signal}, ${done()} of ${jobs} jobs done`)
  }
  await stage.settled()
  const failures = workers.flatMap(each => each.failures)
  stage.expect(failures.length === 0, `${failures.length} processes ended otherwise than they were told to, such as: ${failures[0]}`)
  const ends = await Promise.all([...workers.map(each => each.leave()), api.kill('SIGTERM')])
  stage.expect(ends.every(each => each === 0), `processes ended with ${ends.join(', ')}`)
  return made
}

export const kills: Show = {
  number: 1,
  title: 'workers are killed while they work',
  async run(stage) {
    const [jobs, times] = [stage.many(10_000, 100), stage.many(50, 3)]
    const killed = await round(stage, 'SIGKILL', jobs, times)
    stage.measure('jobs', jobs)
    stage.measure('kill -9', killed)
    await allEnded(stage, jobs)
    await effectsExact(stage)
    await oneFinalState(stage)
    duplicatesAtMost(stage, killed * CONCURRENCY)
    const duplicates = stage.sink.duplicates('naked')

    const stopped = await round(stage, 'SIGTERM', jobs, times)
    stage.measure('SIGTERM', stopped)
    await allEnded(stage, 2 * jobs)
    await effectsExact(stage)
    await oneFinalState(stage)
    const more = stage.sink.duplicates('naked') - duplicates
    stage.measure('duplicates', `${duplicates}, then ${more}`)
    stage.expect(more === 0, `${more} duplicates though workers were asked to stop`)
    const handed = await stage.rows(`SELECT COUNT(*) AS n FROM job_attempts WHERE outcome = 'handed_back'`)
    stage.measure('handed back', Number(handed[0]!['n']))
  },
}
