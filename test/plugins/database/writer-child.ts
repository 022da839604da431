/**
 * Writes rows in pairs and says so on stdout once they are acknowledged, until it is killed.
 * `file owner members [wait]`: with wait, it begins when told.
 */
import { SqliteDatabase } from '../../../plugins/database/sqlite.ts'

const [file, owner, members, wait] = process.argv.slice(2) as [string, string, string, string?]
const nothing = () => {}
const log = { debug: nothing, info: nothing, warn: nothing, error: nothing, child: () => log }
if (wait) {
  process.stdout.write('loaded\n')
  await new Promise<void>(resolve => process.stdin.once('data', () => resolve()))
}
const database = await SqliteDatabase.open(file, log)
await database.migrate('kill', [{
  name: '0001',
  async up(knex) { for (const table of ['left_half', 'right_half']) await knex.schema.createTable(table, t => { t.text('id').primary() }) },
}])
const left = database.prepare('INSERT INTO left_half (id) VALUES (?)')
const right = database.prepare('INSERT INTO right_half (id) VALUES (?)')
process.stdout.write('ready\n')
let next = 0
await Promise.all(Array.from({ length: Number(members) }, async () => {
  for (;;) {
    const id = `${owner}-${next++}`
    await database.transaction(async tx => {
      await left.run([id], tx)
      await new Promise(resolve => setImmediate(resolve))
      await right.run([id], tx)
    })
    process.stdout.write(`${id}\n`)
  }
}))
