import assert from 'node:assert/strict'
import { Secret } from '#core'
import { createTestRuntime, eventually } from '#core/testing'
import { Database, DatabaseErrors } from '#contracts/database'
import { HealthCheck } from '#contracts/health'
import database from '../../../plugins/database/index.ts'
import { proxyTo, type Proxy } from '../../support/proxy.ts'
import { postgresOrSkip, PostgresServer } from '../../support/services.ts'

/** What a request may wait. */
const TOLD_MS = 2_000
const unavailable = { code: DatabaseErrors.UNAVAILABLE.code, status: 503, retryable: true }
const inDoubt = { code: DatabaseErrors.IN_DOUBT.code, status: 504, retryable: true, expose: true }
/** A single write may have gone out before. */
const either = (error: object) => [DatabaseErrors.UNAVAILABLE, DatabaseErrors.IN_DOUBT].some(each => each.is(error))
const sleep = (ms: number) => new Promise(resolve => setTimeout(resolve, ms))

describe('a PostgreSQL that falls silent', function () {
  this.timeout(60_000)
  let server: PostgresServer
  // Of its own: others could not go on either while it stands still.
  before(async function () { server = await postgresOrSkip(this, () => PostgresServer.start()) })
  after(() => server?.stop())

  const open = async (url: string, postgres: Record<string, unknown> = {}) => {
    const t = await createTestRuntime({ plugins: [{ plugin: database, config: { url: Secret.of('DATABASE_URL', url), postgres } }], timeouts: { setup: 20_000 } })
    const db = t.get(Database)
    await db.migrate('kept', [{ name: '0001', up: async knex => knex.schema.createTable('kept', table => { table.text('id').primary() }) }])
    const insert = db.prepare('INSERT INTO kept (id) VALUES (?)')
    return {
      t, db, insert,
      ready: async () => (await t.runtime.collect(HealthCheck)[0]!.check(new AbortController().signal)).status,
      ids: () => db.knex()('kept').orderBy('id').pluck('id') as Promise<string[]>,
      [Symbol.asyncDispose]: () => t[Symbol.asyncDispose](),
    }
  }
  /** How long it took to hear of it. */
  const told = async (what: Promise<unknown>, error: object = unavailable) => {
    const from = performance.now()
    await assert.rejects(what, error)
    return performance.now() - from
  }
  /** Each way of falling silent: what it does, and what ends it. */
  const ways: Record<string, (proxy: Proxy) => () => void> = {
    'its processes stand still': () => server.freeze(),
    'nothing gets through to it': proxy => { proxy.silence(); return () => proxy.speak() },
  }

  for (const [way, begin] of Object.entries(ways)) {
    it(`is told within 2 s to whoever waits, at once to whoever comes, and is back by itself (${way})`, async () => {
      await using place = await server.newDatabase()
      await using proxy = await proxyTo(server.port)
      await using opened = await open(place.url.replace(`:${server.port}/`, `:${proxy.port}/`), { poolMax: 4 })
      const { db, insert, t, ids, ready } = opened
      await insert.run(['before'])
      let begun!: () => void
      const inside = new Promise<void>(resolve => { begun = resolve })
      let go!: () => void
      const gate = new Promise<void>(resolve => { go = resolve })
      const half = db.transaction(async tx => { await insert.run(['half'], tx); begun(); await gate; await insert.run(['other half'], tx) })
      half.catch(() => {})
      await inside
      const end = begin(proxy)
      try {
        go()
        // More than there are connections: one in a transaction, some on open connections, some on new ones, some in the line.
        const all = await Promise.all([half, ...Array.from({ length: 4 }, (_, at) => db.transaction(tx => insert.run([`tx ${at}`], tx))),
          db.knex()('kept').select('*')].map(each => told(each)).concat(Array.from({ length: 4 }, (_, at) => told(insert.run([`alone ${at}`]), either))))
        assert.ok(Math.max(...all) < TOLD_MS, `${Math.max(...all)} ms`)
        const later = await told(db.transaction(async () => {}))
        assert.ok(later < 100, `${later} ms, when it was known already`)
        await assert.rejects(ready(), unavailable)
        assert.ok(t.lines.some(line => /no sign of life/.test(line.message)), 'an operator is told')
      } finally { end() }
      const back = performance.now()
      await eventually('it to be back', () => ready().then(status => status === 'healthy', () => false), 10_000)
      assert.ok(performance.now() - back < 5_000, `${performance.now() - back} ms`)
      await insert.run(['zz after'])
      // What went out as a statement of its own may have been done or not; of a transaction nothing.
      assert.deepEqual((await ids()).filter(id => !id.startsWith('alone')), ['before', 'zz after'])
    })
  }

  for (const [what, kept] of [['all', false], ['answers', true]] as const) {
    it(`leaves in doubt whether a transaction was kept whose COMMIT it did not answer, and never does it again by itself (${kept ? 'it was' : 'it was not'})`, async () => {
      await using place = await server.newDatabase()
      await using proxy = await proxyTo(server.port)
      await using opened = await open(place.url.replace(`:${server.port}/`, `:${proxy.port}/`))
      const { db, insert, ids, ready } = opened
      let runs = 0
      const doubtful = db.transaction(async tx => {
        runs++
        await insert.run(['doubtful'], tx)
        // By then the COMMIT was sent.
        setImmediate(() => proxy.silence(what))
      })
      assert.ok(await told(doubtful, inDoubt) < TOLD_MS)
      assert.equal(runs, 1)
      proxy.speak()
      await eventually('it to be back', () => ready().then(status => status === 'healthy', () => false), 10_000)
      assert.deepEqual(await ids(), kept ? ['doubtful'] : [])
    })

    it(`so with a single write that it did not answer; a read is only refused (${kept ? 'it was kept' : 'it was not'})`, async () => {
      await using place = await server.newDatabase()
      await using proxy = await proxyTo(server.port)
      await using opened = await open(place.url.replace(`:${server.port}/`, `:${proxy.port}/`))
      const { db, insert, ids, ready } = opened
      await Promise.all(Array.from({ length: 3 }, () => db.transaction(async tx => { await db.knex(tx).raw('SELECT pg_sleep(0.05)') })))
      proxy.silence(what)
      const writes = [insert.run(['alone']), db.knex()('kept').insert({ id: 'by knex' }).returning('id')]
      await Promise.all([...writes.map(each => told(Promise.resolve(each), inDoubt)), told(Promise.resolve(db.knex()('kept').select('*')))])
      proxy.speak()
      await eventually('it to be back', () => ready().then(status => status === 'healthy', () => false), 10_000)
      assert.deepEqual(await ids(), kept ? ['alone', 'by knex'] : [])
    })
  }

  it('on the connections that are open, as after a fail-over behind one address, is asked on others: only what was under way is lost', async () => {
    await using place = await server.newDatabase()
    await using proxy = await proxyTo(server.port)
    await using opened = await open(place.url.replace(`:${server.port}/`, `:${proxy.port}/`), { poolMax: 5 })
    const { db, insert, ids, t } = opened
    // Five that are open; then one of them is in a transaction.
    await Promise.all(Array.from({ length: 5 }, () => db.transaction(async tx => { await db.knex(tx).raw('SELECT pg_sleep(0.05)') })))
    let begun!: () => void
    const inside = new Promise<void>(resolve => { begun = resolve })
    let go!: () => void
    const gate = new Promise<void>(resolve => { go = resolve })
    const half = db.transaction(async tx => { await insert.run(['half'], tx); begun(); await gate; await insert.run(['other half'], tx) })
    await inside
    proxy.silence('open')
    go()
    const from = performance.now()
    const rest = Promise.all(Array.from({ length: 8 }, (_, at) => db.transaction(tx => insert.run([`${at}`], tx))))
    assert.ok(await told(half) < TOLD_MS)
    await rest
    assert.ok(performance.now() - from < TOLD_MS, `${performance.now() - from} ms`)
    assert.deepEqual(await ids(), Array.from({ length: 8 }, (_, at) => `${at}`))
    // What was cut off is still held in between.
    proxy.speak()
    assert.deepEqual(t.lines.filter(line => /sign of life/.test(line.message)), [])
  })

  it('is not one that is slow: statements that take long, alone or all together, are waited for', async () => {
    await using place = await server.newDatabase()
    await using opened = await open(place.url, { poolMax: 2, silentMs: 300 })
    const { db, t } = opened
    const slow = () => db.knex().raw('SELECT pg_sleep(0.8)') as PromiseLike<unknown>
    await slow()
    await Promise.all([slow(), slow(), db.transaction(async () => {}), db.transaction(async () => { await sleep(600) })])
    assert.deepEqual(t.lines.filter(line => /sign of life/.test(line.message)), [])
    await eventually('the probe to be gone', async () =>
      Number((await server.query(`SELECT count(*) AS n FROM pg_stat_activity WHERE datname = '${place.name}'`))[0].n) <= 2)
  })

  it('is not one whose client stood still itself', async () => {
    await using place = await server.newDatabase()
    await using opened = await open(place.url, { silentMs: 300 })
    const { db, t } = opened
    const slow = db.knex().raw('SELECT pg_sleep(0.5)').then(() => {})
    await sleep(150)
    for (const until = performance.now() + 1_000; performance.now() < until;) { /* As a long calculation would. */ }
    await slow
    assert.deepEqual(t.lines.filter(line => /sign of life/.test(line.message)), [])
  })

  it('is not one whose client is so busy that it is let in by turns', async () => {
    await using place = await server.newDatabase()
    await using opened = await open(place.url)
    const { db, t } = opened
    let over = false
    const slow = db.knex().raw('SELECT pg_sleep(3)').then(() => {}).finally(() => { over = true })
    while (!over) {
      for (const until = performance.now() + 200; performance.now() < until;) { /* As many short calculations would. */ }
      await new Promise(resolve => setImmediate(resolve))
    }
    await slow
    assert.deepEqual(t.lines.filter(line => /sign of life|were dead/.test(line.message)), [])
  })

  it('does not keep a stop waiting', async () => {
    await using place = await server.newDatabase()
    const opened = await open(place.url)
    const waiting = opened.db.transaction(async tx => { await opened.db.knex(tx).raw('SELECT pg_sleep(60)') })
    waiting.catch(() => {})
    await sleep(100)
    const end = server.freeze()
    try {
      const from = performance.now()
      await opened[Symbol.asyncDispose]()
      assert.ok(performance.now() - from < TOLD_MS + 1_000, `${performance.now() - from} ms`)
      await assert.rejects(waiting)
    } finally { end() }
  })
})
