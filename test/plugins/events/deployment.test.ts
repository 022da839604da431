import assert from 'node:assert/strict'
import fc from 'fast-check'
import { eventually } from '#core/testing'
import { EventErrors, EventLog, type LoggedEvent } from '#contracts/events'
import { HealthCheck } from '#contracts/health'
import { JobType, Jobs } from '#contracts/jobs'
import { contribute, createTestRuntime } from '#core/testing'
import { instruments } from '../../../plugins/events/instruments.ts'
import cluster from '../../../plugins/cluster/index.ts'
import database from '../../../plugins/database/index.ts'
import events from '../../../plugins/events/index.ts'
import jobs from '../../../plugins/jobs/index.ts'
import queue from '../../../plugins/queue-embedded/index.ts'
import { startChild, type Child } from '../../support/child.ts'
import { postgresOrSkip, type PostgresServer } from '../../support/services.ts'
import { postgresPlace, sqlitePlace, startNode, type Place } from '../cluster/kit.ts'
import { jobType, openAccess, operator } from '../jobs/kit.ts'
import { event, FAST_EVENTS, open, type Opened } from './kit.ts'

const write = ({ log, database: db }: Pick<Opened, 'log' | 'database'>, ...list: ReturnType<typeof event>[]) => db.transaction(tx => log.append(tx, list))
const gate = () => { let pass!: () => void; const passed = new Promise<void>(resolve => { pass = resolve }); return { pass, passed } }

/** One of several processes; without polling, so that only the word of another one wakes it. */
async function startMember(place: Place, config: Record<string, unknown> = {}) {
  const node = await startNode(place, { plugins: [{ plugin: events, config: { ...FAST_EVENTS, pollMs: 60_000, ...config } }] })
  return { node, log: node.runtime.get(EventLog), database: node.database, [Symbol.asyncDispose]: () => node.leave() }
}

