import assert from 'node:assert/strict'
import { defineConformance, eventually } from '#core/testing'
import type { Database, Tx } from '#contracts/database'
import { EventErrors, EventLog, type LoggedEvent, type NewEvent } from '#contracts/events'

export interface EventsSubject {
  readonly log: EventLog
  readonly database: Database
  /** Removes all but the last so many. */
  retain(count: number): Promise<void>
}

const event = (type: string, topics: readonly string[], more: Partial<NewEvent> = {}): NewEvent =>
  ({ type, topics, project_id: 'p', created_by: 'u', data: null, ...more })
const ofJob = (id: string, seq: number, data: unknown = null): NewEvent => event(`job.${seq}`, [`job:${id}`, 'project:p'], { job_id: id, seq, data })
const write = ({ log, database }: EventsSubject, ...events: NewEvent[]) => database.transaction(tx => log.append(tx, events))
const types = (events: readonly LoggedEvent[]) => events.map(each => each.type)

/** Follows topics into a list. */
function follow({ log }: EventsSubject, topics: readonly string[], into: LoggedEvent[] = []) {
  const stop = new AbortController()
  const events = log.tail(topics, stop.signal)
  const ended = (async () => { for await (const each of events) into.push(each) })()
  ended.catch(() => {})
  return { into, ended, async [Symbol.asyncDispose]() { stop.abort(); await ended } }
}

