import { createRequire } from 'node:module'
import type * as Mathjs from 'mathjs'
import type { ConstantNode, FunctionNode, MathNode, OperatorNode, SymbolNode } from 'mathjs'
import { CalculatorErrors } from '#contracts/agent-pack-core'
import { POSTFIX, isUnclear, render, tokenize, type Names, type Token } from './tokens.ts'

export interface Outcome {
  /** As it was asked. */
  readonly expression: string
  readonly result?: string
  /** False if digits were cut off. */
  readonly exact?: boolean
  /** Is `log` in it that of the base e? */
  readonly natural?: boolean
  /** Why there is no result. */
  readonly error?: string
}

export const MAX_EXPRESSION = 2_000
export const MAX_TOKENS = 400
export const MAX_DEPTH = 50
/** Characters of a sentence that are looked at. It happens on the event loop, which is why this and what follows are small. */
export const MAX_SENTENCE = 4_000
/** Tokens of an expression that is looked for. */
export const MAX_SPAN = 120
/** Units and functions in it: what units make of each other takes the square of their number. */
const MAX_NAMES = 12
/** Tokens that the parser may get for one sentence, and what each time costs besides, in tokens. */
const PARSE_BUDGET = 800
const PARSE_COST = 10
/** Tokens that may be passed over for one sentence in search of an expression's end. */
const SCAN_BUDGET = 40_000
const DIGITS = 64

export const FUNCTIONS: ReadonlySet<string> = new Set([
  'abs', 'sqrt', 'cbrt', 'nthRoot', 'round', 'floor', 'ceil', 'fix', 'sign', 'exp', 'log', 'log2', 'log10', 'sin', 'cos', 'tan', 'asin', 'acos', 'atan', 'atan2', 'sinh', 'cosh', 'tanh',
  'min', 'max', 'sum', 'mean', 'median', 'std', 'variance', 'gcd', 'lcm', 'mod', 'pow', 'hypot', 'factorial', 'combinations', 'permutations',
])
/** Of these, what keeps or changes a unit in a way that a trial with ones shows. */
const UNIT_FUNCTIONS = new Set(['abs', 'sqrt', 'cbrt', 'min', 'max', 'sum', 'mean', 'pow', 'hypot'])
const OPERATORS = new Set(['add', 'subtract', 'multiply', 'divide', 'pow', 'mod', 'unaryMinus', 'unaryPlus', 'factorial', 'to', 'larger', 'smaller', 'largerEq', 'smallerEq', 'equal', 'unequal'])
export const CONSTANTS: Readonly<Record<string, string>> = { pi: 'pi', 'π': 'pi', e: 'e', tau: 'tau' }
const PREFIXES = new Set([
  '', 'k', 'm', 'c', 'd', 'h', 'M', 'G', 'T', 'P', 'n', 'u', 'µ', 'Ki', 'Mi', 'Gi', 'Ti', 'kilo', 'milli', 'centi', 'deci', 'hecto', 'mega',
  'giga', 'tera', 'peta', 'nano', 'micro', 'kibi', 'mebi', 'gibi', 'tebi',
])
/** Units by their letters, words by their use. */
const PROSE = new Set(['us', 'am', 'as', 'pm', 'point', 'link', 'links', 'chain', 'chains', 'drop', 'stick', 'sticks'])
/** What only the program may call. The tree is checked against the lists above before it runs, so this is the second lock. */
const DISABLED = ['import', 'createUnit', 'evaluate', 'parse', 'compile', 'parser', 'simplify', 'derivative', 'rationalize', 'resolve', 'reviver']

type Engine = Mathjs.MathJsInstance & { readonly Unit: typeof Mathjs.Unit & { isValuelessUnit(name: string): boolean } }
interface UnitParts { readonly units: readonly { readonly prefix: { readonly name: string }; readonly unit: { readonly name: string } }[] }
export interface Big {
  readonly e: number
  isInteger(): boolean
  isFinite(): boolean
  isZero(): boolean
  precision(): number
  abs(): Big
  lessThan(other: string): boolean
  toSignificantDigits(digits: number): Big
  toFixed(): string
  toString(): string
}

