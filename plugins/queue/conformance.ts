import assert from 'node:assert/strict'
import { defineConformance, eventually } from '#core/testing'
import type { Database, Tx } from '#contracts/database'
import { JobQueue, type Consumer } from '#contracts/queue'

export interface QueueSubject {
  readonly queue: JobQueue
  readonly database: Database
}

/** Takes everything, and keeps it in the order in which it came. */
async function collect(queue: JobQueue, want: number): Promise<{ got: string[]; consumer: Consumer }> {
  const got: string[] = []
  const consumer = await queue.consume(async ids => { got.push(...ids) })
  consumer.want(want)
  return { got, consumer }
}
const entries = (...ids: string[]) => ids.map(id => ({ id, priority: 5 }))

/** What every engine promises: ids, at least once, in order of priority and time. */
export const queueConformance = defineConformance<QueueSubject, 'transactional'>(JobQueue, {
  'delivers what was there before the consumer came, by priority and then by age': {
    async run({ queue }) {
      for (const [id, priority] of [['a', 1], ['b', 9], ['c', 5], ['d', 9], ['e', 0]] as const) await queue.enqueue([{ id, priority }])
      assert.equal(await queue.depth(), 5)
      const { got, consumer } = await collect(queue, 10)
      await eventually('five ids', () => got.length === 5)
      assert.deepEqual(got, ['b', 'd', 'c', 'a', 'e'])
      await eventually('an empty queue', async () => await queue.depth() === 0)
      await consumer[Symbol.asyncDispose]()
    },
  },
  'wakes a waiting consumer': {
    async run({ queue }) {
      const { got, consumer } = await collect(queue, 10)
      const from = performance.now()
      await queue.enqueue(entries('a'))
      await eventually('the id', () => got.length === 1)
      assert.ok(performance.now() - from < 500, 'it was not told at once')
      await consumer[Symbol.asyncDispose]()
    },
  },
  'never delivers more than are wanted': {
    async run({ queue }) {
      await queue.enqueue(entries('a', 'b', 'c', 'd', 'e'))
      const { got, consumer } = await collect(queue, 2)
      await eventually('two ids', () => got.length === 2)
      await queue.enqueue(entries('f'))
      await new Promise(resolve => setTimeout(resolve, 30))
      assert.deepEqual(got, ['a', 'b'])
      consumer.want(1)
      await eventually('a third', () => got.length === 3)
      consumer.want(0)
      assert.equal(await queue.depth(), 3)
      consumer.want(10)
      await eventually('all', () => got.length === 6)
      await consumer[Symbol.asyncDispose]()
    },
  },
  'delivers again what the consumer threw at': {
    async run({ queue }) {
      let tries = 0
      const got: string[] = []
      const consumer = await queue.consume(async ids => { if (++tries < 3) throw new Error('not now'); got.push(...ids) })
      consumer.want(5)
      await queue.enqueue(entries('a', 'b'))
      await eventually('both', () => got.length === 2)
      assert.deepEqual(got, ['a', 'b'])
      await eventually('an empty queue', async () => await queue.depth() === 0)
      await consumer[Symbol.asyncDispose]()
    },
  },
  'gives ids to a transaction, with which they leave': {
    needs: 'transactional',
    async run({ queue, database }) {
      await queue.enqueue(entries('a', 'b', 'c', 'd'))
      const { got, consumer } = await collect(queue, 1)
      await eventually('the first', () => got.length === 1)
      const taken: (readonly string[])[] = []
      const take = async (tx: Tx) => { taken.push(await consumer.take(2, tx)) }
      await assert.rejects(database.transaction(async tx => { await take(tx); throw new Error('no') }))
      await database.transaction(take)
      assert.deepEqual(taken, [['b', 'c'], ['b', 'c']])
      consumer.want(10)
      await eventually('all', () => new Set([...got, ...taken[1]!]).size === 4)
      assert.equal(got.length + taken[1]!.length, 4)
      await eventually('an empty queue', async () => await queue.depth() === 0)
      await consumer[Symbol.asyncDispose]()
      assert.deepEqual(await database.transaction(tx => consumer.take(2, tx)), [])
    },
    refuse({ queue }) { assert.equal(queue.can.transactional, false) },
  },
  'says whether there was more when it last looked': {
    async run({ queue }) {
      const { got, consumer } = await collect(queue, 5)
      await queue.enqueue(entries('a'))
      await eventually('the id', () => got.length === 1)
      await eventually('nothing more', () => consumer.empty)
      consumer.want(0)
      await queue.enqueue(entries('b', 'c'))
      await eventually('more', () => !consumer.empty)
      await consumer[Symbol.asyncDispose]()
    },
  },
  'takes an id that is there already as the same one': {
    async run({ queue }) {
      await queue.enqueue(entries('a'))
      await queue.enqueue(entries('a', 'b'))
      assert.equal(await queue.depth(), 2)
    },
  },
  'raises an id that is there already to a higher priority, and lowers none': {
    async run({ queue }) {
      await queue.enqueue([{ id: 'a', priority: 5 }, { id: 'b', priority: 1 }, { id: 'c', priority: 7 }])
      await queue.enqueue([{ id: 'b', priority: 9 }, { id: 'c', priority: 0 }, { id: 'd', priority: 5 }])
      assert.equal(await queue.depth(), 4)
      const { got, consumer } = await collect(queue, 10)
      await eventually('all', () => got.length === 4)
      assert.deepEqual(got, ['b', 'c', 'a', 'd'])
      await consumer[Symbol.asyncDispose]()
    },
  },
  'removes what is asked and passes over the rest': {
    async run({ queue }) {
      await queue.enqueue(entries('a', 'b', 'c'))
      await queue.remove(['b', 'never'])
      const { got, consumer } = await collect(queue, 10)
      await eventually('two ids', () => got.length === 2)
      assert.deepEqual(got, ['a', 'c'])
      await consumer[Symbol.asyncDispose]()
    },
  },
  'gives what was removed, and comes again, the place that it has now': {
    async run({ queue }) {
      await queue.enqueue([{ id: 'a', priority: 9 }, ...entries('b', 'c', 'd'), { id: 'e', priority: 1 }])
      for (const [id, priority] of [['a', 1], ['b', 5], ['e', 9]] as const) {
        await queue.remove([id])
        await queue.enqueue([{ id, priority }])
      }
      const { got, consumer } = await collect(queue, 10)
      await eventually('all', () => got.length === 5)
      assert.deepEqual(got, ['e', 'c', 'd', 'b', 'a'])
      await consumer[Symbol.asyncDispose]()
    },
  },
  'delivers nothing after the consumer was closed': {
    async run({ queue }) {
      const { got, consumer } = await collect(queue, 10)
      await consumer[Symbol.asyncDispose]()
      await queue.enqueue(entries('a'))
      await new Promise(resolve => setTimeout(resolve, 30))
      assert.deepEqual(got, [])
      assert.equal(await queue.depth(), 1)
    },
  },
  'shares among consumers without giving one id to two': {
    async run({ queue }) {
      const [one, two] = [await collect(queue, 1_000), await collect(queue, 1_000)]
      for (let at = 0; at < 20; at++) await queue.enqueue(entries(...Array.from({ length: 10 }, (_, each) => `${at}-${each}`)))
      await eventually('all', () => one.got.length + two.got.length >= 200)
      assert.equal(new Set([...one.got, ...two.got]).size, 200)
      await Promise.all([one, two].map(each => each.consumer[Symbol.asyncDispose]()))
    },
  },
  'enqueues and delivers inside a transaction': {
    needs: 'transactional',
    async run({ queue, database }) {
      assert.equal(queue.can.transactional, true)
      await assert.rejects(database.transaction(async tx => { await queue.enqueue(entries('undone'), tx); throw new Error('no') }))
      const delivered: string[][] = []
      let fail = true
      const consumer = await queue.consume(async (ids, tx) => {
        assert.ok(tx, 'no transaction was given')
        delivered.push([...ids])
        await queue.enqueue(entries('made-inside'), tx)
        if (fail) { fail = false; throw new Error('roll back') }
      })
      consumer.want(1)
      await database.transaction(async tx => queue.enqueue(entries('kept'), tx))
      await eventually('two deliveries', () => delivered.length === 2)
      await eventually('only what was made inside', async () => await queue.depth() === 1)
      assert.deepEqual(delivered, [['kept'], ['kept']])
      await consumer[Symbol.asyncDispose]()
    },
    refuse({ queue }) { assert.equal(queue.can.transactional, false) },
  },
})
