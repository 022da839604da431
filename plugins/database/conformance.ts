import assert from 'node:assert/strict'
import { defineConformance } from '#core/testing'
import { Database, DatabaseErrors, type Migration, type Tx } from '#contracts/database'

export interface DatabaseSubject { readonly database: Database }

const things: Migration = {
  name: '0001-things',
  up: async knex => knex.schema.createTable('things', t => { t.text('name').primary(); t.integer('size').notNullable(); t.text('data') }),
}
const wide: Migration = {
  name: '0002-wide',
  up: async knex => knex.schema.createTable('wide', t => {
    t.increments('id')
    t.boolean('flag').notNullable()
    t.bigInteger('count')
    t.bigInteger('at')
    t.double('ratio')
    t.binary('bytes')
    t.text('note')
  }),
}
const ruled: Migration = {
  name: '0003-ruled',
  up: async knex => knex.schema.createTable('ruled', t => {
    t.text('thing').references('things.name')
    t.integer('age').checkPositive()
  }),
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
  'runs a hot statement over any number of rows, in order': {
    async run(subject) {
      const { database, names } = await made(subject)
      const insert = database.prepareMany<{ name: string }>(
        'INSERT INTO things (name, size, data) VALUES :rows ON CONFLICT (name) DO NOTHING RETURNING name', ['text', 'bigint', 'text'])
      const change = database.prepareMany<{ name: string }>(
        `UPDATE things SET size = given.column2 FROM (VALUES :rows) AS given
         WHERE things.name = given.column1 AND things.size = given.column3 RETURNING name`,
        ['text', 'bigint', 'bigint'])
      for (const count of [0, 1, 2, 5, 21, 200]) {
        const all = Array.from({ length: count }, (_, at) => `${count}-${String(at).padStart(3, '0')}`)
        const rows = all.map((name, at) => [name, at, at % 2 ? null : `'?' of ${name}`])
        await database.transaction(async tx => {
          assert.deepEqual((await insert.all(rows, tx)).map(row => row.name), all)
          assert.equal(await insert.run(rows, tx), 0)
          const changed = await change.all(all.map((name, at) => [name, -1, at % 3 ? at : 1_000]), tx)
          assert.deepEqual(changed.map(row => row.name).sort(), all.filter((_, at) => at % 3))
        })
        const found: { name: string; size: number; data: string | null }[] = await database.knex()('things').orderBy('name')
        assert.deepEqual(found, rows.map(([name, at, data]) => ({ name, size: Number(at) % 3 ? -1 : at, data })))
        await database.knex()('things').delete()
      }
      const odd = ['', ' ', 'NULL', 'null', '{}', '{a,b}', 'a,b', '"', '\\', '\\"', '\n\t', "'", '$1', '?', 'é𝄞', '{"a":["\\n"]}']
      await database.transaction(tx => insert.run(odd.map((text, at) => [`odd ${at}${text}`, -at, text]), tx))
      const kept: { name: string; size: number; data: string }[] = await database.knex()('things').orderBy('size', 'desc')
      assert.deepEqual(kept.map(({ name, data }) => [name, data]), odd.map((text, at) => [`odd ${at}${text}`, text]))
      await database.knex()('things').delete()
      const bad = database.transaction(tx => insert.run([['a', 1, null], ['b', null, null]], tx))
      await assert.rejects(bad, (error: unknown) => DatabaseErrors.CONSTRAINT.is(error))
      assert.deepEqual(await names(), [])
    },
  },
  'keeps what a transaction wrote, and resolves to what its work returned': {
    async run(subject) {
      const { database, add, names } = await made(subject)
      const result = await database.transaction(async tx => {
        await add('a', tx)
        await later()
        await database.knex(tx)('things').insert({ name: 'b', size: 2 })
        return 7
      })
      assert.equal(result, 7)
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
  'answers numbers, booleans, times, bytes and sums alike': {
    async run({ database }) {
      await database.migrate('conformance', [wide])
      const row = { flag: 1, count: Number.MAX_SAFE_INTEGER, at: 1_700_000_000_123, ratio: 0.25, bytes: Buffer.from([0, 255]), note: null }
      const given = { ...row, flag: true, at: new Date(row.at), bytes: new Uint8Array(row.bytes), note: undefined }
      assert.deepEqual(await database.knex()('wide').insert(given).returning('*'), [{ id: 1, ...row }])
      assert.deepEqual(await database.knex()('wide').insert({ ...row, flag: false }).returning(['id', 'flag']), [{ id: 2, flag: 0 }])
      assert.deepEqual(await database.prepare('SELECT * FROM wide WHERE flag = ? AND count = ?').all([true, BigInt(row.count)]), [{ id: 1, ...row }])
      assert.deepEqual(await database.knex()('wide').where({ flag: false }).pluck('id'), [2])
      assert.deepEqual(await database.prepare('SELECT count(*) AS n, sum(id) AS ids, sum(ratio) AS ratios, max(at) AS latest FROM wide').all([]),
        [{ n: 2, ids: 3, ratios: 0.5, latest: row.at }])
      await database.knex()('wide').update({ count: 5 })
      assert.deepEqual(await database.knex()('wide').sum({ sum: 'count' }), [{ sum: 10 }])
      assert.deepEqual(await database.knex()('wide').count({ n: '*' }), [{ n: 2 }])
      assert.deepEqual(await database.knex().raw('SELECT id FROM wide WHERE id = ?', [2]), [{ id: 2 }])
      assert.equal(await database.knex()('wide').where({ id: 2 }).update({ ratio: 1 }), 1)
      assert.equal(await database.knex()('wide').where({ id: 3 }).del(), 0)
    },
  },
  'refuses what one of the dialects could not keep': {
    async run(subject) {
      const { database, insert, names } = await made(subject)
      const refused = { code: DatabaseErrors.VALUE.code, status: 400 }
      for (const name of ['a\0b', NaN, Infinity, 2n ** 60n]) await assert.rejects(insert.run([name, 1]), refused)
      for (const name of [['a'], { a: 1 }, () => 1]) await assert.rejects(insert.run([name, 1]), TypeError)
      const clean = (error: unknown) => DatabaseErrors.VALUE.is(error) && !/insert/i.test(error.message)
      await assert.rejects(async () => database.knex()('things').insert({ name: 'a\0b', size: 1 }), clean)
      assert.deepEqual(await names(), [])
    },
  },
  'names the broken rule of the schema alike, and tells no value': {
    async run({ database }) {
      await database.migrate('conformance', [things, ruled])
      await database.knex()('things').insert({ name: 'hunter22', size: 1 })
      const rule = (kind: string) => (error: unknown) => {
        assert.ok(DatabaseErrors.CONSTRAINT.is(error), String(error))
        assert.equal(error.details['kind'], kind)
        assert.doesNotMatch(`${error.stack} ${JSON.stringify(error)} ${JSON.stringify(error.cause)} ${String(error.cause)}`, /hunter2/)
        return true
      }
      await assert.rejects(async () => database.knex()('things').insert({ name: 'hunter22', size: 1 }), rule('unique'))
      await assert.rejects(database.prepare('INSERT INTO things (name, size) VALUES (?, ?)').run(['hunter23', null]), rule('not-null'))
      await assert.rejects(database.transaction(async tx => database.knex(tx)('ruled').insert({ thing: 'hunter24', age: 1 })), rule('foreign key'))
      await assert.rejects(async () => database.knex()('ruled').insert({ thing: 'hunter22', age: -1 }), rule('check'))
      assert.equal(await database.prepare('INSERT INTO things (name, size) VALUES (?, ?) ON CONFLICT (name) DO NOTHING').run(['hunter22', 1]), 0)
    },
  },
  'keeps nothing of a transaction in which a statement failed, although the failure was caught': {
    async run(subject) {
      const { database, add, names } = await made(subject)
      await add('a')
      const failed = { code: DatabaseErrors.TX_FAILED.code }
      await assert.rejects(database.transaction(async tx => { await add('b', tx); await add('a', tx).catch(() => {}) }), failed)
      await assert.rejects(database.transaction(async tx => { await add('a', tx).catch(() => {}); await add('c', tx) }), failed)
      assert.deepEqual(await names(), ['a'])
    },
  },
  'undoes a nested part alone, and goes on': {
    async run(subject) {
      const { database, add, names } = await made(subject)
      await add('a')
      await database.transaction(async tx => {
        await add('b', tx)
        const part = database.knex(tx).transaction(async inner => {
          await inner('things').insert({ name: 'c', size: 1 })
          await inner('things').insert({ name: 'a', size: 1 })
        })
        await assert.rejects(part, { code: DatabaseErrors.CONSTRAINT.code })
        await database.knex(tx).transaction(async inner => inner('things').insert({ name: 'd', size: 1 }))
        await add('e', tx)
      })
      assert.deepEqual(await names(), ['a', 'b', 'd', 'e'])
    },
  },
  'loses no update of one row by many at once': {
    async run(subject) {
      const { database, add } = await made(subject)
      await add('a')
      const more = database.prepare('UPDATE things SET size = size + 1 WHERE name = ?')
      const one = (at: number) => (at % 2 ? more.run(['a']) : database.transaction(async tx => { await later(); await more.run(['a'], tx) }))
      await Promise.all(Array.from({ length: 40 }, (_, at) => one(at)))
      assert.equal((await database.knex()('things').first()).size, 41)
    },
  },
  'takes many statements of one transaction at once, awaited or not': {
    async run(subject) {
      const { database, add, names } = await made(subject)
      await database.transaction(async tx => {
        await Promise.all(['a', 'b', 'c'].map(name => add(name, tx)))
        void add('d', tx)
      })
      assert.deepEqual(await names(), ['a', 'b', 'c', 'd'])
    },
  },
  'refuses whatever is asked together with what failed, for that alone': {
    async run(subject) {
      const { database, add, names } = await made(subject)
      await add('a')
      const fresh = database.prepare('SELECT size FROM things WHERE name = ?')
      let codes: unknown[] = []
      await assert.rejects(database.transaction(async tx => {
        const asked = [add('b', tx), add('a', tx), add('c', tx), fresh.all(['a'], tx), fresh.all(['a'], tx), database.knex(tx)('things').insert({ name: 'd', size: 1 })]
        codes = (await Promise.allSettled(asked)).map(each => (each.status === 'rejected' ? each.reason.code : undefined))
      }), { code: DatabaseErrors.TX_FAILED.code })
      assert.deepEqual(codes, [undefined, DatabaseErrors.CONSTRAINT.code, ...Array.from({ length: 4 }, () => DatabaseErrors.TX_FAILED.code)])
      assert.deepEqual(await Promise.all([1, 2].map(() => fresh.all(['a']))), [[{ size: 1 }], [{ size: 1 }]])
      await database.transaction(async tx => {
        const part = database.knex(tx).transaction(async inner => Promise.all(['e', 'a', 'f'].map(name => inner('things').insert({ name, size: 1 }))))
        await assert.rejects(part, { code: DatabaseErrors.CONSTRAINT.code })
        await Promise.all(['g', 'h'].map(name => add(name, tx)))
      })
      assert.deepEqual(await names(), ['a', 'g', 'h'])
    },
  },
  'takes a ? for a parameter only where it is one': {
    async run(subject) {
      const { database, insert } = await made(subject)
      await insert.run(['what?', 5])
      const found = database.prepare(`SELECT '?''' AS mark, name /* ? */ FROM things WHERE name = ? -- ?\n AND size = ?`)
      assert.deepEqual(await found.all(['what?', 5]), [{ mark: '?\'', name: 'what?' }])
    },
  },
  'refuses to begin or end a transaction by statement, and two statements in one': {
    async run(subject) {
      const { database, add, names } = await made(subject)
      for (const sql of ['BEGIN', ' commit', 'ROLLBACK', 'SAVEPOINT a']) await assert.rejects(async () => database.knex().raw(sql), /Database\.transaction/)
      await assert.rejects(database.transaction(async tx => { await add('a', tx); await database.knex(tx).raw('COMMIT') }), /Database\.transaction/)
      await assert.rejects(async () => database.knex().transaction(async () => {}), /Database\.transaction/)
      await assert.rejects(async () => database.knex().raw('SELECT 1; DELETE FROM things'))
      await assert.rejects(database.prepare('SELECT 1; SELECT 2').all([]))
      assert.deepEqual(await names(), [])
    },
  },
  'goes on with a prepared statement after its table was altered': {
    async run(subject) {
      const { database, add } = await made(subject)
      const all = database.prepare('SELECT * FROM things')
      await add('a')
      assert.deepEqual(await all.all([]), [{ name: 'a', size: 1, data: null }])
      await database.migrate('later', [{ name: '0001', up: async knex => knex.schema.alterTable('things', t => { t.text('more') }) }])
      assert.deepEqual(await all.all([]), [{ name: 'a', size: 1, data: null, more: null }])
      assert.deepEqual(await database.transaction(async tx => all.all([], tx)), [{ name: 'a', size: 1, data: null, more: null }])
    },
  },
  'migrates once, in order of name, however many ask at once': {
    async run({ database }) {
      const ran: string[] = []
      const step = (name: string): Migration => ({
        name,
        up: async knex => { ran.push(name); await knex.schema.createTable(`t_${name}`, t => { t.text('a') }) },
      })
      await Promise.all([1, 2, 3].map(() => database.migrate('mine', [step('0002'), step('0001')])))
      await database.migrate('mine', [step('0001'), step('0002'), step('0003')])
      assert.deepEqual(ran, ['0001', '0002', '0003'])
    },
  },
  'keeps nothing of a migration that fails': {
    async run({ database }) {
      const bad: Migration = {
        name: '0002-bad',
        up: async knex => { await knex.schema.createTable('half', t => { t.text('a') }); throw new Error('oh') },
      }
      await assert.rejects(database.migrate('conformance', [things, bad]), { code: DatabaseErrors.MIGRATION_FAILED.code })
      assert.equal(await database.knex().schema.hasTable('half'), false)
      assert.equal(await database.knex().schema.hasTable('things'), false)
      await database.migrate('conformance', [things])
    },
  },
  'goes on under the history of a newer release, whose schema the one before can use': {
    async run(subject) {
      const { database, add, names } = await made(subject)
      await database.migrate('conformance', [things, { name: '0002-newer', up: async () => {} }])
      await database.migrate('conformance', [things])
      await add('a')
      assert.deepEqual(await names(), ['a'])
    },
  },
  'refuses a history that parted from its own': {
    async run({ database }) {
      const step = (name: string): Migration => ({ name, up: async () => {} })
      const refused = { code: DatabaseErrors.MIGRATION_CHANGED.code }
      await database.migrate('conformance', [step('0001'), step('0002-theirs'), step('0003')])
      await assert.rejects(database.migrate('conformance', [step('0001'), step('0003')]), refused)
      await assert.rejects(database.migrate('conformance', [step('0001'), step('0002-ours')]), refused)
    },
  },
})