let engine: Engine | undefined
let parseTree: Engine['parse']

/** mathjs of one's own, with 64 digits. The bundled build is the same code in one file: it loads in 50 ms, the modules take 350. */
export function mathjs(): Engine {
  if (engine) return engine
  const shared = createRequire(import.meta.url)('mathjs/lib/browser/math.js') as { create(): Engine }
  engine = shared.create()
  // Not as an argument of create(): only a change of config makes pi and e anew, as big numbers.
  engine.config({ number: 'BigNumber', precision: DIGITS })
  parseTree = engine.parse
  const refuse = () => { throw new Error('this function is not available') }
  engine.import(Object.fromEntries(DISABLED.map(name => [name, refuse])), { override: true })
  return engine
}

/** Loads the engine, so that the first expression need not wait for it. */
export const warmUp = (): void => void mathjs()

const names: Names = {
  resolve(name, call) {
    if (call && name === 'ln') return 'log'
    if (call) return FUNCTIONS.has(name) ? name : FUNCTIONS.has(name.toLowerCase()) ? name.toLowerCase() : unitName(name)
    return Object.hasOwn(CONSTANTS, name) ? CONSTANTS[name] : unitName(name)
  },
}

const unitNames = new Map<string, string | undefined>()
export function unitName(name: string): string | undefined {
  if (unitNames.has(name)) return unitNames.get(name)
  if (unitNames.size >= 1_000) unitNames.clear()
  const found = findUnit(name)
  unitNames.set(name, found)
  return found
}

function findUnit(name: string): string | undefined {
  for (const each of name.length > 3 ? [name, name.toLowerCase()] : [name]) {
    if (PROSE.has(each.toLowerCase()) || !mathjs().Unit.isValuelessUnit(each)) continue
    const { units } = mathjs().unit(each) as unknown as UnitParts
    if (units.length === 1 && PREFIXES.has(units[0]!.prefix.name)) return each
  }
  return undefined
}

/** The tree of an expression that holds nothing but what is allowed, and names that are `known`; undefined if it is none. */
export function treeOf(text: string, known = (name: string) => unitName(name) !== undefined): MathNode | undefined {
  try {
    mathjs()
    const tree = parseTree(text)
    let allowed = true
    tree.traverse((node, path, parent) => { allowed &&= isAllowed(node, path, parent, known) })
    return allowed ? tree : undefined
  } catch { return undefined }
}

function isAllowed(node: MathNode, path: string, parent: MathNode | null, known: (name: string) => boolean): boolean {
  switch (node.type) {
    case 'ParenthesisNode': return true
    case 'ConstantNode': return typeof (node as ConstantNode).value !== 'string'
    case 'OperatorNode': return OPERATORS.has((node as OperatorNode).fn as string)
    case 'FunctionNode': return FUNCTIONS.has((node as FunctionNode).fn.name)
    case 'SymbolNode': {
      const { name } = node as SymbolNode
      if (parent?.type === 'FunctionNode' && path === 'fn') return FUNCTIONS.has(name)
      return Object.values(CONSTANTS).includes(name) || known(name)
    }
    default: return false
  }
}

export const argsOf = (node: MathNode): readonly MathNode[] => (node as unknown as { args?: readonly MathNode[] }).args ?? []
const holdsValue = (node: MathNode): boolean =>
  node.filter(each => each.type === 'ConstantNode' || each.type === 'FunctionNode' || (each.type === 'SymbolNode' && Object.values(CONSTANTS).includes((each as SymbolNode).name))).length > 0

/** Is there anything to compute? `5 km`, `-3`, `7%` and `10 km/h` are values as they stand. */
function computes(tree: MathNode): boolean {
  return tree.filter(node => {
    if (node.type === 'FunctionNode') return true
    if (node.type !== 'OperatorNode') return false
    const { fn, implicit, isPercentage } = node as OperatorNode & { readonly isPercentage?: boolean; readonly fn: string }
    if (fn === 'factorial') return true
    const [left, right] = argsOf(node)
    if (!left || !right || implicit || isPercentage) return false
    return fn === 'to' ? holdsValue(left) : holdsValue(left) && holdsValue(right)
  }).length > 0
}

