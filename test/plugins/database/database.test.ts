import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Sqlite from 'better-sqlite3'
import { BootError, Secret } from '#core'
import { conform, createTestRuntime, eventually, recordLog } from '#core/testing'
import { databaseConformance } from '#conformance/database'
import { Database, DatabaseErrors } from '#contracts/database'
import { HealthCheck } from '#contracts/health'
import database from '../../../plugins/database/index.ts'
import { SqliteDatabase } from '../../../plugins/database/sqlite.ts'
import { startChild } from '../../support/child.ts'

const start = (config?: unknown) => createTestRuntime({ plugins: [{ plugin: database, config }] })

describe('database', () => {
  conform(it, databaseConformance, async () => {
    const t = await start()
    return { subject: { database: t.get(Database) }, [Symbol.asyncDispose]: () => t[Symbol.asyncDispose]() }
  })

  it('writes with a write-ahead log, full fsyncs and foreign keys', async () => {
    await using t = await start()
    const db = t.get(Database)
    const pragma = async (name: string) => db.transaction(async tx => Object.values((await db.prepare(`PRAGMA ${name}`).get([], tx))!)[0])
    assert.deepEqual(await Promise.all(['journal_mode', 'synchronous', 'foreign_keys', 'busy_timeout'].map(pragma)), ['wal', 2, 1, 10])
  })

  it('refuses what is no SQLite file address, without telling the password in it', async () => {
    const cases = [['mysql://me:hunter22@db/x', /neither sqlite/], ['sqlite::memory:', /would not survive/], ['nonsense hunter22', /neither sqlite/]] as const
    for (const [url, reason] of cases) {
      for (const given of [url, Secret.of('DATABASE_URL', url)]) {
        await assert.rejects(start({ url: given }), error => {
          assert.match(String(error), reason)
          assert.doesNotMatch(String(error), /hunter22/)
          assert.match(JSON.stringify((error as { cause?: unknown }).cause), /DATABASE_DIALECT/)
          return true
        })
      }
    }
    await assert.rejects(start({ fiel: 'x' }), BootError)
    await assert.rejects(start({ postgres: { poolMin: 5, poolMax: 4 } }), /poolMin: must not be more than poolMax/)
  })

  it('opens the file that the address names', async () => {
    await using t = await start({ url: Secret.of('DATABASE_URL', 'sqlite:deep/er.db'), file: 'other.db' })
    assert.equal((t.get(Database) as SqliteDatabase).file, join(t.dataDir, 'deep/er.db'))
  })

  it('says what is wrong with a file that is no database', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'backplane-db-'))
    try {
      writeFileSync(join(dir, 'x.db'), 'this is text, and long enough to be read as a header of a file'.repeat(20))
      await assert.rejects(SqliteDatabase.open(join(dir, 'x.db'), recordLog()), { code: DatabaseErrors.UNAVAILABLE.code, message: /not a database/ })
      await assert.rejects(SqliteDatabase.open(join(dir, 'x.db', 'below', 'y.db'), recordLog()), { code: DatabaseErrors.UNAVAILABLE.code })
    } finally { rmSync(dir, { recursive: true }) }
  })

  it('refuses to open or end a transaction by statement', async () => {
    await using t = await start()
    const db = t.get(Database)
    await assert.rejects(async () => db.knex().raw('BEGIN'), /Database\.transaction/)
    await assert.rejects(db.transaction(async tx => db.knex(tx).raw(' commit')), /Database\.transaction/)
    await assert.rejects(async () => db.knex().transaction(async () => {}), /Database\.transaction/)
  })

  it('undoes a nested part and goes on', async () => {
    await using t = await start()
    const db = t.get(Database)
    await db.knex().schema.createTable('a', k => { k.text('x') })
    await db.transaction(async tx => {
      await db.knex(tx)('a').insert({ x: '1' })
      await assert.rejects(db.knex(tx).transaction(async trx => { await trx('a').insert({ x: '2' }); throw new Error('undo') }), /undo/)
      await db.knex(tx).transaction(async trx => trx('a').insert({ x: '3' }))
    })
    assert.deepEqual(await db.knex()('a').pluck('x'), ['1', '3'])
  })

  it('keeps what was written out of the messages of errors', async () => {
    await using t = await start()
    const db = t.get(Database)
    await db.knex().schema.createTable('a', k => { k.text('x').primary() })
    await db.knex()('a').insert({ x: 'hunter22' })
    await assert.rejects(async () => db.knex()('a').insert({ x: 'hunter22' }), error => !String(error).includes('hunter22') && /UNIQUE/.test(String(error)))
  })

  it('commits many at once with few fsyncs', async () => {
    await using t = await start()
    const db = t.get(Database)
    await db.knex().schema.createTable('a', k => { k.integer('x') })
    const insert = db.prepare('INSERT INTO a (x) VALUES (?)')
    await Promise.all(Array.from({ length: 500 }, (_, at) => db.transaction(async tx => insert.run([at], tx))))
    assert.deepEqual(await db.knex()('a').count({ n: '*' }), [{ n: 500 }])
    // Each COMMIT writes at least one page of 4 KiB to the log.
    const frames = statSync(join(t.dataDir, 'backplane.db-wal')).size / 4_120
    assert.ok(frames < 100, `${frames} pages were written`)
  })

  it('waits for another process without stopping the event loop, and gives up with DATABASE_BUSY', async () => {
    await using t = await start()
    const db = t.get(Database)
    await db.knex().schema.createTable('a', k => { k.integer('x') })
    const other = new Sqlite(join(t.dataDir, 'backplane.db'))
    try {
      other.exec('BEGIN IMMEDIATE')
      let [beats, longest, last] = [0, 0, performance.now()]
      const heart = setInterval(() => { beats++; longest = Math.max(longest, performance.now() - last); last = performance.now() }, 5)
      const writing = db.knex()('a').insert({ x: 1 })
      const written = writing.then(() => true)
      await new Promise(resolve => setTimeout(resolve, 300))
      assert.deepEqual(await db.knex()('a'), [], 'reading does not wait')
      other.exec('COMMIT')
      assert.equal(await written, true)
      clearInterval(heart)
      assert.ok(beats > 10, `${beats} beats`)
      assert.ok(longest < 150, `the loop stood still for ${longest} ms`)
      other.exec('BEGIN IMMEDIATE')
      await assert.rejects(db.transaction(async tx => db.knex(tx)('a').insert({ x: 2 })), { code: DatabaseErrors.BUSY.code, retryable: true })
      other.exec('COMMIT')
      await db.transaction(async tx => db.knex(tx)('a').insert({ x: 3 }))
      assert.deepEqual(await db.knex()('a').pluck('x'), [1, 3])
    } finally { other.close() }
  })

  it('ends a transaction that stays open, alone: what it wrote is undone, its neighbours go on', async () => {
    await using t = await start({ sqlite: { transactionMs: 200 } })
    const db = t.get(Database)
    await db.knex().schema.createTable('a', k => { k.integer('x') })
    const insert = db.prepare('INSERT INTO a (x) VALUES (?)')
    let go!: () => void
    const gate = new Promise<void>(resolve => { go = resolve })
    let late!: Promise<unknown>
    let ran = false
    const open = db.transaction(async tx => {
      tx.afterCommit(() => { ran = true })
      await insert.run([1], tx)
      late = gate.then(() => insert.run([2], tx))
      await db.knex(tx).transaction(async inner => { await inner('a').insert({ x: 3 }); await late })
    })
    const neighbours = Promise.all([4, 5].map(x => db.transaction(async tx => insert.run([x], tx))))
    await assert.rejects(open, { code: DatabaseErrors.TX_TIMEOUT.code, status: 503, retryable: true, message: /200 ms/ })
    await neighbours
    go()
    await assert.rejects(late, { code: DatabaseErrors.TX_ENDED.code })
    await insert.run([6])
    assert.deepEqual([await db.knex()('a').pluck('x'), ran], [[4, 5, 6], false])
  })

  it('gives a migration more time than a transaction', async () => {
    await using t = await start({ sqlite: { transactionMs: 100 } })
    await t.get(Database).migrate('slow', [{ name: '0001', up: async () => { await new Promise(resolve => setTimeout(resolve, 500)) } }])
  })

  it('says in the log that a newer release was here', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'backplane-newer-'))
    const log = recordLog()
    const db = await SqliteDatabase.open(join(dir, 'x.db'), log)
    try {
      const step = (name: string) => ({ name, up: async () => {} })
      await db.migrate('mine', [step('0001'), step('0002')])
      assert.deepEqual(log.lines.filter(each => each.level === 'warn'), [])
      await db.migrate('mine', [step('0001')])
      const warned = log.lines.filter(each => each.level === 'warn')
      assert.match(JSON.stringify(warned), /"mine\\" was migrated by a newer release.*0002/)
    } finally {
      await db.close()
      rmSync(dir, { recursive: true })
    }
  })

  it('tells how it is', async () => {
    await using t = await start()
    const [check] = t.runtime.collect(HealthCheck)
    assert.equal(check!.critical, true)
    const result = await check!.check(new AbortController().signal)
    assert.equal(result.status, 'healthy')
    assert.equal(result.details!['dialect'], 'sqlite')
  })

  it('refuses to be used after it was closed', async () => {
    const t = await start()
    const db = t.get(Database)
    await t[Symbol.asyncDispose]()
    assert.throws(() => db.knex(), { code: DatabaseErrors.UNAVAILABLE.code })
    await assert.rejects(db.prepare('SELECT 1').get([]), { code: DatabaseErrors.UNAVAILABLE.code })
  })

  it('refuses a fifth server on one file, and lets one in when another leaves or a command asks', async function () {
    const dir = mkdtempSync(join(tmpdir(), 'backplane-seats-'))
    const file = join(dir, 'seats.db')
    const log = recordLog()
    const open = (server = true) => SqliteDatabase.open(file, log, { server })
    const opened: SqliteDatabase[] = []
    try {
      opened.push(...await Promise.all([1, 2, 3, 4].map(() => open())))
      await assert.rejects(open(), { code: DatabaseErrors.TOO_MANY_PROCESSES.code, message: /4 processes have .*seats\.db open/ })
      opened.push(await open(false))
      await opened.shift()!.close()
      opened.push(await open())
      const child = startChild(new URL('seat-child.ts', import.meta.url), file)
      await child.ended
      assert.deepEqual(child.lines, ['DATABASE_TOO_MANY_PROCESSES'])
      await opened.shift()!.close()
      const other = startChild(new URL('seat-child.ts', import.meta.url), file)
      await eventually('it to sit', () => other.lines.length > 0, 20_000)
      assert.deepEqual(other.lines, ['seated'])
      await other.kill()
      opened.push(await open())
    } finally {
      for (const each of opened) await each.close()
      rmSync(dir, { recursive: true })
    }
  })
})
