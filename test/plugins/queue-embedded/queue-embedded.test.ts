import assert from 'node:assert/strict'
import { SystemClock } from '#core'
import { conform, createTestRuntime, eventually, recordLog } from '#core/testing'
import { queueConformance } from '#conformance/queue'
import { Database } from '#contracts/database'
import { JobQueue } from '#contracts/queue'
import database from '../../../plugins/database/index.ts'
import queue from '../../../plugins/queue-embedded/index.ts'
import { EmbeddedQueue } from '../../../plugins/queue-embedded/queue.ts'
import { postgresOrSkip, type PostgresServer } from '../../support/services.ts'

const open = (url?: string) => createTestRuntime({ plugins: [{ plugin: database, config: url === undefined ? {} : { url } }, queue] })

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
})

describe('queue-embedded on PostgreSQL', () => {
  let server: PostgresServer
  before(async function () { server = await postgresOrSkip(this) })
  suite(() => server.newDatabase())

  const entries = (...ids: string[]) => ids.map(id => ({ id, priority: 5 }))

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
