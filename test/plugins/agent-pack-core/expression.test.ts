import assert from 'node:assert/strict'
import fc from 'fast-check'
import type { BackplaneError } from '#core'
import { compute, findExpressions, MAX_SENTENCE, readSentence } from '../../../plugins/agent-pack-core/expression.ts'

const result = (expression: string): string => {
  const { result: value, exact, error } = compute(expression)
  return error ?? `${exact ? '' : '≈'}${value}`
}

describe('finding expressions in a sentence', () => {
  const cases: Record<string, string[]> = {
    'What is (2+3)*7, and 15% of 80?': ['(2+3)*7', '15% of 80'],
    'Please add 80 + 15% for me.': ['80 + 15%'],
    'What is 2+3': ['2+3'],
    '2 + 3 = ?': ['2 + 3'],
    'Is 3 < 4?': ['3 < 4'],
    'Convert 5 km to miles please': ['5 km to miles'],
    'How much is 5 km in m?': ['5 km in m'],
    'I paid 5 + 3 in total': ['5 + 3'],
    'what is 1,000 + 2?': ['1,000 + 2'],
    'max(1,000,2) or sqrt(2)^2': ['max(1,000,2)', 'sqrt(2)^2'],
    '3 x 4 and 5 times 6 and 12 divided by 4': ['3 x 4', '5 times 6', '12 divided by 4'],
    'It is **2+3**, or "2+2".': ['2+3', '2+2'],
    '- 2+3': ['2+3'],
    'Compute -2+3.': ['-2+3'],
    '5²+1': ['5²+1'],
    '17 mod 5 or 17 % 5': ['17 mod 5', '17 % 5'],
    "I'm at 2*3": ['2*3'],
    '30 °C to °F': ['30 °C to °F'],
    '15 percent of 80': ['15 percent of 80'],
    'what is 2*3 as a fraction': ['2*3'],
    '4! or 4!+1': ['4!', '4!+1'],
    '(2+3': ['2+3'],
    '2+3)': ['2+3'],
  }
  for (const [sentence, expected] of Object.entries(cases)) it(`${sentence} -> ${expected.join(' | ')}`, () => assert.deepEqual(findExpressions(sentence), expected))

  const nothing = ['Who are you?', 'I have 5 km and 3 apples', 'at 10 km/h', '7% tax', 'the 3rd of 5', 'on 2026-11-21 we meet',
    'x + 2*3', '2*3 + y', 'x*2+3', '2x + 3 = 7', 'solve x = 2*3', '-3', '42', '', 'and/or', '5 kg + 3 km', '(5 km)!',
    'import({})', 'a=2', 'f(x) = x^2', '[1,2] + [3,4]', '"a" + "b"', 'cos', 'pi', '2 +', '()', '%', 'of', '5 m (2) 3']
  it('finds nothing where nothing is to be computed, or what is asked is more than it can read', () => {
    for (const sentence of nothing) assert.deepEqual(findExpressions(sentence), [], sentence)
  })
  it('computes no part of what a word beside it makes something else of', () => {
    const parts = ['lg(100) + 2', 'f(2) + 1 = ?', 'What is foo(2+3)?', 'what is 1/3 of 9', '10% of 50 off 80', '5 feet 3 inches in cm', '5 + 3 km', 'double 3+4', 'Twice 3 + 4',
      '2+3 squared', '5 + 3 hundred', '2 * 3 million', 'negative 5 + 3', 'minus 5 + 3', '5 + 3 divided by two', 'sqrt 16 + 9', '√16 + 1', '2 to the 3 + 1', 'increase 50+10 by 10%',
      'What is 31 January 2026 plus 1 month?', 'January 31, 2026 plus 1 month', 'On 5 May 2026 - 3 days']
    for (const sentence of parts) assert.deepEqual(findExpressions(sentence), [], sentence)
    assert.deepEqual(readSentence('a 10% tip on 50+20'), { expressions: ['50+20'], rest: true })
    assert.deepEqual([findExpressions('What is ln(e^2)?'), result('ln(e^2)')], [['ln(e^2)'], '2'])
  })
  it('never takes a number apart that it can\'t read as a whole', () => {
    const torn = ['3,5 + 1,5', '2*3 + 3,5', '3,5 + 2*3', '3,5% of 80 + 10', '3,5 km + 2*3 km', '3,5(2+3)', '(2+3)3,5', '(1+1) * (3,5 + 2)', 'max((3,5 + 1))',
      '1.2.3 + 4', 'v1.2 + 3', '1.2.3-4', '192.168.0.1/24', '10:30 - 9:15', '10 : 2 + 3', '2026-11-21 + 3', '2026-11-21T10:30:00Z', '2026-11-21T10:30:00Z + 2*3', '21.11.2026', '11/21/2026',
      '21-11-2026', 'call 555-123-4567', '(555) 123-4567', '1-800-555-1234', 'call 555-1234', '030-1234567', '+49-30-1234567', '+49 30 1234567',
      "1'000 + 2", '1_000 + 2*3', '1 000 + 2', '2 + 1 000', '1 000 000 * 2', '12,34,567 + 1', '1,0000 + 1', '1..2 + 3', '0x1F + 2*3', '(2+3) * x', 'max(2*3, y)', 'sqrt(2+3) * y']
    for (const sentence of torn) assert.deepEqual(findExpressions(sentence), [], sentence)
    assert.deepEqual(findExpressions('On 2026-11-21 at 10:30 we pay 3*4, with version 1.2.3'), ['3*4'])
    assert.deepEqual(findExpressions('500-1000 and 1,000,000.5 + 2 and .5 + 1'), ['500-1000', '1,000,000.5 + 2', '.5 + 1'])
  })
  it('takes no part of a number with digits, points and commas, whatever it is', () => {
    const part = fc.tuple(fc.constantFrom('.', ',', ':', "'"), fc.nat(99)).map(([separator, digits]) => `${separator}${digits}`)
    const run = fc.tuple(fc.nat(99), fc.array(part, { minLength: 1, maxLength: 4 })).map(([first, rest]) => `${first}${rest.join('')}`)
    fc.assert(fc.property(run, fc.constantFrom('+', '-', '*', '/', ' + ', ' * '), fc.nat(99), (left, operator, right) => {
      for (const sentence of [`${left}${operator}${right}`, `${right}${operator}${left}`]) {
        const found = findExpressions(sentence)
        if (found.length > 0) assert.deepEqual(found, [sentence])
      }
    }), { numRuns: 300 })
  })
  it('tells when the sentence seems to ask for more than was found, and only then', () => {
    for (const sentence of ['2+3 and 3,5 + 1,5', '2*3 and x + 4', '2+3, and the square root of nine', '1+1 and solve 2x + 3 = 7', 'two plus three and 4*5']) {
      assert.equal(readSentence(sentence).rest, true, sentence)
    }
    for (const sentence of ['What is (2+3)*7, and 15% of 80?', 'On 2026-11-21 at 10:30, what is 2+3?', '- 2+3', '2 + 3 = ?', 'Convert 5 km to miles please',
      'I have 3 apples - what is 2*3?', 'and/or 2+3', '3,5 + 1,5', 'Please, 2+3 - thanks', 'call 555-123-4567 with 2*3', '1) 2+3', '3 x 4 and 5 times 6 and 12 divided by 4']) {
      assert.equal(readSentence(sentence).rest, false, sentence)
    }
  })
  /** Milliseconds of the processor that looking through it takes once the engine is warm, and how it ends. */
  function looked(sentence: string): { ms: number; ended: string } {
    let [ms, ended] = [Infinity, 'read']
    for (let i = 0; i < 6; i++) {
      const from = process.cpuUsage()
      try { findExpressions(sentence) } catch (error) { ended = (error as BackplaneError).code }
      const { user, system } = process.cpuUsage(from)
      ms = Math.min(ms, (user + system) / 1_000)
    }
    return { ms, ended }
  }
  it('holds the event loop for no more than a moment over hostile sentences, however long', () => {
    const pieces = ['(', '(1) ', '1 + ', '1', '-', 'word ', 'sqrt(', '5%', '1,', ', ', '((1+1)!)! ', '🙂', '2^9^9^', 'km ', 'min(1,', '5 km to ',
      '5 km + 3 kg ', '2 m * ', '1+1. ', 'combinations(9,3)! ', '1+1+km ']
    for (const piece of pieces) {
      for (const length of [MAX_SENTENCE, 65_536]) {
        const { ms, ended } = looked(`1+1${piece.repeat(length)}`.slice(0, length))
        assert.ok(ms < 25, `${piece}: ${ms} ms`)
        if (length > MAX_SENTENCE) assert.equal(ended, 'CALCULATOR_UNREADABLE')
      }
    }
    const from = performance.now()
    assert.equal(findExpressions('((1+1+1+1+1+1+1+1+1+1+1+1)!)! + 999999999! * 9^9^9^9').length, 1)
    assert.ok(performance.now() - from < 500)
  })
  it('says so when it does not look, or not to the end; a long text without any number needs no look', () => {
    assert.throws(() => findExpressions(`${'word '.repeat(800)} 1+1`), { code: 'CALCULATOR_UNREADABLE', message: /longer than 4000 characters/, expose: true })
    assert.throws(() => findExpressions('(1) '.repeat(1_000)), { code: 'CALCULATOR_UNREADABLE', message: /too much in it could be one/ })
    assert.deepEqual(findExpressions('Words, only words. '.repeat(3_000)), [])
  })
  it('stops where it has as many as it was asked for', () => {
    assert.deepEqual(findExpressions('1+1 and 2+2 and 3+3', 2), ['1+1', '2+2'])
    assert.equal(findExpressions('1+1. '.repeat(800), 20).length, 20)
  })
  it('never throws, and every finding is part of the sentence', () => {
    const piece = fc.oneof(
      fc.string({ unit: 'grapheme', maxLength: 8 }),
      fc.constantFrom('(', ')', '%', ' of ', '+', '-', '*', '/', '^', '!', ' to ', ' in ', 'km', ' x ', ',', '3', '15', 'sqrt(', ' and ', '=', '__proto__', 'constructor'),
    )
    fc.assert(fc.property(fc.array(piece, { maxLength: 25 }).map(parts => parts.join('')), sentence => {
      for (const found of findExpressions(sentence)) {
        assert.ok(sentence.includes(found))
        compute(found.replace(/[!^]/g, '+'))
      }
    }), { numRuns: 300 })
  })
})

