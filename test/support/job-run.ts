import { recordLog } from '#core/testing'
import type { Caller } from '#contracts/access'
import type { Job, JobContext, JobProgress, JobType } from '#contracts/jobs'

export const ann: Caller = { id: 'ann', kind: 'user', name: 'Ann', project_id: 'p1' }

/** Runs a job type as `jobs` does, with its steps in memory: `steps` outlives an attempt, so a second one shows what is run again. */
export async function runJob(type: JobType, input: unknown, {
  steps = new Map<string, string>(), signal = new AbortController().signal, caller = ann, crashAt = '',
}: {
  steps?: Map<string, string>
  signal?: AbortSignal
  caller?: Caller
  /** The step after whose work, and before whose record, the process dies. */
  crashAt?: string
} = {}) {
  const progress: JobProgress[] = []
  const log = recordLog()
  const uses = new Map<string, number>()
  const job: Job = {
    id: 'job-1', type: type.type, agent: null, project_id: 'p1', created_by: caller.id, parent_id: null, status: 'running', input,
    result: null, result_ref: null, error: null, priority: 5, attempt: 1, max_attempts: 3, seq: 1,
    created_at: '', run_at: '', started_at: '', finished_at: null, metadata: {},
  }
  const ctx: JobContext = {
    job, caller, input, signal, log,
    ask: () => Promise.reject(new Error('nobody answers here')), children: () => Promise.reject(new Error('nobody runs children here')),
    async step(name, run) {
      const use = (uses.get(name) ?? 0) + 1
      uses.set(name, use)
      const key = `${name}#${use}`
      if (!steps.has(key)) {
        const value = JSON.stringify(await run())
        if (key === crashAt) throw new Error('the process died')
        steps.set(key, value)
      }
      return JSON.parse(steps.get(key)!)
    },
    emit: each => void progress.push(each),
  }
  let result: any
  let error: any
  try { result = await type.run(ctx) } catch (thrown) { error = thrown }
  return { result, error, progress, steps, lines: log.lines, text: progress.flatMap(each => (each.type === 'token' ? [each.content] : [])).join('') }
}
