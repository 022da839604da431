import assert from 'node:assert/strict'
import { createTestRuntime } from '#core/testing'
import { Database } from '#contracts/database'
import database from '../../../plugins/database/index.ts'

describe('database', () => {
  it('commits', async () => {
    await using t = await createTestRuntime({ plugins: [database] })
    const db = t.get(Database)
    await db.knex().schema.createTable('things', k => { k.increments('id'); k.text('name').unique() })
    await db.transaction(async tx => { await db.knex(tx)('things').insert({ name: 'a' }) })
    await Promise.all(Array.from({ length: 50 }, (_, i) => db.transaction(async tx => { await db.knex(tx)('things').insert({ name: `n${i}` }) })))
    assert.deepEqual(await db.knex()('things').count({ n: '*' }), [{ n: 51 }])
    assert.deepEqual(await db.knex()('things').insert({ name: 'x' }).returning('id'), [{ id: 52 }])
    const s = db.prepare('INSERT INTO things (name) VALUES (?)')
    const from = performance.now()
    await Promise.all(Array.from({ length: 5000 }, (_, i) => s.run([`s${i}`])))
    const mid = performance.now()
    await Promise.all(Array.from({ length: 5000 }, (_, i) => db.transaction(async tx => { await s.run([`z${i}`], tx) })))
    console.log(mid - from, performance.now() - mid)
  })
})
