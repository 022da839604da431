// Inserts of one row each, through Database as a plugin uses it, or by better-sqlite3 alone in batches of 100. Prints inserts a second.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Sqlite from 'better-sqlite3'

const [contender, count] = [process.argv[2], Number(process.argv[3])]
const BATCH = 100
const folder = mkdtempSync(join(tmpdir(), 'backplane-bench-'))
const INSERT = 'insert into x (a, b) values (?, ?)'
const TABLE = 'create table x (id integer primary key, a text, b integer)'

async function ours(work) {
  const { createTestRuntime } = await import('../../dist/core/testing/index.js')
  const { Database } = await import('../../dist/plugins/database/contract.js')
  const { default: database } = await import('../../dist/plugins/database/index.js')
  const t = await createTestRuntime({ plugins: [{ plugin: database, config: { file: join(folder, 'bench.db') } }] })
  const db = t.get(Database)
  await db.migrate('bench', [{ name: '0001', up: async schema => { await schema.raw(TABLE) } }])
  const insert = db.prepare(INSERT)
  const all = async (total, one) => {
    let left = total
    await Promise.all(Array.from({ length: BATCH }, async () => { while (left-- > 0) await one(left) }))
  }
  const one = work === 'statement' ? value => insert.run(['hello world', value]) : value => db.transaction(tx => insert.run(['hello world', value], tx))
  await all(count / 4, one)
  const from = performance.now()
  await all(count, one)
  const ms = performance.now() - from
  await t[Symbol.asyncDispose]()
  return ms
}

async function raw() {
  const db = new Sqlite(join(folder, 'bench.db'))
  db.pragma('journal_mode = WAL')
  db.pragma('synchronous = FULL')
  db.exec(TABLE)
  const insert = db.prepare(INSERT)
  const all = total => {
    for (let at = 0; at < total; at += BATCH) {
      db.exec('BEGIN IMMEDIATE')
      for (let i = 0; i < BATCH; i++) insert.run('hello world', i)
      db.exec('COMMIT')
    }
  }
  all(count / 4)
  const from = performance.now()
  all(count)
  return performance.now() - from
}

const ms = contender === 'raw' ? await raw() : await ours(contender)
rmSync(folder, { recursive: true, force: true })
console.log(JSON.stringify({ perSecond: count / ms * 1_000 }))
