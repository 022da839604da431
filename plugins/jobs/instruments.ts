import { counter, histogram } from '#contracts/metrics'

export const instruments = {
  created: counter({ name: 'jobs_total', help: 'Jobs created', labels: ['type', 'project'] }),
  completed: counter({ name: 'jobs_completed_total', help: 'Jobs that came to their result', labels: ['type'] }),
  failed: counter({ name: 'jobs_failed_total', help: 'Jobs that ended without a result', labels: ['reason'] }),
  attemptsFailed: counter({ name: 'job_attempts_failed_total', help: 'Attempts that failed, whether or not another one followed', labels: ['type'] }),
  duration: histogram({ name: 'job_duration_seconds', help: 'From the first start of a job to its end', labels: ['type'] }),
  wait: histogram({ name: 'job_queue_wait_seconds', help: 'From the moment a job could run to its start', labels: ['type'] }),
}
