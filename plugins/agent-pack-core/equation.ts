import type { ConstantNode, FunctionNode, MathNode, OperatorNode, SymbolNode } from 'mathjs'
import { CalculatorErrors } from '#contracts/agent-pack-core'
import {
  CONSTANTS, FUNCTIONS, MAX_DEPTH, MAX_EXPRESSION, MAX_SENTENCE, MAX_SPAN, MAX_TOKENS, argsOf, decimal, mathjs, treeOf, unitName, type Big, type Span,
} from './expression.ts'
import { ONE, fraction, fromDecimal, inverse, isTiny, magnitude, times, toDecimal, type Fraction } from './fraction.ts'
import * as polynomial from './polynomial.ts'
import { constant, constantOf, isConstant, isolate, placesOf, rootsOf, substitute, toWhole, type Polynomial, type Root, type Whole } from './polynomial.ts'
import { isUnclear, render, tokenize, type Names, type Token } from './tokens.ts'

export const MAX_EQUATIONS = 10
const MAX_UNKNOWNS = 10
const MAX_SOLUTIONS = 50
const MAX_POWER = 1_000

export interface Solved {
  readonly equations: readonly string[]
  /** One entry for each solution: what each unknown is. None at all if there is none. */
  readonly solutions?: readonly Readonly<Record<string, string>>[]
  /** The answer in words. */
  readonly text?: string
  /** Why it can't be told. */
  readonly error?: string
}

const isUnknown = (name: string): boolean => /^\p{L}(?:_?\d{1,3})?$/u.test(name) && !Object.hasOwn(CONSTANTS, name)
const names: Names = {
  unknown: isUnknown,
  resolve(name, call) {
    if (call && FUNCTIONS.has(name.toLowerCase())) return name.toLowerCase()
    return Object.hasOwn(CONSTANTS, name) ? CONSTANTS[name] : undefined
  },
}

/** What the engine reads as one side of an equation. `x (` would be a call; `(x) (` is the product that people mean. */
function sideOf(tokens: readonly Token[]): MathNode | undefined {
  if (tokens.length === 0 || tokens.length > MAX_TOKENS) return undefined
  const written = tokens.flatMap((token, i): Token[] =>
    (token.kind === 'name' && isUnknown(token.text) && tokens[i + 1]?.kind === 'open'
      ? [{ ...token, kind: 'open', text: '(' }, token, { ...token, kind: 'close', text: ')' }] : [token]))
  return treeOf(render(written), isUnknown)
}

interface Equation { readonly text: string; readonly left: MathNode; readonly right: MathNode }
function equationOf(tokens: readonly Token[], text: string): Equation | undefined {
  const at = tokens.findIndex(isEqual)
  const [left, right] = [sideOf(tokens.slice(0, at)), sideOf(tokens.slice(at + 1))]
  return at > 0 && left && right && ![...comparisons(left), ...comparisons(right)].length ? { text, left, right } : undefined
}
const isEqual = (token: Token | undefined) => token?.text === '='
const comparisons = (tree: MathNode) =>
  tree.filter(node => node.type === 'OperatorNode' && ['larger', 'smaller', 'largerEq', 'smallerEq', 'equal', 'unequal', 'to'].includes((node as OperatorNode).fn as string))
const unknownsOf = (tree: MathNode): string[] =>
  tree.filter((node, path) => node.type === 'SymbolNode' && path !== 'fn' && isUnknown((node as SymbolNode).name)).map(node => (node as SymbolNode).name)

// ---- in a sentence

export interface FoundEquations {
  /** What holds together, as the sentence writes it. */
  readonly systems: readonly (readonly string[])[]
  readonly spans: readonly Span[]
}

const ASKS = new Set(['solve', 'find', 'determine', 'calculate', 'compute', 'what', 'which', 'value', 'values', 'solution', 'solutions', 'root', 'roots', 'equation', 'equations', 'system'])
const JOINS = new Set(['and', 'where', 'with', 'if', 'when', 'for', 'please'])

/**
 * The equations that a sentence asks to solve, if it can be read as nothing else. Throws CALCULATOR_UNREADABLE if that
 * would take the event loop too long.
 */
