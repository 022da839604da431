import assert from 'node:assert/strict'
import { createTestRuntime } from 'backplane/testing'
import plugin, { {{Name}} } from './index.ts'

describe('{{name}}', () => {
  it('counts each name apart', async () => {
    await using t = await createTestRuntime({ plugins: [plugin] })
    const counter = t.get({{Name}})
    await counter.count('apples')
    assert.equal(await counter.count('apples'), 2)
    assert.equal(await counter.count('pears'), 1)
  })

  it('begins with what the config says', async () => {
    await using t = await createTestRuntime({ plugins: [{ plugin, config: { start: 10 } }] })
    assert.equal(await t.get({{Name}}).count('apples'), 11)
  })

  it('refuses settings that it does not know', async () => {
    await assert.rejects(createTestRuntime({ plugins: [{ plugin, config: { begin: 1 } }] }), /begin/)
  })
})
