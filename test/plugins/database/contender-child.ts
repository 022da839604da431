/** Writes and reads as fast as it can for a time, then tells what went wrong and how long the event loop stood still. `file ms`. */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { SqliteDatabase } from '../../../plugins/database/sqlite.ts'

const [file, ms] = process.argv.slice(2) as [string, string]
const nothing = () => {}
const log = { debug: nothing, info: nothing, warn: nothing, error: nothing, child: () => log }
const database = await SqliteDatabase.open(file, log)
await database.migrate('contenders', [{
  name: '0001',
  async up(knex) {
    await knex.schema.createTable('counters', t => { t.text('id').primary(); t.integer('n').notNullable() })
    await knex('counters').insert({ id: 'all', n: 0 })
  },
}])
const more = database.prepare('UPDATE counters SET n = n + 1 WHERE id = ?')
const read = database.prepare<{ n: number }>('SELECT n FROM counters WHERE id = ?')
// The first use of everything is slow, and is no contention.
await more.run(['none'])
await database.transaction(async tx => read.get(['all'], tx))
process.stdout.write('ready\n')
await new Promise<void>(resolve => process.stdin.once('data', () => resolve()))
process.stdin.destroy()

const delay = monitorEventLoopDelay({ resolution: 1 })
delay.enable()
const until = performance.now() + Number(ms)
const failures: string[] = []
let acknowledged = 0
const tries = async (work: () => Promise<unknown>, counts: number) => {
  while (performance.now() < until) {
    try { await work(); acknowledged += counts } catch (error) { failures.push(String(error)) }
    await new Promise(resolve => setTimeout(resolve, Math.random() * 5))
  }
}
await Promise.all([
  ...[1, 2, 3].map(() => tries(() => more.run(['all']), 1)),
  ...[1, 2, 3].map(() => tries(() => database.transaction(async tx => {
    const { n } = (await read.get(['all'], tx))!
    await new Promise(resolve => setImmediate(resolve))
    await database.knex(tx)('counters').where({ id: 'all' }).update({ n: n + 1 })
  }), 1)),
  ...[1, 2].map(() => tries(() => read.get(['all']), 0)),
])
delay.disable()
await database.close()
const told = { acknowledged, failures: failures.length, first: failures[0], p99: delay.percentile(99) / 1e6, longest: delay.max / 1e6 }
process.stdout.write(`${JSON.stringify(told)}\n`)
