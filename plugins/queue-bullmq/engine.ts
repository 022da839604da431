import { createRedisBackend, type JobJson, type MinimalJob, type RedisQueueBackend, type WorkerOptions } from 'bullmq'
import type { RedisClient } from '#contracts/redis'
import type { QueueEntry } from '#contracts/queue'

/** One pipeline of Redis; it does nothing else meanwhile. */
const BULK = 1_000

/** What is given back does not end: `jobs` alone counts attempts, and BullMQ must never put an id into `failed`. */
const STALLS = 2 ** 31

/** Of ids that were there when they were added: what is being delivered is noted to come again with its priority, what has left is answered. */
const NOTE = `local gone = {}
for at, key in ipairs(KEYS) do
  if at > 1 and redis.call('EXISTS', key .. ':lock') == 1 then redis.call('HSET', KEYS[1], ARGV[at * 2 - 3], ARGV[at * 2 - 2])
  elseif at > 1 and redis.call('EXISTS', key) == 0 then gone[#gone + 1] = ARGV[at * 2 - 3] end
end
return gone`

/** The priorities of those that came back while they were delivered. */
const NOTED = `local found = redis.call('HMGET', KEYS[1], unpack(ARGV)) redis.call('HDEL', KEYS[1], unpack(ARGV)) return found`

/** Of those that are being delivered, those under this lock. */
const TAKEN = `local taken = {}
for _, id in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  if redis.call('GET', ARGV[1] .. id .. ':lock') == ARGV[2] then taken[#taken + 1] = id end
end
return taken`

/** BullMQ: 1 is the highest, and 0 goes before all that have a priority. */
const priorityOf = ({ priority }: QueueEntry) => 10 - Math.min(9, Math.max(0, Math.trunc(priority)))

/** BullMQ answers so when the lock, or the whole entry, is somebody else's by now or gone. */
const isLost = (error: unknown) => typeof (error as { code?: unknown }).code === 'number'

/** BullMQ's own scripts, on a connection that is handed in; its Worker runs one processor for each id, and would fail what it has seen stall. */
export class Engine {
  readonly #backend: RedisQueueBackend
  constructor(readonly client: RedisClient, prefix: string, name: string, lockMs: number) {
    this.#backend = createRedisBackend(name, {
      // Braces: in a cluster all keys of a queue must be in one slot.
      connection: client, prefix: `{${prefix}}`, skipVersionCheck: true, skipWaitingForReady: true,
      lockDuration: lockMs, stalledInterval: lockMs / 2, maxStalledCount: STALLS,
    } as WorkerOptions) as RedisQueueBackend
    // The connection tells of it already.
    this.#backend.on('error', () => {})
  }

  /** Where BullMQ rings for those who wait in BZPOPMIN. */
  get bell(): string { return this.#backend.toKey('marker') }
  /** As BullMQ does for what is added, and not for what is put back. */
  async ring(): Promise<void> { await this.client.zadd(this.bell, 0, '0') }

  get #again(): string { return this.#backend.toKey('again') }

  /** What is asked in this turn of the event loop goes out in one write, not in one for each script. */
  together(): void {
    // A cluster has no stream of its own.
    const { stream } = this.client as { stream?: { cork(): void; uncork(): void } }
    if (!stream) return
    stream.cork()
    setImmediate(() => stream.uncork())
  }

  async add(entries: readonly QueueEntry[], now: number): Promise<void> {
    for (let from = 0; from < entries.length; from += BULK) {
      const some = entries.slice(from, from + BULK)
      this.together()
      // Asked in the same round trip, before they are added: what was not there has no priority yet.
      const [before] = await Promise.all([
        Promise.all(some.map(({ id }) => this.client.hget(this.#backend.toKey(id), 'priority'))),
        this.#backend.addJobs(some.map(entry => ({ jobId: entry.id, job: toJob(entry, now) }))),
      ])
      const raised = some.filter((entry, at) => before[at] !== null && Number(before[at]) > priorityOf(entry))
      await Promise.all(raised.map(entry => this.#raise(entry)))
      await this.#bringAgain(some.filter((_, at) => before[at] !== null), now)
    }
  }

  /** BullMQ passes over an id that is there. One that is being delivered leaves with that, and whoever it went to may have refused it already. */
  async #bringAgain(entries: readonly QueueEntry[], now: number): Promise<void> {
    if (!entries.length) return
    const keys = [this.#again, ...entries.map(({ id }) => this.#backend.toKey(id))]
    const gone = await this.client.eval(NOTE, keys.length, ...keys, ...entries.flatMap(({ id, priority }) => [id, priority])) as string[]
    if (gone.length) await this.add(entries.filter(({ id }) => gone.includes(id)), now)
  }

  /** It may have been delivered meanwhile. */
  async #raise(entry: QueueEntry): Promise<void> { await this.#unlessLost(this.#backend.changePriority(entry.id, priorityOf(entry))) }

  /** How many wait. */
  async waiting(): Promise<number> { return (await this.#backend.getCounts(['wait', 'prioritized'])).reduce((sum, each) => sum + each, 0) }

  /** Takes one id under a lock. */
  async take(token: string): Promise<string | undefined> {
    const [, id] = await this.#backend.moveToActive(token) as [unknown, string | 0 | null]
    return id || undefined
  }

  /** What was taken under it. */
  async taken(token: string): Promise<readonly string[]> {
    const { client } = this
    return await client.eval(TAKEN, 1, this.#backend.toKey('active'), this.#backend.toKey(''), token) as string[]
  }

  async acknowledge(id: string, token: string): Promise<void> {
    await this.#unlessLost(this.#backend.moveToCompleted({ id, opts: { attempts: 1 } } as MinimalJob, 0, true, token, false))
  }

  /** After they were acknowledged: adds those that came back meanwhile. */
  async addAgain(ids: readonly string[], now: number): Promise<void> {
    const found = await this.client.eval(NOTED, 1, this.#again, ...ids) as (string | null)[]
    await this.add(ids.flatMap((id, at) => (found[at] === null ? [] : [{ id, priority: Number(found[at]) }])), now)
  }

  /** Before all others of its priority. */
  async putBack(id: string, token: string): Promise<void> { await this.#unlessLost(this.#backend.moveJobFromActiveToWait(id, token)) }

  async remove(id: string): Promise<void> { await Promise.all([this.client.hdel(this.#again, id), this.#backend.remove(id, false)]) }

  /** Puts back what dead consumers had taken. */
  async putBackStalled(): Promise<number> { return (await this.#backend.moveStalledJobsToWait()).length }

  async #unlessLost(done: Promise<unknown>): Promise<void> {
    try { await done } catch (error) { if (!isLost(error)) throw error }
  }
}

const toJob = (entry: QueueEntry, now: number): JobJson =>
  ({ id: entry.id, name: 'job', data: '{}', timestamp: now, opts: { jobId: entry.id, priority: priorityOf(entry), attempts: 1 } }) as unknown as JobJson