/** Do the units fit? Tried with every number a plain one, not a big one, which takes no time, whatever the expression would take. */
function unitsFit(tree: MathNode): boolean {
  const { ConstantNode: Constant } = mathjs() as unknown as { ConstantNode: new (value: number) => MathNode }
  const trial = tree.transform((node, path, parent) => {
    if (node.type === 'FunctionNode' && !UNIT_FUNCTIONS.has((node as FunctionNode).fn.name)) return new Constant(1)
    if (node.type !== 'ConstantNode') return node
    const exponent = parent?.type === 'OperatorNode' && (parent as OperatorNode).fn === 'pow' && path === 'args[1]'
    return exponent && Math.abs(Number((node as ConstantNode).value)) <= 10 ? node : new Constant(1)
  })
  try { trial.evaluate(); return true } catch { return false }
}

/** Without one of these there is no value, and the engine need not even be loaded. */
const VALUE = /[\dπ(]|\b(?:pi|e|tau)\b/i

export interface Findings {
  /** As the sentence writes them, in order. */
  readonly expressions: string[]
  /** Does the sentence seem to ask for a computation besides? */
  readonly rest: boolean
}

/** The expressions of a sentence that really compute something. Throws as readSentence does. */
export const findExpressions = (sentence: string, most = Infinity): string[] => readSentence(sentence, most).expressions

/**
 * What of a sentence really computes something, `most` expressions of it, and whether that is all. Throws
 * CALCULATOR_UNREADABLE if that would take the event loop too long.
 */
export function readSentence(sentence: string, most = Infinity): Findings {
  if (!VALUE.test(sentence)) return { expressions: [], rest: false }
  if (sentence.length > MAX_SENTENCE) throw CalculatorErrors.UNREADABLE({ reason: `it is longer than ${MAX_SENTENCE} characters` })
  const tokens = tokenize(sentence, names)
  const found: Span[] = []
  let [parsing, scanning] = [PARSE_BUDGET, SCAN_BUDGET]
  for (let start = 0; start < tokens.length && found.length < most; start++) {
    if (!canStart(tokens, start)) continue
    const { ends, seen } = endsOf(tokens, start)
    if ((scanning -= seen) < 0) throw CalculatorErrors.UNREADABLE({ reason: 'too much in it could be one' })
    for (const end of ends.reverse()) {
      if ((parsing -= end - start + PARSE_COST) < 0) throw CalculatorErrors.UNREADABLE({ reason: 'too much in it could be one' })
      const tree = treeOf(render(tokens.slice(start, end)))
      if (!tree || !computes(tree) || !unitsFit(tree)) continue
      found.push({ from: tokens[start]!.from, to: tokens[end - 1]!.to })
      start = end - 1
      break
    }
  }
  return { expressions: found.map(({ from, to }) => sentence.slice(from, to)), rest: found.length > 0 && asksMore(sentence, tokens, found) }
}

export interface Span { readonly from: number; readonly to: number }
const COMPUTES = /\b(?:plus|minus|(?:divided|multiplied) by|squared|cubed|(?:square|cube) root|logarithm|factorial|derivative|integral|solve)\b|\bconvert\b[^.;?]*\d/i

/** Is there, besides what was found, an operator beside a number, or a word that asks to compute? */
function asksMore(sentence: string, tokens: readonly Token[], found: readonly Span[]): boolean {
  const left = tokens.map(token => (found.some(({ from, to }) => token.from >= from && token.to <= to) ? undefined : token))
  const operand = (token: Token | undefined) => token?.kind === 'number' || token?.kind === 'open' || token?.kind === 'close' || isUnclear(token)
  const worded = [...found, { from: sentence.length, to: 0 }].some(({ from }, i) => COMPUTES.test(sentence.slice(found[i - 1]?.to ?? 0, from)))
  const joins = (before: Token | undefined, after: Token | undefined) =>
    before !== undefined && after !== undefined && (operand(before) || operand(after))
  const percents = left.some((token, i) => token?.text === '%' && left[i - 1]?.kind === 'number')
  return worded || percents || left.some((token, i) => binary(token) && joins(left[i - 1], left[i + 1]))
}

const binary = (token: Token | undefined) => token?.kind === 'operator' && !['to', '=', ...POSTFIX].includes(token.text)

/** Words that make something else of what stands behind them, or before them: of `twice 3 + 4` and `2 + 3 squared` no part must be computed alone. */
const CHANGES = /^(?:negative|half|double|twice|thrice|triple|quadruple|square|cube|root|√|increase|decrease|raise|reduce|discount)$/i
const CHANGED = /^(?:squared|cubed|doubled|tripled|halved|hundred|thousand|[mb]illion|trillion|dozen|of|off|over|choose|(?:in|de)creased|raised|reduced)$/i
const MONTH = /^(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)$/i
/** An operator in words, beside something that is no operand. */
const isWorded = (token: Token | undefined) => token?.kind === 'other' && /^[-+*/]$/.test(token.text) && token.to - token.from > 1
const isWord = (token: Token | undefined) => token !== undefined && /^\p{L}/u.test(token.text)

/** Does what stands before it make something else of it? */
function isChanged(tokens: readonly Token[], start: number): boolean {
  const [token, before, second, third] = [tokens[start]!, tokens[start - 1], tokens[start - 2], tokens[start - 3]]
  if (!before) return false
  if (before.kind === 'other' && (CHANGES.test(before.text) || FUNCTIONS.has(before.text.toLowerCase()))) return true
  // `minus 5 + 3`, `2 to the 3 + 1`, `f(2) + 1`
  if (isWorded(before)) return true
  if (/^the$/i.test(before.text) && second?.text === 'to') return true
  if (token.kind === 'open' && before.kind === 'other' && isWord(before) && before.to === token.from) return true
  if (before.kind === 'open' && second?.kind === 'other' && isWord(second) && second.to === before.from) return true
  if (token.kind !== 'number') return false
  // `5 feet 3 inches`, `31 January 2026 plus`, `January 31, 2026 plus`
  if ((before.kind === 'name' && second?.kind === 'number') || MONTH.test(before.text)) return true
  return before.text === ',' && second?.kind === 'number' && MONTH.test(third?.text ?? '')
}

// What an operator ties to something unknown is a part: the 2*3 of `x + 2*3` must not be computed alone.
function canStart(tokens: readonly Token[], start: number): boolean {
  const [before, token, after] = [tokens[start - 1], tokens[start]!, tokens[start + 1]]
  if (before?.text === '=' || before?.text === 'of' || before?.kind === 'comma' || binary(before)) return false
  if (before?.kind === 'number' && token.kind === 'number') return false
  if (before?.kind === 'open' && tokens[start - 2]?.kind === 'name' && tokens[start - 2]!.to === before.from) return false
  if (isUnclear(before) && (before!.to === token.from || (token.kind === 'name' && !FUNCTIONS.has(token.text)))) return false
  if (isChanged(tokens, start)) return false
  if (token.text === '-' || token.text === '+') return after?.from === token.to && before?.to !== token.from
  return token.kind === 'number' || token.kind === 'open' || (token.kind === 'name' && token.text !== 'of')
}

/** Where an expression that starts there may end, the nearest first, and how many tokens were seen for that. */
function endsOf(tokens: readonly Token[], start: number): { readonly ends: number[]; readonly seen: number } {
  const ends: number[] = []
  let [depth, end, named, works] = [0, start + 1, 0, false]
  for (; end <= Math.min(tokens.length, start + MAX_SPAN); end++) {
    const [last, after] = [tokens[end - 1]!, tokens[end]]
    works ||= last.kind === 'operator' || last.text === 'of' || FUNCTIONS.has(last.text)
    if (last.kind === 'other' || (last.kind === 'name' && ++named > MAX_NAMES)) break
    if (last.kind === 'open' && ++depth > MAX_DEPTH) break
    if (last.kind === 'close' && --depth < 0) break
    const open = last.kind === 'comma' || (last.kind === 'operator' && !POSTFIX.has(last.text))
    // `1 000`, `5 + 3 km`, `(2+3)3,5`, and all of what parentheses hold, which belongs to what they belong to.
    const tied = (last.kind === 'number' && (after?.kind === 'number' || after?.kind === 'name')) || after?.kind === 'comma' ||
      isWorded(after) || (after?.kind === 'other' && CHANGED.test(after.text)) || (isUnclear(after) && after!.from === last.to) ||
      (tokens[start - 1]?.kind === 'open' && after?.kind === 'close')
    const equals = after?.text === '=' && tokens[end + 1] !== undefined && tokens[end + 1]!.kind !== 'other'
    const goesOn = tied || binary(after) || POSTFIX.has(after?.text ?? '') || equals
    if (works && depth === 0 && end > start + 1 && !open && !goesOn) ends.push(end)
  }
  return { ends, seen: end - start }
}

/** Computes one expression. Takes as long as it takes: run it where it can be ended. */
export function compute(expression: string): Outcome {
  const fail = (error: string): Outcome => ({ expression, error })
  if (expression.length > MAX_EXPRESSION) return fail(`it is longer than ${MAX_EXPRESSION} characters`)
  const tokens = tokenize(expression, names)
  const odd = tokens.find(token => token.kind === 'other')
  if (odd) return fail(`"${odd.text}" is neither a number nor an operator, unit or function that is known here`)
  const tree = tokens.length > 0 && tokens.length <= MAX_TOKENS ? treeOf(render(tokens)) : undefined
  if (!tree) return fail('it is not a complete expression')
  try {
    return { expression, ...formatted(tree.evaluate(), holdsFunction(tree)), ...(holdsNatural(tree) && { natural: true }) }
  } catch (error) {
    return fail(unitsFit(tree) ? (error instanceof Error ? error.message : String(error)) : 'its units do not fit together')
  }
}

const holdsNatural = (tree: MathNode) =>
  tree.filter(node => node.type === 'FunctionNode' && (node as FunctionNode).fn.name === 'log' && argsOf(node).length === 1).length > 0
const holdsFunction = (tree: MathNode) => tree.filter(node => node.type === 'FunctionNode').length > 0

function formatted(value: unknown, snap: boolean): { result: string; exact: boolean } {
  const math = mathjs()
  if (typeof value === 'boolean') return { result: String(value), exact: true }
  let exact = true
  const each = (number: unknown) => {
    // What the engine has as a plain number has 15 good digits.
    const text = typeof number === 'number'
      ? decimal(math.bignumber(number.toPrecision(15)) as unknown as Big, snap, Number.isInteger(number))
      : decimal(number as Big, snap)
    exact &&= text.exact
    return text.result
  }
  if (math.isUnit(value)) return { result: math.format(value, each as (item: unknown) => string).replaceAll(' / ', '/'), exact }
  if (math.isComplex(value)) {
    const [re, im] = [each(value.re), each(Math.abs(value.im))]
    const imaginary = im === '1' ? 'i' : `${im}i`
    return { result: im === '0' ? re : re === '0' ? `${value.im < 0 ? '-' : ''}${imaginary}` : `${re} ${value.im < 0 ? '-' : '+'} ${imaginary}`, exact }
  }
  if (math.isBigNumber(value) || typeof value === 'number') { const result = each(value); return { result, exact } }
  throw new Error('its result is not a number')
}

/** In full where it has an end within 34 digits, else to 15 digits. The last of the 64 are where rounding shows. */
export function decimal(value: Big, snap: boolean, sure = true): { result: string; exact: boolean } {
  if (!value.isFinite()) throw new Error('its result is not a finite number')
  if (snap && value.abs().lessThan('1e-50')) return { result: '0', exact: true }
  const whole = value.isInteger() && value.e < DIGITS - 1
  const clean = value.toSignificantDigits(50)
  const exact = sure && (whole || clean.precision() <= 34)
  const shown = whole && exact ? value : exact ? clean : value.toSignificantDigits(15)
  return { result: shown.isZero() ? '0' : shown.e >= -9 && shown.e < (exact ? DIGITS : 21) ? shown.toFixed() : shown.toString(), exact }
}
