import assert from 'node:assert/strict'
import { inspect } from 'node:util'
import { BackplaneError, BootError, Deadline, defineErrors, definePlugin, extendDeadline, maskSecrets, rootOf, scope, Secret, SecretResolve, SecretRotated, SystemClock } from '#core'
import { conform, createTestRuntime, defineConformance, eventually, FakeClock, recordLog, settle } from '#core/testing'
import { definePoint } from '#core'
import fc from 'fast-check'
import { z } from 'zod'

describe('errors', () => {
  const Mail = defineErrors('MAIL', {
    REFUSED: { message: 'the server refused {address}', fix: 'ask the owner of {address}', status: 502, retryable: true, expose: true },
    DOWN: { message: 'no server', fix: 'start it' },
  })

  it('carry code, text, fix, status and details, and are matched by code', () => {
    const error = Mail.REFUSED({ address: 'a@b' }, { cause: new Error('550') })
    assert.deepEqual([error.code, error.message, error.fix, error.status, error.retryable, error.expose, error.details['address']],
      ['MAIL_REFUSED', 'the server refused a@b', 'ask the owner of a@b', 502, true, true, 'a@b'])
    assert.ok(Mail.REFUSED.is(error) && !Mail.DOWN.is(error) && !Mail.DOWN.is(new Error('x')))
    assert.deepEqual([Mail.DOWN().status, Mail.DOWN().retryable, Mail.DOWN().expose], [500, false, false])
  })

  it('a boot error lists every problem with its fix', () => {
    const error = new BootError([Mail.DOWN(), Mail.REFUSED({ address: 'x' })])
    assert.match(error.message, /cannot start, 2 problems:\n {2}- MAIL_DOWN: no server\n {4}fix: start it/)
    assert.equal(error.code, 'RUNTIME_BOOT_FAILED')
  })

  it('rootOf leaves what no hook wrapped', () => { const error = new Error('x'); assert.equal(rootOf(error), error); assert.ok(!(rootOf(error) instanceof BackplaneError)) })
})

describe('deadlines', () => {
  class Node extends Deadline {
    expired = 0
    expire() { this.expired++ }
  }

  it('expire once, not before their time, and not when taken off', () => {
    const arming = fc.array(fc.record({ ms: fc.integer({ min: 1, max: 500 }), off: fc.boolean() }), { maxLength: 30 })
    fc.assert(fc.property(arming, fc.array(fc.integer({ min: 1, max: 120 }), { maxLength: 20 }), (armed, steps) => {
      const { deadlines } = new FakeClock()
      const nodes = armed.map(({ ms, off }) => { const node = new Node(); deadlines.arm(node, ms); if (off) deadlines.disarm(node); return { node, ms, off } })
      let now = 0
      for (const step of steps) {
        deadlines.advance(step)
        now += step
        for (const { node, ms, off } of nodes) {
          if (off || now < ms) assert.equal(node.expired, 0)
          if (!off && now >= ms + 50) assert.equal(node.expired, 1)
        }
      }
    }))
  })

  it('count only two ticks of a pause in which the event loop was blocked', async () => {
    const clock = new SystemClock()
    const node = new Node()
    clock.deadlines.arm(node, 300)
    const until = performance.now() + 600
    while (performance.now() < until) { /* blocked */ }
    await new Promise(resolve => setTimeout(resolve, 60))
    assert.equal(node.expired, 0)
    await eventually('the deadline', () => node.expired === 1)
    clock.deadlines.stop()
  })

  it('of a lifecycle step can be extended from inside', async () => {
    const clock = new FakeClock()
    const slow = definePlugin({ name: 'slow', async setup() { await Promise.resolve(); extendDeadline(60_000); await new Promise<void>(resolve => { go = resolve }) } })
    let go = () => {}
    const starting = createTestRuntime({ clock, plugins: [slow], timeouts: { setup: 1_000 } })
    await clock.advance(30_000)
    go()
    await using _t = await starting
  })
})

