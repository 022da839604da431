import assert from 'node:assert/strict'
import fc from 'fast-check'
import { SystemClock, type BackplaneError } from '#core'
import { recordLog } from '#core/testing'
import type { ToolContext } from '#contracts/agents'
import { Calculator } from '../../../plugins/agent-pack-core/calculator.ts'
import { readEquations, solve } from '../../../plugins/agent-pack-core/equation.ts'
import { MAX_SENTENCE } from '../../../plugins/agent-pack-core/expression.ts'
import { calculatorTool, solverTool } from '../../../plugins/agent-pack-core/math.ts'

const told = (...equations: string[]): string => { const { text, error } = solve(equations); return text ?? `! ${error}` }

describe('solving equations', () => {
  const cases: Record<string, string> = {
    '2x + 3 = 7': 'x = 2', '3x = 1': 'x = 1/3 ≈ 0.333333333333333', '8x = 1': 'x = 0.125', '0.1x + 0.2 = 0.3': 'x = 1', 'x/3 + x/6 = 1': 'x = 2',
    'x^2 - 5x + 6 = 0': 'x = 2 or x = 3', '(x-1)^2 = 0': 'x = 1', 'x(x+1) = 6': 'x = -3 or x = 2', 'x^2 = 3': 'x ≈ -1.73205080756888 or x ≈ 1.73205080756888',
    'x^2 + 1 = 0': 'there is no real solution', 'x^3 - 6x^2 + 11x - 6 = 0': 'x = 1 or x = 2 or x = 3', 'x^3 = 2': 'x ≈ 1.25992104989487 (no other real solution)',
    'x^4 - 1 = 0': 'x = -1 or x = 1 (no other real solution)', 'x^5 - x - 1 = 0': 'x ≈ 1.16730397826142 (no other real solution)',
    'x = x + 1': 'there is no solution', '2(x+1) = 2x + 2': 'every x solves it', 'x + y = 10': 'there are infinitely many solutions',
    '1/(x-1) = 2': 'x = 1.5', '(x^2-1)/(x-1) = 2': 'there is no solution', 'x/x = 1': 'every x for which both sides are defined solves it', '1/x + 1/(x+1) = 3/2': 'x = -2/3 ≈ -0.666666666666667 or x = 1', '- x + 3 = 5': 'x = -2',
    '(x^2-2)(x-1)/(x^2-2) = 0': 'x = 1', 'sqrt(16) x = 8': 'x = 2', 'pi r^2 = 50': 'r ≈ -3.98942280401433 or r ≈ 3.98942280401433', '15% of x = 30': 'x = 200', 'x + 10% = 22': 'x = 20',
    'x^2 + 10000000000000000000000001 = 2x + 10000000000000000000000000': 'x = 1',
  }
  for (const [equation, expected] of Object.entries(cases)) it(`${equation}: ${expected}`, () => assert.equal(told(equation), expected))

  it('solves systems, and says when there is none, or more than one', () => {
    assert.equal(told('x + y = 10', 'x - y = 2'), 'x = 6, y = 4')
    assert.equal(told('x1 + 2x2 + x3 = 4', 'x1 - x2 = 0', 'x3 = 1/3'), 'x1 = 11/9 ≈ 1.22222222222222, x2 = 11/9 ≈ 1.22222222222222, x3 = 1/3 ≈ 0.333333333333333')
    assert.equal(told('x + y = 1', 'x + y = 2'), 'there is no solution')
    assert.equal(told('x + y = 10', '2x + 2y = 20'), 'there are infinitely many solutions')
    assert.equal(told('x + y = 5', 'x*y = 6'), 'x = 3, y = 2; or x = 2, y = 3')
    assert.equal(told('x^2 = 2', 'x^3 = 2x'), 'x ≈ -1.4142135623731 or x ≈ 1.4142135623731')
  })
  it('says why it can\'t', () => {
    const reasons: Record<string, RegExp> = {
      'sin(x) = 1': /"sin" of an unknown/, '2^x = 8': /no polynomial/, 'x! = 6': /no polynomial/, 'x^13 = 1': /only equations up to degree 12/, 'x^2 + y^2 + x*y = 3': /do not come apart/,
      '2 = 2': /holds no unknown/, 'x + 1': /needs one =/, 'x = y = 1': /needs one =/, '(x = 1': /not a complete equation/, 'x/0 = 1': /divides by zero/, '2 apples = 4': /"apples" is neither/,
      'x < 3 = y': /not a complete equation/, 'sqrt(2) x^2 - 2x + 1/sqrt(2) = 0': /numbers that are no fractions/, 'x = 9^9^9': /not a finite|too large/, '(9^999)^999 x = 1': /too large/,
    }
    for (const [equation, reason] of Object.entries(reasons)) assert.match(told(equation), reason, equation)
    assert.match(told(...Array<string>(11).fill('x = 1')), /more than 10 of them/)
    assert.match(told(`x = ${'1+'.repeat(1_200)}1`), /longer than 2000/)
  })
  it('reaches nothing but arithmetic', () => {
    for (const side of ['import({a:1})', 'cos.constructor("return 1")()', 'constructor(x)', '__proto__', 'toString()', 'f(x)', '"a"', '[1,2]', 'parse("x")', 'x.y', 'x[1]', 'x ? 1 : 2', '5 km']) {
      assert.match(told(`${side} + x = 1`), /^! /, side)
    }
  })

  const small = fc.integer({ min: -30, max: 30 })
  const shown = (value: number) => (value < 0 ? `- ${-value}` : `+ ${value}`)
  it('finds the roots of any polynomial that was made of them, multiplied out by anything', () => {
    fc.assert(fc.property(fc.array(small, { minLength: 1, maxLength: 6 }), fc.integer({ min: 1, max: 9 }), (roots, factor) => {
      const factors = roots.reduce<number[]>((product, root) => [...product, 0].map((_, i) => (product[i - 1] ?? 0) - root * (product[i] ?? 0)), [factor])
      const { solutions, error } = solve([`${factors.map((each, power) => `${shown(each)} x^${power}`).join(' ')} = 0`])
      assert.equal(error, undefined)
      assert.deepEqual(solutions!.map(each => Number(each['x'])), [...new Set(roots)].sort((a, b) => a - b))
    }), { numRuns: 200 })
  })
  it('finds rational roots exactly, and as many real ones as there are', () => {
    fc.assert(fc.property(small.filter(Boolean), fc.integer({ min: 1, max: 30 }), small, fc.integer({ min: 1, max: 99 }), (n, d, shift, positive) => {
      // (d x - n)((x + shift)^2 + positive): one real root. (d x - n)((x + shift)^2 - positive): up to three.
      const above = solve([`(${d} x ${shown(-n)})((x ${shown(shift)})^2 + ${positive}) = 0`])
      assert.equal(above.solutions!.length, 1)
      const [top, bottom = '1'] = above.solutions![0]!['x']!.split('/')
      assert.ok(Math.abs(Number(top) / Number(bottom) - n / d) < 1e-12)
      const expected = new Set([n / d, Math.sqrt(positive) - shift, -Math.sqrt(positive) - shift].map(each => each.toFixed(9)))
      assert.equal(solve([`(${d} x ${shown(-n)})((x ${shown(shift)})^2 - ${positive}) = 0`]).solutions!.length, expected.size)
    }), { numRuns: 150 })
  })
  it('solves any linear system exactly, which has one solution', () => {
    const systems = fc.integer({ min: 1, max: 6 }).chain(size => fc.tuple(
      fc.array(fc.tuple(small, fc.integer({ min: 1, max: 9 })), { minLength: size, maxLength: size }),
      fc.array(fc.array(small, { minLength: size, maxLength: size }), { minLength: size, maxLength: size }),
    ))
    fc.assert(fc.property(systems, ([values, rows]) => {
      // A diagonal that outweighs the rest: never singular.
      const matrix = rows.map((row, i) => row.map((each, j) => (i === j ? 200 + each : each)))
      const equations = matrix.map(row => `${row.map((each, j) => `${shown(each)} x${j}`).join(' ')} = ${row.map((each, j) => `${shown(each)} * (${values[j]![0]}) / ${values[j]![1]}`).join(' ')}`)
      const { solutions, error } = solve(equations)
      assert.equal(error, undefined)
      assert.equal(solutions!.length, 1)
      values.forEach(([n, d], j) => {
        const [top, bottom = '1'] = solutions![0]![`x${j}`]!.split('/')
        assert.equal(Number(top) / Number(bottom), n / d)
      })
    }), { numRuns: 100 })
  })
})

