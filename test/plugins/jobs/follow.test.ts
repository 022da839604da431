import assert from 'node:assert/strict'
import fc from 'fast-check'
import { eventually, fake, type TestRuntime } from '#core/testing'
import { AccessErrors } from '#contracts/access'
import { Database } from '#contracts/database'
import { EventLog } from '#contracts/events'
import { JobUpdates, type JobUpdate } from '#contracts/job-updates'
import { Jobs, type JobContext, type JobProgress } from '#contracts/jobs'
import cluster from '../../../plugins/cluster/index.ts'
import events from '../../../plugins/events/index.ts'
import { postgresOrSkip } from '../../support/services.ts'
import { gate, jobType, type KitOptions, openAccess, operator, runtime } from './kit.ts'

const LOG = [cluster, events]
const logged = (options: KitOptions = {}) => runtime({ ...options, plugins: [...LOG, ...(options.plugins ?? [])] })
const WORDS = 'The answer to everything is 42, as you may have heard — 🙂 and so on.'.split(/(?<= )/)
const TEXT = WORDS.join('')

/** Says the words, uses a tool in their midst, and ends when it may. */
const talk = (may: Promise<void> = Promise.resolve(), pause = 0) => jobType('talk', async ({ emit }: JobContext) => {
  for (const [at, content] of WORDS.entries()) {
    if (at === 5) {
      emit({ type: 'tool_start', tool: 'calc', call_id: 'c1', input: { a: 1 } })
      emit({ type: 'tool_end', tool: 'calc', call_id: 'c1', output: 42 })
    }
    emit({ type: 'token', content })
    if (pause) await new Promise(resolve => setTimeout(resolve, pause))
  }
  await may
  return TEXT
})

async function collect(t: TestRuntime, id: string, { after = '', until = () => false, each = () => {}, signal = new AbortController().signal }: {
  after?: string; until?: (update: JobUpdate) => boolean; each?: (update: JobUpdate) => unknown; signal?: AbortSignal
} = {}) {
  const found: JobUpdate[] = []
  for await (const update of t.get(JobUpdates).follow(operator, id, { after, signal })) {
    found.push(update)
    await each(update)
    if (until(update)) break
  }
  return found
}
const textOf = (updates: readonly JobUpdate[]) => updates.map(each => (each.type === 'token' ? each['content'] : '')).join('')
const kinds = (updates: readonly JobUpdate[]) => updates.map(each => each.type).filter((type, at, all) => type !== 'token' || all[at - 1] !== 'token')
const submit = async (t: TestRuntime, type = 'talk', more = {}) => (await t.get(Jobs).submit(operator, { type, input: null, ...more })).id

