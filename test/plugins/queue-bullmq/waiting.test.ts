import assert from 'node:assert/strict'
import { contribute, createTestRuntime, eventually } from '#core/testing'
import { Database } from '#contracts/database'
import { Jobs, JobType } from '#contracts/jobs'
import { JobQueue } from '#contracts/queue'
import { Questions } from '#contracts/questions'
import database from '../../../plugins/database/index.ts'
import jobs from '../../../plugins/jobs/index.ts'
import queue from '../../../plugins/queue-bullmq/index.ts'
import redis from '../../../plugins/redis/index.ts'
import { redisOrSkip, RedisServer } from '../../support/services.ts'
import { jobType, openAccess, operator, until } from '../jobs/kit.ts'

describe('queue-bullmq under jobs that wait', () => {
  before(async function () { await redisOrSkip(this) })

  it('carries answered jobs, parents, and what limits kept back', async function () {
    this.timeout(60_000)
    const server = await RedisServer.start()
    try {
      let [now, most] = [0, 0]
      const leaf = jobType('leaf', async ({ input }) => {
        most = Math.max(most, ++now)
        await new Promise(resolve => setTimeout(resolve, 2))
        now--
        return input
      })
      const parent = jobType('parent', async ({ ask, children }) => {
        const n = await ask<number>({ question: 'how many?' })
        const ended = await children(Array.from({ length: n }, (_, input) => ({ type: 'leaf', input })))
        return ended.reduce((sum, job) => sum + (job.result as number), 0)
      })
      await using t = await createTestRuntime({
        plugins: [
          database, { plugin: redis, config: { url: server.url } }, queue, contribute(JobType, leaf, parent),
          { plugin: jobs, config: { sweep_ms: 100, concurrency: 10, limits: { projects: { default: { concurrency: 2 } } } } },
        ],
        services: [openAccess()],
      })
      const job = await t.get(Jobs).submit(operator, { type: 'parent', input: null })
      await until(t, job.id, 'waiting')
      await t.get(Questions).answer(operator, job.id, { answer: 40 })
      assert.equal((await until(t, job.id, 'completed', 30_000)).result, 780)
      assert.equal(most, 2)
      await eventually('an empty queue', async () => await t.get(JobQueue).depth() === 0)
      assert.equal((await t.get(Database).knex()('jobs').where({ status: 'queued' })).length, 0)
    } finally { await server.stop() }
  })
})
