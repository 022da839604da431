import assert from 'node:assert/strict'
import { inspect } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Secret } from '#core'
import { conform, createTestRuntime, eventually, recordLog } from '#core/testing'
import { databaseConformance } from '#conformance/database'
import { Database, DatabaseErrors, type Migration } from '#contracts/database'
import { HealthCheck } from '#contracts/health'
import database from '../../../plugins/database/index.ts'
import { PostgresDatabase } from '../../../plugins/database/postgres.ts'
import { postgresOrSkip, type PostgresServer } from '../../support/services.ts'

const start = (url: string, config: Record<string, unknown> = {}) =>
  createTestRuntime({ plugins: [{ plugin: database, config: { url: Secret.of('DATABASE_URL', url), ...config } }], timeouts: { setup: 20_000 } })

/** Everything that a log or an answer could show of an error. */
const shown = (error: unknown): string => `${inspect(error, { depth: 8, showHidden: true })} ${JSON.stringify(error)}`
const unavailable = { code: DatabaseErrors.UNAVAILABLE.code, retryable: true }
const counted = async (db: Database) => {
  const up: Migration['up'] = async knex => knex.schema.createTable('counted', t => { t.text('id').primary(); t.integer('n') })
  await db.migrate('counted', [{ name: '0001', up }])
}

