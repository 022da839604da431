import assert from 'node:assert/strict'
import { SystemClock, type Clock } from '#core'
import { eventually, FakeClock, recordLog } from '#core/testing'
import type { RedisClient, RedisConnection } from '#contracts/redis'
import { RedisConsumer, type Source } from '../../../plugins/queue-bullmq/consumer.ts'

/** A queue of which the test says when it answers. */
function stage(ids: string[]) {
  const put: string[][] = []
  const acknowledged: string[][] = []
  const bells: number[] = []
  let answer: ((ids: string[]) => void) | undefined
  let ring = () => {}
  const source: Source = {
    bell: 'bell', take: room => new Promise(resolve => { answer = () => resolve(ids.splice(0, room)) }),
    acknowledge: async each => { acknowledged.push([...each]) }, putBack: async each => { put.push([...each]) },
  }
  const client = { bzpopmin: () => new Promise<void>(resolve => { ring = resolve }), zadd: async () => { bells.push(1) }, disconnect: () => ring() } as unknown as RedisClient
  const connection: RedisConnection = { client, ready: true, onReady() {}, unavailable: error => error as never, async [Symbol.asyncDispose]() { ring() } }
  return {
    source, connection, put, acknowledged, bells, ring: () => ring(), asked: () => answer !== undefined,
    answer: () => eventually('it to ask', () => answer).then(reply => { answer = undefined; reply([]) }),
  }
}
const open = ({ source, connection }: ReturnType<typeof stage>, deliver: (ids: readonly string[]) => Promise<void>, clock: Clock = new SystemClock()) =>
  new RedisConsumer({ source, connection, deliver, clock, log: recordLog(), gone() {} })

describe('queue-bullmq: its consumer', () => {
  it('gives back what it took and is not wanted any more', async () => {
    const here = stage(['a', 'b', 'c'])
    const got: string[] = []
    const consumer = open(here, async ids => { got.push(...ids) }, new FakeClock())
    consumer.want(3)
    consumer.want(1)
    await here.answer()
    await eventually('it', () => here.acknowledged.length === 1)
    assert.deepEqual([got, here.put], [['a'], []])
    consumer.want(2)
    await eventually('it to ask', here.asked)
    const answered = here.answer()
    consumer.want(0)
    await answered
    await eventually('them to be back', () => here.put.length === 1)
    assert.deepEqual([got, here.put], [['a'], [['b', 'c']]])
    const closed = consumer[Symbol.asyncDispose]()
    await here.answer()
    await closed
  })

  it('gives back soon what a transaction took that was rolled back, and not what one keeps', async () => {
    const here = stage(['a', 'b', 'c', 'd'])
    const clock = new FakeClock()
    const got: string[] = []
    const consumer = open(here, async ids => { got.push(...ids) }, clock)
    for (const count of [1, 2]) {
      consumer.want(1)
      await here.answer()
      await eventually('it', () => got.length === count)
    }
    await here.answer()
    const kept: (() => unknown)[] = []
    const [rolledBack, committed] = [{ afterCommit() {} }, { afterCommit: (run: () => unknown) => { kept.push(run) } }]
    const taken = await eventually('some at hand', async () => { const ids = await consumer.take(1, rolledBack); return ids.length > 0 && ids })
    assert.deepEqual([taken, await consumer.take(1, committed)], [['c'], ['d']])
    for (const run of kept) run()
    await clock.advance(500)
    assert.deepEqual(here.put, [['c']])
    assert.deepEqual(here.acknowledged.flat(), ['a', 'b', 'd'])
    const closed = consumer[Symbol.asyncDispose]()
    if (here.asked()) await here.answer()
    await closed
  })

  it('hands the bell on if it can take nothing when it rings', async () => {
    const here = stage([])
    const consumer = open(here, async () => {})
    consumer.want(1)
    await here.answer()
    await new Promise(resolve => setImmediate(resolve))
    consumer.want(0)
    here.ring()
    await eventually('the bell', () => here.bells.length === 1)
    await consumer[Symbol.asyncDispose]()
  })

  it('puts back what the delivery threw at, and is wanted as much as before', async () => {
    const here = stage(['a', 'b', 'c'])
    let tries = 0
    const consumer = open(here, async () => { if (!tries++) throw new Error('not now') })
    consumer.want(2)
    await here.answer()
    await eventually('them to be back', () => here.put.length === 1)
    await here.answer()
    await eventually('the next', () => here.acknowledged.length === 1)
    assert.deepEqual([here.put, here.acknowledged], [[['a', 'b']], [['c']]])
    const closed = consumer[Symbol.asyncDispose]()
    await here.answer().catch(() => {})
    await closed
  })

  it('takes again what is wanted, if nothing was wanted when it would have tried again', async () => {
    const here = stage(['a'])
    const clock = new FakeClock()
    let tries = 0
    const consumer = open(here, async () => { if (!tries++) throw new Error('not now') }, clock)
    consumer.want(1)
    await here.answer()
    await eventually('it to be back', () => here.put.length === 1)
    consumer.want(0)
    await clock.advance(1_000)
    consumer.want(1)
    await here.answer()
    const closed = consumer[Symbol.asyncDispose]()
    if (here.asked()) await here.answer()
    await closed
  })
})
