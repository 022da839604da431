import assert from 'node:assert/strict'
import { createTestRuntime, recordLog } from 'backplane/testing'
import { Tool, type ToolContext } from 'backplane/contracts/agents'
import plugin, { countText } from './index.ts'

const ctx: ToolContext = {
  caller: { id: 'ann', kind: 'user', name: 'Ann', project_id: 'default' }, project_id: 'default', agent: 'tester', job_id: 'j1',
  signal: new AbortController().signal, log: recordLog(),
}

describe('{{name}}', () => {
  it('adds one tool', async () => {
    await using t = await createTestRuntime({ plugins: [plugin] })
    assert.deepEqual(t.runtime.collect(Tool).map(tool => tool.name), ['{{name}}'])
  })

  it('counts', async () => {
    assert.deepEqual(await countText.run({ text: 'one two\nthree' }, ctx), { words: 3, lines: 2, characters: 13 })
    assert.deepEqual(await countText.run({ text: '' }, ctx), { words: 0, lines: 0, characters: 0 })
  })

  it('recognizes a request that is for it, and no other', () => {
    assert.deepEqual(countText.recognize!('How many words has "a b c"?'), { text: 'a b c' })
    assert.equal(countText.recognize!('What is 2+2?'), undefined)
  })
})
