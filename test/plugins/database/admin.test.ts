import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Sqlite from 'better-sqlite3'
import { definePlugin, type CommandIo } from '#core'
import { createTestRuntime, eventually, type TestRuntime } from '#core/testing'
import { Database, DatabaseAdmin, DatabaseErrors } from '#contracts/database'
import commands from '../../../plugins/database/commands.ts'
import database from '../../../plugins/database/index.ts'
import { startChild } from '../../support/child.ts'
import { postgresOrSkip, type PostgresServer } from '../../support/services.ts'

/** Runs a command as the CLI does. */
async function run(t: TestRuntime, name: string, args: string[] = [], more: Partial<CommandIo> = {}) {
  const out: string[] = []
  const err: string[] = []
  const command = commands.find(each => each.name === name)!
  const io: CommandIo = {
    args, options: {}, json: false, tty: false, stdin: async function* () {}, signal: new AbortController().signal, server: undefined,
    out: text => out.push(text), write: text => out.push(text), err: text => err.push(text), get: ref => t.get(ref), ...more,
  }
  return { code: await command.run(io) ?? 0, out, err }
}

interface Place extends AsyncDisposable { start(config?: Record<string, unknown>, command?: string): Promise<TestRuntime>; readonly folder: string }

const notes = definePlugin({
  name: 'notes', uses: { database: Database },
  async setup(_ctx, deps) {
    await deps.database.migrate('notes', [
      { name: '0001-notes', up: async knex => knex.schema.createTable('notes', t => { t.text('id').primary() }) },
      { name: '0002-more', up: async knex => knex.schema.alterTable('notes', t => { t.text('body') }) },
    ])
  },
})

function backups(place: () => Promise<Place>): void {
  it('makes a backup of what is committed, while others write, and puts it back', async () => {
    await using p = await place()
    const file = join(p.folder, 'backup')
    {
      await using t = await p.start()
      const db = t.get(Database)
      let going = true
      let count = 0
      const writer = (async () => {
        while (going) {
          const id = String(count++)
          await db.transaction(async tx => {
            await db.knex(tx)('notes').insert({ id })
            await db.knex(tx)('notes').insert({ id: `${id}-pair`, body: 'x'.repeat(2_000) })
          })
        }
      })()
      try {
        await eventually('rows', () => count > 100)
        const { out, code } = await run(t, 'database backup', [file])
        assert.equal(code, 0)
        assert.match(out.join(), /: \d+.* [kM]B, checked$/)
        await assert.rejects(run(t, 'database backup', [file]), { code: DatabaseErrors.BACKUP_FAILED.code, message: /--force/ })
        assert.equal(JSON.parse((await run(t, 'database backup', [file], { json: true, options: { force: true } })).out.join()).file, file)
      } finally {
        going = false
        await writer
      }
      await db.knex()('notes').insert({ id: 'later' })
    }
    {
      await using t = await p.start()
      assert.equal((await run(t, 'database restore', [file])).code, 0)
      assert.throws(() => t.get(Database).knex(), { code: DatabaseErrors.UNAVAILABLE.code })
    }
    await using t = await p.start()
    const ids = new Set(await t.get(Database).knex()('notes').pluck('id'))
    assert.ok(ids.size >= 200, `${ids.size} rows`)
    assert.equal(ids.has('later'), false)
    for (const id of ids) assert.ok(ids.has(id.endsWith('-pair') ? id.slice(0, -5) : `${id}-pair`), `${id} is half there`)
    assert.deepEqual(readdirSync(p.folder).filter(name => name.includes('.partial') || name.includes('.restored')), [])
  })

  it('refuses to restore what is no backup, and leaves everything as it was', async () => {
    await using p = await place()
    await using t = await p.start()
    const file = join(p.folder, 'text')
    writeFileSync(file, 'this is no backup of anything, however long it may be'.repeat(40))
    await assert.rejects(run(t, 'database restore', [file]), { code: DatabaseErrors.BACKUP_INVALID.code })
    await assert.rejects(run(t, 'database restore', [join(p.folder, 'none')]), { code: DatabaseErrors.BACKUP_INVALID.code })
    assert.deepEqual(await t.get(Database).knex()('notes'), [])
  })

  it('refuses to restore while another process uses the database', async () => {
    await using p = await place()
    await using t = await p.start()
    const file = join(p.folder, 'backup')
    await t.get(DatabaseAdmin).backup(file)
    await using other = await p.start()
    await assert.rejects(run(t, 'database restore', [file]), { code: DatabaseErrors.IN_USE.code })
    await other.get(Database).knex()('notes').insert({ id: 'still here' })
  })

  it('refuses to start with pending migrations if told to check, naming them; migrate runs them', async () => {
    await using p = await place()
    await assert.rejects(p.start({ migrate: 'check' }), error => {
      assert.match(String(error), /plugin "notes" has migrations that did not run yet: 0001-notes, 0002-more/)
      return true
    })
    {
      await using t = await p.start({ migrate: 'check' }, 'migrate')
      assert.deepEqual((await run(t, 'migrate')).out, ['notes: 0001-notes\nnotes: 0002-more'])
    }
    await using t = await p.start({ migrate: 'check' })
    assert.deepEqual((await run(t, 'migrate')).out, ['nothing to do: all tables are up to date'])
    assert.deepEqual((await run(t, 'migrate', [], { json: true })).out, ['{"migrations":[]}'])
  })
}

