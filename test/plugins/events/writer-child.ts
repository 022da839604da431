/** Appends events, each with its number, in transactions that stay open for different times. `url writer from count`. */
import { createRuntime, Secret } from '#core'
import { recordLog } from '#core/testing'
import { Database } from '#contracts/database'
import { EventLog } from '#contracts/events'
import cluster from '../../../plugins/cluster/index.ts'
import database from '../../../plugins/database/index.ts'
import events from '../../../plugins/events/index.ts'

const [url, writers, each] = process.argv.slice(2) as [string, string, string]
const runtime = createRuntime({
  plugins: [{ plugin: database, config: { url: Secret.of('DATABASE_URL', url), postgres: { poolMax: 12 } } }, { plugin: cluster }, { plugin: events }], log: recordLog(), graceMs: 5_000,
  host: { dataDir: '.' },
})
await runtime.start()
const [db, log] = [runtime.get(Database), runtime.get(EventLog)]
process.stdout.write('ready\n')
await new Promise<void>(resolve => process.stdin.once('data', () => resolve()))
process.stdin.destroy()

await Promise.all(Array.from({ length: Number(writers) }, async (_, writer) => {
  for (let at = 0; at < Number(each);) {
    const count = Math.min(1 + at % 3, Number(each) - at)
    await db.transaction(async tx => {
      for (let n = 0; n < count; n++) {
        await log.append(tx, [{ type: 'n', topics: [`w${writer % 2}`], project_id: 'p', created_by: 'u', data: `${process.pid}-${writer}-${at + n}` }])
        if ((at + n) % 5 === 0) await new Promise(resolve => setTimeout(resolve, Math.random() * 8))
      }
    })
    at += count
  }
}))
await runtime.stop()
process.stdout.write('done\n')
