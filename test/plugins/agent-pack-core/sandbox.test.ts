import assert from 'node:assert/strict'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { SystemClock } from '#core'
import { eventually, recordLog } from '#core/testing'
import { Sandbox } from '../../../plugins/agent-pack-core/sandbox.ts'
import { startChild } from '../../support/child.ts'
import { PRELUDE } from '../../../plugins/agent-pack-core/prelude.ts'

const log = recordLog()
const make = (options: Partial<Sandbox['options']> = {}) =>
  new Sandbox({ timeout_ms: 3_000, memory_mb: 32, max_output: 2_000, concurrency: 2, ...options }, new SystemClock(), log)
const never = new AbortController().signal
const MiB = 2 ** 20

/** Processes of ours that run the sandbox. */
const sandboxes = (): number[] => readdirSync('/proc').filter(each => /^\d+$/.test(each)).map(Number).filter(pid => {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('sandbox-child') && Number(/\nPPid:\t(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) === process.pid
  } catch { return false }
})

describe('the sandbox', function () {
  this.timeout(30_000)
  let sandbox: Sandbox
  before(() => { sandbox = make() })
  const [patient, hasty] = [15_000, 400].map(timeout_ms => make({ timeout_ms })) as [Sandbox, Sandbox]
  after(async () => {
    for (const each of [sandbox, patient, hasty]) await each[Symbol.asyncDispose]()
    assert.deepEqual(sandboxes(), [])
  })
  const run = (code: string) => sandbox.run(code, never)

  it('answers with the value of the last expression, of which none looks like another, and what was printed', async () => {
    assert.deepEqual(await run('const a = [1, 2, 3]\nconsole.log("sum", a, { b: 1n })\na.map(x => x * 2)'),
      { output: 'sum [1,2,3] {"b":"1n"}\n', cut: false, result: '[2,4,6]' })
    for (const [code, result] of [
      ['"text"', '"text"'], ['let x = 5', 'undefined'], ['2n ** 64n', '18446744073709551616n'], ['new Map([[1, new Set([2])]])', '[[1,[2]]]'],
      ['(function twice() {})', '[function twice]'], ['for (const x of [1, 2]) x * 10', '20'], ['0/0', 'NaN'], ['-1/0', '-Infinity'], ['[0/0]', '["NaN"]'], ['/a+/g', '"/a+/g"'], ['Number.isFinite = () => true; 0/0', 'NaN'], ['null', 'null'], ['({ toJSON() {} })', 'undefined'],
      ['const a = {}; a.a = a; a', '[no JSON: circular reference]'],
    ] as const) assert.equal((await run(code)).result, result, code)
  })
  it('tells an error with its line, after what was printed until then', async () => {
    assert.deepEqual(await run('console.log(1)\n\nnull.x'),
      { output: '1\n', cut: false, error: { kind: 'thrown', message: 'TypeError: cannot read property \'x\' of null', line: 3 } })
    assert.deepEqual((await run('let a\nlet b = {;')).error, { kind: 'thrown', message: 'SyntaxError: invalid property name', line: 2 })
    assert.deepEqual((await run('throw { a: 1 }')).error, { kind: 'thrown', message: 'uncaught: {"a":1}' })
  })
  it('awaits promises, in the script and as its result', async () => {
    assert.equal((await run('const later = async n => n * 2\nconst x = await later(4)\nx + await Promise.all([1, 2]).then(all => all.length)')).result, '10')
    assert.equal((await run('async function answer() { await null; return 42 }\nanswer()')).result, '42')
    assert.deepEqual((await run('async function f() {\n  await 1\n  throw new Error("later")\n}\nf()')).error, { kind: 'thrown', message: 'Error: later', line: 3 })
  })
  it('says of a promise that nothing settles that it never ends', async () => {
    assert.equal((await run('await new Promise(() => {})')).error!.kind, 'pending')
    assert.equal((await run('1 + 1')).result, '2')
  })
  it('starts anew each time: nothing that code leaves reaches the next', async () => {
    await run('globalThis.left = 1; Object.prototype.left = 2; JSON.stringify = () => "mine"; Array.prototype.map = null; console.log = null')
    assert.deepEqual(await run('[typeof left, ({}).left === undefined, [1].map(x => x)[0], JSON.stringify({})]'),
      { output: '', cut: false, result: '["undefined",true,1,"{}"]' })
  })
  it('uses one process again, and another after one that ended badly', async () => {
    await run('1')
    const [pid] = sandboxes()
    await run('throw 1')
    assert.deepEqual(sandboxes(), [pid])
    const small = make({ timeout_ms: 500 })
    await small.run('1', never)
    await small.run('for (;;);', never)
    await eventually('it is gone', () => sandboxes().length === 1)
    assert.equal((await small.run('2', never)).result, '2')
    await small[Symbol.asyncDispose]()
    assert.deepEqual(sandboxes(), [pid])
  })

  const hostile: readonly (readonly [what: string, code: string, kind: string])[] = [
    ['an endless loop', 'for (;;);', 'timeout'],
    ['an endless loop that catches', 'for (;;) { try { for (;;); } catch {} finally { for (;;); } }', 'timeout'],
    ['an endless row of promises', 'const f = () => { Promise.resolve().then(f) }; f(); await new Promise(() => {})', 'timeout'],
    ['a chain of promises that await each other', 'const f = () => Promise.resolve().then(f); await f()', 'memory'],
    ['a regular expression that explodes', '/^(a+)+$/.test("a".repeat(50) + "b")', 'timeout'],
    ['an endless toJSON', '({ toJSON() { for (;;); } })', 'timeout'],
    ['an endless getter of an error', 'const e = new Error("x"); Object.defineProperty(e, "message", { get() { for (;;); } }); throw e', 'timeout'],
    ['an endless proxy', 'new Proxy({}, { ownKeys() { for (;;); } })', 'timeout'],
    ['a memory bomb of strings', 'const a = []; for (;;) a.push("x".repeat(1e5) + a.length)', 'memory'],
    ['a memory bomb of arrays', 'let a = [1]; for (;;) a = [...a, ...a]', 'memory'],
    ['a buffer that is too large', 'new ArrayBuffer(2 ** 30)', 'memory'],
    ['a shared buffer that is too large', 'new SharedArrayBuffer(2 ** 30)', 'memory'],
    ['a string that is too large', '"x".repeat(2 ** 29)', 'memory'],
    ['deep recursion', 'const f = () => f() + 1; f()', 'stack'],
    ['deep nesting of code', 'eval("[".repeat(1e6))', 'stack'],
    ['deep nesting of JSON', 'JSON.parse("[".repeat(1e5))', 'stack'],
  ]
  for (const [what, code, kind] of hostile) {
    it(`bounds ${what}, and runs the next`, async () => {
      const small = kind === 'timeout' ? hasty : patient
      const from = performance.now()
      const outcome = await small.run(`console.log("before");\n${code}`, never)
      assert.equal(outcome.error?.kind, kind, JSON.stringify(outcome))
      assert.equal(outcome.output, 'before\n')
      assert.ok(performance.now() - from < (kind === 'timeout' ? 4_000 : 15_000))
      assert.equal((await small.run('1 + 1', never)).result, '2')
    })
  }
  it('cuts what is printed and what is answered', async () => {
    const outcome = await run('for (let i = 0; i < 1e5; i++) console.log("é".repeat(100)); "x".repeat(1e6)')
    assert.equal(outcome.cut, true)
    assert.ok(Buffer.byteLength(outcome.output) <= 2_000)
    assert.ok(!outcome.output.includes('\ufffd'))
    assert.ok(outcome.result!.length <= 2_000)
    for (const code of [
      'String.prototype.slice = function () { return this }; Reflect.apply = f => "x".repeat(1e6); console.log("y".repeat(1e6)); "z".repeat(1e6)',
      'console.log(...Array(1e5).fill("x".repeat(100)))', 'throw new Error("x".repeat(1e6))', 'throw "x".repeat(1e6)',
    ]) assert.ok(JSON.stringify(await run(code)).length < 20_000, code)
  })
  it('offers no way out', async () => {
    for (const name of ['process', 'require', 'module', 'fetch', 'setTimeout', 'setInterval', 'WebAssembly', 'Atomics', 'Worker', 'std', 'os', 'print', 'scriptArgs', 'performance']) {
      assert.equal((await run(`typeof ${name}`)).result, '"undefined"', name)
    }
    for (const code of [
      'globalThis.constructor.constructor("return typeof process")()', 'console.log.constructor("return typeof process")()',
      '(async () => {}).constructor("return typeof process")()', 'Object.getPrototypeOf(function* () {}).constructor("return typeof process")().next().value',
      'new Proxy({}, {}).constructor.constructor("return typeof process")()', 'this.__proto__.constructor.constructor("return typeof require")()',
    ]) assert.match((await run(code)).result ?? 'undefined', /undefined|\{\}/, code)
    for (const code of ['import("node:fs")', 'await import("/etc/passwd")', 'await import("child_process")']) assert.equal((await run(code)).error?.kind, 'thrown', code)
    assert.equal((await run('import fs from "fs"')).error?.kind, 'thrown')
    const names = JSON.parse((await run('Object.getOwnPropertyNames(console.log)')).result!) as string[]
    assert.deepEqual(names.sort(), ['length', 'name'])
    assert.equal((await run('try { console.log.caller } catch {} ; (() => { try { return console.log.arguments } catch (e) { return e.name } })()')).error, undefined)
  })
  it('has nothing of our environment, our files that are open or our folder', async () => {
    process.env['SANDBOX_TEST'] = 'visible'
    await using one = make()
    const others = sandboxes()
    await one.run('1', never)
    delete process.env['SANDBOX_TEST']
    const pid = sandboxes().find(each => !others.includes(each))!
    assert.equal(readFileSync(`/proc/${pid}/environ`, 'utf8'), '')
    assert.equal(readlinkSync(`/proc/${pid}/cwd`), '/')
    const open = readdirSync(`/proc/${pid}/fd`).flatMap(fd => { try { return [readlinkSync(`/proc/${pid}/fd/${fd}`)] } catch { return [] } })
    assert.deepEqual(open.filter(each => !/^(socket:|pipe:|anon_inode:|\/dev\/(null|urandom))/.test(each)), [])
  })
  it('keeps to its memory run after run', async () => {
    await using one = make()
    const others = sandboxes()
    for (let i = 0; i < 40; i++) assert.equal((await one.run('let a = []; for (let i = 0; i < 2e5; i++) a.push({ i }); a.length', never)).result, '200000')
    const [pid] = sandboxes().filter(each => !others.includes(each))
    const rss = Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * 1_024
    assert.ok(rss < 400 * MiB, `${Math.round(rss / MiB)} MiB`)
  })
  it('stops what is aborted within a second, and goes on', async () => {
    await using one = make({ timeout_ms: 20_000 })
    await one.run('1', never)
    for (const code of ['for (;;);', '/^(a+)+$/.test("a".repeat(50) + "b")', 'const f = () => Promise.resolve().then(f); f(); await new Promise(() => {})']) {
      const stop = new AbortController()
      const pending = one.run(code, stop.signal)
      let from = 0
      setTimeout(() => { from = performance.now(); stop.abort(new Error('enough')) }, 50)
      await assert.rejects(pending, /enough/)
      assert.ok(performance.now() - from < 1_000)
    }
    await assert.rejects(one.run('1', AbortSignal.abort(new Error('too late'))), /too late/)
    assert.equal((await one.run('1', never)).result, '1')
  })
  it('runs no more at a time than it should, and lets an aborted one leave the line', async () => {
    await using one = make({ timeout_ms: 20_000, concurrency: 2 })
    const others = sandboxes().length
    const stop = new AbortController()
    const busy = [1, 2].map(() => assert.rejects(one.run('for (;;);', stop.signal), /enough/))
    const left = new AbortController()
    const leaving = assert.rejects(one.run('2', left.signal), /left/)
    const third = one.run('3', never)
    left.abort(new Error('left'))
    await leaving
    await eventually('two run', () => sandboxes().length === others + 2)
    stop.abort(new Error('enough'))
    await Promise.all(busy)
    assert.equal((await third).result, '3')
  })
  it('runs code again when its process is killed from outside, and gives up when it is killed again', async () => {
    await using one = make({ timeout_ms: 20_000 })
    const others = sandboxes()
    await one.run('1', never)
    const mine = () => sandboxes().filter(pid => !others.includes(pid))
    const [first] = mine()
    const slow = one.run('const until = Date.now() + 1_000; while (Date.now() < until); "done"', never)
    process.kill(first!, 'SIGKILL')
    assert.equal((await slow).result, '"done"')
    const killed = one.run('for (;;);', never)
    let over = false
    const gaveUp = assert.rejects(killed, { code: 'CODE_CRASHED', retryable: true }).finally(() => { over = true })
    await eventually('it gave up', () => {
      if (!over) for (const pid of mine()) process.kill(pid, 'SIGKILL')
      return over
    })
    await gaveUp
    assert.equal((await one.run('1', never)).result, '1')
  })
  it('kills a process that no longer answers', async () => {
    await using one = make({ timeout_ms: 1_000 })
    const others = sandboxes()
    await one.run('1', never)
    process.kill(sandboxes().find(pid => !others.includes(pid))!, 'SIGSTOP')
    assert.equal((await one.run('1', never)).error!.kind, 'timeout')
    assert.equal((await one.run('1', never)).result, '1')
  })
  it('gives up what runs and what waits when it is closed', async () => {
    const one = make({ timeout_ms: 20_000, concurrency: 1 })
    const pending = [1, 2].map(() => assert.rejects(one.run('for (;;);', never), { code: 'CODE_CLOSED' }))
    await one[Symbol.asyncDispose]()
    await Promise.all(pending)
    await assert.rejects(one.run('1', never), { code: 'CODE_CLOSED' })
  })
  it('ends with the process that started it, though its code would go on', async () => {
    const child = startChild(new URL('./sandbox-parent.ts', import.meta.url))
    const pid = Number(await eventually('it runs', () => child.lines[0], 60_000))
    process.kill(pid, 0)
    await child.kill()
    await eventually('it is gone', () => { try { process.kill(pid, 0); return false } catch { return true } })
  })
  it('has no name of the host in its prelude', () => assert.doesNotMatch(PRELUDE, /process|require|import/))
})
