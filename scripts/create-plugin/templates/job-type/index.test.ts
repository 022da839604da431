import assert from 'node:assert/strict'
import { createTestRuntime, recordLog } from 'backplane/testing'
import { JobType, type Job, type JobContext, type JobProgress } from 'backplane/contracts/jobs'
import plugin from './index.ts'

const job: Job = {
  id: 'j1', type: '{{name}}', agent: null, project_id: 'default', created_by: 'ann', parent_id: null, status: 'running', input: {}, result: null, result_ref: null, error: null,
  priority: 5, attempt: 1, max_attempts: 3, seq: 2, created_at: '2026-01-01T00:00:00.000Z', run_at: '2026-01-01T00:00:00.000Z',
  started_at: '2026-01-01T00:00:01.000Z', finished_at: null, metadata: {},
}

function context(texts: string[], signal = new AbortController().signal) {
  const steps: string[] = []
  const told: JobProgress[] = []
  const ctx: JobContext = {
    job, input: { texts }, signal, log: recordLog(), caller: { id: 'ann', kind: 'user', name: 'Ann', project_id: 'default' },
    step: (name, run) => { steps.push(name); return run() },
    ask: () => assert.fail('nobody is asked'),
    children: () => assert.fail('no other job is needed'),
    emit: progress => void told.push(progress),
  }
  return { ctx, steps, told }
}

describe('{{name}}', () => {
  it('adds one job type, with a permission', async () => {
    await using t = await createTestRuntime({ plugins: [plugin] })
    assert.deepEqual(t.runtime.collect(JobType).map(({ type, permission }) => [type, permission]), [['{{name}}', '{{name}}:run']])
  })

  it('counts in one step for each text', async () => {
    await using t = await createTestRuntime({ plugins: [plugin] })
    const { ctx, steps, told } = context(['one two', 'three'])
    assert.deepEqual(await t.runtime.collect(JobType)[0]!.run(ctx), { words: 3, longest: 'three' })
    assert.deepEqual(steps, ['count', 'count'])
    assert.deepEqual(told.at(-1), { type: 'progress', percent: 100 })
  })

  it('stops when it is cancelled', async () => {
    await using t = await createTestRuntime({ plugins: [plugin] })
    const { ctx, steps } = context(['one'], AbortSignal.abort())
    await assert.rejects(t.runtime.collect(JobType)[0]!.run(ctx), { name: 'AbortError' })
    assert.deepEqual(steps, [])
  })
})