describe('finding equations in a sentence', () => {
  const cases: Record<string, string[][] | undefined> = {
    'Solve 2x + 3 = 7': [['2x + 3 = 7']], 'what is x if x^2 - 5x + 6 = 0?': [['x^2 - 5x + 6 = 0']], 'solve x + y = 10 and x - y = 2': [['x + y = 10', 'x - y = 2']],
    'Solve for x: 1/(x-1) = 2.': [['1/(x-1) = 2']], 'x + y = 5, x*y = 6': [['x + y = 5', 'x*y = 6']], 'Solve: -x + 3 = 5': [['-x + 3 = 5']], 'Is there a solution of (2x + 3 = 7)?': [['2x + 3 = 7']],
    'solve x^2 = 9 and 2y = 4': [['x^2 = 9'], ['2y = 4']], 'Solve 2x = 4 and x^2 = 9': [['2x = 4'], ['x^2 = 9']], 'Which x has a 2x + 3 = 7': [['2x + 3 = 7']], 'Find x1: 3 x1 = 6': [['3 x1 = 6']],
    'let x = 5': undefined, 'If a = 5 and b = 3, what is a + b?': undefined, 'I run v = 3 of it': undefined, 'solve 2x + 3 km = 7 km': undefined, 'solve 3,5 x = 7': undefined, 'solve x = y = 3': undefined,
    'what is 2 + 3 = 5': undefined, 'what is e = mc^2': undefined, 'solve x < 3': undefined, 'solve x = 2026-01-01': undefined, 'Set timeout=30 in the file': undefined, 'what does a == b mean in C?': undefined,
    'Who are you?': undefined, '=': undefined, 'x =': undefined, '= 3': undefined, 'solve': undefined,
  }
  for (const [sentence, expected] of Object.entries(cases)) it(`${sentence} -> ${JSON.stringify(expected)}`, () => assert.deepEqual(readEquations(sentence)?.systems, expected))

  it('holds the event loop for no more than a moment over hostile sentences', () => {
    for (const piece of ['x = ', '= ', '(', 'x(', '(x)', 'x^', '-', '1/', 'sqrt(', 'a ', '2x + ', '% of ', 'x!', 'x1 ', '=x+', '🙂=']) {
      for (const length of [MAX_SENTENCE, 65_536]) {
        const sentence = `solve x = 1 + ${piece.repeat(length)}`.slice(0, length)
        let ms = Infinity
        for (let i = 0; i < 5; i++) {
          const from = process.cpuUsage()
          try { readEquations(sentence) } catch (error) { assert.equal((error as BackplaneError).code, 'CALCULATOR_UNREADABLE') }
          const { user, system } = process.cpuUsage(from)
          ms = Math.min(ms, (user + system) / 1_000)
        }
        assert.ok(ms < 25, `${piece}: ${ms} ms`)
      }
    }
  })
  it('never throws otherwise, and every finding is part of the sentence and is answered', () => {
    const piece = fc.constantFrom('(', ')', '%', ' of ', ' + ', '-', '*', '/', '^2', '!', ' to ', ' in ', 'km', 'x', ' y', 'a ', ',', '3', '15', 'sqrt(', ' and ', ' = ', '=', 'solve ', '__proto__', 'constructor', 'pi')
    fc.assert(fc.property(fc.array(piece, { maxLength: 25 }).map(parts => parts.join('')), sentence => {
      for (const system of readEquations(sentence)?.systems ?? []) {
        for (const equation of system) assert.ok(sentence.includes(equation))
        const { text, error } = solve(system.map(each => each.replaceAll('!', '')))
        assert.ok(text ?? error)
      }
    }), { numRuns: 500 })
  })
})

