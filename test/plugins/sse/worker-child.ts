/** A process that runs jobs of type `talk` and serves nothing, until it is killed. `folder database`; an empty database is the folder's own. */
import { createRuntime } from '#core'
import { contribute, recordLog } from '#core/testing'
import { JobType, type JobContext } from '#contracts/jobs'
import cluster from '../../../plugins/cluster/index.ts'
import database from '../../../plugins/database/index.ts'
import events from '../../../plugins/events/index.ts'
import jobs from '../../../plugins/jobs/index.ts'
import queue from '../../../plugins/queue-embedded/index.ts'
import { jobType, openAccess } from '../jobs/kit.ts'

const [dataDir, url] = process.argv.slice(2) as [string, string]
const talk = jobType('talk', async ({ emit, input, job }: JobContext<{ words: number; ms: number }>) => {
  for (let at = 0; at < input.words; at++) {
    emit({ type: 'token', content: `word${at} ` })
    if (at === input.words / 2) emit({ type: 'tool_start', tool: 'calc', call_id: `c${job.attempt}`, input: at })
    await new Promise(resolve => setTimeout(resolve, input.ms))
  }
  return 'done'
})

const runtime = createRuntime({
  log: recordLog(), graceMs: 2_000, services: [openAccess()], host: { dataDir, version: '0.0.0' },
  plugins: [
    { plugin: database, config: url ? { url } : {} }, { plugin: cluster }, { plugin: events }, { plugin: queue }, { plugin: contribute(JobType, talk) },
    { plugin: jobs, config: { concurrency: 4, lease: { ms: 1_000, renew_ms: 300 }, sweep_ms: 100 } },
  ],
})
await runtime.start()
process.stdout.write('ready\n')
