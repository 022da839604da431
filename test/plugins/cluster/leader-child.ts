/** A process that wants to lead, and acts in a table while it does; prints what was refused. `url`. */
import { createRuntime, Secret } from '#core'
import { recordLog } from '#core/testing'
import { Leases } from '#contracts/cluster'
import { Database } from '#contracts/database'
import cluster from '../../../plugins/cluster/index.ts'
import database from '../../../plugins/database/index.ts'

const [url] = process.argv.slice(2) as [string]
const runtime = createRuntime({
  plugins: [
    { plugin: database, config: { url: Secret.of('DATABASE_URL', url), postgres: { poolMax: 3 } } },
    { plugin: cluster, config: { heartbeatMs: 500, leaseMs: 3_000, retryMs: 500 } },
  ],
  log: recordLog(), graceMs: 5_000, host: { dataDir: '.' },
})
await runtime.start()
const db = runtime.get(Database)
const fence = db.prepare('UPDATE sink SET token = ? WHERE token <= ?')
const act = db.prepare('INSERT INTO acts (token, pid, at) VALUES (?, ?, ?)')

await runtime.get(Leases).lead('chief', async ({ token, signal }) => {
  process.stdout.write(`leads ${token}\n`)
  while (!signal.aborted) {
    const accepted = await db.transaction(async tx => {
      if (!await fence.run([token, token], tx)) return false
      await act.run([token, process.pid, Date.now()], tx)
      return true
    })
    process.stdout.write(`${accepted ? 'acted' : 'refused'} ${token}\n`)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
  process.stdout.write(`ended ${token}\n`)
})
process.stdout.write('ready\n')
process.on('SIGTERM', () => void runtime.stop())
