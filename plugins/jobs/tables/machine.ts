import type { JobStatus } from '#contracts/jobs'

/** What the state of a job is made of. */
export interface Standing {
  readonly status: JobStatus
  /** Attempts begun and counted. */
  readonly attempt: number
  readonly max_attempts: number
}

/**
 * `claim`: a worker begins an attempt. `fail`: the attempt threw; `refuse`: it threw something that no attempt can mend.
 * `interrupt`: its worker gave no sign of life. `hand_back`: its worker had to stop, through no fault of the job. `due`: its time has come.
 * `put_off`: what it needs asks to be left alone for a while; the attempt does not count.
 * `park`: the attempt ended since the job waits for an answer or its children; it does not count. `wake`: the waiting is over.
 * `replace`: another request takes the place of one that no attempt has begun; `replace_later`: one whose time is still to come.
 * `retry`: somebody wants it to run now, and once it had ended, with all its attempts.
 */
export const JOB_EVENTS = ['claim', 'complete', 'fail', 'refuse', 'interrupt', 'hand_back', 'put_off', 'due', 'park', 'wake', 'cancel', 'retry', 'replace', 'replace_later'] as const
export type JobEvent = (typeof JOB_EVENTS)[number]

export const FINAL: readonly JobStatus[] = ['completed', 'dead', 'cancelled']
export const isFinal = (status: JobStatus): boolean => FINAL.includes(status)

const awaitsFirst = ({ status, attempt }: Standing) => (status === 'queued' || status === 'delayed') && attempt === 0
const attemptsLeft = (job: Standing) => job.attempt < job.max_attempts

/** The one place that knows how a job gets from one state to another; `undefined` where there is no way. */
export function next(job: Standing, event: JobEvent): Standing | undefined {
  const to = (status: JobStatus, attempt = job.attempt): Standing => ({ status, attempt, max_attempts: job.max_attempts })
  switch (event) {
    case 'claim': return job.status === 'queued' && attemptsLeft(job) ? to('running', job.attempt + 1) : undefined
    case 'due': return job.status === 'failed' || job.status === 'delayed' ? to('queued') : undefined
    case 'wake': return job.status === 'waiting' ? to('queued') : undefined
    case 'replace': return awaitsFirst(job) ? to('queued') : undefined
    case 'replace_later': return awaitsFirst(job) ? to('delayed') : undefined
    case 'cancel': return isFinal(job.status) ? undefined : to('cancelled')
    case 'retry':
      if (job.status === 'dead' || job.status === 'cancelled') return to('queued', 0)
      return job.status === 'failed' || job.status === 'delayed' ? to('queued') : undefined
  }
  if (job.status !== 'running') return undefined
  switch (event) {
    case 'complete': return to('completed')
    case 'fail': return to(attemptsLeft(job) ? 'failed' : 'dead')
    case 'refuse': return to('dead')
    case 'interrupt': return to(attemptsLeft(job) ? 'queued' : 'dead')
    case 'hand_back': return to('queued', job.attempt - 1)
    case 'put_off': return to('delayed', job.attempt - 1)
    case 'park': return to('waiting', job.attempt - 1)
  }
}
