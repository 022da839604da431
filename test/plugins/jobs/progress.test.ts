import assert from 'node:assert/strict'
import fc from 'fast-check'
import { eventually, FakeClock, recordLog } from '#core/testing'
import type { Database, Tx } from '#contracts/database'
import type { JobProgress } from '#contracts/jobs'
import { ProgressLog, type ProgressItem } from '../../../plugins/jobs/watch/progress.ts'
import type { JobRow } from '../../../plugins/jobs/tables/record.ts'

const settled = () => new Promise(resolve => setImmediate(resolve))
const token = (content: string): JobProgress => ({ type: 'token', content })
const tool: JobProgress = { type: 'tool_start', tool: 't', call_id: 'c', input: 1 }

// Around the length at which a piece is cut.
const LONG = fc.integer({ min: 8_185, max: 8_195 }).map(length => `${'x'.repeat(length)}🙂🙂🙂`)

/** A store that takes its time, fails or has lost the job as a test says. */
function kit() {
  const clock = new FakeClock()
  const log = recordLog()
  const it = { flushes: [] as ProgressItem[][], seq: 2, gone: false, fails: undefined as Error | undefined, held: undefined as Promise<void> | undefined, open: 0, most: 0 }
  const store = {
    async write(_row: JobRow, items: readonly ProgressItem[]) {
      if (it.gone) return undefined
      it.flushes.push(structuredClone([...items]))
      return (it.seq += items.length)
    },
    database: {
      transaction: async <T>(work: (tx: Tx) => Promise<T>) => {
        it.most = Math.max(it.most, ++it.open)
        try {
          await it.held
          if (it.fails) throw it.fails
          return await work({ afterCommit() {} })
        } finally { it.open-- }
      },
    } as Pick<Database, 'transaction'>,
  }
  const progress = new ProgressLog({ id: 'j', seq: 2 } as JobRow, { store, clock, log })
  const text = () => it.flushes.flat().map(item => (item.type === 'token' ? item.content : '')).join('')
  return { it, clock, log, progress, text }
}
const tx = () => { const after: (() => unknown)[] = []; return { tx: { afterCommit: (run: () => unknown) => void after.push(run) } as Tx, commit: () => after.forEach(run => run()) } }

