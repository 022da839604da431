import assert from 'node:assert/strict'
import { Database } from '#contracts/database'
import { Jobs, JobSettling } from '#contracts/jobs'
import { definePlugin } from '#core'
import { jobType, operator, runtime } from './kit.ts'

const stepsOf = async (t: { get(service: typeof Database): Database }, id: string) =>
  (await t.get(Database).knex()('job_steps').where({ job_id: id }).orderBy('name')).map(({ name, result }) => `${name} ${result}`)

describe('jobs: a step that says it is the last', () => {
  it('is written with the end of the run, not before', async () => {
    let before: string[] = []
    const one = jobType('one', async ({ job, step }) => {
      const value = await step('answer', async () => ({ n: 42 }), { last: ({ n }) => n === 42 })
      before = await stepsOf(t, job.id)
      return value
    })
    await using t = await runtime({ types: [one] })
    const job = await t.get(Jobs).run(operator, { type: 'one', input: {} })
    assert.deepEqual(job.result, { n: 42 })
    assert.deepEqual(before, [])
    assert.deepEqual(await stepsOf(t, job.id), ['answer#1 {"n":42}'])
  })

  it('is written before the next one begins, if there is one after all', async () => {
    let before: string[] = []
    const two = jobType('two', async ({ job, step }) => {
      await step('answer', async () => 1, { last: () => true })
      return step('more', async () => { before = await stepsOf(t, job.id); return 2 })
    })
    await using t = await runtime({ types: [two] })
    await t.get(Jobs).run(operator, { type: 'two', input: {} })
    assert.deepEqual(before, ['answer#1 1'])
  })

  it('is kept when the run fails after it, and when its result is vetoed: the next attempt does not do it again', async () => {
    let [done, attempts] = [0, 0]
    const paid = jobType('paid', async ({ step }) => {
      await step('pay', async () => ++done, { last: () => true })
      if (++attempts === 1) throw new Error('after the last')
      return 'ok'
    })
    let vetoes = 1
    const guard = definePlugin({ name: 'guard', guards: [JobSettling], setup(ctx) {
      ctx.hook(JobSettling, ({ job }) => { if (job.status === 'completed' && vetoes-- > 0) throw new Error('not yet') })
    } })
    await using t = await runtime({ types: [paid], config: { retry: { base_ms: 1, max_ms: 1 }, sweep_ms: 20 }, plugins: [guard] })
    const job = await t.get(Jobs).run(operator, { type: 'paid', input: {} })
    assert.equal(job.status, 'completed')
    assert.equal(job.attempt, 3)
    assert.equal(done, 1)
    assert.deepEqual(await stepsOf(t, job.id), ['pay#1 1'])
  })
})
