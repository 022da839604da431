import assert from 'node:assert/strict'
import { createTestRuntime, fake, recordLog } from '#core/testing'
import { JobQueue } from '#contracts/queue'
import type { Redis, RedisConnection } from '#contracts/redis'
import database from '../../../plugins/database/index.ts'
import jobs from '../../../plugins/jobs/index.ts'
import { Loss } from '../../../plugins/queue-bullmq/loss.ts'
import { openAccess } from '../jobs/kit.ts'

describe('what Redis lost', () => {
  it('is not asked for, and so not told, where nobody listens any more: it is told once', async () => {
    let asked = 0
    const connection = { ready: true, client: { eval: async () => { asked++; return 1 } } } as unknown as RedisConnection
    const loss = new Loss({ redis: { prefix: 'p' } as Redis, connection, queue: 'q', log: recordLog() })
    const told: string[] = []
    const leave = loss.listen(() => told.push('one'))
    await loss.look()
    leave()
    const before = [asked, told.length]
    await loss.look()
    assert.deepEqual([asked, told.length], before)
  })

  it('is not told to a worker that has left', async () => {
    let listening = 0
    const engine = fake(JobQueue, {
      can: { transactional: false, distributed: true },
      onLoss() { listening++; return () => { listening-- } },
      async enqueue() {}, async remove() {}, async depth() { return 0 },
      async consume() { return { empty: false, want() {}, take: async () => [], async [Symbol.asyncDispose]() {} } },
    })
    const t = await createTestRuntime({ plugins: [{ plugin: database, config: {} }, jobs], services: [openAccess(), engine] })
    assert.equal(listening, 1)
    await t[Symbol.asyncDispose]()
    assert.equal(listening, 0)
  })
})