export function readEquations(sentence: string): FoundEquations | undefined {
  if (!sentence.includes('=')) return undefined
  if (sentence.length > MAX_SENTENCE) throw CalculatorErrors.UNREADABLE({ reason: `it is longer than ${MAX_SENTENCE} characters` })
  const tokens = tokenize(sentence, names)
  const signs = tokens.flatMap((token, i) => (isEqual(token) ? [i] : []))
  if (signs.length > MAX_EQUATIONS) throw CalculatorErrors.UNREADABLE({ reason: `it holds more than ${MAX_EQUATIONS} equations` })
  const found: { equation: Equation; from: number; to: number }[] = []
  for (const sign of signs) {
    const [from, to] = [reach(tokens, sign, -1), reach(tokens, sign, 1) + 1]
    const span = tokens.slice(from, to)
    if (torn(tokens, from, to) || span.filter(isEqual).length > 1) return undefined
    const equation = equationOf(span, sentence.slice(tokens[from]!.from, tokens[to - 1]!.to))
    if (!equation || span.every(token => !isUnknown(token.text))) return undefined
    found.push({ equation, from, to })
  }
  const words = tokens.filter((_, i) => !found.some(({ from, to }) => i >= from && i < to))
  const said = new Set(words.map(token => sentence.slice(token.from, token.to).toLowerCase()))
  const asked = [...said].every(word => JOINS.has(word) || /^[^\p{L}\d]$/u.test(word)) || [...said].some(word => ASKS.has(word))
  // `If a = 5, what is a + 1?` asks for something else.
  const more = words.some((token, i) => token.kind === 'operator' && [words[i - 1], words[i + 1]].some(each => each?.kind === 'name' && isUnknown(each.text)))
  const given = found.every(({ equation: { left, right } }) => {
    const types = new Set([left.type, right.type])
    return types.has('SymbolNode') && types.has('ConstantNode')
  })
  if (!asked || more || (given && !said.has('solve'))) return undefined
  const solve = tokens.flatMap(token => (token.kind === 'other' && token.text.toLowerCase() === 'solve' ? [{ from: token.from, to: token.to }] : []))
  return {
    systems: together(found.map(each => each.equation)).map(system => system.map(each => each.text)),
    spans: [...solve, ...found.map(({ from, to }) => ({ from: tokens[from]!.from, to: tokens[to - 1]!.to }))],
  }
}

/** The last token from an equals sign on in one direction that can belong to a side of it. */
function reach(tokens: readonly Token[], sign: number, step: 1 | -1): number {
  let [depth, at] = [0, sign]
  for (; Math.abs(at + step - sign) <= MAX_SPAN; at += step) {
    const token = tokens[at + step]
    if (!token || token.kind === 'other' || (token.kind === 'name' && ['to', 'in', 'inch'].includes(token.text)) || token.text === 'to') break
    if (token.kind === (step > 0 ? 'open' : 'close') && ++depth > MAX_DEPTH) break
    if (token.kind === (step > 0 ? 'close' : 'open') && --depth < 0) break
    // `a 2x`: the article. `x 2`: no product.
    const [before, after] = step > 0 ? [tokens[at], token] : [token, tokens[at]]
    if (at !== sign && before?.kind === 'name' && before.to < after!.from && (after!.kind === 'number' || /^[aAI]$/.test(before.text)) && after!.kind !== 'operator') break
  }
  return at
}

/** Does something that can't be read belong to it: digits that are no number, a unit? */
function torn(tokens: readonly Token[], from: number, to: number): boolean {
  const [before, after] = [tokens[from - 1], tokens[to]]
  if (isUnclear(before) || isUnclear(after) || isEqual(before) || isEqual(after)) return true
  const unit = (token: Token | undefined) => token?.kind === 'other' && /^\p{L}/u.test(token.text) && unitName(token.text) !== undefined
  return (tokens[to - 1]!.kind === 'number' && unit(after)) || after?.kind === 'number' || (before?.kind === 'operator' && before.text !== '!')
}