describe('the solver', () => {
  const ctx: ToolContext = { caller: { id: 'ann', kind: 'user', name: 'Ann', project_id: 'p' }, project_id: 'p', agent: 'math', job_id: 'j', signal: new AbortController().signal, log: recordLog() }
  const make = (timeout_ms: number) => new Calculator({ timeout_ms, memory_mb: 96 }, new SystemClock(), recordLog())
  it('answers a request beside the calculator, neither taking what is the other\'s', async () => {
    await using calculator = make(10_000)
    const [solver, sums] = [solverTool(calculator), calculatorTool(calculator)]
    const request = 'What is (2+3)*7, and solve x + y = 3*4 and x - y = 2, please'
    assert.deepEqual(sums.recognize!(request), { expressions: ['(2+3)*7'] })
    const input = solver.recognize!(request)!
    assert.deepEqual(input, { systems: [{ equations: ['x + y = 3*4', 'x - y = 2'] }] })
    assert.equal((await solver.run(input, ctx)).text, 'x + y = 3*4 and x - y = 2: x = 7, y = 5')
    assert.match((await solver.run({ systems: [{ equations: ['sin(x) = 1'] }] }, ctx)).text, /^sin\(x\) = 1: can't be solved: it holds "sin" of an unknown/)
  })
  it('is ended when it takes too long, and solves the next', async () => {
    await using calculator = make(300)
    const heavy = Array.from({ length: 10 }, (_, i) => `${Array.from({ length: 10 }, (_, j) => `${(i * 7 + j * 13) % 11 + 1}/${10 ** 6 + i * 17 + j} x${j}`).join(' + ')} = 40000000!/39999999!`)
    assert.match((await calculator.solve(heavy, ctx.signal)).error!, /longer than 300 ms/)
    assert.equal((await calculator.solve(['2x = 4'], ctx.signal)).text, 'x = 2')
  })
})
