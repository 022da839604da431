import assert from 'node:assert/strict'
import { SystemClock } from '#core'
import { createTestRuntime, recordLog } from '#core/testing'
import { Agent, Tool, type ToolContext } from '#contracts/agents'
import { Calculator } from '../../../plugins/agent-pack-core/calculator.ts'
import pack from '../../../plugins/agent-pack-core/index.ts'

const log = recordLog()
const make = (options: Partial<Calculator['options']> = {}) => new Calculator({ timeout_ms: 5_000, memory_mb: 96, ...options }, new SystemClock(), log)
const never = new AbortController().signal
const SLOW = '40000000!'

describe('the calculator', () => {
  it('computes in a thread that it starts once and uses again', async () => {
    await using calculator = make()
    assert.deepEqual(await calculator.evaluate('(2+3)*7', never), { expression: '(2+3)*7', result: '35', exact: true })
    const from = performance.now()
    assert.equal((await calculator.evaluate('15% of 80', never)).result, '12')
    assert.ok(performance.now() - from < 100)
  })
  it('answers several at once, each with its own result', async () => {
    await using calculator = make()
    const results = await Promise.all(Array.from({ length: 20 }, (_, i) => calculator.evaluate(`${i} * 2`, never)))
    assert.deepEqual(results.map(each => each.result), Array.from({ length: 20 }, (_, i) => String(i * 2)))
  })
  it('ends what takes too long while the event loop goes on, and computes the next', async () => {
    await using calculator = make({ timeout_ms: 200 })
    let ticks = 0
    const timer = setInterval(() => ticks++, 10)
    const outcome = await calculator.evaluate(SLOW, never)
    clearInterval(timer)
    assert.match(outcome.error!, /longer than 200 ms/)
    assert.ok(ticks > 5, `${ticks} ticks`)
    assert.equal((await calculator.evaluate('1+1', never)).result, '2')
  })
  it('ends what is aborted', async () => {
    await using calculator = make({ timeout_ms: 20_000 })
    await calculator.evaluate('1+1', never)
    const stop = new AbortController()
    const pending = calculator.evaluate(SLOW, stop.signal)
    const behind = calculator.evaluate('2+2', never)
    setTimeout(() => stop.abort(new Error('enough')), 20)
    await assert.rejects(pending, /enough/)
    assert.equal((await behind).result, '4')
    await assert.rejects(calculator.evaluate('1+1', AbortSignal.abort(new Error('too late'))), /too late/)
  })
  it('gives up what runs when it is closed, and leaves no thread', async () => {
    const calculator = make({ timeout_ms: 20_000 })
    await calculator.evaluate('1+1', never)
    const pending = calculator.evaluate(SLOW, never)
    await Promise.all([assert.rejects(pending, { code: 'CALCULATOR_CLOSED' }), calculator[Symbol.asyncDispose]()])
    await assert.rejects(calculator.evaluate('1+1', never), { code: 'CALCULATOR_CLOSED' })
  })
  it('says so when its thread dies, and starts another for the next', async () => {
    await using calculator = make({ memory_mb: 1 })
    for (let i = 0; i < 2; i++) assert.match((await calculator.evaluate('1+1', never)).error!, /the calculator ended while it worked on the expression: it ran out of memory/)
    assert.ok(log.lines.some(line => line.message === 'the calculator\'s thread ended' && line.fields['err']))
  })
  it('starts no thread to be closed', async () => { await make()[Symbol.asyncDispose]() })
})

describe('agent-pack-core', () => {
  const ctx: ToolContext = { caller: { id: 'ann', kind: 'user', name: 'Ann', project_id: 'p' }, project_id: 'p', agent: 'math', job_id: 'j', signal: never, log: recordLog() }
  it('contributes the math agent and its calculator, and leaves nothing behind', async () => {
    await using t = await createTestRuntime({ plugins: [pack] })
    assert.deepEqual(t.runtime.collect(Agent).filter(({ name }) => name === 'math').map(({ name, tools }) => [name, tools]), [['math', ['calculator', 'solver', 'dates']]])
    const [tool] = t.runtime.collect(Tool)
    assert.deepEqual(tool!.recognize!('What is (2+3)*7, and 15% of 80?'), { expressions: ['(2+3)*7', '15% of 80'] })
    assert.equal(tool!.recognize!('Who are you?'), undefined)
    const { text } = await tool!.run({ expressions: ['(2+3)*7', '10/3', '1/0'] }, ctx)
    assert.deepEqual(tool!.recognize!('2+3 and 3,5 + 1,5'), { expressions: ['2+3'], rest: true })
    const partial = await tool!.run({ expressions: ['log(100)'], rest: true }, ctx) as { text: string }
    assert.equal(partial.text, 'log(100) (natural) ≈ 4.60517018598809\nOnly this could be read as a calculation; the rest of the request was left out.')
    assert.equal(text, '(2+3)*7 = 35\n10/3 ≈ 3.33333333333333\n1/0 can\'t be computed: its result is not a finite number')
  })
})
