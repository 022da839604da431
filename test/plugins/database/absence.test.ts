import assert from 'node:assert/strict'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { definePlugin, Secret } from '#core'
import { createTestRuntime, eventually, type Line } from '#core/testing'
import { Database, DatabaseChannels, DatabaseErrors, type DatabaseListener, type Migration } from '#contracts/database'
import { HealthCheck, type HealthResult } from '#contracts/health'
import database from '../../../plugins/database/index.ts'
import { postgresOrSkip, type PostgresServer, type TestDatabase } from '../../support/services.ts'
import { freePort } from '../../support/shared.ts'

const PASSWORD = 'hunter22-and-more'

/** Notes in one table, in which order they ran. */
const noted = (owner: string, first = false): Migration => ({
  name: '0001',
  async up(knex) {
    if (first) await knex.schema.createTable('noted', t => { t.increments('id'); t.text('owner').notNullable() })
    await knex('noted').insert({ owner })
  },
})
const broken: Migration = { name: '0001', up: async knex => { await knex.raw('SELECT * FROM what_an_operator_makes') } }

/** A plugin that migrates first thing in its setup, as all do. */
const owner = (name: string, ...migrations: Migration[]) =>
  definePlugin({ name, uses: { database: Database }, setup: async (_ctx, deps) => deps.database.migrate(name, migrations) })

interface Options { readonly url: string; readonly config?: Record<string, unknown>; readonly command?: string; readonly owners?: readonly ReturnType<typeof owner>[] }
const start = ({ url, config = {}, command, owners = [] }: Options) => createTestRuntime({
  plugins: [{ plugin: database, config: { url: Secret.of('DATABASE_URL', url), ...config } }, ...owners], ...(command !== undefined && { host: { command } }), timeouts: { setup: 20_000 },
})
const says = (lines: readonly Line[], pattern: RegExp) => lines.filter(line => pattern.test(line.message))
const owners = (db: Database) => db.knex()('noted').orderBy('id').pluck('owner') as Promise<string[]>
const unavailable = { code: DatabaseErrors.UNAVAILABLE.code, status: 503, retryable: true }

describe('a PostgreSQL that is away at the start', function () {
  this.timeout(60_000)
  let server: PostgresServer
  let place: TestDatabase
  before(async function () { server = await postgresOrSkip(this) })
  beforeEach(async () => { place = await server.newDatabase() })
  afterEach(async () => {
    await server.restart().catch(() => {})
    await place.drop()
  })

  it('is waited for: everything is refused at once, and what plugins migrate is done in order before anything else', async () => {
    await server.crash()
    await using t = await start({ url: place.url, owners: [owner('first', noted('first', true)), owner('second', noted('second')), owner('third', noted('third'))] })
    const db = t.get(Database)
    const from = performance.now()
    for (let round = 0; round < 50; round++) {
      await assert.rejects(db.transaction(async () => {}), unavailable)
      await assert.rejects(async () => db.knex()('noted').select('*'), unavailable)
      await assert.rejects(db.prepare('SELECT 1').get([]), unavailable)
    }
    assert.ok(performance.now() - from < 1_000, `${performance.now() - from} ms`)
    const health = async (): Promise<HealthResult> => t.runtime.collect(HealthCheck)[0]!.check(new AbortController().signal)
    await assert.rejects(health(), unavailable)
    // Whoever comes later is owed as well, and after the others.
    await db.migrate('late', [noted('late')])

    const waiting = says(t.lines, /waits for PostgreSQL/)
    assert.equal(waiting.length, 1)
    assert.match(waiting[0]!.message, new RegExp(`127\\.0\\.0\\.1:${server.port}/${place.name}`))
    assert.match(String(waiting[0]!.fields?.['fix']), /Start PostgreSQL there, or correct DATABASE_URL/)

    await server.restart()
    const there = performance.now()
    const found = await eventually('all that was owed', async () => { try { return await owners(db) } catch (error) { assert.ok(DatabaseErrors.UNAVAILABLE.is(error)); return false } }, 10_000)
    assert.ok(performance.now() - there < 3_000, `${performance.now() - there} ms`)
    assert.deepEqual(found, ['first', 'second', 'third', 'late'])
    assert.equal((await health()).status, 'healthy')
    assert.equal(says(t.lines, /PostgreSQL is there/).length, 1)
    assert.ok(!JSON.stringify(t.lines).includes(server.password))
    await db.migrate('after', [noted('after')])
    assert.deepEqual((await owners(db)).at(-1), 'after')
  })

  it('listens by itself once it is there', async () => {
    await server.crash()
    await using t = await start({ url: place.url })
    const heard: string[] = []
    const listener = await t.get(DatabaseChannels).listen('news', message => heard.push(message)) as DatabaseListener
    try {
      assert.equal(listener.connected, false)
      await server.restart()
      await eventually('a connection', () => listener.connected, 15_000)
      await eventually('word', async () => { await t.get(Database).prepare('SELECT pg_notify(?, ?)').get(['news', 'word']).catch(() => {}); return heard.includes('word') })
    } finally { await listener[Symbol.asyncDispose]() }
  })

  it('answers with what is wrong when an owed migration fails, keeps those before it, and tries again', async function () {
    await server.crash()
    await using t = await start({ url: place.url, owners: [owner('first', noted('first', true)), owner('broken', broken), owner('third', noted('third'))] })
    const db = t.get(Database)
    await server.restart()
    const failed = { code: DatabaseErrors.MIGRATION_FAILED.code, status: 503, retryable: true }
    await eventually('the failure', () => says(t.lines, /what_an_operator_makes/).length > 0, 10_000)
    await assert.rejects(db.transaction(async () => {}), failed)
    await assert.rejects(async () => t.runtime.collect(HealthCheck)[0]!.check(new AbortController().signal), failed)
    const [line] = says(t.lines, /what_an_operator_makes/)
    assert.deepEqual([line!.level, line!.fields?.['code']], ['error', failed.code])
    assert.ok(line!.fields?.['fix'])
    assert.deepEqual((await server.query('SELECT owner FROM noted', place.name)).map(row => row.owner), ['first'])

    await server.query('CREATE TABLE what_an_operator_makes (id int)', place.name)
    assert.deepEqual(await eventually('the rest', () => owners(db).catch(() => false as const), 10_000), ['first', 'third'])
    assert.ok(says(t.lines, /what_an_operator_makes/).length <= 2, 'it is told, and told once more for whoever looks at the terminal')
  })

  it('is not used before `backplane migrate` has run, if config says so', async () => {
    await server.crash()
    await using t = await start({ url: place.url, config: { migrate: 'check' }, owners: [owner('first', noted('first', true))] })
    await server.restart()
    await eventually('what is missing', () => says(t.lines, /migrations that did not run yet/).length > 0, 10_000)
    await assert.rejects(t.get(Database).transaction(async () => {}), { code: DatabaseErrors.MIGRATIONS_PENDING.code, status: 503 })
    { await using _migrate = await start({ url: place.url, command: 'migrate', owners: [owner('first', noted('first', true))] }) }
    assert.deepEqual(await eventually('the tables', () => owners(t.get(Database)).catch(() => false as const), 10_000), ['first'])
  })

  it('is left at once, with nothing done that is owed', async () => {
    await server.crash()
    {
      await using t = await start({ url: place.url, owners: [owner('first', noted('first', true))] })
      const from = performance.now()
      await t.runtime.stop()
      assert.ok(performance.now() - from < 1_000)
    }
    await server.restart()
    assert.deepEqual(await server.query('SELECT tablename FROM pg_tables WHERE schemaname = \'public\'', place.name), [])
  })

  it('is told a mistake of a plugin at once', async () => {
    await server.crash()
    await assert.rejects(start({ url: place.url, owners: [owner('twice', noted('a'), noted('b'))] }), /two migrations of "twice"/)
  })

  it('ends a command, and a server with an address that no waiting mends', async () => {
    const nobody = `postgres://backplane:${PASSWORD}@127.0.0.1:${await freePort()}/x`
    for (const [options, reason] of [
      [{ url: nobody, command: 'run' }, /ECONNREFUSED/], [{ url: nobody, command: 'migrate' }, /ECONNREFUSED/],
      [{ url: place.url.replace(server.password, PASSWORD) }, /password/], [{ url: server.urlOf('no_such_database') }, /does not exist/],
    ] as const) {
      await assert.rejects(start(options), error => {
        assert.match(String(error), reason)
        assert.ok(!String(error).includes(PASSWORD))
        return true
      })
    }
  })

  it('is refused in a change of a running server, which goes on with what it has', async () => {
    const other = await freePort()
    await using t = await start({ url: place.url, owners: [owner('first', noted('first', true))] })
    await assert.rejects(t.runtime.swap('database', database, { url: Secret.of('DATABASE_URL', `postgres://backplane@127.0.0.1:${other}/x`) }), /ECONNREFUSED/)
    assert.deepEqual(await owners(t.get(Database)), ['first'])
  })
})

