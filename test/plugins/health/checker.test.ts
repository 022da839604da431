import assert from 'node:assert/strict'
import fc from 'fast-check'
import { BackplaneError, definePlugin, scope, Secret } from '#core'
import { Health, HealthCheck, type HealthResult, type HealthStatus } from '#contracts/health'
import { contribute, createTestRuntime, eventually, FakeClock, type TestPlugin } from '#core/testing'
import health from '../../../plugins/health/index.ts'
import { Checker } from '../../../plugins/health/checker.ts'

const check = (name: string, run: (signal: AbortSignal) => HealthResult | Promise<HealthResult>, more: Partial<HealthCheck> = {}): HealthCheck =>
  ({ name, ...more, check: async signal => await run(signal) })
/** Alone on its point: what the machine's disk and memory are like is no matter of these tests. */
const checkerOf = (clock: FakeClock, ...checks: HealthCheck[]) =>
  new Checker({ checks: { all: checks.map(value => ({ plugin: 'p', value })), away: [] }, host: { inspect: () => ({ state: 'running' }) as never },
  clock })
const boot = (...plugins: TestPlugin[]) => createTestRuntime({ plugins: [health, ...plugins] })

describe('health checks', () => {
  it('run in parallel, each in the scope of its plugin', async () => {
    let waiting = 0
    const plugins: unknown[] = []
    const together = (name: string) => check(name, async () => { plugins.push(scope.current?.plugin); waiting++
      await eventually('both to run', () => waiting === 2); return { status: 'healthy' } })
    const [a, b] = [contribute(HealthCheck, together('a')), contribute(HealthCheck, together('b'))]
    await using t = await boot(a, b)
    const { checks } = await t.get(Health).report()
    assert.deepEqual([checks['a']?.status, checks['b']?.status], ['healthy', 'healthy'])
    assert.deepEqual(plugins, [a.name, b.name])
  })

  it('run once for all who ask at the same time, and not again while the answer is fresh', async () => {
    const clock = new FakeClock()
    let runs = 0
    const checker = checkerOf(clock, check('a', () => { runs++; return { status: 'healthy' } }),
      check('b', () => { runs++; return { status: 'healthy' } }, { ttl: 5_000 }))
    await Promise.all([checker.report(), checker.report(), checker.ready()])
    assert.equal(runs, 2)
    await clock.advance(999)
    await checker.report()
    assert.equal(runs, 2)
    await clock.advance(1)
    await checker.report()
    assert.equal(runs, 3)
  })

  it('that throw, reject, answer nonsense or hang are unhealthy, and hurt no other', async () => {
    const clock = new FakeClock()
    const checker = checkerOf(clock,
      check('throws', () => { throw new Error('boom') }), check('rejects', () => Promise.reject(new Error('later'))),
        check('nonsense', () => ({ status: 'splendid' }) as never), check('nothing', () => undefined as never),
      check('hangs', () => new Promise(() => {}), { timeout: 300 }), check('good', () => ({ status: 'healthy' })))
    const report = checker.report()
    await clock.advance(400)
    const { status, checks } = await report
    assert.equal(status, 'degraded')
    assert.deepEqual(Object.entries(checks).map(([name, each]) => [name, each.status, each.message]), [
      ['throws', 'unhealthy', 'boom'], ['rejects', 'unhealthy', 'later'], ['nonsense', 'unhealthy', 'the check gave no status'],
        ['nothing', 'unhealthy', 'the check gave no status'],
      ['hangs', 'unhealthy', 'no answer within 300 ms'], ['good', 'healthy', undefined]])
  })

  it('that hang are told so by their signal, and are not started again before they ended', async () => {
    const clock = new FakeClock()
    let runs = 0
    let end = () => {}
    let signal: AbortSignal | undefined
    const checker = checkerOf(clock, check('hangs', given => { runs++; signal = given
      return new Promise(resolve => { end = () => resolve({ status: 'healthy' }) }) }))
    const first = checker.one('hangs')
    await clock.advance(5_100)
    assert.equal((await first).message, 'no answer within 5000 ms')
    assert.equal(signal?.aborted, true)
    await clock.advance(2_000)
    assert.match((await checker.one('hangs')).message!, /still not ended/)
    assert.equal(runs, 1)
    end()
    await clock.advance(2_000)
    const again = checker.one('hangs')
    await clock.advance(0)
    end()
    assert.deepEqual([(await again).status, runs], ['healthy', 2])
  })

  it('mask secrets in what they say', async () => {
    await Secret.of('db', 'postgres-password').read()
    const checker = checkerOf(new FakeClock(), check('a', () => { throw new Error('can not connect with postgres-password') }))
    assert.equal((await checker.one('a')).message, 'can not connect with [secret]')
  })

  it('make up the worst of all: only a critical one makes the whole unhealthy, and only such a one counts for readiness', async () => {
    const status = fc.constantFrom<HealthStatus>('healthy', 'degraded', 'unhealthy', 'unconfigured')
    await fc.assert(fc.asyncProperty(fc.array(fc.record({ status, critical: fc.boolean() }), { maxLength: 6 }), async given => {
      const checker = checkerOf(new FakeClock(), ...given.map(({ status: is, critical }, at) =>
        check(`c${at}`, () => ({ status: is }), { critical })))
      const broken = given.some(each => each.critical && each.status === 'unhealthy')
      const expected = broken ? 'unhealthy' : given.some(each => each.status === 'unhealthy' || each.status === 'degraded') ? 'degraded' : 'healthy'
      assert.equal((await checker.report()).status, expected)
      assert.equal((await checker.ready()).ready, !broken)
    }))
  })

  it('that are noted are told by readiness, which does not depend on them and does not wait long for them', async () => {
    const clock = new FakeClock()
    let critical = false
    const unhealthy = () => ({ status: 'unhealthy' as const })
    const slow: HealthCheck = { ...check('slow', () => new Promise(() => {})), noted: true }
    const turning: HealthCheck = { name: 'turning', noted: true, ttl: 0, get critical() { return critical }, check: async () => unhealthy() }
    const checker = checkerOf(clock, turning, slow, check('well', () => ({ status: 'healthy' }), { noted: true }), check('minor', unhealthy),
      check('worn', () => ({ status: 'degraded' }), { critical: true }))
    const ready = async () => {
      const asked = checker.ready()
      await clock.advance(500)
      return asked
    }
    assert.deepEqual(await ready(), { ready: true, reasons: [], degraded: ['check "turning" is unhealthy', 'check "slow" is unhealthy', 'check "worn" is degraded'] })
    critical = true
    assert.deepEqual((await ready()).reasons, ['check "turning" is unhealthy'])
  })

  it('come and go with their plugins, and are unhealthy while their plugin is swapped', async () => {
    let go = () => {}
    const opened = new Promise<void>(resolve => { go = resolve })
    const make = (name: string, setup?: Promise<void>) => definePlugin({ name, contributes: [HealthCheck],
      async setup(ctx) { await setup; ctx.contribute(HealthCheck, check('db', () => ({ status: 'healthy' }), { critical: true, ttl: 0 })) } })
    await using t = await boot(make('db'))
    const checker = t.get(Health)
    assert.deepEqual(await checker.ready(), { ready: true, reasons: [], degraded: [] })
    const swapped = t.runtime.swap('db', make('db', opened))
    await eventually('the swap', async () => !(await checker.ready()).ready)
    assert.deepEqual((await checker.ready()).reasons, ['check "db" is unhealthy'])
    go()
    await swapped
    assert.equal((await checker.ready()).ready, true)
    await t.runtime.change(new Map([['db', undefined]]))
    assert.equal((await checker.report()).checks['db'], undefined)
  })

  it('are refused by name when there is none such', async () => {
    await assert.rejects(checkerOf(new FakeClock()).one('nope'),
      (error: BackplaneError) => error.code === 'HEALTH_CHECK_UNKNOWN' && error.status === 404)
  })
})