describe('the progress of an attempt', () => {
  it('is gathered for 50 ms, or until it is 2 kB, and goes at once with anything that is no text', async () => {
    const { it, clock, progress } = kit()
    for (const each of 'abc') progress.add(token(each))
    await settled()
    assert.equal(it.flushes.length, 0)
    await clock.advance(50)
    await settled()
    assert.deepEqual(it.flushes, [[{ type: 'token', offset: 0, content: 'abc' }]])
    progress.add(token('x'.repeat(3_000)))
    await settled()
    assert.deepEqual(it.flushes[1], [{ type: 'token', offset: 3, content: 'x'.repeat(3_000) }])
    progress.add(token('y'))
    progress.add(tool)
    await settled()
    assert.deepEqual(it.flushes[2]!.map(each => each.type), ['token', 'tool_start'])
    assert.deepEqual([progress.seq, progress.logged], [6, 3_004])
  })

  it('has one flush under way, however slow that is, and gathers the rest meanwhile', async () => {
    const { it, clock, progress, text } = kit()
    let go = () => {}
    it.held = new Promise(resolve => { go = resolve })
    for (let at = 0; at < 2_000; at++) { progress.add(token(`${at},`)); if (at % 100 === 0) await clock.advance(60) }
    assert.equal(it.flushes.length, 0)
    go()
    it.held = undefined
    await eventually('all to be logged', async () => { await clock.advance(60); return text().split(',').length === 2_001 })
    assert.equal(it.most, 1)
    assert.ok(it.flushes.length < 6, String(it.flushes.length))
  })

  it('is what was said, in order, whatever is said and however it is cut', async () => {
    await fc.assert(fc.asyncProperty(fc.array(fc.oneof(fc.string({ unit: 'grapheme', maxLength: 40 }), LONG, fc.constant(null)), { maxLength: 30 }), async said => {
      const { it, clock, progress, text } = kit()
      for (const each of said) {
        progress.add(each === null ? tool : token(each))
        if (each?.length === 7) await clock.advance(60)
      }
      await progress.close()
      const { tx: last, commit } = tx()
      await progress.writeRest(last)
      commit()
      assert.equal(text(), said.join(''))
      const order = it.flushes.flat()
      assert.equal(order.filter(each => each.type === 'tool_start').length, said.filter(each => each === null).length)
      let offset = 0
      for (const item of order) {
        if (item.type !== 'token') continue
        assert.equal(item.offset, offset)
        assert.ok(item.content.length <= 8_192 && !/[\uD800-\uDBFF]$/.test(item.content))
        offset += item.content.length
      }
      assert.equal(progress.logged, offset)
    }), { numRuns: 60 })
  })

  it('is handed on before it is logged, unless something else must be told first', async () => {
    const { clock, progress } = kit()
    progress.add(token('abc'))
    progress.add(token('def'))
    assert.deepEqual(progress.after(0), { type: 'token', offset: 0, content: 'abcdef' })
    assert.deepEqual(progress.after(2), { type: 'token', offset: 2, content: 'cdef' })
    assert.equal(progress.after(6), undefined)
    progress.add(tool)
    assert.equal(progress.after(0), undefined)
    await settled()
    await clock.advance(0)
    progress.add(token('g'))
    assert.deepEqual(progress.after(progress.logged), { type: 'token', offset: 6, content: 'g' })
  })

  it('waits for a database that is away, and is written with the end if that comes first', async () => {
    const { it, clock, progress, text, log } = kit()
    it.fails = Object.assign(new Error('away'), { retryable: true })
    progress.add(token('abc'))
    await clock.advance(50)
    await settled()
    progress.add(token('d'))
    progress.add(tool)
    await settled()
    assert.equal(it.flushes.length, 0)
    it.fails = undefined
    await clock.advance(1_000)
    await settled()
    assert.equal(text(), 'abcd')
    it.fails = Object.assign(new Error('away'), { retryable: true })
    progress.add(token('e'))
    await clock.advance(50)
    await settled()
    await progress.close()
    progress.add(token('too late'))
    const { tx: last, commit } = tx()
    await progress.writeRest(last)
    commit()
    assert.deepEqual([text(), progress.logged], ['abcde', 5])
    assert.ok(log.lines.every(line => line.level === 'warn'))
  })

  it('is written again when the transaction of the end is run again', async () => {
    const { it, progress } = kit()
    progress.add(token('abc'))
    await progress.close()
    await progress.writeRest(tx().tx)
    const { tx: second, commit } = tx()
    await progress.writeRest(second)
    commit()
    await progress.writeRest(tx().tx)
    assert.equal(it.flushes.length, 2)
  })

  it('is dropped when the claim is gone', async () => {
    const { it, clock, progress } = kit()
    it.gone = true
    progress.add(token('abc'))
    await clock.advance(50)
    await settled()
    assert.deepEqual([progress.seq, progress.logged, progress.after(3)], [2, 3, undefined])
  })

  it('stays bounded when nothing of it can be logged', async () => {
    const { it, progress, log } = kit()
    it.held = new Promise(() => {})
    for (let at = 0; at < 5_000; at++) { progress.add(tool); progress.add(token('x')) }
    assert.equal(log.lines.length, 1)
    assert.equal(progress.after(0), undefined)
  })

  it('holds what a tool was given as it was then, cut if it is large, and told about if it is no data', async () => {
    const { it, progress } = kit()
    const input: Record<string, unknown> = { a: 1 }
    progress.add({ type: 'tool_start', tool: 't', call_id: 'c', input })
    input['a'] = 2
    input['self'] = input
    progress.add({ type: 'tool_start', tool: 't', call_id: 'd', input })
    progress.add({ type: 'tool_end', tool: 't', call_id: 'e', output: 'ä'.repeat(30_000), error: { code: 'X', message: 'y'.repeat(9_000), retryable: false } })
    progress.add({ type: 'tool_end', tool: 't', call_id: 'f', output: undefined })
    progress.add({ type: 'progress', percent: 900, message: 'on its way' })
    await settled()
    await settled()
    const data = it.flushes.flat().map(item => (item.type === 'token' ? {} : item.data))
    assert.deepEqual(data[0], { tool: 't', call_id: 'c', input: { a: 1 } })
    assert.match(String(data[1]!['input']), /^not shown: /)
    assert.deepEqual([data[2]!['output_bytes'], String(data[2]!['output']).length, (data[2]!['error'] as Error).message.length], [60_002, 4_000, 2_000])
    assert.deepEqual([data[3]!['output'], data[4]], [null, { percent: 100, message: 'on its way' }])
  })
})
