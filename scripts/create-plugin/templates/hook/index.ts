import { definePlugin } from 'backplane'
import { JobSettled } from 'backplane/contracts/jobs'
import { z } from 'zod'

const config = z.strictObject({
  slowMs: z.int().min(1).default(60_000).describe('A run that takes longer is told as slow.'),
})

export default definePlugin({
  name: '{{name}}',
  summary: 'Tells in the log which jobs died and which were slow',
  config,
  setup(ctx) {
    // After commit, in this process, at most once. What must not be missed reads the event log.
    ctx.hook(JobSettled, ({ job }) => {
      const { id, agent, attempt, error } = job
      if (job.status === 'dead') ctx.log.warn('a job died', { job: id, agent, attempt, code: error?.code })
      if (job.started_at === null || job.finished_at === null) return
      const took = Date.parse(job.finished_at) - Date.parse(job.started_at)
      if (took > ctx.config.slowMs) ctx.log.warn('a job was slow', { job: id, agent, took })
    })
  },
})