describe('computing expressions', () => {
  const cases: Record<string, string> = {
    '(2+3)*7': '35', '15% of 80': '12', '80 + 15%': '92', '80 - 15%': '68', '80 + 15% - 3': '89', '(80 + 10%) * 2 + 5% + 1': '185.8', '10% of 20% of 50': '1', '15% of (2+3) km': '0.75 km',
    '50 * 10%': '5', '0.1+0.2': '0.3', '1/3+1/3+1/3': '1', '10/3': '≈3.33333333333333', '2/3*3': '2', 'sqrt(2)^2': '2', '2^100': '1267650600228229401496703205376', '2^-1': '0.5', '2^3^2': '512', '-2^2': '-4',
    '1e3 + 1': '1001', '1e-12 * 1': '1e-12', '0.000001': '0.000001', '70!': '≈1.19785716699699e+100', '5!': '120', '17 mod 5': '2', '17 % 5': '2', '1,000 + 2': '1002', '3 x 4': '12', '12 divided by 5': '2.4',
    'sin(pi)': '0', 'cos(60 deg)': '0.5', 'log10(1000)': '3', 'round(10/3)': '3', 'mean(1, 2, 6)': '3', 'max(1,000,2)': '2', 'sqrt(-4)': '2i', '(-8)^(1/3)': '≈1 + 1.73205080756888i', '3 < 4': 'true',
    '5 km to miles': '≈3.10685596118667 miles', '1 km to m': '1000 m', '5 km in m': '5000 m', '12 in to cm': '30.48 cm',
    '3 days + 4 hours to minutes': '4560 minutes', '30 °C to °F': '86 degF', '100 celsius to fahrenheit': '212 fahrenheit',
    '90 km/h to m/s': '25 m/s', '5 kg * 2 m/s^2 to N': '10 N', '(5 m)^2 + 3 m * 2 m': '31 m^2', '42': '42', '123456789.123456789 * 1': '123456789.123456789',
  }
  for (const [expression, expected] of Object.entries(cases)) it(`${expression} is ${expected}`, () => assert.equal(result(expression), expected))

  it('tells that log with one argument is the natural one', () => {
    assert.deepEqual(['log(100)', 'log(100, 10)', 'log10(100)', '1+1'].map(each => compute(each).natural), [true, undefined, undefined, undefined])
  })
  it('says why it can\'t', () => {
    assert.match(result('1/0'), /not a finite number/)
    assert.match(result('5 kg + 3'), /units do not fit/)
    assert.match(result('import({})'), /"import" is neither/)
    assert.match(result('2 apples'), /"apples" is neither/)
    assert.match(result('(2'), /not a complete expression/)
    assert.match(result(''), /not a complete expression/)
    assert.match(result('1+'.repeat(1_500)), /longer than 2000/)
  })
  it('reaches nothing but arithmetic', () => {
    for (const text of ['cos.constructor("return 1")()', 'f(x)=x', 'a=1', '"a"', '[1,2]', '{a:1}', 'import({a:1})', 'createUnit("foo")', 'evaluate("1")',
      'parse("1")', 'simplify("x")', 'derivative("x^2","x")', 'config({})', 'zeros(1e9)', '1:1e9', 'range(1,9)',
      'random()', 'help(cos)', 'end', 'i', 'version', 'true ? 1 : 2', '1; 2', 'x -> x', 'speedOfLight', 'unit("5 km")', '__proto__', 'constructor(1)', 'toString()']) assert.ok(compute(text).error, text)
  })
})