describe('database on PostgreSQL', () => {
  let server: PostgresServer
  before(async function () { server = await postgresOrSkip(this) })

  const open = async (config?: Record<string, unknown>) => {
    const place = await server.newDatabase()
    const t = await start(place.url, config).catch(async (error: unknown) => { await place.drop(); throw error })
    return { t, place, db: t.get(Database), async [Symbol.asyncDispose]() { try { await t[Symbol.asyncDispose]() } finally { await place.drop() } } }
  }

  conform(it, databaseConformance, async () => {
    const opened = await open()
    return { subject: { database: opened.db }, [Symbol.asyncDispose]: () => opened[Symbol.asyncDispose]() }
  })

  it('runs a transaction again that lost a deadlock, and what waits for the commit once', async () => {
    await using opened = await open()
    const { db } = opened
    await counted(db)
    await db.knex()('counted').insert([{ id: 'a', n: 0 }, { id: 'b', n: 0 }])
    const more = db.prepare('UPDATE counted SET n = n + 1 WHERE id = ?')
    let [runs, commits, waiting] = [0, 0, 0]
    let both!: () => void
    const met = new Promise<void>(resolve => { both = resolve })
    const swap = (first: string, second: string) => db.transaction(async tx => {
      runs++
      tx.afterCommit(() => { commits++ })
      await more.run([first], tx)
      if (++waiting === 2) both()
      await met
      await more.run([second], tx)
    })
    await Promise.all([swap('a', 'b'), swap('b', 'a')])
    assert.deepEqual(await db.knex()('counted').orderBy('id').pluck('n'), [2, 2])
    assert.equal(commits, 2)
    assert.equal(runs, 3)
  })

  it('runs a transaction again for what failed it, not for what a nested part of it undid', async () => {
    await using opened = await open()
    const { db } = opened
    const raise = (state: string) => `DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '${state}'; END $$`
    const tried = async (inner: string, outer: string) => {
      let tries = 0
      const tx = db.transaction(async tx => {
        tries++
        await assert.rejects(db.knex(tx).transaction(async part => { await part.raw(raise(inner)) }))
        if (tries === 1) await db.knex(tx).raw(raise(outer))
      })
      await tx.catch(() => {})
      return tries
    }
    assert.deepEqual([await tried('40P01', 'P0001'), await tried('P0001', '40P01')], [1, 2])
  })

  it('comes back by itself after the server was killed, with all that it acknowledged', async function () {
    this.timeout(40_000)
    await using opened = await open()
    const { t, db } = opened
    await counted(db)
    const insert = db.prepare('INSERT INTO counted (id, n) VALUES (?, 1)')
    const kept: string[] = []
    const failures: unknown[] = []
    let going = true
    const writers = [0, 1, 2, 3].map(async writer => {
      for (let at = 0; going; at++) {
        const id = `${writer}-${at}`
        try {
          if (at % 2) await insert.run([id])
          else await db.transaction(async tx => { await insert.run([id], tx); await insert.run([`${id}-pair`], tx) })
          kept.push(id, ...(at % 2 ? [] : [`${id}-pair`]))
        } catch (error) {
          failures.push(error)
          await new Promise(resolve => setTimeout(resolve, 20))
        }
      }
    })
    try {
      await eventually('rows', () => kept.length > 100)
      await server.crash()
      await eventually('failures', () => failures.length > 8)
      const [check] = t.runtime.collect(HealthCheck)
      await assert.rejects(check!.check(new AbortController().signal), unavailable)
      await assert.rejects(db.knex()('counted').select('*'), unavailable)
      await server.restart()
      const before = kept.length
      await eventually('more rows', () => kept.length > before + 100)
      assert.equal((await check!.check(new AbortController().signal)).status, 'healthy')
    } finally {
      going = false
      await Promise.all(writers)
    }
    for (const failure of failures) {
      assert.ok(DatabaseErrors.UNAVAILABLE.is(failure) || DatabaseErrors.IN_DOUBT.is(failure), String(failure))
      assert.ok(!shown(failure).includes(server.password))
    }
    const there = new Set(await db.knex()('counted').pluck('id'))
    assert.deepEqual(kept.filter(id => !there.has(id)), [])
    for (const id of there) if (Number(id.split('-')[1]) % 2 === 0) assert.ok(there.has(id.endsWith('-pair') ? id.slice(0, -5) : `${id}-pair`), `${id} is half there`)
    assert.ok(t.lines.every(line => !shown(line).includes(server.password)))
  })

  it('goes on when the server closed the idle connections', async () => {
    await using opened = await open()
    const { db, place } = opened
    await Promise.all([1, 2, 3].map(() => db.transaction(async tx => { await db.knex(tx).raw('SELECT 1') })))
    await server.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${place.name}' AND pid <> pg_backend_pid()`)
    // Whoever comes before the break is noticed has no answer to lose: nothing was begun.
    assert.equal(await db.transaction(async tx => (await db.prepare<{ one: number }>('SELECT 1 AS one').get([], tx))!.one), 1)
  })

  it('ends a statement that takes too long, and takes no one down with it', async () => {
    await using opened = await open({ postgres: { statementMs: 150 } })
    const { db } = opened
    const from = performance.now()
    await assert.rejects(async () => db.knex().raw('SELECT pg_sleep(10)'), unavailable)
    await assert.rejects(db.transaction(async tx => { await db.knex(tx).raw('SELECT pg_sleep(10)') }), unavailable)
    assert.ok(performance.now() - from < 3_000)
    assert.deepEqual(await db.knex().raw('SELECT 1 AS one'), [{ one: 1 }])
    const slow = { name: '0001', up: async (knex: { raw(sql: string): PromiseLike<unknown> }) => { await knex.raw('SELECT pg_sleep(0.4)') } }
    await db.migrate('slow', [slow])
  })

  it('gives each of many slow statements of a transaction its time, though they were asked together', async function () {
    this.timeout(20_000)
    await using opened = await open({ postgres: { statementMs: 1_000 } })
    const slow = opened.db.prepare('SELECT pg_sleep(0.4)')
    await opened.db.transaction(async tx => { await Promise.all(Array.from({ length: 4 }, () => slow.all([], tx))) })
  })

  it('looks up the rows of a statement by their index though its plan was made while the table was empty', async () => {
    await using opened = await open()
    const { db } = opened
    await counted(db)
    // The wider its rows the fewer it expects in a table of which it knows nothing.
    await db.knex().schema.alterTable('counted', t => { for (let at = 0; at < 30; at++) t.text(`wide_${at}`) })
    const change = db.prepareMany('UPDATE counted SET n = given.column2 FROM (VALUES :rows) AS given WHERE id = given.column1', ['text', 'bigint'])
    const lock = db.prepareMany('SELECT n FROM counted WHERE id IN (VALUES :rows) FOR UPDATE', ['text'])
    await db.transaction(async tx => {
      const read = async (): Promise<number> =>
        (await db.knex(tx).raw("SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relname = 'counted'"))[0].seq_scan
      const both = async () => { await change.run([['a', 1], ['b', 2]], tx); await lock.all([['a'], ['b']], tx) }
      // PostgreSQL keeps a plan from the sixth time on.
      for (let time = 0; time < 6; time++) await both()
      const before = await read()
      await both()
      assert.equal(await read(), before, 'all of the table was read')
    })
  })

  it('keeps no rows that a transaction has read', async () => {
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc') as () => void
    await using opened = await open()
    const many = opened.db.prepare<{ text: string }>("SELECT repeat('x', 1000000) AS text")
    const used = () => { collect(); return process.memoryUsage().heapUsed }
    await opened.db.transaction(async tx => {
      await many.all([], tx)
      const before = used()
      for (let round = 0; round < 50; round++) assert.equal((await many.all([], tx))[0]!.text.length, 1_000_000)
      assert.ok(used() - before < 10_000_000, `${used() - before} bytes`)
    })
  })

  it('bounds its connections, shows them, and does not wait for one for ever', async () => {
    await using opened = await open({ postgres: { poolMax: 2, acquireMs: 200 } })
    const { db, t } = opened
    let leave!: () => void
    const gate = new Promise<void>(resolve => { leave = resolve })
    const held = [1, 2].map(() => db.transaction(async () => gate))
    await assert.rejects(async () => db.knex().raw('SELECT 1'), unavailable)
    leave()
    await Promise.all(held)
    const { details } = await t.runtime.collect(HealthCheck)[0]!.check(new AbortController().signal)
    assert.deepEqual({ ...details, transaction_ms: 0 }, { dialect: 'postgres', connections: 2, idle: 2, waiting: 0, max: 2, transaction_ms: 0 })
  })

  it('lets one process at a time migrate a plugin', async () => {
    await using place = await server.newDatabase()
    const open = () => PostgresDatabase.open({ address: async () => place.url }, recordLog())
    const databases = await Promise.all([open(), open(), open()])
    try {
      let ran = 0
      const up = async (knex: { raw(sql: string): PromiseLike<unknown> }) => { ran++; await knex.raw('SELECT pg_sleep(0.1)'); await knex.raw('CREATE TABLE once (a text)') }
      await Promise.all(databases.map(db => db.migrate('once', [{ name: '0001', up }])))
      assert.equal(ran, 1)
      assert.deepEqual(databases.flatMap(db => db.migrated), [{ owner: 'once', name: '0001' }])
    } finally { await Promise.all(databases.map(db => db.close())) }
  })

  it('tells no password when it can not connect', async () => {
    const secret = 'hunter22-and-more'
    const where = `127.0.0.1:${server.port}`
    for (const url of [`postgres://backplane:${secret}@${where}/postgres`, `postgres://me:${secret}@[:x/y`, `postgresql://me:${secret}@${where}:x/y`]) {
      await assert.rejects(start(url), error => {
        assert.ok(!shown(error).includes(secret), shown(error))
        assert.match(shown(error), /DATABASE_(UNAVAILABLE|DIALECT)/)
        return true
      })
    }
  })

  it('uses a rotated password for new connections', async () => {
    await using place = await server.newDatabase()
    const role = `rotating_${process.pid}`
    await server.query(`CREATE ROLE ${role} LOGIN PASSWORD 'first-password'`)
    let password = 'first-password'
    const address = async () => place.url.replace(/\/\/[^@]*@/, `//${role}:${password}@`)
    const db = await PostgresDatabase.open({ address }, recordLog())
    try {
      await server.query(`ALTER ROLE ${role} PASSWORD 'second-password'`)
      password = 'second-password'
      await server.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '${role}'`)
      assert.equal(await db.transaction(async () => 1), 1)
    } finally {
      await db.close()
      await server.query(`DROP ROLE ${role}`)
    }
  })

  it('is closed when what was begun has ended', async () => {
    const opened = await open()
    const { db } = opened
    await counted(db)
    const writing = db.transaction(async tx => { await new Promise(resolve => setTimeout(resolve, 100)); await db.knex(tx)('counted').insert({ id: 'a', n: 1 }) })
    await opened.t[Symbol.asyncDispose]()
    await writing
    assert.throws(() => db.knex(), { code: DatabaseErrors.UNAVAILABLE.code })
    assert.deepEqual(await server.query('SELECT id FROM counted', opened.place.name), [{ id: 'a' }])
    await opened.place.drop()
  })
})