function suite(place: () => Promise<Place>) {
  it('carries events of another process at once, without looking', async () => {
    await using here = await place()
    await using one = await startMember(here)
    await using two = await startMember(here)
    await eventually('both to be known', async () => (await one.node.instances.list()).length === 2)
    const stop = new AbortController()
    const seen: string[] = []
    const following = (async () => { for await (const each of two.log.tail(['x'], stop.signal)) seen.push(each.type) })()
    const consumed: string[] = []
    await using _consumer = await two.log.consume('c', async list => { for (const each of list) consumed.push(each.type) })
    await eventually('the consumer to lead', async () => Number((await two.database.knex()('event_consumers').first())?.token) > 0)
    for (let at = 0; at < 5; at++) await write(one, event(`a${at}`))
    await eventually('all to be there', () => seen.length === 5 && consumed.length === 5)
    assert.deepEqual([seen, consumed], [['a0', 'a1', 'a2', 'a3', 'a4'], ['a0', 'a1', 'a2', 'a3', 'a4']])
    stop.abort()
    await following
  })

  it('has one process consume at a time, and another one go on where it was cut off', async () => {
    await using here = await place()
    await using one = await startMember(here, { pollMs: 50 })
    await using two = await startMember(here, { pollMs: 50 })
    const log: { who: string; n: number }[] = []
    const take = (who: string) => async (list: readonly LoggedEvent[]) => { for (const each of list) log.push({ who, n: each.data as number }) }
    await one.log.consume('c', take('one'))
    await write(two, event('n', ['x'], { data: 1 }))
    await eventually('one to consume', () => log.length === 1)
    await two.log.consume('c', take('two'))
    for (let n = 2; n <= 5; n++) await write(two, event('n', ['x'], { data: n }))
    await eventually('one to go on', () => log.length === 5)
    await one.node.cut()
    for (let n = 6; n <= 9; n++) await write(two, event('n', ['x'], { data: n }))
    await eventually('two to take over', () => log.some(each => each.n === 9))
    assert.deepEqual([...new Set(log.map(each => each.n))], [1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert.ok(log.filter(each => each.who === 'two').every(each => each.n >= 5), 'only what was not acknowledged comes again')
    assert.equal(log.at(-1)!.who, 'two')
  })

  it('removes what is too old or too much, in batches, on its own', async () => {
    await using here = await place()
    await using opened = await open(here, { retention: { count: 20, days: 7, sweepMs: 20, batch: 7 } })
    await write(opened, ...Array.from({ length: 100 }, (_, at) => event(`a${at}`, ['x', 'y'])))
    await eventually('20 to be left', async () => Number((await opened.database.knex()('events').count({ n: '*' }).first())!['n']) === 20)
    const { events: left, gap } = await opened.log.read('x', 0)
    assert.deepEqual([left.length, left[0]!.type, gap], [20, 'a80', true])
    assert.equal(Number((await opened.database.knex()('event_topics').count({ n: '*' }).first())!['n']), 40)
    await opened.database.knex()('events').update({ at: Date.now() - 8 * 86_400_000 })
    await write(opened, event('young'))
    await eventually('the young one to be left', async () => (await opened.database.knex()('events').pluck('type')).join() === 'young')
    await write(opened, event('after'))
    const positions = (await opened.log.read('x', 0)).events.map(each => each.position)
    assert.deepEqual(positions, [101, 102])
  })

  it('lets writers write while it removes', async () => {
    await using here = await place()
    await using opened = await open(here, { retention: { count: 10, sweepMs: 20, batch: 50 } })
    let longest = 0
    for (let at = 0; at < 40; at++) {
      const from = performance.now()
      await write(opened, ...Array.from({ length: 50 }, () => event('a')))
      longest = Math.max(longest, performance.now() - from)
    }
    await eventually('10 to be left', async () => Number((await opened.database.knex()('events').count({ n: '*' }).first())!['n']) === 10)
    assert.ok(longest < 1_000, `a writer waited for ${longest} ms`)
  })

  it('ends a reader that the window has passed by, with the reason', async () => {
    await using here = await place()
    await using opened = await open(here, { buffer: 10 })
    const reader = opened.log.tail(['x'], new AbortController().signal)[Symbol.asyncIterator]()
    const stop = new AbortController()
    let last = ''
    const quick = (async () => { for await (const each of opened.log.tail(['x'], stop.signal)) last = each.type })()
    await write(opened, ...Array.from({ length: 30 }, (_, at) => event(`a${at}`)))
    await eventually('it to be late', () => last === 'a29')
    await opened.subject.retain(5)
    for (let at = 0; at < 10; at++) assert.equal((await reader.next()).value.type, `a${at}`)
    await assert.rejects(reader.next(), { code: EventErrors.BEHIND.code })
    assert.equal((await reader.next()).done, true)
    stop.abort()
    await quick
  })

  it('tells in its health check and its metrics of a consumer that fails, and of one that was passed by', async () => {
    await using here = await place()
    await using opened = await open(here)
    const health = async () => opened.t.runtime.collect(HealthCheck).find(each => each.name === 'events')!.check(AbortSignal.timeout(5_000))
    let broken = true
    const seen: string[] = []
    await using _consumer = await opened.log.consume('fragile', async list => {
      if (broken) throw new Error('broken')
      seen.push(...list.map(each => each.type))
    })
    assert.equal((await health()).status, 'healthy')
    await write(opened, ...Array.from({ length: 150 }, (_, at) => event(`a${at}`)))
    await eventually('it to be degraded', async () => (await health()).status === 'degraded')
    assert.match((await health()).message!, /fragile/)
    await opened.subject.retain(10)
    broken = false
    await eventually('the last one', () => seen.includes('a149'))
    await eventually('it to be well', async () => (await health()).status === 'healthy')
    assert.equal(seen.length, 110, 'the batch that was held, and what was left')
    const of = (samples: { labels: Record<string, string>; value: number }[]) => samples.find(each => each.labels['consumer'] === 'fragile')?.value ?? 0
    assert.ok(of(instruments.failed.samples()) >= 3 && of(instruments.missed.samples()) >= 1 && of(instruments.consumed.samples()) >= 110)
    assert.ok(opened.t.lines.some(line => line.level === 'error' && /removed before the consumer/.test(line.message)))
  })

  it('ends tails and consumers when the plugin leaves', async () => {
    await using here = await place()
    const opened = await open(here)
    const reader = opened.log.tail(['x'], new AbortController().signal)[Symbol.asyncIterator]()
    const waiting = reader.next()
    await opened.log.consume('c', async () => {})
    await opened[Symbol.asyncDispose]()
    assert.equal((await waiting).done, true)
    for await (const _ of opened.log.tail(['x'], new AbortController().signal)) assert.fail('it has left')
  })

  it('ends a consumer at once that is told to while it writes down its place', async () => {
    await using here = await place()
    await using opened = await open(here, { pollMs: 60_000 })
    let closing: PromiseLike<void> | undefined
    const consumer = await opened.log.consume('c', async () => { closing = consumer[Symbol.asyncDispose]() })
    await write(opened, event('a'))
    await eventually('the event', () => closing !== undefined)
    await closing
    assert.deepEqual(await opened.database.knex()('event_consumers').pluck('position'), [1])
  })

  it('reads any log page by page as it was written', async () => {
    await using here = await place()
    await using opened = await open(here)
    let round = 0
    const sizes = fc.array(fc.array(fc.constantFrom('a', 'b', 'c'), { maxLength: 3 }), { maxLength: 12 })
    await fc.assert(fc.asyncProperty(fc.array(sizes, { maxLength: 5 }), fc.integer({ min: 1, max: 5 }), async (transactions, limit) => {
      const name = (topic: string) => `${round}-${topic}`
      round++
      const expected = new Map<string, string[]>()
      let n = 0
      for (const list of transactions) {
        await write(opened, ...list.map(topics => {
          for (const topic of new Set(topics)) expected.set(topic, [...expected.get(topic) ?? [], String(n)])
          return event(String(n++), topics.map(name))
        }))
      }
      for (const [topic, types] of expected) {
        const seen: string[] = []
        for (let cursor = 0, more = true; more;) {
          const page = await opened.log.read(name(topic), cursor, limit)
          seen.push(...page.events.map(each => each.type))
          assert.ok(!page.gap && page.next >= cursor)
          more = page.events.length > 0
          cursor = page.next
        }
        assert.deepEqual(seen, types)
      }
    }), { numRuns: 25 })
  })
}

describe('the event log of a deployment on SQLite', () => {
  suite(sqlitePlace)

  it('holds what happens to a job, by its seq and for its project', async () => {
    await using t = await createTestRuntime({
      plugins: [database, cluster, events, queue, jobs, contribute(JobType, jobType('double', async ({ input }) => (input as number) * 2))], services: [openAccess()],
    })
    const { id } = await t.get(Jobs).submit(operator, { type: 'double', input: 21 })
    const log = t.get(EventLog)
    await eventually('the job to complete', async () => (await log.read(`job:${id}`, 0)).events.some(each => each.type === 'job.completed'))
    const { events: list } = await log.read(`job:${id}`, 0)
    assert.deepEqual(list.map(each => [each.seq, each.type]), [[1, 'job.created'], [2, 'job.started'], [3, 'job.completed']])
    assert.equal((list[2]!.data as { result: unknown }).result, 42)
    assert.deepEqual((await log.read('project:default', 0)).events.map(each => each.position), list.map(each => each.position))
  })
})

describe('the event log of a deployment on PostgreSQL', () => {
  let server: PostgresServer
  before(async function () { server = await postgresOrSkip(this) })
  suite(() => postgresPlace(server))

  it('shows nothing above an open transaction, and everything in order after it', async () => {
    await using here = await postgresPlace(server)
    await using opened = await open(here)
    const { log, database: db } = opened
    const [entered, leave] = [gate(), gate()]
    const seen: string[] = []
    const stop = new AbortController()
    const following = (async () => { for await (const each of log.tail(['x'], stop.signal)) seen.push(each.type) })()
    await write(opened, event('first'))
    const slow = db.transaction(async tx => { await log.append(tx, [event('slow')]); entered.pass(); await leave.passed; await log.append(tx, [event('slow too')]) })
    await entered.passed
    await write(opened, event('quick'))
    const reading = await log.read('x', 0)
    assert.deepEqual(reading.events.map(each => each.type), ['first'])
    await eventually('the first', () => seen.length === 1)
    leave.pass()
    await slow
    const rest = await log.read('x', reading.next)
    assert.deepEqual(rest.events.map(each => each.type), ['slow', 'quick', 'slow too'])
    await eventually('the rest', () => seen.length === 4)
    assert.deepEqual(seen, ['first', 'slow', 'quick', 'slow too'])
    stop.abort()
    await following
  })

  it('does not wait for transactions that append nothing, or gave up what they appended', async () => {
    await using here = await postgresPlace(server)
    await using opened = await open(here)
    const { log, database: db } = opened
    const [entered, again, appended, leave] = [gate(), gate(), gate(), gate()]
    await db.migrate('other', [{ name: '0001', up: async knex => knex.schema.createTable('other', t => { t.integer('n') }) }])
    const open_ = db.transaction(async tx => {
      await db.knex(tx)('other').insert({ n: 1 })
      await db.knex(tx).transaction(async () => { await log.append(tx, [event('undone')]); throw new Error('no') }).catch(() => {})
      entered.pass()
      await again.passed
      await log.append(tx, [event('late')])
      appended.pass()
      await leave.passed
    })
    await entered.passed
    await write(opened, event('a'))
    const first = await log.read('x', 0)
    assert.deepEqual(first.events.map(each => each.type), ['a'])
    // After the savepoint it has to mark its place anew.
    again.pass()
    await appended.passed
    await write(opened, event('b'))
    assert.deepEqual((await log.read('x', first.next)).events, [])
    leave.pass()
    await open_
    assert.deepEqual((await log.read('x', first.next)).events.map(each => each.type), ['late', 'b'])
  })

  it('misses none of 10,000 events of 8 writers in two processes', async function () {
    this.timeout(80_000)
    await using here = await postgresPlace(server)
    await using member = await startMember(here, { pollMs: 20 })
    const children: Child[] = []
    let going = true
    let careless = Promise.resolve()
    const stop = new AbortController()
    const tailed: LoggedEvent[] = []
    const consumed = new Set<unknown>()
    const naive = new Set<unknown>()
    try {
      for (let at = 0; at < 2; at++) children.push(startChild(new URL('writer-child.ts', import.meta.url), here.url, '4', '1250'))
      await Promise.all(children.map(child => child.said('ready')))
      const following = (async () => { for await (const each of member.log.tail(['w0', 'w1'], stop.signal)) tailed.push(each) })()
      let out = 0
      let before = 0
      await using _consumer = await member.log.consume('c', async list => {
        for (const each of list) { if (each.position <= before) out++; before = each.position; consumed.add(each.data) }
      })
      // Reads what is there, as one would without knowing better.
      careless = (async () => {
        for (let position = 0; going;) {
          const rows = await member.database.knex()('events').where('position', '>', position).orderBy('position').limit(500)
          for (const row of rows) { naive.add(JSON.parse(row.data)); position = row.position }
          await new Promise(resolve => setTimeout(resolve, 2))
        }
      })()
      const from = performance.now()
      for (const child of children) child.process.stdin!.write('go\n')
      await Promise.all(children.map(child => child.said('done')))
      const ms = performance.now() - from
      await eventually('the last event', () => tailed.length >= 10_000 && consumed.size >= 10_000, 30_000)
      going = false
      await careless
      stop.abort()
      await following
      console.log(`      10,000 events in ${Math.round(ms)} ms; a reader of what is there missed ${10_000 - naive.size}`)
      assert.equal(tailed.length, 10_000)
      assert.equal(new Set(tailed.map(each => each.data)).size, 10_000)
      assert.ok(tailed.every((each, at) => at === 0 || each.position > tailed[at - 1]!.position), 'in order')
      assert.equal(out, 0)
    } finally {
      going = false
      stop.abort()
      await Promise.allSettled([careless, ...children.map(child => child.kill())])
    }
  })
})