describe('the scope', () => {
  it('is right across awaits, nested, and inside unhandled rejections', async () => {
    const seen: unknown[] = []
    await scope.run({ request_id: 'r' }, async () => {
      await settle()
      await scope.run({ plugin: 'p', job_id: 'j' }, async () => { await settle(); seen.push(scope.current) })
      seen.push(scope.current)
    })
    assert.deepEqual(seen, [{ request_id: 'r', plugin: 'p', job_id: 'j' }, { request_id: 'r' }])
    assert.equal(scope.current, undefined)
  })
})

describe('a secret handle', () => {
  const Store = (values: Record<string, string>) => definePlugin({ name: 'store', guards: [SecretResolve], setup(ctx) { ctx.hook(SecretResolve, async ({ name }) => values[name]) } })
  const config = z.strictObject({ url: z.instanceof(Secret).meta({ type: 'string' }) })
  const handle = new Secret(['postgres://user:', { secret: 'db-password' }, '@host/db'])

  it('prints as its name, everywhere', () => {
    for (const text of [String(handle), JSON.stringify({ handle }), inspect({ handle }), `${handle}`]) assert.match(text, /\[secret db-password\]/)
    assert.equal(JSON.stringify(Secret.of('OPENAI_API_KEY', 'sk-123456789')), '"[secret OPENAI_API_KEY]"')
  })

  it('reads through the stores, at each call afresh, with what stands around the reference', async () => {
    const values: Record<string, string> = { 'db-password': 'first-value' }
    const seen: string[] = []
    let secret!: Secret
    const db = definePlugin({ name: 'db', config, setup(ctx) { secret = ctx.config.url; ctx.defer(secret.watch(async each => void seen.push(await each.read()))) } })
    await using t = await createTestRuntime({ plugins: [Store(values), { plugin: db, config: { url: handle } }] })
    assert.equal(await secret.read(), 'postgres://user:first-value@host/db')
    values['db-password'] = 'second-value'
    await t.call(SecretRotated, { name: 'another' })
    await t.call(SecretRotated, { name: 'db-password' })
    await eventually('the rotation', () => seen.length === 1)
    assert.deepEqual(seen, ['postgres://user:second-value@host/db'])
  })

  it('whose value was read is masked in any text from then on', async () => {
    const secret = Secret.of('X', 'correct-horse-battery')
    assert.equal(maskSecrets('a correct-horse-battery b'), 'a correct-horse-battery b')
    await secret.read()
    assert.equal(maskSecrets('a correct-horse-battery b'), 'a [secret] b')
  })

  it('cannot be read before a runtime has bound it', async () => { await assert.rejects(handle.read(), /not bound to a runtime/) })
})

describe('conformance', () => {
  const Store = definePoint<object>('t.store')
  const suite = defineConformance<Map<string, number>, 'delete'>(Store, {
    'what was set is read': { run: map => { map.set('a', 1); assert.equal(map.get('a'), 1) } },
    'deletes': { needs: 'delete', run: map => { assert.equal(map.delete('x'), false) }, refuse: map => { assert.ok(map) } },
  })
  conform(it, suite, () => ({ subject: new Map() }), { delete: true })

  it('holds an implementation to how it must refuse what it cannot do', async () => {
    const names: string[] = []
    const runs: (() => Promise<void>)[] = []
    let disposed = 0
    conform((name, run) => { names.push(name); runs.push(run) }, suite, () => ({ subject: new Map(), [Symbol.asyncDispose]: async () => void disposed++ }), { delete: false })
    for (const run of runs) await run()
    assert.deepEqual([names, disposed], [['t.store: what was set is read', 't.store: deletes (refused)'], 2])
    assert.throws(() => conform(() => {}, defineConformance<object, 'x'>(Store, { odd: { needs: 'x', run() {} } }), () => ({ subject: {} }), { x: false }), /does not say how to refuse it/)
  })
})

describe('the recorders', () => {
  it('keep log lines with the fields of their child loggers', () => {
    const log = recordLog()
    log.child({ plugin: 'x' }).info('hello', { n: 1 })
    assert.deepEqual(log.lines, [{ level: 'info', message: 'hello', fields: { plugin: 'x', n: 1 } }])
  })
})