/** Equations that share unknowns hold together; but several in one and the same unknown are questions of their own. */
function together(equations: readonly Equation[]): Equation[][] {
  const groups: { unknowns: Set<string>; equations: Equation[] }[] = []
  for (const equation of equations) {
    const unknowns = new Set([...unknownsOf(equation.left), ...unknownsOf(equation.right)])
    const joined = groups.filter(group => [...group.unknowns].some(name => unknowns.has(name)))
    for (const group of joined) groups.splice(groups.indexOf(group), 1)
    groups.push({
      unknowns: new Set([...joined.flatMap(group => [...group.unknowns]), ...unknowns]),
      equations: [...joined.flatMap(group => group.equations), equation],
    })
  }
  return groups.flatMap(group => (group.unknowns.size === 1 ? group.equations.map(each => [each]) : [group.equations]))
}

// ---- solving

/** A quotient of polynomials. */
interface Ratio { readonly above: Polynomial; readonly below: Polynomial }
class Inexact { seen = false }

/** Solves equations that hold together. Takes as long as it takes: run it where it can be ended. */
export function solve(given: readonly string[]): Solved {
  try {
    if (given.length > MAX_EQUATIONS) throw new Error(`there are more than ${MAX_EQUATIONS} of them`)
    return { equations: given, ...answer(given.map(parse)) }
  } catch (error) {
    return { equations: given, error: error instanceof Error ? error.message : String(error) }
  }
}

function parse(text: string): Equation {
  if (text.length > MAX_EXPRESSION) throw new Error(`it is longer than ${MAX_EXPRESSION} characters`)
  // In a sentence a sign that stands apart is a dash.
  const tokens = tokenize(text.trim().replace(/^([-+])\s+/, '$1'), names)
  const odd = tokens.find(token => token.kind === 'other')
  if (odd) throw new Error(`"${odd.text}" is neither a number nor an operator, function or one-letter unknown`)
  if (tokens.filter(isEqual).length !== 1) throw new Error('it is not an equation: it needs one =')
  const equation = equationOf(tokens, text)
  if (!equation) throw new Error('it is not a complete equation')
  return equation
}

function answer(equations: readonly Equation[]): Pick<Solved, 'solutions' | 'text'> {
  const unknowns = [...new Set(equations.flatMap(({ left, right }) => [...unknownsOf(left), ...unknownsOf(right)]))].sort()
  if (unknowns.length === 0) throw new Error('it holds no unknown')
  if (unknowns.length > MAX_UNKNOWNS) throw new Error(`it has more than ${MAX_UNKNOWNS} unknowns`)
  const [inexact, below] = [new Inexact(), [] as Polynomial[]]
  const zeros = equations.map(({ left, right }) => {
    const difference = sum(ratioOf(left, unknowns, inexact, below), opposite(ratioOf(right, unknowns, inexact, below)))
    return difference.above
  })
  if (inexact.seen) guard(zeros, unknowns)
  const excluded = below.filter(each => !isConstant(each))
  const found = search(zeros, unknowns.map(() => undefined), { others: 0 })
  if (found === undefined) {
    const defined = excluded.length ? ' for which both sides are defined' : ''
    return { text: unknowns.length === 1 ? `every ${unknowns[0]}${defined} solves it` : 'there are infinitely many solutions' }
  }
  const valid = found.values.filter(values => {
    const exact = values.every(root => root.exact)
    return excluded.every(each => !vanishes(polynomial.evaluate(each, values.map(root => root.value)), exact))
  })
  for (const values of valid) confirm(equations, unknowns, values)
  const solutions = valid.map(values => Object.fromEntries(unknowns.map((name, i) => [name, shown(values[i]!, inexact.seen).value])))
  const words = valid.map(values => unknowns.map((name, i) => `${name} ${shown(values[i]!, inexact.seen).text}`).join(', '))
  const real = found.others > 0 ? 'real ' : ''
  if (words.length === 0) return { solutions, text: `there is no ${real}solution` }
  return { solutions, text: `${words.join(unknowns.length > 1 ? '; or ' : ' or ')}${real ? ' (no other real solution)' : ''}` }
}

const vanishes = (value: Fraction, exact: boolean) => (exact ? value.n === 0n : isTiny(value, 30))