describe('following a job', () => {
  it('tells everything in order, live, and ends with the end', async () => {
    const door = gate()
    await using t = await logged({ types: [talk(door.closed, 2)] })
    const id = await submit(t)
    const updates = await collect(t, id, { each: update => { if (textOf([update]).includes('on.')) door.open() } })
    assert.equal(textOf(updates), TEXT)
    assert.deepEqual(kinds(updates), ['created', 'started', 'token', 'tool_start', 'tool_end', 'token', 'completed'])
    assert.ok(updates.some(each => each.cursor.includes('.')), 'nothing came before it was logged')
    const last = updates.at(-1)!
    assert.deepEqual([last.final, last.status, last.result, last.seq, last.attempt, last.job_id], [true, 'completed', TEXT, (await t.get(Jobs).get(operator, id)).seq, 1, id])
    assert.ok(updates.slice(0, -1).every(each => !each.final))
    assert.deepEqual(updates.filter(each => each.type === 'tool_end').map(each => [each['tool'], each['output'], each.status]), [['calc', 42, 'running']])
    const again = await collect(t, id)
    assert.deepEqual([textOf(again), kinds(again)], [TEXT, kinds(updates)])
    assert.deepEqual(await collect(t, id, { after: last.cursor }), [])
    const seqs = again.map(each => each.seq)
    assert.deepEqual(seqs, seqs.map((_, at) => at + 1))
  })

  it('goes on from every cursor with the rest, nothing twice and nothing missing', async () => {
    const door = gate()
    await using t = await logged({ types: [talk(door.closed, 1)] })
    const id = await submit(t)
    const whole = await collect(t, id, { each: update => { if (textOf([update]).includes('on.')) door.open() } })
    const gist = (updates: readonly JobUpdate[]) => [textOf(updates), ...updates.filter(each => each.type !== 'token').map(each => each.type)]
    for (const [at, { cursor }] of whole.entries()) {
      assert.deepEqual(gist([...whole.slice(0, at + 1), ...await collect(t, id, { after: cursor })]), gist(whole), cursor)
    }
  })

  it('is whole however often the connection is cut while the job speaks', async () => {
    await fc.assert(fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 12 }), { maxLength: 12 }), fc.integer({ min: 0, max: 3 }), async (cuts, pause) => {
      await using t = await logged({ types: [talk(Promise.resolve(), pause)] })
      const id = await submit(t)
      const whole: JobUpdate[] = []
      for (const cut of [...cuts, Infinity]) {
        let left = cut
        whole.push(...await collect(t, id, { after: whole.at(-1)?.cursor ?? '', until: () => --left === 0 }))
      }
      assert.equal(textOf(whole), TEXT)
      assert.deepEqual(whole.filter(each => each.type !== 'token').map(each => each.type), ['created', 'started', 'tool_start', 'tool_end', 'completed'])
    }), { numRuns: 12 })
  })

  it('gives a second attempt its text from the beginning', async () => {
    const flaky = jobType('flaky', async ({ emit, job }: JobContext) => {
      emit({ type: 'token', content: `try ${job.attempt}` })
      if (job.attempt === 1) throw new Error('x')
    })
    await using t = await logged({ types: [flaky], config: { retry: { base_ms: 5, max_ms: 5 }, sweep_ms: 20 } })
    const updates = await collect(t, await submit(t, 'flaky'))
    assert.deepEqual(kinds(updates), ['created', 'started', 'token', 'failed', 'queued', 'started', 'token', 'completed'])
    assert.deepEqual(updates.filter(each => each.error).map(each => [each.type, each.attempt, each.error?.fix !== undefined]), [['failed', 1, true], ['queued', 1, true]])
    assert.equal(textOf(updates), 'try 1try 2')
    assert.deepEqual(updates.filter(each => each.type === 'token').map(each => [each['offset'], each.attempt]), [[0, 1], [0, 2]])
    assert.deepEqual(updates.find(each => each.type === 'failed')!.error!.code, 'JOBS_FAILED')
  })

  it('does not end where a job that was run again had ended before', async () => {
    let bad = true
    await using t = await logged({ types: [jobType('picky', async () => { if (bad) throw new Error('x') })] })
    const id = await submit(t, 'picky', { max_attempts: 1 })
    assert.deepEqual((await collect(t, id)).at(-1)!.type, 'dead')
    bad = false
    await t.get(Jobs).retry(operator, id)
    const updates = await collect(t, id)
    assert.deepEqual(updates.filter(each => ['dead', 'completed'].includes(each.type)).map(each => [each.type, each.final]), [['dead', false], ['completed', true]])
  })

  it('refuses who may not see it, an id that is none, and a cursor that is none or beyond its end', async () => {
    const access = openAccess({ check: async (_caller, permission, resource) => { if (resource && permission === 'jobs:read') throw AccessErrors.FORBIDDEN({ permission, reason: 'no' }) } })
    await using closed = await logged({ types: [talk()], services: [access] })
    await assert.rejects(collect(closed, await submit(closed)), { code: 'ACCESS_FORBIDDEN' })
    await using t = await logged({ types: [talk()] })
    const id = await submit(t)
    await collect(t, id)
    await assert.rejects(collect(t, 'job_nobody'), { code: 'JOBS_NOT_FOUND' })
    for (const after of ['x', '1.', '.1', '-1', '01', '1.x', '99', '99.5', '1e3', ' 1']) await assert.rejects(collect(t, id, { after }), { code: 'JOB_UPDATES_CURSOR_INVALID' }, after)
  })

  it('tells of a gap when the log has let go of what is asked for, and goes on from there', async () => {
    const door = gate()
    await using t = await logged({ types: [talk(door.closed)] })
    const id = await submit(t)
    await eventually('the text', async () => textOf(await collect(t, id, { until: each => each.seq >= 5 || each.type === 'gap' })).length > 10)
    await t.get(Database).transaction(async tx => {
      const knex = t.get(Database).knex(tx)
      await knex('event_topics').delete()
      const { last } = (await knex('events').max({ last: 'position' }))[0] as { last: number }
      await knex('events').delete()
      await knex('event_window').update({ removed: last })
    })
    const updates = await collect(t, id, { after: '1', each: update => { if (update.type === 'gap') door.open() } })
    assert.deepEqual([updates[0]!.type, updates[0]!.job!.status, updates.at(-1)!.type], ['gap', 'running', 'completed'])
    assert.equal(updates[0]!.cursor, String(updates[0]!.seq))
  })

  it('tells the state alone where there is no event log', async () => {
    const door = gate()
    await using t = await runtime({ types: [talk(door.closed)] })
    const updates = await collect(t, await submit(t), { each: update => { if (update.status === 'running') door.open() } })
    assert.ok(updates.every(each => each.type === 'gap'))
    assert.deepEqual([updates.at(-1)!.final, updates.at(-1)!.job!.result], [true, TEXT])
  })

  it('tells where a result is that is too large for an event', async () => {
    const result = 'x'.repeat(100_000)
    await using t = await logged({ types: [jobType('large', async ({ emit }) => { emit({ type: 'tool_end', tool: 'x'.repeat(300), call_id: 'c', output: result }); return result })] })
    const updates = await collect(t, await submit(t, 'large'))
    assert.deepEqual([updates.at(-1)!.result, updates.at(-1)!.result_ref!.bytes], [undefined, 100_002])
    const tool = updates.find(each => each.type === 'tool_end')!
    assert.deepEqual([tool['output_bytes'], (tool['tool'] as string).length, (tool['output'] as string).length], [100_002, 200, 4_000])
  })

  it('ends with the signal and leaves nothing listening', async () => {
    const door = gate()
    const gone = new AbortController()
    await using t = await logged({ types: [talk(door.closed)] })
    const id = await submit(t)
    const updates = await collect(t, id, { signal: gone.signal, each: update => { if (update.type === 'tool_end') setImmediate(() => gone.abort()) } })
    assert.ok(!updates.some(each => each.final))
    door.open()
  })

  it('costs a job nothing when its follower reads slowly, and that one gets all the same', async () => {
    const loud = jobType('loud', async ({ emit }: JobContext) => {
      for (let at = 0; at < 3_000; at++) {
        emit({ type: 'token', content: `${at} `.padEnd(100) })
        if (at % 50 === 0) await new Promise(resolve => setImmediate(resolve))
      }
      return 'done'
    })
    await using t = await logged({ types: [loud] })
    const id = await submit(t, 'loud')
    const updates = await collect(t, id, { each: async update => { if (update.type === 'started') await eventually('the end', async () => (await t.get(Jobs).get(operator, id)).status === 'completed') } })
    assert.equal(textOf(updates).length, 300_000)
    assert.equal(textOf(updates).split(/ +/).filter(Boolean).length, 3_000)
  })
})

