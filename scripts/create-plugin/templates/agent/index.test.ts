import assert from 'node:assert/strict'
import { createTestRuntime, recordLog } from 'backplane/testing'
import { Agent, type AgentContext } from 'backplane/contracts/agents'
import type { JobProgress } from 'backplane/contracts/jobs'
import plugin from './index.ts'

describe('{{name}}', () => {
  it('adds one agent, as the config says', async () => {
    await using t = await createTestRuntime({ plugins: [{ plugin, config: { sentences: 5 } }] })
    const [agent, ...others] = t.runtime.collect(Agent)
    assert.equal(others.length, 0)
    assert.equal(agent?.name, '{{name}}')
    assert.match(agent?.instructions ?? '', /at most 5 sentences/)
  })

  it('asks the model for a summary of the input', async () => {
    await using t = await createTestRuntime({ plugins: [plugin] })
    const [agent] = t.runtime.collect(Agent)
    const asked: string[] = []
    const told: JobProgress[] = []
    const ctx: AgentContext = {
      agent: '{{name}}', caller: { id: 'ann', kind: 'user', name: 'Ann', project_id: 'default' }, project_id: 'default', job_id: 'j1',
      signal: new AbortController().signal, log: recordLog(), step: (_name, run) => run(), emit: progress => void told.push(progress),
      tool: async () => { throw new Error('it has none') }, ask: () => assert.fail('nobody is asked'), children: () => assert.fail('no other job is needed'),
      async answer({ input }) {
        asked.push(input)
        return { text: 'Short.', model: 'test', usage: { model_calls: 1, tool_calls: 0, input_tokens: 10, output_tokens: 1 } }
      },
    }
    assert.equal((await agent!.run!(ctx, 'A long story.')).text, 'Short.')
    assert.match(asked[0]!, /A long story\./)
    assert.deepEqual(told, [{ type: 'progress', message: '13 characters to read' }])
  })
})
