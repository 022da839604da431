import assert from 'node:assert/strict'
import { defineConformance } from '#core/testing'
import { Database, DatabaseErrors, type Migration, type Tx } from '#contracts/database'

export interface DatabaseSubject { readonly database: Database }

const things: Migration = {
  name: '0001-things',
  up: async knex => knex.schema.createTable('things', t => { t.text('name').primary(); t.integer('size').notNullable(); t.text('data') }),
}
const made = async ({ database }: DatabaseSubject) => {
  await database.migrate('conformance', [things])
  const insert = database.prepare('INSERT INTO things (name, size) VALUES (?, ?)')
  const names = async () => (await database.knex()('things').orderBy('name').pluck('name')) as string[]
  return { database, insert, names, add: (name: string, tx?: Tx) => insert.run([name, 1], tx) }
}
const later = () => new Promise(resolve => setImmediate(resolve))

/** What every database promises, whatever its dialect. */
export const databaseConformance = defineConformance<DatabaseSubject>(Database, {
  'keeps what a transaction wrote, and resolves to what its work returned': {
    async run(subject) {
      const { database, add, names } = await made(subject)
      assert.equal(await database.transaction(async tx => { await add('a', tx); await later(); await database.knex(tx)('things').insert({ name: 'b', size: 2 }); return 7 }), 7)
      assert.deepEqual(await names(), ['a', 'b'])
    },
  },
  'undoes everything of a transaction that throws, and rejects with what it threw': {
    async run(subject) {
      const { database, add, names } = await made(subject)
      const error = new Error('no')
      await assert.rejects(database.transaction(async tx => { await add('a', tx); await later(); throw error }), each => each === error)
      assert.deepEqual(await names(), [])
    },
  },
  'undoes only the one that failed among many at once': {
    async run(subject) {
      const { database, add, names } = await made(subject)
      const results = await Promise.allSettled(Array.from({ length: 40 }, (_, at) => database.transaction(async tx => {
        await add(`n${String(at).padStart(2, '0')}`, tx)
        if (at % 3 === 0) await later()
        if (at % 4 === 0) throw new Error('veto')
      })))
      assert.equal(results.filter(each => each.status === 'rejected').length, 10)
      assert.deepEqual(await names(), Array.from({ length: 40 }, (_, at) => at).filter(at => at % 4).map(at => `n${String(at).padStart(2, '0')}`))
    },
  },
  'goes on after a broken rule of the schema, in the transaction and after it': {
    async run(subject) {
      const { database, add, names } = await made(subject)
      await add('a')
      await assert.rejects(add('a'))
      await assert.rejects(database.transaction(async tx => { await add('b', tx); await add('a', tx) }))
      await database.transaction(async tx => { await add('c', tx) })
      assert.deepEqual(await names(), ['a', 'c'])
    },
  },
  'shows nothing of an open transaction to others': {
    async run(subject) {
      const { database, add, names } = await made(subject)
      let inside!: () => void
      let leave!: () => void
      const entered = new Promise<void>(resolve => { inside = resolve })
      const gate = new Promise<void>(resolve => { leave = resolve })
      const open = database.transaction(async tx => { await add('a', tx); inside(); await gate })
      await entered
      assert.deepEqual(await names(), [])
      leave()
      await open
      assert.deepEqual(await names(), ['a'])
    },
  },
  'runs what waits for the commit after it, in order, outside the transaction': {
    async run(subject) {
      const { database, add, names } = await made(subject)
      const seen: unknown[] = []
      let read!: Promise<string[]>
      await database.transaction(async tx => {
        tx.afterCommit(() => { seen.push(1) })
        tx.afterCommit(() => { read = names() })
        tx.afterCommit(() => { throw new Error('only logged') })
        tx.afterCommit(() => { seen.push(2) })
        await add('a', tx)
      })
      assert.deepEqual(seen, [1, 2])
      assert.deepEqual(await read, ['a'])
    },
  },
  'forgets what waits for a commit that does not come': {
    async run(subject) {
      const { database } = await made(subject)
      let ran = false
      await assert.rejects(database.transaction(async tx => { tx.afterCommit(() => { ran = true }); throw new Error('no') }))
      await later()
      assert.equal(ran, false)
    },
  },
  'refuses to be used outside the transaction that is open': {
    async run(subject) {
      const { database, add, names } = await made(subject)
      await database.transaction(async tx => {
        const refused = { code: DatabaseErrors.OUTSIDE_TX.code }
        assert.throws(() => database.knex(), refused)
        await assert.rejects(add('a'), refused)
        await assert.rejects(async () => database.transaction(async () => {}), refused)
        await add('b', tx)
      })
      await add('c')
      assert.deepEqual(await names(), ['b', 'c'])
    },
  },
  'refuses a transaction that has ended, and lets what it left behind work on its own': {
    async run(subject) {
      const { database, add, names } = await made(subject)
      let kept!: Tx
      let go!: () => void
      const gate = new Promise<void>(resolve => { go = resolve })
      let stray!: Promise<unknown>
      await database.transaction(async tx => { kept = tx; stray = gate.then(() => add('stray')) })
      const ended = { code: DatabaseErrors.TX_ENDED.code }
      await assert.rejects(add('late', kept), ended)
      assert.throws(() => database.knex(kept), ended)
      assert.throws(() => kept.afterCommit(() => {}), ended)
      go()
      await stray
      assert.deepEqual(await names(), ['stray'])
    },
  },
  'holds the same types in and out': {
    async run(subject) {
      const { database } = await made(subject)
      const row = { name: 'é\u{1F600}\'"', size: 2 ** 31 - 1, data: JSON.stringify({ a: [1, null] }) }
      await database.knex()('things').insert(row)
      assert.deepEqual(await database.prepare('SELECT * FROM things WHERE name = ?').get([row.name]), row)
      assert.deepEqual(await database.knex()('things').where({ name: row.name }).first(), row)
      assert.equal(await database.prepare('SELECT * FROM things WHERE name = ?').get(['none']), undefined)
      assert.equal(await database.prepare('UPDATE things SET size = ? WHERE size > ?').run([1, 5]), 1)
      assert.deepEqual(await database.prepare('UPDATE things SET size = ? RETURNING size').all([3]), [{ size: 3 }])
    },
  },
  'migrates once, in order of name, however many ask at once': {
    async run({ database }) {
      const ran: string[] = []
      const step = (name: string): Migration => ({ name, up: async knex => { ran.push(name); await knex.schema.createTable(`t_${name}`, t => { t.text('a') }) } })
      await Promise.all([1, 2, 3].map(() => database.migrate('mine', [step('0002'), step('0001')])))
      await database.migrate('mine', [step('0001'), step('0002'), step('0003')])
      assert.deepEqual(ran, ['0001', '0002', '0003'])
    },
  },
  'keeps nothing of a migration that fails': {
    async run({ database }) {
      const bad: Migration = { name: '0002-bad', up: async knex => { await knex.schema.createTable('half', t => { t.text('a') }); throw new Error('oh') } }
      await assert.rejects(database.migrate('conformance', [things, bad]), { code: DatabaseErrors.MIGRATION_FAILED.code })
      assert.equal(await database.knex().schema.hasTable('half'), false)
      assert.equal(await database.knex().schema.hasTable('things'), false)
      await database.migrate('conformance', [things])
    },
  },
  'refuses a history that it does not know': {
    async run({ database }) {
      await database.migrate('conformance', [things, { name: '0002-newer', up: async () => {} }])
      await assert.rejects(database.migrate('conformance', [things]), { code: DatabaseErrors.MIGRATION_CHANGED.code })
    },
  },
})
