/** A process with a worker: runs jobs of type `traced` until it is told to stop, or is killed. `folder name [lease in ms]`. */
import { appendFileSync } from 'node:fs'
import { join } from 'node:path'
import { createRuntime } from '#core'
import { contribute, recordLog } from '#core/testing'
import { JobType } from '#contracts/jobs'
import database from '../../../plugins/database/index.ts'
import jobs from '../../../plugins/jobs/index.ts'
import queue from '../../../plugins/queue-embedded/index.ts'
import { jobType, openAccess } from './kit.ts'

const [dataDir, name, leaseMs = '400'] = process.argv.slice(2) as [string, string, string?]
const trace = (what: string) => appendFileSync(join(dataDir, 'trace.txt'), `${what}\n`)

/** Three steps, each of which leaves a line; the second takes as long as the input says. */
const traced = jobType('traced', async ({ job, input, step }) => {
  trace(`run ${job.id} ${name}`)
  const first = await step('work', async () => { trace(`first ${job.id}`); return { n: 1 } })
  const second = await step('work', async () => {
    trace(`second ${job.id}`)
    await new Promise(resolve => setTimeout(resolve, name === 'slow' ? input.ms : 0))
    return first.n + 1
  })
  await step('last', async () => { trace(`last ${job.id}`) })
  return second + 1
})

const runtime = createRuntime({
  log: recordLog(), graceMs: 2_000, services: [openAccess()], host: { dataDir, version: '0.0.0' },
  plugins: [
    { plugin: database }, { plugin: queue }, { plugin: contribute(JobType, traced) },
    { plugin: jobs, config: { concurrency: 4, lease: { ms: Number(leaseMs), renew_ms: 100 }, sweep_ms: 50 } },
  ],
})
await runtime.start()
process.stdout.write('ready\n')
process.on('SIGTERM', () => void runtime.stop())
