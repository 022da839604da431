/** A process that may fire schedules. With `hang` it stops for ever in the middle of the first firing: its job is written, its transaction is open. `url folder hang?`. */
import { createRuntime, Secret } from '#core'
import { contribute, fake, recordLog } from '#core/testing'
import { EventLog } from '#contracts/events'
import { JobType } from '#contracts/jobs'
import cluster from '../../../plugins/cluster/index.ts'
import database from '../../../plugins/database/index.ts'
import jobs from '../../../plugins/jobs/index.ts'
import queue from '../../../plugins/queue-embedded/index.ts'
import schedules from '../../../plugins/schedules/index.ts'
import { note, openAccess } from './kit.ts'

const [url, dataDir, hang] = process.argv.slice(2) as [string, string, string?]
const log = recordLog()
const info = log.info.bind(log)
const append = async () => {
  process.stdout.write('inside\n')
  await new Promise(() => {})
}
const runtime = createRuntime({
  plugins: [
    { plugin: database, config: { url: Secret.of('DATABASE_URL', url) } }, { plugin: queue }, { plugin: contribute(JobType, note) },
    { plugin: cluster, config: { heartbeatMs: 100, leaseMs: 600, retryMs: 50, pollMs: 20 } }, { plugin: jobs, config: { concurrency: 0 } },
    { plugin: schedules, config: { sweep_ms: 200 } },
  ],
  services: [openAccess(), ...(hang === undefined ? [] : [fake(EventLog, { append: append as unknown as EventLog['append'] })])],
  log: { ...log, info, child: () => ({ ...log, child: () => log, info: message => { if (message === 'a schedule fired') process.stdout.write('fired\n') } }) },
  graceMs: 2_000, host: { dataDir },
})
await runtime.start()
process.stdout.write('ready\n')
process.on('SIGTERM', () => void runtime.stop())
