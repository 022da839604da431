import assert from 'node:assert/strict'
import { createTestRuntime, eventually, FakeClock, recordLog } from '#core/testing'
import { ClockSkew } from '#contracts/cluster'
import { Database, DatabaseErrors } from '#contracts/database'
import { HealthCheck } from '#contracts/health'
import cluster from '../../../plugins/cluster/index.ts'
import database from '../../../plugins/database/index.ts'
import { MeasuredSkew } from '../../../plugins/cluster/skew.ts'
import { postgresOrSkip, type PostgresServer } from '../../support/services.ts'

/** A machine whose clock can be set; the database has the right time. */
async function machine() {
  const t = await createTestRuntime({ plugins: [database] })
  const log = recordLog()
  const clock = new FakeClock()
  const state = { ahead: 0, away: false }
  const real = t.get(Database)
  const service: Database = {
    ...real, dialect: real.dialect,
    prepare: sql => {
      const statement = real.prepare<any>(sql)
      return { ...statement, get: params => (state.away ? Promise.reject(DatabaseErrors.UNAVAILABLE({ reason: 'away' })) : statement.get(params)) }
    },
  }
  const skew = new MeasuredSkew({ database: service, clock, log, wall: () => Date.now() + state.ahead })
  return { state, skew, clock, log, async [Symbol.asyncDispose]() { skew[Symbol.dispose](); await t[Symbol.asyncDispose]() } }
}
const near = (ms: number, wanted: number) => assert.ok(Math.abs(ms - wanted) < 50, `${ms} ms instead of about ${wanted}`)

describe('the clock of a machine', () => {
  it('is left as it is where it agrees with that of the database, and until that is known', async () => {
    await using it = await machine()
    it.state.ahead = 10_000
    assert.equal(it.skew.ms, 0)
    it.state.ahead = 60
    await it.skew.measure()
    assert.equal(it.skew.ms, 0)
  })

  it('is set right where it is fast or slow, and that is told once', async () => {
    await using it = await machine()
    for (const ahead of [10_000, -10_000, 400]) {
      it.state.ahead = ahead
      await it.skew.measure()
      near(it.skew.ms, -ahead)
    }
    const lines = it.log.lines.filter(line => line.level === 'warn')
    assert.deepEqual([lines.length, /(9\d{3}|10000) ms ahead of that of the database/.test(lines[0]!.message), /NTP/.test(String(lines[0]!.fields?.['fix']))], [1, true, true])
  })

  it('is set right at once when somebody sets it, and is measured again and again, also while the database is away', async () => {
    await using it = await machine()
    it.state.away = true
    await it.skew.watch()
    assert.equal(it.skew.ms, 0)
    it.state.away = false
    it.state.ahead = 5_000
    await it.clock.advance(1_000)
    await eventually('it to be measured', () => it.skew.ms !== 0)
    near(it.skew.ms, -5_000)
    it.state.away = true
    it.state.ahead = -3_000
    near(it.skew.ms, 3_000)
    it.state.ahead = 0
    assert.equal(it.skew.ms, 0)
  })

  describe('on PostgreSQL', () => {
    let server: PostgresServer
    before(async function () { server = await postgresOrSkip(this) })

    it('is measured before anybody starts; a bad one makes the health check degraded', async () => {
      await using place = await server.newDatabase()
      const real = Date.now
      try {
        Date.now = () => real() + 20_000
        await using t = await createTestRuntime({ plugins: [{ plugin: database, config: { url: place.url } }, cluster] })
        near(t.get(ClockSkew).ms, -20_000)
        const check = t.runtime.collect(HealthCheck).find(each => each.name === 'cluster')!
        const { status, message } = await check.check(AbortSignal.timeout(5_000))
        assert.equal(status, 'degraded')
        assert.match(message!, /ms ahead of that of the database\. Run NTP/)
        Date.now = real
        assert.equal((await check.check(AbortSignal.timeout(5_000))).status, 'healthy')
      } finally { Date.now = real }
    })
  })
})