describe('run()', () => {
  it('goes on until the job is final when an attempt fails, and hears of the next one too', async () => {
    const flaky = jobType('flaky', async ({ emit, job }: JobContext) => { emit({ type: 'token', content: `try ${job.attempt};` }); if (job.attempt < 3) throw new Error('x'); return 'ok' })
    for (const plugins of [LOG, []]) {
      await using t = await runtime({ types: [flaky], plugins, config: { retry: { base_ms: 5, max_ms: 5 }, sweep_ms: 20 } })
      const seen: JobProgress[] = []
      const begun: string[] = []
      const job = await t.get(Jobs).run(operator, { type: 'flaky', input: null }, { onProgress: each => seen.push(each), onBegin: ({ id, status }) => begun.push(id, status) })
      assert.deepEqual([job.status, job.attempt, job.result], ['completed', 3, 'ok'])
      assert.deepEqual(begun, [job.id, 'running'])
      assert.equal(seen.map(each => each.type === 'token' && each.content).join(''), plugins.length ? 'try 1;try 2;try 3;' : 'try 1;')
    }
  })

  it('tries again where nothing was started', async () => {
    const flaky = jobType('flaky', async ({ job }: JobContext) => { if (job.attempt < 2) throw new Error('x'); return 'ok' })
    await using t = await runtime({ types: [flaky], setupOnly: true, config: { retry: { base_ms: 5, max_ms: 5 } } })
    const job = await t.get(Jobs).run(operator, { type: 'flaky', input: null })
    assert.deepEqual([job.status, job.attempt], ['completed', 2])
  })

  it('cancels with the signal while it waits for another attempt', async () => {
    const gone = new AbortController()
    await using t = await logged({ types: [jobType('bad', async () => { throw new Error('x') })], config: { retry: { base_ms: 60_000, max_ms: 60_000 } } })
    const running = t.get(Jobs).run(operator, { type: 'bad', input: null }, { signal: gone.signal })
    await eventually('it to fail', async () => (await t.get(Jobs).list(operator, { status: 'failed' })).items.length === 1)
    gone.abort()
    assert.equal((await running).status, 'cancelled')
  })

  it('cancels with the signal that comes while the next attempt is being claimed', async () => {
    const gone = new AbortController()
    const log = fake(EventLog, { append: async (_tx, list) => { if (list.some(({ type, data }) => type === 'job.started' && (data as { attempt: number }).attempt === 2)) gone.abort() } })
    const flaky = jobType('flaky', async ({ job, signal }: JobContext) => {
      if (job.attempt < 2) throw new Error('x')
      await new Promise(resolve => signal.addEventListener('abort', resolve))
    })
    await using t = await runtime({ types: [flaky], setupOnly: true, config: { retry: { base_ms: 5, max_ms: 5 } }, services: [openAccess(), log] })
    const job = await t.get(Jobs).run(operator, { type: 'flaky', input: null }, { signal: gone.signal })
    assert.deepEqual([job.status, job.attempt], ['cancelled', 2])
  })

  it('is followed where this process runs nothing', async () => {
    await using place = await logged({ types: [talk()], config: { concurrency: 0 } })
    const seen: JobProgress[] = []
    let id = ''
    const running = place.get(Jobs).run(operator, { type: 'talk', input: null }, { onProgress: each => seen.push(each), onBegin: job => { id = job.id; assert.equal(job.status, 'queued') } })
    await eventually('it to exist', () => id)
    await using worker = await logged({ types: [talk()], host: { dataDir: place.runtime.host.dataDir } })
    assert.equal((await running).result, TEXT)
    assert.equal(seen.map(each => (each.type === 'token' ? each.content : '')).join(''), TEXT)
    assert.deepEqual(seen.filter(each => each.type === 'tool_end'), [{ type: 'tool_end', tool: 'calc', call_id: 'c1', output: 42 }])
    assert.ok(worker)
  })
})