/** What every event log promises. */
export const eventsConformance = defineConformance<EventsSubject>(EventLog, {
  'gives back what was written, by topic and in order': {
    async run(subject) {
      const data = { text: 'ä€𝄞\0\ud800', deep: [1, { a: null }], n: 1.5 }
      await write(subject, event('a', ['x', 'y'], { data, project_id: 'p1', created_by: 'u1' }), event('b', ['y']))
      await write(subject, event('c', ['x', 'x']), event('d', []))
      const { events, gap } = await subject.log.read('x', 0)
      assert.deepEqual([types(events), gap], [['a', 'c'], false])
      const { position, at, ...rest } = events[0]!
      assert.deepEqual(rest, { type: 'a', topics: ['x', 'y'], project_id: 'p1', created_by: 'u1', data })
      assert.ok(Number.isSafeInteger(position) && position > 0 && Math.abs(at - Date.now()) < 60_000)
      assert.deepEqual(types((await subject.log.read('y', 0)).events), ['a', 'b'])
      assert.deepEqual((await subject.log.read('z', 0)).events, [])
    },
  },
  'goes on from the cursor, page by page': {
    async run(subject) {
      for (let at = 0; at < 3; at++) await write(subject, event(`a${at}`, ['x']), event(`b${at}`, ['x']), event('other', ['y']))
      const seen: string[] = []
      let cursor = 0
      for (let pages = 0; pages < 4; pages++) {
        const { events, next, gap } = await subject.log.read('x', cursor, 2)
        assert.equal(gap, false)
        seen.push(...types(events))
        cursor = next
      }
      assert.deepEqual(seen, ['a0', 'b0', 'a1', 'b1', 'a2', 'b2'])
      await write(subject, event('later', ['x']))
      assert.deepEqual(types((await subject.log.read('x', cursor)).events), ['later'])
    },
  },
  'takes seq for the cursor of a job': {
    async run(subject) {
      await write(subject, ofJob('j', 1), ofJob('k', 1))
      await write(subject, ofJob('j', 2), ofJob('j', 5))
      const { events, next } = await subject.log.read('job:j', 1)
      assert.deepEqual(events.map(each => [each.job_id, each.seq]), [['j', 2], ['j', 5]])
      assert.equal(next, 5)
      assert.deepEqual((await subject.log.read('job:j', 5)), { events: [], next: 5, gap: false })
      assert.deepEqual(types((await subject.log.read('project:p', 0)).events), ['job.1', 'job.1', 'job.2', 'job.5'])
    },
  },
  'keeps nothing of a transaction that is rolled back, or of a nested one': {
    async run(subject) {
      const { log, database } = subject
      await assert.rejects(database.transaction(async tx => { await log.append(tx, [event('gone', ['x'])]); throw new Error('no') }))
      await database.transaction(async tx => {
        await log.append(tx, [event('kept', ['x'])])
        await database.knex(tx).transaction(async () => { await log.append(tx, [event('undone', ['x'])]); throw new Error('no') }).catch(() => {})
        await log.append(tx, [event('kept too', ['x'])])
      })
      assert.deepEqual(types((await log.read('x', 0)).events), ['kept', 'kept too'])
    },
  },
  'shows nothing before the commit': {
    async run(subject) {
      const { log, database } = subject
      await using tail = follow(subject, ['x'])
      let shown: readonly LoggedEvent[] = []
      let looked!: () => void
      const look = new Promise<void>(resolve => { looked = resolve })
      let inside!: () => void
      const entered = new Promise<void>(resolve => { inside = resolve })
      const open = database.transaction(async tx => { await log.append(tx, [event('a', ['x'])]); inside(); await look })
      await entered
      shown = (await log.read('x', 0)).events
      assert.deepEqual([shown, tail.into], [[], []])
      looked()
      await open
      await eventually('the event', () => tail.into.length === 1)
    },
  },
  'refuses more than 64 KiB of data, and takes 64 KiB': {
    async run(subject) {
      await assert.rejects(write(subject, event('a', ['x'], { data: 'ä'.repeat(32_768) })), { code: EventErrors.TOO_LARGE.code })
      await write(subject, event('b', ['x'], { data: 'ä'.repeat(32_767) }))
      assert.equal((await subject.log.read('x', 0)).events[0]!.data, 'ä'.repeat(32_767))
    },
  },
  'refuses what it could not give back': {
    async run(subject) {
      const bad: NewEvent[] = [
        event('', ['x']), event('a\0', ['x']), event('a', ['\ud800']), event('a', ['']), event('a', ['x'.repeat(513)]), event('a', Array.from({ length: 33 }, (_, at) => `t${at}`)),
        event('a', ['job:j']), event('a', ['job:j'], { job_id: 'j' }), event('a', ['job:j'], { job_id: 'k', seq: 1 }), event('a', [], { seq: 1 }), event('a', [], { job_id: 'j', seq: 0 }),
        event('a', ['x'], { data: 1n }),
      ]
      for (const each of bad) await assert.rejects(write(subject, each), { code: EventErrors.INVALID.code }, String(each.topics))
      for (const cursor of [-1, 0.5, Number.NaN]) await assert.rejects(subject.log.read('x', cursor), { code: EventErrors.INVALID.code })
      await write(subject, ofJob('j', 1))
      await assert.rejects(write(subject, ofJob('j', 1)), 'one seq, one event')
    },
  },
  'follows what comes, once, in order, and only these topics': {
    async run(subject) {
      await write(subject, event('before', ['x']))
      await using x = follow(subject, ['x', 'y'])
      await using z = follow(subject, ['z'])
      for (let at = 0; at < 20; at++) await write(subject, event(`a${at}`, ['x', 'y']), event('other', ['other']))
      await write(subject, event('last', ['y', 'z']))
      await eventually('the last one', () => x.into.length >= 21 && z.into.length)
      assert.deepEqual(types(x.into), [...Array.from({ length: 20 }, (_, at) => `a${at}`), 'last'])
      assert.deepEqual(types(z.into), ['last'])
    },
  },
  'ends a tail with its signal, with one that aborted before, and when it is left': {
    async run(subject) {
      const tail = follow(subject, ['x'])
      await tail[Symbol.asyncDispose]()
      for await (const _ of subject.log.tail(['x'], AbortSignal.abort())) assert.fail('nothing comes')
      const stop = new AbortController()
      const events = subject.log.tail(['x'], stop.signal)
      await write(subject, event('a', ['x']), event('b', ['x']))
      for await (const each of events) { assert.equal(each.type, 'a'); break }
      const waiting = subject.log.tail(['x'], stop.signal)[Symbol.asyncIterator]()
      const [one, two] = [waiting.next(), waiting.next()]
      stop.abort()
      assert.deepEqual([(await one).done, (await two).done], [true, true])
    },
  },
  'misses nothing between a tail and a read after it': {
    async run(subject) {
      const { log } = subject
      let going = true
      const writer = (async () => { for (let at = 1; going; at++) await write(subject, event('n', ['x'], { data: at })) })()
      await eventually('some to be there', async () => (await log.read('x', 0)).events.length > 3)
      const stop = new AbortController()
      const live = log.tail(['x'], stop.signal)
      const seen: number[] = []
      let cursor = 0
      for (;;) {
        const { events, next } = await log.read('x', cursor, 50)
        for (const each of events) seen.push(each.data as number)
        const last = events.at(-1)?.position ?? cursor
        if (events.length < 50) { cursor = last; break }
        cursor = next
      }
      const enough = seen.length + 30
      for await (const each of live) {
        if (each.position > cursor) seen.push(each.data as number)
        if (seen.length >= enough) break
      }
      going = false
      await writer
      assert.deepEqual(seen, Array.from({ length: seen.length }, (_, at) => at + 1))
    },
  },
  'gives a slow reader everything, in order': {
    async run(subject) {
      const stop = new AbortController()
      const events = subject.log.tail(['x'], stop.signal)[Symbol.asyncIterator]()
      for (let at = 0; at < 30; at++) await write(subject, ...Array.from({ length: 100 }, (_, n) => event(`${at * 100 + n}`, n % 2 ? ['x'] : ['y'])))
      for (let at = 0; at < 1_500; at++) {
        if (at === 700) await write(subject, event('3001', ['x']))
        assert.equal((await events.next()).value!.type, String(at * 2 + 1))
      }
      assert.equal((await events.next()).value!.type, '3001')
      stop.abort()
    },
  },
  'says that there is a gap when the window has passed a cursor by': {
    async run(subject) {
      for (let at = 1; at <= 10; at++) await write(subject, ofJob('j', at), event('x', ['x']))
      await write(subject, ofJob('done', 1))
      const early = (await subject.log.read('x', 0, 2)).next
      const late = (await subject.log.read('x', 0, 9)).next
      for (let at = 11; at <= 13; at++) await write(subject, ofJob('j', at))
      await subject.retain(6)
      assert.equal((await subject.log.read('x', early)).gap, true)
      const after = await subject.log.read('x', late)
      assert.deepEqual([after.gap, types(after.events)], [false, ['x']])
      assert.equal((await subject.log.read('x', after.next)).gap, false)
      const job = await subject.log.read('job:j', 3)
      assert.equal(job.gap, true)
      assert.deepEqual(job.events.map(each => each.seq), [10, 11, 12, 13])
      assert.deepEqual((await subject.log.read('job:j', 10)).gap, false)
    },
  },
  'consumes every event from then on, in order, and goes on from the cursor': {
    async run(subject) {
      const { log } = subject
      await write(subject, event('before', ['x']))
      const seen: string[] = []
      const take = async (events: readonly LoggedEvent[]) => { seen.push(...types(events)) }
      const first = await log.consume('c', take)
      for (let at = 0; at < 5; at++) await write(subject, event(`a${at}`, []))
      await eventually('five', () => seen.length === 5)
      await first[Symbol.asyncDispose]()
      await write(subject, event('meanwhile', ['x']))
      await using _second = await log.consume('c', take)
      await write(subject, event('after', ['x']))
      await eventually('all', () => seen.length >= 7)
      assert.deepEqual(seen, ['a0', 'a1', 'a2', 'a3', 'a4', 'meanwhile', 'after'])
    },
  },
  'gives the same events again when a consumer fails, and nothing after them before': {
    async run(subject) {
      const seen: string[][] = []
      await using _consumer = await subject.log.consume('c', async events => {
        seen.push(types(events))
        if (seen.length < 3) throw new Error('not yet')
      })
      await write(subject, event('a', ['x']))
      await write(subject, event('b', ['x']))
      await eventually('b', () => seen.length >= 3 && seen.flat().includes('b'))
      for (const batch of seen.slice(0, 3)) assert.equal(batch[0], 'a')
      assert.equal(seen.slice(2).flat().join(), 'a,b')
    },
  },
  'consumes only events of the types that are asked for': {
    async run(subject) {
      const seen: string[] = []
      await using _consumer = await subject.log.consume('c', async events => { seen.push(...types(events)) }, { types: ['b', 'd'] })
      await write(subject, ...['a', 'b', 'c', 'd', 'e'].map(type => event(type, ['x'])))
      await eventually('d', () => seen.includes('d'))
      assert.deepEqual(seen, ['b', 'd'])
    },
  },
  'refuses a second consumer of one name in a process, and takes it after the first has left': {
    async run(subject) {
      const first = await subject.log.consume('c', async () => {})
      await assert.rejects(subject.log.consume('c', async () => {}), { code: EventErrors.CONSUMER_TAKEN.code })
      await using _other = await subject.log.consume('d', async () => {})
      await first[Symbol.asyncDispose]()
      await (await subject.log.consume('c', async () => {}))[Symbol.asyncDispose]()
    },
  },
  'appends in the transaction it is given and in no other': {
    async run({ log, database }) {
      let dead!: Tx
      await database.transaction(async tx => { dead = tx })
      await assert.rejects(log.append(dead, [event('a', ['x'])]))
    },
  },
})
