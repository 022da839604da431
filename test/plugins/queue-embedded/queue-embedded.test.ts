import assert from 'node:assert/strict'
import fc from 'fast-check'
import { SystemClock } from '#core'
import { conform, createTestRuntime, eventually, FakeClock, recordLog } from '#core/testing'
import { queueConformance } from '#conformance/queue'
import { Database } from '#contracts/database'
import { JobQueue, type Consumer } from '#contracts/queue'
import database from '../../../plugins/database/index.ts'
import queue from '../../../plugins/queue-embedded/index.ts'
import { EmbeddedQueue } from '../../../plugins/queue-embedded/queue.ts'
import { postgresOrSkip, type PostgresServer } from '../../support/services.ts'

const open = (url?: string) => createTestRuntime({ plugins: [{ plugin: database, config: url === undefined ? {} : { url } }, queue] })

const entries = (...ids: string[]) => ids.map(id => ({ id, priority: 5 }))

function suite(place: () => Promise<{ readonly url?: string } & AsyncDisposable>) {
  conform(it, queueConformance, async () => {
    const { url, [Symbol.asyncDispose]: leave } = await place()
    const t = await open(url)
    return {
      subject: { queue: t.get(JobQueue), database: t.get(Database) },
      async [Symbol.asyncDispose]() { try { await t[Symbol.asyncDispose]() } finally { await leave() } },
    }
  }, { transactional: true })
}

describe('queue-embedded on SQLite', () => {
  suite(async () => ({ async [Symbol.asyncDispose]() {} }))

  it('finds the first of a long queue without sorting it', async () => {
    await using t = await open()
    const plan: { detail: string }[] = await t.get(Database).knex().raw('EXPLAIN QUERY PLAN SELECT position FROM queue_entries ORDER BY priority DESC, position LIMIT 5')
    assert.deepEqual(plan.map(each => each.detail), ['SCAN queue_entries USING COVERING INDEX queue_entries_order'])
  })

  it('delivers all there is in the end, whatever failed, was wanted or rolled back in between', async function () {
    this.timeout(60_000)
    await using t = await open()
    const database = t.get(Database)
    const event = fc.oneof(
      fc.record({ is: fc.constantFrom('add', 'foreign', 'want', 'take'), count: fc.integer({ min: 0, max: 3 }) }),
      fc.record({ is: fc.constantFrom('break', 'mend'), count: fc.constant(0) }), fc.record({ is: fc.constant('pass'), count: fc.constantFrom(0, 50, 100, 1_000, 5_000) }))
    await fc.assert(fc.asyncProperty(fc.array(event, { minLength: 1, maxLength: 20 }), async events => {
      const clock = new FakeClock()
      const [here, elsewhere] = [new EmbeddedQueue(database, clock, recordLog()), new EmbeddedQueue(database, clock, recordLog())]
      const left = new Set<string>()
      let [added, broken, over] = [0, false, false]
      const leave = (ids: readonly string[]) => { for (const id of ids) left.delete(id) }
      const consumer: Consumer = await here.consume(async ids => {
        if (broken) throw new Error('not now')
        leave(ids)
        // Nobody tells anew what is wanted while nothing begins.
        if (over) consumer.want(3)
      })
      const failing = () => { if (broken) throw new Error('rolled back') }
      for (const { is, count } of events) {
        if (is === 'break' || is === 'mend') broken = is === 'break'
        if (is === 'want') consumer.want(count)
        if (is === 'pass') await clock.advance(count)
        if (is === 'take') await database.transaction(async tx => { const ids = await consumer.take(count, tx); failing(); tx.afterCommit(() => leave(ids)) }).catch(() => {})
        if (is !== 'add' && is !== 'foreign') continue
        const ids = Array.from({ length: count }, () => `${added++}`)
        for (const id of ids) left.add(id)
        await (is === 'add' ? here : elsewhere).enqueue(entries(...ids))
      }
      over = true
      consumer.want(3)
      if (broken) await clock.advance(100)
      broken = false
      for (let at = 0; at < 20 && left.size; at++) {
        await clock.advance(1_000)
        await here.depth()
      }
      assert.deepEqual([...left], [])
      await consumer[Symbol.asyncDispose]()
    }), { numRuns: 300 })
  })
})

describe('queue-embedded on PostgreSQL', () => {
  let server: PostgresServer
  before(async function () { server = await postgresOrSkip(this) })
  suite(() => server.newDatabase())

  it('delivers to one process what another has not taken, and does not wait for that one', async () => {
    await using place = await server.newDatabase()
    await using t = await open(place.url)
    const other = new EmbeddedQueue(t.get(Database), new SystemClock(), recordLog())
    await t.get(JobQueue).enqueue(entries('a', 'b', 'c', 'd'))
    const one: string[] = []
    const two: string[] = []
    let release!: () => void
    const door = new Promise<void>(resolve => { release = resolve })
    const first = await t.get(JobQueue).consume(async ids => { one.push(...ids); await door })
    const second = await other.consume(async ids => { two.push(...ids) })
    try {
      first.want(2)
      await eventually('the first delivery', () => one.length === 2)
      second.want(10)
      await eventually('the second delivery', () => two.length === 2)
      assert.deepEqual([one, two], [['a', 'b'], ['c', 'd']])
    } finally { release(); await first[Symbol.asyncDispose](); await second[Symbol.asyncDispose]() }
    assert.equal(await other.depth(), 0)
  })

  it('keeps an entry that is added while the same one is being delivered', async () => {
    await using place = await server.newDatabase()
    await using t = await open(place.url)
    const jobs = t.get(JobQueue)
    await jobs.enqueue(entries('a'))
    let added: Promise<void> | undefined
    const got: string[] = []
    const consumer = await jobs.consume(async ids => {
      got.push(...ids)
      // By somebody else, who saw it in the queue: in the transaction of the delivery it would be no test.
      added ??= server.query(`INSERT INTO queue_entries (id, priority) VALUES ('a', 5) ON CONFLICT (id) DO NOTHING`, place.name).then(() => {})
      const waits = async () => (await server.query(`SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = '${place.name}'`)).length === 1
      if (got.length === 1) await Promise.race([added, eventually('it to wait', waits)])
    })
    consumer.want(1)
    await eventually('the first delivery', () => got.length === 1)
    await eventually('the end of the other', async () => added && (await added, true))
    await eventually('it to be off or back', async () => await jobs.depth() === 1)
    consumer.want(1)
    await eventually('the second delivery', () => got.length === 2)
    await consumer[Symbol.asyncDispose]()
  })
})