describe('any generated expression', () => {
  // Integers and exact steps, so that plain BigInt fractions are the reference.
  type Sum = { readonly text: string; readonly n: bigint; readonly d: bigint }
  const number = fc.integer({ min: 1, max: 99 }).map((value): Sum => ({ text: String(value), n: BigInt(value), d: 1n }))
  const { sum } = fc.letrec<{ sum: Sum; atom: Sum }>(tie => ({
    atom: fc.oneof(
      { depthSize: 'small' }, number, tie('sum').map(({ text, n, d }) => ({ text: `(${text})`, n, d })),
      fc.tuple(fc.integer({ min: 1, max: 99 }), number).map(([percent, of]) => ({ text: `(${percent}% of ${of.text})`, n: BigInt(percent) * of.n, d: 100n })),
    ),
    sum: fc.tuple(tie('atom'), fc.constantFrom('+', '-', '*', '/'), fc.boolean(), tie('atom')).map(([a, operator, spaced, b]) => {
      const text = spaced ? `${a.text} ${operator} ${b.text}` : `${a.text}${operator}${b.text}`
      if (operator === '+') return { text, n: a.n * b.d + b.n * a.d, d: a.d * b.d }
      if (operator === '-') return { text, n: a.n * b.d - b.n * a.d, d: a.d * b.d }
      return operator === '*' ? { text, n: a.n * b.n, d: a.d * b.d } : { text, n: a.n * b.d, d: a.d * b.n }
    }),
  }))
  const prose = fc.constantFrom(['What is ', '?'], ['', ''], ['Please compute ', ' for me'], ['The bill says "', '", is it right?'], ['Well, ', ' - what would that be?'], ['1. ', '.'], ['I think: ', ', and you'])

  it('is found whole in prose, and its result is that of exact fractions', () => {
    fc.assert(fc.property(sum, prose, ({ text, n, d }, [before, after]) => {
      fc.pre(text.length < 300 && d !== 0n)
      assert.deepEqual(findExpressions(before + text + after), [text])
      const { result: told, error } = compute(text)
      assert.equal(error, undefined)
      const [value, expected] = [Number(told), Number(n) / Number(d)]
      assert.ok(Math.abs(value - expected) <= Math.abs(expected) * 1e-12 + 1e-12, `${text}: ${told}, not ${expected}`)
      if (n % d === 0n && (n / d).toString().length < 30) assert.equal(told, (n / d).toString())
    }), { numRuns: 300 })
  })
})