const runtime = (config: Record<string, unknown>, dataDir: string, command?: string) => createTestRuntime({
  plugins: [{ plugin: database, config }, notes], timeouts: { setup: 20_000 }, setupOnly: command !== undefined,
  host: { dataDir, ...(command !== undefined && { command }) },
})

describe('database commands on SQLite', () => {
  const place = async (): Promise<Place> => {
    const folder = mkdtempSync(join(tmpdir(), 'backplane-admin-'))
    const start: Place['start'] = (config = {}, command) => runtime(config, folder, command)
    return { folder, start, async [Symbol.asyncDispose]() { rmSync(folder, { recursive: true }) } }
  }
  backups(place)

  it('backs up at the moment it began, while another process writes, and says how far it is', async function () {
    this.timeout(30_000)
    await using p = await place()
    const file = join(p.folder, 'backplane.db')
    const db = new Sqlite(file)
    db.pragma('journal_mode = WAL')
    db.exec('CREATE TABLE big (x BLOB)')
    db.transaction(() => { for (let at = 0; at < 400; at++) db.prepare('INSERT INTO big VALUES (?)').run(Buffer.alloc(50_000, at)) })()
    db.close()
    const child = startChild(new URL('writer-child.ts', import.meta.url), file, 'a', '4')
    try {
      await eventually('rows', () => child.lines.length > 20, 20_000)
      await using t = await p.start()
      const before = child.lines.filter(line => line.startsWith('a-'))
      const told: number[] = []
      const backup = join(p.folder, 'copy')
      await t.get(DatabaseAdmin).backup(backup, { progress: done => told.push(done) })
      assert.ok(told.length > 3 && told.at(-1) === 1 && told.every((each, at) => at === 0 || each >= told[at - 1]!), String(told))
      const copy = new Sqlite(backup, { readonly: true })
      try {
        const [left, right] = ['left_half', 'right_half'].map(table => new Set(copy.prepare(`SELECT id FROM ${table}`).pluck().all()))
        assert.deepEqual(left, right)
        assert.deepEqual(before.filter(id => !left!.has(id)), [])
      } finally { copy.close() }
    } finally { await child.kill() }
  })

  it('leaves nothing of a backup that was interrupted', async () => {
    await using p = await place()
    await using t = await p.start()
    const rows = 'WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 4000) SELECT x, randomblob(2000) AS y FROM n'
    await t.get(Database).knex().raw(`CREATE TABLE big AS ${rows}`)
    const file = join(p.folder, 'copy')
    const abort = new AbortController()
    const backup = t.get(DatabaseAdmin).backup(file, { signal: abort.signal, progress: () => abort.abort() })
    await assert.rejects(backup, { code: DatabaseErrors.BACKUP_FAILED.code })
    assert.deepEqual(readdirSync(p.folder).filter(name => name.startsWith('copy')), [])
  })

  it('keeps what a restore replaced', async () => {
    await using p = await place()
    const backup = join(p.folder, 'backup')
    let kept: string
    {
      await using t = await p.start()
      await t.get(DatabaseAdmin).backup(backup)
      await t.get(Database).knex()('notes').insert({ id: 'later' })
      kept = (await t.get(DatabaseAdmin).restore(backup)).kept!
    }
    assert.ok(existsSync(kept))
    const old = new Sqlite(kept, { readonly: true })
    try { assert.deepEqual(old.prepare('SELECT id FROM notes').pluck().all(), ['later']) } finally { old.close() }
  })
})

describe('database commands on PostgreSQL', () => {
  let server: PostgresServer
  before(async function () { server = await postgresOrSkip(this) })
  backups(async () => {
    const made = await server.newDatabase()
    const folder = mkdtempSync(join(tmpdir(), 'backplane-admin-'))
    return {
      folder, start: (config = {}, command) => runtime({ url: made.url, ...config }, folder, command),
      async [Symbol.asyncDispose]() { rmSync(folder, { recursive: true }); await made.drop() },
    }
  })
})
