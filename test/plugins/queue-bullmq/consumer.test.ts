import assert from 'node:assert/strict'
import fc from 'fast-check'
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

  it('takes all there is in the end, whatever failed, was wanted, rolled back or cut off in between', async function () {
    this.timeout(20_000)
    await fc.assert(fc.asyncProperty(fc.array(event, { minLength: 1, maxLength: 25 }), async events => {
      const world = new World()
      for (const each of events) await world.happen(each)
      await world.end()
    }), { numRuns: 2_000 })
  })
})

const MOST = 3
const LOCK_MS = 5_000
type Broken = 'take' | 'deliver' | 'putBack' | 'acknowledge' | 'ring' | 'tx' | 'silent'
type Event =
  | { readonly is: 'add' | 'run' | 'end'; readonly count: number } | { readonly is: 'breaks' | 'mends'; readonly what: Broken }
  | { readonly is: 'passes'; readonly ms: number } | { readonly is: 'takes'; readonly count: number } | { readonly is: 'turns'; readonly count: number }
const count = fc.integer({ min: 1, max: 4 })
const what = fc.constantFrom<Broken>('take', 'deliver', 'putBack', 'acknowledge', 'ring', 'tx', 'silent')
const event: fc.Arbitrary<Event> = fc.oneof(
  fc.record({ is: fc.constantFrom('add' as const, 'run' as const, 'end' as const), count }),
  fc.record({ is: fc.constantFrom('breaks' as const, 'mends' as const), what }),
  fc.record({ is: fc.constant('passes' as const), ms: fc.constantFrom(0, 1, 19, 50, 99, 100, 300, 500, 1_000, 2_000, 4_000) }),
  fc.record({ is: fc.constant('takes' as const), count }), fc.record({ is: fc.constant('turns' as const), count: fc.integer({ min: 0, max: 5 }) }))

/** A queue with locks and a bell as Redis has them, any part of which may fail, and who works as `jobs` does. */
class World {
  readonly #clock = new FakeClock()
  readonly #broken = new Set<Broken>()
  #waiting: string[] = []
  readonly #active = new Map<string, number>()
  readonly #done = new Set<string>()
  #added = 0
  #running = 0
  #wanted = 0
  /** Brought beyond what was wanted. */
  #tooMany = 0
  #bell = false
  #wake: ((rung: boolean) => void) | undefined
  #cut: (() => void) | undefined
  readonly #consumer: RedisConsumer

  constructor() {
    const source: Source = {
      bell: 'bell',
      take: async room => {
        await this.#turn('take')
        const ids = this.#waiting.splice(0, room)
        for (const id of ids) this.#active.set(id, this.#clock.now() + LOCK_MS)
        return ids
      },
      putBack: async ids => { await this.#turn('putBack'); this.#back(ids) },
      acknowledge: async ids => { await this.#turn('acknowledge'); for (const id of ids) this.#active.delete(id) },
    }
    const client = {
      bzpopmin: (_: string, s: number) => this.#wait(s), zadd: async () => { this.#ring() }, disconnect: () => this.#cut?.(),
    } as unknown as RedisClient
    const connection: RedisConnection = {
      client, get ready() { return true }, onReady() {}, unavailable: error => error as never, [Symbol.asyncDispose]: async () => { this.#cut?.() },
    }
    this.#clock.every(LOCK_MS / 2, () => this.#back([...this.#active].filter(([, until]) => until <= this.#clock.now()).map(([id]) => id)))
    this.#consumer = new RedisConsumer({ source, connection, deliver: ids => this.#deliver(ids), clock: this.#clock, log: recordLog(), gone() {} })
    this.#report()
  }

  async happen(event: Event): Promise<void> {
    switch (event.is) {
      case 'add': for (let at = 0; at < event.count; at++) this.#waiting.push(`${this.#added++}`); this.#ring(); break
      // Past the queue, as what is run at once.
      case 'run': this.#running += event.count; break
      case 'end': this.#ended(event.count); break
      case 'breaks': this.#broken.add(event.what); break
      case 'mends': this.#broken.delete(event.what); if (event.what === 'silent') this.#ring(); break
      case 'takes': await this.#take(event.count); break
      case 'turns': for (let at = 0; at < event.count; at++) await Promise.resolve(); break
      default: await this.#clock.advance(event.ms)
    }
  }

  /** All is well from now on, and each job takes a moment. */
  async end(): Promise<void> {
    this.#broken.clear()
    const lost = () => `${this.#added - this.#done.size} of ${this.#added} were not delivered, ${this.#waiting.length} wait, ${this.#active.size} are locked`
    // A silent bell of 4 s, or a lock of 5 s, that is looked for twice in that time.
    for (let at = 0; at < 20 && this.#done.size < this.#added; at++) {
      await this.#clock.advance(500)
      this.#ended(this.#running)
    }
    assert.equal(this.#done.size, this.#added, lost())
    assert.equal(this.#tooMany, 0)
    let closed = false
    const closing = this.#consumer[Symbol.asyncDispose]().then(() => { closed = true })
    // What is being delivered ends.
    await this.#clock.advance(20)
    assert.ok(closed, 'it does not close')
    await closing
  }

  #report(): void { this.#consumer.want(this.#wanted = Math.max(0, MOST - this.#running)) }
  /** Nobody tells anew what is wanted while nothing ends. */
  #ended(most: number): void {
    const count = Math.min(most, this.#running)
    this.#running -= count
    if (count) this.#report()
  }
  #begin(ids: readonly string[]): void {
    for (const id of ids.filter(each => !this.#done.has(each))) { this.#done.add(id); this.#running++ }
    this.#report()
  }
  async #deliver(ids: readonly string[]): Promise<void> {
    this.#tooMany += Math.max(0, ids.length - this.#wanted)
    await new Promise<void>(resolve => this.#clock.after(20, resolve))
    await this.#turn('deliver')
    this.#begin(ids)
  }
  async #take(count: number): Promise<void> {
    const kept: (() => unknown)[] = []
    const ids = await this.#consumer.take(count, { afterCommit: run => { kept.push(run) } })
    await Promise.resolve()
    if (this.#broken.has('tx')) return
    for (const run of kept) run()
    this.#begin(ids)
  }
  async #turn(part: Broken): Promise<void> {
    await new Promise<void>(resolve => setImmediate(resolve))
    if (this.#broken.has(part)) throw new Error(part)
  }
  /** As this product rings for what is put back. */
  #back(ids: readonly string[]): void {
    const back = ids.filter(id => this.#active.delete(id))
    this.#waiting.unshift(...back)
    if (back.length) this.#ring()
  }
  #ring(): void {
    this.#bell = true
    if (this.#broken.has('silent')) return
    this.#wake?.(true)
  }
  #wait(seconds: number): Promise<void> {
    if (this.#broken.has('ring')) return Promise.reject(new Error('ring'))
    if (this.#bell && !this.#broken.has('silent')) { this.#bell = false; return Promise.resolve() }
    return new Promise((resolve, reject) => {
      const cancel = this.#clock.after(seconds * 1_000, () => { if (!this.#broken.has('silent')) this.#wake?.(false) })
      const over = () => { cancel(); this.#wake = this.#cut = undefined }
      this.#wake = rung => { over(); if (rung) this.#bell = false; resolve() }
      this.#cut = () => { over(); reject(new Error('cut')) }
    })
  }
}
