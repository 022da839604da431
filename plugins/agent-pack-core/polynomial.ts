import { ONE, ZERO, fraction, gcd, magnitude, minus, plus, times, type Fraction } from './fraction.ts'

export const MAX_DEGREE = 12
const MAX_TERMS = 300

interface Term { readonly powers: readonly number[]; readonly factor: Fraction }
/** In several unknowns, by their place. No term is zero, and none occurs twice. */
export type Polynomial = readonly Term[]

export const degreeOf = (term: Term): number => term.powers.reduce((sum, power) => sum + power, 0)
export const constant = (value: Fraction): Polynomial => (value.n === 0n ? [] : [{ powers: [], factor: value }])
export const unknown = (place: number): Polynomial => [{ powers: [...Array<number>(place).fill(0), 1], factor: ONE }]
export const isConstant = (value: Polynomial): boolean => value.every(term => degreeOf(term) === 0)
export const constantOf = (value: Polynomial): Fraction => value.find(term => degreeOf(term) === 0)?.factor ?? ZERO
export const placesOf = (value: Polynomial): number[] =>
  [...new Set(value.flatMap(({ powers }) => powers.flatMap((power, place) => (power > 0 ? [place] : []))))]

function collect(terms: Iterable<Term>): Polynomial {
  const sums = new Map<string, Term>()
  for (const { powers, factor } of terms) {
    const trimmed = powers.slice(0, powers.findLastIndex(power => power > 0) + 1)
    if (degreeOf({ powers, factor }) > MAX_DEGREE) throw new Error(`only equations up to degree ${MAX_DEGREE} can be solved`)
    const key = trimmed.join()
    sums.set(key, { powers: trimmed, factor: plus(sums.get(key)?.factor ?? ZERO, factor) })
    if (sums.size > MAX_TERMS) throw new Error('it has too many terms')
  }
  return [...sums.values()].filter(term => term.factor.n !== 0n)
}

export const add = (a: Polynomial, b: Polynomial): Polynomial => collect([...a, ...b])
export const negate = (a: Polynomial): Polynomial => a.map(({ powers, factor }) => ({ powers, factor: minus(factor) }))
export function multiply(a: Polynomial, b: Polynomial): Polynomial {
  const products = function* (): Generator<Term> {
    for (const left of a) for (const right of b) {
      const length = Math.max(left.powers.length, right.powers.length)
      const powers = Array.from({ length }, (_, i) => (left.powers[i] ?? 0) + (right.powers[i] ?? 0))
      yield { powers, factor: times(left.factor, right.factor) }
    }
  }
  return collect(products())
}
export const raise = (base: Polynomial, power: number): Polynomial => (power === 0 ? constant(ONE) : multiply(raise(base, power - 1), base))

/** With a polynomial in the place of an unknown. */
export function substitute(into: Polynomial, place: number, value: Polynomial): Polynomial {
  const powers: Polynomial[] = [constant(ONE)]
  return into.reduce<Polynomial>((sum, term) => {
    const power = term.powers[place] ?? 0
    while (powers.length <= power) powers.push(multiply(powers.at(-1)!, value))
    const rest = [{ ...term, powers: term.powers.map((each, i) => (i === place ? 0 : each)) }]
    return add(sum, power === 0 ? rest : multiply(rest, powers[power]!))
  }, [])
}

/** `place = …`, of an equation `value = 0` in which that unknown has a number as its only factor. */
export function isolate(value: Polynomial, place: number): Polynomial | undefined {
  const [held, ...more] = value.filter(term => (term.powers[place] ?? 0) > 0)
  if (!held || more.length || degreeOf(held) !== 1) return undefined
  const scale = constant(fraction(-held.factor.d, held.factor.n))
  return multiply(value.filter(term => term !== held), scale)
}

/** In one unknown, its lowest power first; the factors have no common divisor. */
export type Whole = readonly bigint[]

const whole = (factors: readonly bigint[]): Whole => {
  const trimmed = factors.slice(0, factors.findLastIndex(each => each !== 0n) + 1)
  const shared = trimmed.reduce(gcd, 0n)
  return trimmed.map(each => each / shared)
}

export function toWhole(value: Polynomial, place: number): Whole {
  const scale = value.reduce((lcm, { factor }) => (lcm / gcd(lcm, factor.d)) * factor.d, 1n)
  const factors = Array<bigint>(Math.max(0, ...value.map(degreeOf)) + 1).fill(0n)
  for (const { powers, factor } of value) factors[powers[place] ?? 0] = (factor.n * scale) / factor.d
  return whole(factors)
}

