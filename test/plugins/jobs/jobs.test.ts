import assert from 'node:assert/strict'
import { Jobs } from '#contracts/jobs'
import { jobType, operator, runtime, until } from './kit.ts'

describe('jobs', () => {
  it('runs what was submitted and keeps the result', async () => {
    await using t = await runtime({ types: [jobType('double', async ({ input }) => input * 2)] })
    const job = await t.get(Jobs).submit(operator, { type: 'double', input: 21 })
    assert.equal(job.status, 'queued')
    const done = await until(t, job.id, 'completed')
    assert.equal(done.result, 42)
    assert.equal(done.attempt, 1)
    assert.equal(done.seq, 3)
  })
  it('runs here and now', async () => {
    await using t = await runtime({ types: [jobType('double', async ({ input }) => input * 2)], config: { concurrency: 0 } })
    const job = await t.get(Jobs).run(operator, { type: 'double', input: 4 })
    assert.equal(job.result, 8)
    const from = performance.now()
    const all = await Promise.all(Array.from({ length: 2000 }, (_, i) => t.get(Jobs).run(operator, { type: 'double', input: i })))
    console.log(2000 / (performance.now() - from) * 1000, all.length)
  })
  it('perf', async () => {
    await using t = await runtime({ types: [jobType('double', async ({ input }) => input * 2)], config: { concurrency: 100 } })
    const from = performance.now()
    const all = await Promise.all(Array.from({ length: 3000 }, (_, i) => t.get(Jobs).submit(operator, { type: 'double', input: i })))
    console.log(performance.now() - from)
    await until(t, all.at(-1)!.id, 'completed')
    console.log(3000 / (performance.now() - from) * 1000, all.length)
  })
})
