import type { Job } from '#contracts/jobs'
import { Balancer } from './balancer.ts'
import { duplicatesAtMost, noneLost, oneFinalState } from './invariants.ts'
import type { Instance } from './instance.ts'
import { ask, post, type Answer } from './load.ts'
import { pause } from './random.ts'
import type { Show } from './show.ts'

const CLIENTS = 8

export const rolling: Show = {
  number: 10,
  title: 'every instance is replaced, one after another, under load',
  on: engine => engine.name === 'bullmq-postgres',
  async run(stage) {
    const rounds = stage.many(10)
    await using balancer = await new Balancer().listen()
    const serve = async (): Promise<Instance> => {
      const api = await stage.start(0)
      balancer.add(api.url)
      await stage.until('a new instance to be ready', () => balancer.isReady(api.url), 30_000, 20)
      return api
    }
    const apis = [await serve(), await serve()]
    const workers = [await stage.start(10), await stage.start(10)]
    const acknowledged = new Set<string>()
    const failed: string[] = []
    let [over, requests, slowest] = [false, 0, 0]
    const note = (what: string, { status, body, ms }: Answer, wanted: number): boolean => {
      requests++
      slowest = Math.max(slowest, ms)
      if (status !== wanted) {
        failed.push(`${what}: ${status} ${JSON.stringify(body)} after ${Math.round(ms)} ms`)
        stage.say(failed.at(-1)!)
      }
      return status === wanted
    }
    const load = Array.from({ length: CLIENTS }, async () => {
      while (!over) {
        const made = await post(`${balancer.url}/api/v1/jobs`, { type: 'steps', input: { ms: Math.round(stage.random() * 100) } })
        if (note('POST', made, 202)) {
          const { id } = made.body as Job
          acknowledged.add(id)
          note('GET', await ask(`${balancer.url}/api/v1/jobs/${id}`), 200)
        }
        await pause(stage.random() * 200)
      }
    })
    const codes: (number | string)[] = []
    for (let nth = 1; nth <= rounds; nth++) {
      for (const at of [0, 1]) {
        const old = apis[at]!
        codes.push(await old.kill('SIGTERM'))
        balancer.remove(old.url)
        apis[at] = await serve()
        codes.push(await workers[at]!.kill('SIGTERM'))
        workers[at] = await stage.start(10)
      }
      stage.say(`${nth} of ${rounds} rounds, ${requests} requests, ${failed.length} failed`)
    }
    over = true
    await Promise.all(load)
    await stage.settled()
    stage.measure('restarts', codes.length)
    stage.measure('requests', requests)
    stage.measure('failed', failed.length)
    stage.measure('tried again', balancer.retried)
    stage.measure('slowest ms', Math.round(slowest))
    stage.measure('jobs', acknowledged.size)
    stage.expect(failed.length === 0, `${failed.length} requests failed, such as ${failed[0]}`)
    stage.expect(codes.every(each => each === 0), `instances ended with ${[...new Set(codes)].join(', ')}`)
    await noneLost(stage, acknowledged)
    await oneFinalState(stage)
    const completed = (await stage.rows<{ id: string }>(`SELECT id FROM jobs WHERE status = 'completed'`)).map(each => each.id)
    const told = stage.sink.of('step')
    const lost = completed.flatMap(id => ['a', 'b', 'c'].map(step => `${id}/${step}`)).filter(key => !told.has(key))
    stage.measure('steps', told.size)
    stage.expect(completed.length === await stage.count('1 = 1'), 'not every job was completed')
    stage.expect(lost.length === 0, `${lost.length} steps are lost, such as ${lost[0]}`)
    duplicatesAtMost(stage, 0, 'step')
    const ends = await Promise.all([...apis, ...workers].map(each => each.kill('SIGTERM')))
    stage.expect(ends.every(each => each === 0), `processes ended with ${ends.join(', ')}`)
  },
}