/** Divides, with `a` made larger by something positive so that all stays whole: the signs of the remainder are right. */
function divide(a: Whole, b: Whole): { readonly quotient: Whole; readonly remainder: Whole } {
  const lead = b.at(-1)!
  let rest = [...a]
  let quotient: bigint[] = []
  for (let shift = a.length - b.length; shift >= 0; shift--) {
    const factor = lead < 0n ? -(rest[b.length - 1 + shift] ?? 0n) : rest[b.length - 1 + shift] ?? 0n
    rest = rest.map((each, i) => each * magnitude(lead) - factor * (b[i - shift] ?? 0n))
    quotient = quotient.map(each => each * magnitude(lead))
    quotient[shift] = factor
  }
  return { quotient: whole(Array.from(quotient, each => each ?? 0n)), remainder: whole(rest) }
}

const derivative = (p: Whole): Whole => whole(p.slice(1).map((each, i) => each * BigInt(i + 1)))

function sturm(p: Whole): Whole[] {
  const chain = [p, derivative(p)]
  while (chain.at(-1)!.length > 1) {
    const { remainder } = divide(chain.at(-2)!, chain.at(-1)!)
    if (remainder.length === 0) break
    chain.push(remainder.map(each => -each))
  }
  return chain
}

/** What both divide by. */
export function common(a: Whole, b: Whole): Whole {
  let [left, right] = [a, b]
  while (right.length > 0) [left, right] = [right, divide(left, right).remainder]
  return left
}

/** The sign of p(n / 2^bits). */
function signAt(p: Whole, n: bigint, bits: bigint): number {
  let [sum, scale] = [0n, 0n]
  for (let i = p.length - 1; i >= 0; i--, scale += bits) sum = sum * n + (p[i]! << scale)
  return sum > 0n ? 1 : sum < 0n ? -1 : 0
}
const valueAt = (p: Whole, { n, d }: Fraction): bigint => p.reduceRight((sum, each, i) => sum * n + each * d ** BigInt(p.length - 1 - i), 0n)

export interface Root { readonly value: Fraction; readonly exact: boolean }
const PRECISION = 230n
const bitsOf = (value: bigint): bigint => BigInt(magnitude(value).toString(2).length)

/**
 * All real roots, each once, in order, and how many others there are. Counted by Sturm's theorem, so that none is missed;
 * rational ones are exact.
 */
export function rootsOf(given: Whole): { readonly roots: Root[]; readonly others: number } {
  if (given.length < 2) return { roots: [], others: 0 }
  const shared = sturm(given).at(-1)!
  const p = shared.length > 1 ? divide(given, shared).quotient : given
  const chain = sturm(p)
  const lead = p.at(-1)!
  const changes = (n: bigint, bits: bigint) => {
    const signs = chain.map(each => signAt(each, n, bits)).filter(Boolean)
    return signs.filter((sign, i) => i > 0 && sign !== signs[i - 1]).length
  }
  const roots: Root[] = []
  const bound = 1n << (p.reduce((most, each) => (bitsOf(each) > most ? bitsOf(each) : most), 0n) + 1n)
  // Each interval is open below and closed above; its ends are in units of 2^-bits.
  const search = (low: bigint, high: bigint, bits: bigint, below: number, above: number): void => {
    if (below === above) return
    if (below - above === 1) { roots.push(refine(low, high, bits)); return }
    const middle = low + high
    const between = changes(middle, bits + 1n)
    search(low * 2n, middle, bits + 1n, below, between)
    search(middle, high * 2n, bits + 1n, between, above)
  }
  const refine = (from: bigint, to: bigint, at: bigint): Root => {
    let [low, high, bits] = [from, to, at]
    const above = signAt(p, high, bits)
    if (above === 0) return { value: fraction(high, 1n << bits), exact: true }
    while (high - low > 1n || bits < PRECISION + bitsOf(lead)) {
      if (high - low === 1n) [low, high, bits] = [low * 2n, high * 2n, bits + 1n]
      const middle = (low + high) >> 1n
      const sign = signAt(p, middle, bits)
      if (sign === 0) return { value: fraction(middle, 1n << bits), exact: true }
      if (sign === above) high = middle
      else low = middle
    }
    // The denominator of a rational root divides the leading factor.
    const near = (2n * high * magnitude(lead) + (1n << bits)) >> (bits + 1n)
    const candidate = fraction(near, magnitude(lead))
    const scaled = candidate.n << bits
    const within = scaled > low * candidate.d && scaled <= high * candidate.d
    return within && valueAt(p, candidate) === 0n ? { value: candidate, exact: true } : { value: fraction(high, 1n << bits), exact: false }
  }
  search(-bound, bound, 0n, changes(-bound, 0n), changes(bound, 0n))
  return { roots, others: p.length - 1 - roots.length }
}

export const evaluate = (value: Polynomial, at: readonly (Fraction | undefined)[]): Fraction =>
  constantOf(at.reduce<Polynomial>((left, known, place) => (known ? substitute(left, place, constant(known)) : left), value))
