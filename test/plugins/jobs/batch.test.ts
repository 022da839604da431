import assert from 'node:assert/strict'
import { definePlugin } from '#core'
import { contribute, createTestRuntime, eventually, fake } from '#core/testing'
import { Database, DatabaseErrors, type Tx } from '#contracts/database'
import { JobErrors, Jobs, JobSettling, JobType } from '#contracts/jobs'
import { JobQueue, type Deliver } from '#contracts/queue'
import database from '../../../plugins/database/index.ts'
import { Batch } from '../../../plugins/jobs/batch.ts'
import jobsPlugin from '../../../plugins/jobs/index.ts'
import { jobType, openAccess, operator, runtime, until } from './kit.ts'

const later = () => new Promise(resolve => setImmediate(resolve))

describe('what comes at the same time', () => {
  async function open(write: (items: readonly number[], tx: Tx) => Promise<readonly (number | Error)[]>, most = 10) {
    const t = await createTestRuntime({ plugins: [database] })
    return { t, batch: new Batch<number, number>({ database: t.get(Database), most, write }) }
  }

  it('is written in one transaction, and what comes meanwhile in the next', async () => {
    const written: number[][] = []
    const { t, batch } = await open(async items => { written.push([...items]); await later(); return items.map(item => item * 2) }, 3)
    await using _ = t
    assert.deepEqual(await Promise.all([1, 2, 3, 4, 5].map(item => batch.add(item))), [2, 4, 6, 8, 10])
    assert.deepEqual(written, [[1, 2, 3], [4, 5]])
    assert.equal(await batch.add(7), 14)
  })

  it('fails for those alone whose fault it is', async () => {
    const committed: number[] = []
    const { t, batch } = await open(async (items, tx) => {
      tx.afterCommit(() => committed.push(...items.filter(item => item > 0)))
      if (items.includes(13)) throw new RangeError('unlucky')
      return items.map(item => (item < 0 ? new TypeError('negative') : item))
    })
    await using _ = t
    const answers = await Promise.allSettled([1, -1, 13, 2].map(item => batch.add(item)))
    assert.deepEqual(answers.map(each => (each.status === 'fulfilled' ? each.value : each.reason.name)), [1, 'TypeError', 'RangeError', 2])
    assert.deepEqual(committed.sort(), [1, 2])
  })

  it('is not written a second time when nobody knows whether it was kept', async () => {
    let tries = 0
    const { t, batch } = await open(async () => { tries++; throw DatabaseErrors.UNAVAILABLE({ reason: 'it broke during COMMIT' }) })
    await using _ = t
    for (const { status } of await Promise.allSettled([1, 2].map(item => batch.add(item)))) assert.equal(status, 'rejected')
    assert.equal(tries, 1)
  })

  it('does not wait in an open transaction for itself', async () => {
    const { t, batch } = await open(async items => items)
    await using _ = t
    await t.get(Database).transaction(async () => assert.throws(() => batch.add(1), { code: 'DATABASE_OUTSIDE_TX' }))
  })

  it('ends many jobs of which the veto hits one', async () => {
    const calls: string[] = []
    const guard = definePlugin({
      name: 'guard', guards: [JobSettling],
      setup(ctx) { ctx.hook(JobSettling, ({ job }) => { calls.push(job.status); if (job.result === 3) throw JobErrors.CANCELLED() }) },
    })
    await using t = await runtime({ types: [jobType('same', async ({ input }) => input)], plugins: [guard], config: { concurrency: 20 } })
    const jobs = await t.get(Jobs).submitMany(operator, [1, 2, 3, 4, 5].map(input => ({ type: 'same', input })))
    for (const [at, { id }] of jobs.entries()) await until(t, id, at === 2 ? 'dead' : 'completed')
    const attempts: { job_id: string; outcome: string }[] = await t.get(Database).knex()('job_attempts')
    const outcomes = jobs.map(({ id }) => attempts.filter(each => each.job_id === id).map(each => each.outcome))
    assert.deepEqual(outcomes, [['completed'], ['completed'], ['dead'], ['completed'], ['completed']])
  })

  it('ends a job although those that were to begin with its end could not be taken', async () => {
    let tries = 0
    let deliver: Deliver = async () => assert.fail('nobody consumes')
    const broken = fake(JobQueue, {
      can: { transactional: false, distributed: true },
      onLoss: () => () => {},
      enqueue: entries => deliver(entries.map(({ id }) => id)),
      async consume(taking) {
        deliver = taking
        return { empty: false, want() {}, async take() { tries++; throw new Error('no such table') }, async [Symbol.asyncDispose]() {} }
      },
      async remove() {},
      async depth() { return 0 },
    })
    const type = jobType('same', async ({ input }) => input)
    await using t = await createTestRuntime({ plugins: [database, jobsPlugin, contribute(JobType, type)], services: [openAccess(), broken] })
    const { id } = await t.get(Jobs).submit(operator, { type: 'same', input: 1 })
    const { result, attempt } = await until(t, id, 'completed')
    assert.deepEqual([result, attempt, tries], [1, 1, 1])
  })

  it('never runs more jobs than may run at once, while places are given on with the ends', async () => {
    let [running, most, done] = [0, 0, 0]
    const type = jobType('counted', async () => { most = Math.max(most, ++running); await later(); running--; done++ })
    await using t = await runtime({ types: [type], config: { concurrency: 3 } })
    const database = t.get(Database)
    await Promise.all(Array.from({ length: 60 }, () => t.get(Jobs).submit(operator, { type: 'counted', input: null })))
    await eventually('all to end', async () => {
      const [{ count }] = await database.knex()('jobs').where({ status: 'running' }).count({ count: '*' }) as [{ count: number }]
      assert.ok(count <= 3, `${count} run`)
      return done === 60
    })
    assert.equal(most, 3)
  })
})