describe('a PostgreSQL that can not be reached at the start', () => {
  it('tells where it is not, and never the password', async () => {
    const port = await freePort()
    await using t = await start({ url: `postgres://backplane:${PASSWORD}@127.0.0.1:${port}/x` })
    assert.equal(says(t.lines, new RegExp(`waits for PostgreSQL at 127\\.0\\.0\\.1:${port}/x: .*ECONNREFUSED`)).length, 1)
    await assert.rejects(t.get(Database).transaction(async () => {}), unavailable)
    assert.ok(!JSON.stringify(t.lines).includes(PASSWORD))
  })

  it('is waited for behind a pooler that lets clients in and drops them at their first question', async () => {
    const pooler = createServer(socket => {
      socket.on('error', () => {})
      // AuthenticationOk and ReadyForQuery, as if all were well.
      socket.once('data', () => {
        socket.write(Buffer.from([82, 0, 0, 0, 8, 0, 0, 0, 0, 90, 0, 0, 0, 5, 73]))
        socket.once('data', () => socket.destroy())
      })
    })
    await new Promise<void>(resolve => pooler.listen(0, '127.0.0.1', resolve))
    try {
      await using t = await start({ url: `postgres://somebody:${PASSWORD}@127.0.0.1:${(pooler.address() as AddressInfo).port}/some` })
      await assert.rejects(t.get(Database).prepare('SELECT 1').get([]), unavailable)
      assert.equal(says(t.lines, /waits for PostgreSQL/).length, 1)
    } finally { pooler.close() }
  })

  it('does not keep a stop waiting while it answers nothing', async function () {
    this.timeout(20_000)
    const taken: Socket[] = []
    const silent = createServer(socket => { taken.push(socket.on('error', () => {}).resume()) })
    await new Promise<void>(resolve => silent.listen(0, '127.0.0.1', resolve))
    try {
      const url = `postgres://backplane@127.0.0.1:${(silent.address() as AddressInfo).port}/x`
      const t = await start({ url, config: { postgres: { acquireMs: 500 } } })
      await eventually('a second visit', () => taken.length > 1)
      const from = performance.now()
      await t[Symbol.asyncDispose]()
      assert.ok(performance.now() - from < 3_000, `${performance.now() - from} ms`)
    } finally {
      for (const socket of taken) socket.destroy()
      await new Promise(resolve => silent.close(resolve))
    }
  })
})