/** Numbers such as pi are cut off, so what would hang on whether something is exactly zero is not told. */
function guard(zeros: readonly Polynomial[], unknowns: readonly string[]): void {
  const refuse = () => { throw new Error('it holds numbers that are no fractions, and is not of a kind that can be solved with them') }
  const [zero] = zeros
  if (zeros.length > 1 || unknowns.length > 1 || !zero?.length) return refuse()
  const [c = 0n, b = 0n, a = 0n, ...more] = toWhole(zero, 0)
  const most = [a, b, c].map(magnitude).reduce((left, right) => (left > right ? left : right))
  const small = (value: bigint, scale: bigint) => value !== 0n && isTiny(fraction(value, scale), 40)
  if (more.length || [a, b, c].some(each => small(each, most)) || (a !== 0n && isTiny(fraction(b * b - 4n * a * c, most * most), 40))) refuse()
}

/** The sides as quotients of polynomials. What holds no unknown may be anything that the engine computes. */
function ratioOf(node: MathNode, unknowns: readonly string[], inexact: Inexact, below: Polynomial[]): Ratio {
  const of = (each: MathNode | undefined) => ratioOf(each!, unknowns, inexact, below)
  const [left, right] = argsOf(node)
  const given = (above: Polynomial): Ratio => ({ above, below: constant(ONE) })
  if (node.type === 'ParenthesisNode') return of((node as unknown as { content: MathNode }).content)
  if (node.type === 'ConstantNode') return given(constant(fromDecimal(String((node as ConstantNode).value))))
  if (node.type === 'SymbolNode' && isUnknown((node as SymbolNode).name)) return given(polynomial.unknown(unknowns.indexOf((node as SymbolNode).name)))
  if (node.type === 'OperatorNode') {
    switch ((node as OperatorNode).fn as string) {
      case 'unaryPlus': return of(left)
      case 'unaryMinus': return opposite(of(left))
      case 'add': return sum(of(left), of(right))
      case 'subtract': return sum(of(left), opposite(of(right)))
      case 'multiply': return product(of(left), of(right))
      case 'divide': return product(of(left), reciprocal(of(right), below))
      case 'pow': {
        const [base, power] = [of(left), wholeOf(right!)]
        if (power !== undefined && Math.abs(power) <= MAX_POWER) return raised(power < 0 ? reciprocal(base, below) : base, Math.abs(power))
      }
    }
  }
  if (unknownsOf(node).length) {
    const what = node.type === 'FunctionNode' ? `"${(node as FunctionNode).fn.name}" of an unknown` : `"${(node as OperatorNode).op}" with an unknown in a way that is no polynomial`
    throw new Error(`it holds ${what}, and only polynomials and their quotients can be solved`)
  }
  const value = mathjs().bignumber(node.evaluate() as number) as unknown as Big
  const { result, exact } = decimal(value, true)
  inexact.seen ||= !exact
  return given(constant(fromDecimal(exact ? result : value.toString())))
}

function wholeOf(node: MathNode): number | undefined {
  if (unknownsOf(node).length) return undefined
  const value = Number(String(node.evaluate()))
  return Number.isInteger(value) ? value : undefined
}

const sum = (a: Ratio, b: Ratio): Ratio => {
  // A common denominator that is a number must not raise the degree.
  const scaled = ({ above, below }: Ratio) =>
    (isConstant(below) ? { above: polynomial.multiply(above, constant(inverse(constantOf(below)))), below: constant(ONE) } : { above, below })
  const [left, right] = [scaled(a), scaled(b)]
  const above = polynomial.add(polynomial.multiply(left.above, right.below), polynomial.multiply(right.above, left.below))
  return { above, below: polynomial.multiply(left.below, right.below) }
}
const opposite = ({ above, below }: Ratio): Ratio => ({ above: polynomial.negate(above), below })
const product = (a: Ratio, b: Ratio): Ratio => ({ above: polynomial.multiply(a.above, b.above), below: polynomial.multiply(a.below, b.below) })
const raised = ({ above, below }: Ratio, power: number): Ratio => (isConstant(above) && isConstant(below)
  ? { above: constant(powerOf(constantOf(above), power)), below: constant(powerOf(constantOf(below), power)) }
  : { above: polynomial.raise(above, power), below: polynomial.raise(below, power) })
