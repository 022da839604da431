import assert from 'node:assert/strict'
import { createTestRuntime } from 'backplane/testing'
import { JobSettled, type Job } from 'backplane/contracts/jobs'
import plugin from './index.ts'

const job = (parts: Partial<Job>): Job => ({
  id: 'j1', type: 'agent', agent: 'math', project_id: 'default', created_by: 'ann', parent_id: null, status: 'completed', input: {}, result: null, result_ref: null, error: null,
  priority: 5, attempt: 1, max_attempts: 3, seq: 4, created_at: '2026-01-01T00:00:00.000Z', run_at: '2026-01-01T00:00:00.000Z',
  started_at: '2026-01-01T00:00:01.000Z', finished_at: '2026-01-01T00:00:02.000Z', metadata: {}, ...parts,
})

describe('{{name}}', () => {
  it('tells of a job that died', async () => {
    await using t = await createTestRuntime({ plugins: [plugin] })
    await t.call(JobSettled, { job: job({ status: 'dead', error: { code: 'AGENTS_LOOP', message: 'it went round', retryable: false } }) })
    assert.deepEqual(t.lines.filter(line => line.level === 'warn').map(({ message, fields }) => [message, fields['code']]), [['a job died', 'AGENTS_LOOP']])
  })

  it('tells of a slow one, and of no other', async () => {
    await using t = await createTestRuntime({ plugins: [{ plugin, config: { slowMs: 5_000 } }] })
    await t.call(JobSettled, { job: job({}) })
    assert.equal(t.lines.filter(line => line.level === 'warn').length, 0)
    await t.call(JobSettled, { job: job({ finished_at: '2026-01-01T00:00:09.000Z' }) })
    assert.deepEqual(t.lines.filter(line => line.level === 'warn').map(({ fields }) => fields['took']), [8_000])
  })
})
