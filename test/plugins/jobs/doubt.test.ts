import assert from 'node:assert/strict'
import { eventually } from '#core/testing'
import { Database, type Tx } from '#contracts/database'
import { Jobs } from '#contracts/jobs'
import { proxyTo } from '../../support/proxy.ts'
import { postgresOrSkip } from '../../support/services.ts'
import { jobType, operator, runtime } from './kit.ts'

describe('jobs: a claim in doubt', () => {
  it('that was kept costs no attempt, for nobody began it', async function () {
    this.timeout(60_000)
    const server = await postgresOrSkip(this)
    await using place = await server.newDatabase()
    await using proxy = await proxyTo(server.port)
    let runs = 0
    await using t = await runtime({
      types: [jobType('t', async () => ++runs)], config: { sweep_ms: 100, lease: { ms: 2_000, renew_ms: 500 } },
      url: place.url.replace(`:${server.port}/`, `:${proxy.port}/`),
    })
    const db = t.get(Database)
    const transaction = db.transaction.bind(db)
    let cut = false
    db.transaction = work => transaction(async (tx: Tx) => {
      const value = await work(tx)
      if (!cut && await db.knex(tx)('jobs').where({ status: 'running' }).first('id')) {
        cut = true
        // By then the COMMIT was sent.
        setImmediate(() => proxy.silence('answers'))
      }
      return value
    })
    const { id } = await t.get(Jobs).submit(operator, { type: 't', input: 1, max_attempts: 1 })
    await eventually('it to be claimed', async () => (await server.query('SELECT status FROM jobs', place.name))[0]?.status === 'running')
    assert.ok(cut)
    proxy.speak()
    const job = await eventually('its end', async () => {
      const seen = await t.get(Jobs).get(operator, id).catch(() => undefined)
      return seen !== undefined && ['completed', 'dead'].includes(seen.status) && seen
    }, 20_000)
    assert.deepEqual([job.status, job.error, job.attempt, runs], ['completed', null, 1, 1])
  })
})