const powerOf = (base: Fraction, power: number): Fraction => (power === 0 ? ONE : times(base, powerOf(base, power - 1)))
function reciprocal({ above, below }: Ratio, seen: Polynomial[]): Ratio {
  if (above.length === 0) throw new Error('it divides by zero')
  seen.push(above, below)
  return { above: below, below: above }
}

type Values = readonly (Root | undefined)[]
interface Found { readonly values: readonly (readonly Root[])[]; readonly others: number }

/**
 * All solutions; undefined if there are infinitely many. Unknowns that an equation gives in terms of others are put
 * into the rest, which for linear ones is Gauss's elimination; what remains in one unknown has its roots taken.
 */
function search(zeros: readonly Polynomial[], known: Values, seen: { others: number }): Found | undefined {
  const open = zeros.filter(each => each.length > 0)
  if (open.some(isConstant)) return { values: [], others: seen.others }
  for (const zero of open) {
    for (const place of placesOf(zero)) {
      const value = isolate(zero, place)
      if (!value) continue
      // Its own value follows from those of the others: what stands there meanwhile is not read.
      const others = open.filter(each => each !== zero).map(each => substitute(each, place, value))
      const rest = search(others, known.with(place, { value: ONE, exact: true }), seen)
      const own = (roots: readonly Root[]): Root =>
        ({ value: polynomial.evaluate(value, roots.map(root => root.value)), exact: placesOf(value).every(other => roots[other]!.exact) })
      return rest && { ...rest, values: rest.values.map(roots => roots.with(place, own(roots))) }
    }
  }
  if (open.length === 0) return known.every(Boolean) ? { values: [known as Root[]], others: seen.others } : undefined
  const place = open.map(placesOf).find(places => places.length === 1)?.[0]
  if (place === undefined) throw new Error('its unknowns are not linear, and do not come apart')
  const [own, rest] = [open.filter(each => placesOf(each).join() === String(place)), open.filter(each => placesOf(each).join() !== String(place))]
  const { roots, others } = rootsOf(own.map(each => toWhole(each, place)).reduce<Whole>((a, b) => polynomial.common(a, b), []))
  const values: (readonly Root[])[] = []
  for (const root of roots) {
    if (!root.exact && rest.some(each => placesOf(each).includes(place))) throw new Error('its unknowns are not linear, and their values no fractions')
    const found = search(rest.map(each => substitute(each, place, constant(root.value))), known.with(place, root), seen)
    if (!found) return undefined
    values.push(...found.values)
    seen.others = Math.max(seen.others, found.others)
    if (values.length > MAX_SOLUTIONS) throw new Error(`it has more than ${MAX_SOLUTIONS} solutions`)
  }
  return { values, others: Math.max(seen.others, others) }
}

/** Lets the engine compute both sides with what was found: an answer that was not put to the test is not shown. */
function confirm(equations: readonly Equation[], unknowns: readonly string[], values: readonly Root[]): void {
  const math = mathjs()
  const scope = () => new Map(unknowns.map((name, i) => {
    const { n, d } = values[i]!.value
    return [name, math.divide(math.bignumber(String(n)), math.bignumber(String(d)))]
  }))
  for (const { left, right } of equations) {
    const [a, b] = [left, right].map(side => math.bignumber(side.evaluate(scope()) as number))
    const scale = math.max(math.abs(a!), math.abs(b!), math.bignumber(1))
    const off = math.divide(math.abs(math.subtract(a!, b!)), scale)
    if (!math.smallerEq(off, math.bignumber('1e-12'))) throw new Error('what was found did not stand the test of being put in')
  }
}

/** A whole number and a decimal of a few places as they are, another fraction with what it is about, the rest cut off. */
function shown({ value, exact }: Root, inexact: boolean): { value: string; text: string } {
  const big = () => mathjs().divide(mathjs().bignumber(String(value.n)), mathjs().bignumber(String(value.d)))
  const about = () => decimal(big() as unknown as Big, false, false).result
  if (!exact || inexact) return { value: about(), text: `≈ ${about()}` }
  if (value.d === 1n) return { value: String(value.n), text: `= ${value.n}` }
  if (10n ** 12n % value.d === 0n) { const text = toDecimal(value, 12); return { value: text, text: `= ${text}` } }
  const text = `${value.n}/${value.d}`
  return { value: text, text: `= ${text} ≈ ${about()}` }
}
