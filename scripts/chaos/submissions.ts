import { allEnded, duplicatesAtMost, effectsExact, noneLost, oneFinalState } from './invariants.ts'
import { insist } from './load.ts'
import { pause } from './random.ts'
import type { Show } from './show.ts'

const CONCURRENCY = 10
const BATCH = 20
const SUBMITTERS = 4

export const submissions: Show = {
  number: 2,
  title: 'jobs are submitted while Redis and workers are killed, and Redis is emptied',
  async run(stage) {
    const jobs = Math.ceil(stage.many(20_000, 200) / BATCH) * BATCH
    const [outages, times] = [stage.redis ? stage.many(6, 1) : 0, stage.many(30, 2)]
    // What Redis forgets is handed to it again after this time.
    stage.configure({ jobs: { rehand_ms: stage.options.scale < 0.1 ? 3_000 : 10_000, max_attempts: 20 } })
    const api = await stage.start(0)
    const workers = [await stage.keep(CONCURRENCY, 'worker'), await stage.keep(CONCURRENCY, 'worker')]
    const acknowledged = new Set<string>()
    let [asked, refused] = [0, 0]
    const submit = async () => {
      while (asked < jobs) {
        asked += BATCH
        const batch = Array.from({ length: BATCH }, () => ({ type: 'effect', input: { ms: Math.round(stage.random() * 20) } }))
        for (const id of await insist(() => api.url, batch, () => { refused++ })) acknowledged.add(id)
        // It lasts as long as the work does, so that there is always something under way.
        await stage.until('the workers to keep up', () => acknowledged.size - stage.sink.effects('effect') < 1_000, 120_000, 20)
      }
    }
    const submitted = Promise.all(Array.from({ length: SUBMITTERS }, submit))
    let [killed, cut, flushed, forgotten] = [0, 0, 0, 0]
    const flush = async () => {
      forgotten += Number(await stage.redis!.call('DBSIZE'))
      await stage.redis!.flushAll()
      flushed++
      stage.say(`FLUSHALL, ${acknowledged.size} jobs are acknowledged`)
    }
    const share = (nth: number, of: number) => Math.floor(jobs * nth / (of + 1))
    const killing = (async () => {
      for (let nth = 1; nth <= times; nth++) {
        await stage.until('more jobs to be submitted', () => acknowledged.size >= share(nth, times), 300_000, 10)
        const up = workers.filter(each => each.current.up)
        if (!up.length) continue
        await up[Math.floor(stage.random() * up.length)]!.current.kill('SIGKILL')
        killed++
      }
    })()
    const cutting = (async () => {
      for (let nth = 1; nth <= outages; nth++) {
        await stage.until('more jobs to be submitted', () => acknowledged.size >= share(nth, outages), 300_000, 10)
        stage.say(`Redis is killed, ${acknowledged.size} jobs are acknowledged`)
        await stage.redis!.crash()
        await pause(500 + stage.random() * 1_500)
        await stage.redis!.restart()
        cut++
        if (nth !== Math.ceil(outages / 2)) continue
        // Once just after it is back, and once when all is well.
        await pause(500)
        await flush()
        await stage.until('more jobs to be submitted', () => acknowledged.size >= (share(nth, outages) + share(nth + 1, outages)) / 2, 300_000, 10)
        await flush()
      }
    })()
    await Promise.all([submitted, killing, cutting])
    stage.say(`${acknowledged.size} jobs are acknowledged; waiting for their ends`)
    const from = performance.now()
    await stage.settled()
    stage.measure('jobs', acknowledged.size)
    stage.measure('kill -9', killed)
    stage.measure('Redis killed', cut)
    stage.measure('FLUSHALL', flushed)
    stage.measure('keys it took', forgotten)
    stage.measure('refused', refused)
    stage.measure('s to the end', Math.round((performance.now() - from) / 1_000))
    await noneLost(stage, acknowledged)
    // A batch whose answer was cut off may have been taken in too.
    await allEnded(stage, await stage.count('1 = 1'))
    await effectsExact(stage)
    await oneFinalState(stage)
    duplicatesAtMost(stage, killed * CONCURRENCY)
  },
}