describe('progress on PostgreSQL', () => {
  it('never stands in the way of the end, nor of a cancellation, and leaves no hole in the count', async function () {
    const server = await postgresOrSkip(this)
    await using place = await server.newDatabase()
    const busy = jobType('busy', async ({ emit, input, signal }: JobContext<number>) => {
      for (let at = 0; at < 60 && !signal.aborted; at++) {
        emit({ type: 'token', content: `${at} ` })
        if (at % 3 === 0) emit({ type: 'progress', percent: at })
        await new Promise(resolve => setTimeout(resolve, (at * input) % 4))
      }
      signal.throwIfAborted()
      return 'done'
    })
    await using t = await logged({ url: place.url, types: [busy], config: { concurrency: 8 } })
    const ids = await Promise.all(Array.from({ length: 24 }, async (_, at) => (await t.get(Jobs).submit(operator, { type: 'busy', input: at })).id))
    const followed = Promise.all(ids.map(id => collect(t, id)))
    await eventually('one to run', async () => (await t.get(Jobs).get(operator, ids[3]!)).status === 'running')
    await t.get(Jobs).cancel(operator, ids[3]!)
    for (const [at, updates] of (await followed).entries()) {
      const job = await t.get(Jobs).get(operator, ids[at]!)
      assert.deepEqual([job.status, job.attempt], [at === 3 ? 'cancelled' : 'completed', 1])
      const all = await collect(t, ids[at]!)
      assert.deepEqual(all.map(each => each.seq), Array.from({ length: job.seq }, (_, seq) => seq + 1))
      if (at !== 3) assert.deepEqual([textOf(updates), textOf(all)].map(text => text.trim().split(' ').length), [60, 60])
    }
    assert.deepEqual(t.lines.filter(line => line.level === 'error' || /settled|logged/.test(line.message)), [])
  })
})
