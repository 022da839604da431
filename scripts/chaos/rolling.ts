import type { Job } from '#contracts/jobs'
import { Balancer } from './balancer.ts'
import { duplicatesAtMost, noneLost, oneFinalState } from './invariants.ts'
import type { Instance } from './instance.ts'
import { ask, post, type Answer } from './load.ts'
import { pause } from './random.ts'
import type { Show } from './show.ts'
import { sawAll, watch, type Watched } from './watchers.ts'

const CLIENTS = { submit: 6, watch: 4, wait: 3 }
const CONCURRENCY = 20
/** More than the balancer needs to see that an instance is not ready. */
const DRAIN_DELAY_MS = 500
const SAID = ['a', 'b', 'c'].flatMap(name => [1, 2, 3, 4, 5].map(nth => `${name}${nth} `)).join('')

export const rolling: Show = {
  number: 10,
  title: 'every instance is replaced, one after another, under load',
  on: engine => engine.name === 'bullmq-postgres',
  async run(stage) {
    const rounds = stage.many(10)
    const http = { config: { port: 0, maxConcurrentRequests: 500, drainDelayMs: DRAIN_DELAY_MS } }
    stage.configure({ plugins: { http, sse: {}, models: {}, agents: {} } })
    await using balancer = await new Balancer().listen()
    const serve = async (): Promise<Instance> => {
      const api = await stage.start(0, 'api')
      balancer.add(api.url)
      await stage.until('a new instance to be ready', () => balancer.isReady(api.url), 30_000, 20)
      return api
    }
    const work = () => stage.start(CONCURRENCY, 'worker')
    const apis = [await serve(), await serve()]
    const workers = [await work(), await work()]
    const acknowledged = new Set<string>()
    const failed: string[] = []
    const watched: Watched[] = []
    let [over, requests] = [false, 0]
    const note = (what: string, { status, body, ms }: Answer, wanted: number): boolean => {
      requests++
      if (status === wanted) return true
      failed.push(`${what}: ${status} ${JSON.stringify(body)} after ${Math.round(ms)} ms`)
      stage.say(failed.at(-1)!)
      return false
    }
    const submit = async (type: string, most: number): Promise<string | undefined> => {
      const made = await post(`${balancer.url}/api/v1/jobs`, { type, input: { ms: Math.round(stage.random() * most) } })
      if (!note('POST', made, 202)) return undefined
      const { id } = made.body as Job
      acknowledged.add(id)
      return id
    }
    const clients = {
      async submit() {
        const id = await submit('steps', 100)
        if (id) note('GET', await ask(`${balancer.url}/api/v1/jobs/${id}`), 200)
        await pause(stage.random() * 200)
      },
      async watch() {
        const id = await submit('talk', 4_000)
        try { if (id) watched.push(await watch(balancer.url, id)) } catch (error) { failed.push(`a stream of ${id}: ${String(error)}`) }
      },
      // With a key, since who is told 503 must be able to send it again.
      async wait() {
        const run = { input: { ms: Math.round(stage.random() * 6_000) }, idempotency_key: `${stage.random()}` }
        const ran = await post(`${balancer.url}/api/v1/agents/patient/run`, run, 60_000)
        if (note('a run', ran, 200)) acknowledged.add((ran.body as Job).id)
      },
    }
    const load = Object.entries(CLIENTS).flatMap(([name, count]) => Array.from({ length: count }, async () => {
      while (!over) await clients[name as keyof typeof clients]()
    }))
    const codes: (number | string)[] = []
    let longest = 0
    const stop = async (instance: Instance) => {
      const from = performance.now()
      codes.push(await instance.kill('SIGTERM'))
      longest = Math.max(longest, performance.now() - from)
    }
    for (let nth = 1; nth <= rounds; nth++) {
      for (const at of [0, 1]) {
        const old = apis[at]!
        balancer.note(old.url)
        await stop(old)
        balancer.remove(old.url)
        apis[at] = await serve()
        await stop(workers[at]!)
        workers[at] = await work()
      }
      stage.say(`${nth} of ${rounds} rounds, ${requests} requests, ${watched.length} streams, ${failed.length} failed`)
    }
    over = true
    await Promise.all(load)
    await stage.settled()
    const { served } = balancer
    const again = served.filter(each => each.refusals.length)
    const waits = served.filter(each => each.path.endsWith('/run'))
    const short = served.filter(each => !each.path.startsWith('/sse') && !waits.includes(each)).sort((a, b) => b.ms - a.ms)
    for (const { method, path, status, ms, refusals } of [...again, ...short.slice(0, 3)]) {
      stage.say(`${method} ${path}: ${status} after ${Math.round(ms)} ms${refusals.map(each => `; tried again after ${each}`).join('')}`)
    }
    stage.measure('restarts', codes.length)
    stage.measure('requests', requests)
    stage.measure('failed', failed.length)
    stage.measure('tried again', again.length)
    stage.measure('slowest ms', Math.round(short[0]?.ms ?? 0))
    stage.measure('runs waited for', waits.length)
    stage.measure('of these answered by an instance that was stopping', waits.filter(each => each.leaving).length)
    const resumed = watched.reduce((sum, each) => sum + each.connections - 1, 0)
    stage.measure('streams', watched.length)
    stage.measure('times that one was taken up again', resumed)
    stage.measure('longest stop ms', Math.round(longest))
    stage.measure('jobs', acknowledged.size)
    stage.expect(failed.length === 0, `${failed.length} requests failed, such as ${failed[0]}`)
    stage.expect(rounds < 5 || (resumed > 0 && waits.some(each => each.leaving)), 'no stream was cut, or nobody waited: nothing was shown of that')
    stage.expect(codes.every(each => each === 0), `instances ended with ${[...new Set(codes)].join(', ')}`)
    await noneLost(stage, acknowledged)
    await oneFinalState(stage)
    await sawAll(stage, watched, SAID)
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
