import { ask, post, submitAll } from './load.ts'
import type { Show } from './show.ts'

export const repeats: Show = {
  number: 6,
  title: 'the same request comes many times, and a replay is pressed twice',
  async run(stage) {
    const [requests, dead] = [stage.many(100, 20), stage.many(1_000, 50)]
    const apis = await Promise.all([stage.start(0), stage.start(0)])
    const body = { type: 'effect', input: { ms: 1 }, idempotency_key: `key-${stage.options.seed}` }
    const answers = await Promise.all(Array.from({ length: requests }, (_, at) => post(`${apis[at % 2]!.url}/api/v1/jobs`, body)))
    const different = new Set(answers.map(({ status, body: answer }) => `${status} ${JSON.stringify(answer)}`))
    stage.measure('equal requests', requests)
    stage.measure('jobs of them', await stage.count('1 = 1'))
    stage.expect(await stage.count('1 = 1') === 1, 'one key made several jobs')
    stage.expect(different.size === 1 && answers[0]!.status === 202, `${different.size} different answers: ${[...different].slice(0, 2).join(' | ')}`)

    const worker = await stage.start(10, 'worker')
    stage.sink.fails = true
    await submitAll(apis[0].url, Array.from({ length: dead }, () => ({ type: 'brittle', input: {} })))
    await stage.settled()
    stage.expect(await stage.count(`status = 'dead'`) === dead, `not all ${dead} are dead`)
    stage.sink.fails = false
    const before = stage.sink.heard('naked')
    const pressed = await Promise.all(apis.map(api => post(`${api.url}/api/v1/dlq/replay`, { type: 'brittle' })))
    stage.expect(pressed.every(each => each.status === 202), `the replays were answered ${pressed.map(each => `${each.status} ${JSON.stringify(each.body)}`).join(', ')}`)
    await stage.settled()
    const runs = stage.sink.heard('naked') - before
    stage.measure('dead jobs', dead)
    stage.measure('runs after two replays', runs)
    stage.measure('replayed', pressed.map(each => each.body?.replayed).join(' + '))
    stage.expect(runs === dead, `${runs} runs, not ${dead}`)
    stage.expect(await stage.count(`type = 'brittle' AND status = 'completed'`) === dead, 'not all were completed after the replay')
    const left = await ask(`${apis[0].url}/api/v1/dlq`)
    stage.expect(left.status === 200 && left.body.items.length === 0, 'the dead-letter queue is not empty')
    await Promise.all([...apis, worker].map(each => each.kill('SIGTERM')))
  },
}
