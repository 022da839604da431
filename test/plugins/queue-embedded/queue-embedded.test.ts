import { conform, createTestRuntime } from '#core/testing'
import { queueConformance } from '#conformance/queue'
import { Database } from '#contracts/database'
import { JobQueue } from '#contracts/queue'
import database from '../../../plugins/database/index.ts'
import queue from '../../../plugins/queue-embedded/index.ts'

describe('queue-embedded', () => {
  conform(it, queueConformance, async () => {
    const t = await createTestRuntime({ plugins: [database, queue] })
    return { subject: { queue: t.get(JobQueue), database: t.get(Database) }, [Symbol.asyncDispose]: () => t[Symbol.asyncDispose]() }
  }, { transactional: true })
})
