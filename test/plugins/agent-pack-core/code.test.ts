import assert from 'node:assert/strict'
import { createTestRuntime, recordLog } from '#core/testing'
import { Agent, Tool, type ToolContext } from '#contracts/agents'
import { codeIn, inWords } from '../../../plugins/agent-pack-core/code.ts'
import pack from '../../../plugins/agent-pack-core/index.ts'

const ctx: ToolContext = {
  caller: { id: 'ann', kind: 'user', name: 'Ann', project_id: 'p' }, project_id: 'p', agent: 'code', job_id: 'j', signal: new AbortController().signal, log: recordLog(),
}

describe('the tool run_javascript', () => {
  it('takes the code that a request contains, and makes none of what it says', () => {
    assert.equal(codeIn('What does this print?\n```js\nconsole.log(1)\n```\nAnd then\n```JavaScript\nlet a = `x`\n```'), 'console.log(1)\nlet a = `x`')
    assert.equal(codeIn('run: 1 + 1'), '1 + 1')
    assert.equal(codeIn('Run JavaScript:\n[1].map(x => x)'), '[1].map(x => x)')
    for (const text of [
      'Write a program that sorts a list', 'How do I run: the dishes', '```python\nprint(1)\n```', '```\nconsole.log(1)\n```', 'run:', '```js\n\n```', '```js\n1 + 1', 'What is 2+3?',
      `run: ${'x'.repeat(60_000)}`,
    ]) assert.equal(codeIn(text), undefined, text.slice(0, 40))
  })
  it('says in words how a run ended', () => {
    assert.equal(inWords({ output: 'a\n', cut: false, result: '1' }), 'Printed:\na\nResult: 1')
    assert.equal(inWords({ output: 'a\n', cut: true, result: 'undefined' }), 'Printed:\na\n[cut: it printed more]')
    assert.equal(inWords({ output: '', cut: false, result: 'undefined' }), 'Result: undefined')
    assert.equal(inWords({ output: '', cut: false, error: { kind: 'thrown', message: 'Error: x', line: 3 } }), 'Error in line 3: Error: x')
  })
  it('comes with the agent code, and leaves nothing behind', async () => {
    await using t = await createTestRuntime({ plugins: [pack] })
    assert.deepEqual(t.runtime.collect(Agent).find(({ name }) => name === 'code')!.tools, ['run_javascript'])
    const tool = t.runtime.collect(Tool).find(({ name }) => name === 'run_javascript')!
    assert.deepEqual(tool.recognize!('```js\n6*7\n```'), { code: '6*7' })
    assert.equal(await tool.run({ code: 'console.log("hello")\n6 * 7' }, ctx), 'Printed:\nhello\nResult: 42')
  })
})
