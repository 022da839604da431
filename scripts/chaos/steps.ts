import { startModelServer, type ServedCall } from '../../test/support/model-server.ts'
import { noneDeadEarly, oneFinalState } from './invariants.ts'
import { submitAll } from './load.ts'
import type { Show } from './show.ts'

const CONCURRENCY = 10
const TOOL = { tools: [{ name: 'calculator', arguments: { expressions: ['2+40'] } }] }

/** Which job asks, and for which of its three steps. */
function stepOf({ body: { messages } }: ServedCall): { job: string; step: number } {
  const text = messages.find((each: { role: string }) => each.role === 'user').content as string
  return { job: text, step: 1 + messages.filter((each: { role: string }) => each.role === 'assistant').length }
}

export const steps: Show = {
  number: 7,
  title: 'an agent of three steps is killed after its second',
  async run(stage) {
    const rounds = stage.many(10)
    const asked = new Map<string, number>()
    let waiting = 0
    let open = () => {}
    let gate = Promise.resolve()
    await using models = await startModelServer(async call => {
      const { job, step } = stepOf(call)
      const key = `${job} step ${step}`
      const times = (asked.get(key) ?? 0) + 1
      asked.set(key, times)
      if (step < 3) return TOOL
      if (times === 1) { waiting++; await gate }
      return { text: ['The ', 'sum ', 'is ', '42.'] }
    })
    // What is shown comes after the lease, which is short so that ten rounds are.
    stage.configure({ jobs: { lease: { ms: 2_000, renew_ms: 500 } }, plugins: {
      models: { config: { providers: { local: { type: 'openai-compatible', base_url: models.base('openai') } }, aliases: { default: 'local/counted' } } },
      agents: { config: { agents: { adder: { summary: 'Adds', tools: ['calculator'] } } } }, 'agent-pack-core': {},
    } })
    const api = await stage.start(0)
    const worker = await stage.keep(CONCURRENCY, 'worker')
    for (let nth = 1; nth <= rounds; nth++) {
      gate = new Promise(done => { open = done })
      waiting = 0
      await submitAll(api.url, Array.from({ length: CONCURRENCY }, (_, at) => ({ agent: 'adder', input: `round ${nth} job ${at}` })))
      await stage.until('all to be at their third step', () => waiting === CONCURRENCY, 60_000)
      await worker.current.kill('SIGKILL')
      open()
      await stage.settled(60_000)
    }
    const again = (step: number) => [...asked].filter(([key, times]) => key.endsWith(`step ${step}`) && times > 1).length
    stage.measure('agents', rounds * CONCURRENCY)
    stage.measure('kill -9', rounds)
    for (const step of [1, 2, 3]) stage.measure(`step ${step} asked again`, again(step))
    stage.expect(again(1) + again(2) === 0, `steps 1 and 2 were asked again ${again(1)} and ${again(2)} times`)
    const completed = await stage.count(`status = 'completed'`)
    stage.expect(completed === rounds * CONCURRENCY, `${completed} of ${rounds * CONCURRENCY} were completed`)
    await noneDeadEarly(stage)
    await oneFinalState(stage)
    await Promise.all([worker.leave(), api.kill('SIGTERM')])
  },
}
