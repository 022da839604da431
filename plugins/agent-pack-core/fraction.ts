/** An exact number: lowest terms, the sign above. */
export interface Fraction { readonly n: bigint; readonly d: bigint }

/** Of what is computed with; beyond it the work is given up, in words. */
const MAX_BITS = 20_000n
const LIMIT = 1n << MAX_BITS

export const magnitude = (value: bigint): bigint => (value < 0n ? -value : value)
export function gcd(a: bigint, b: bigint): bigint {
  let [left, right] = [magnitude(a), magnitude(b)]
  while (right) [left, right] = [right, left % right]
  return left
}

export function fraction(n: bigint, d = 1n): Fraction {
  if (d === 0n) throw new Error('it divides by zero')
  const shared = (d < 0n ? -1n : 1n) * gcd(n, d)
  const made = { n: n / shared, d: d / shared }
  if (magnitude(made.n) > LIMIT || made.d > LIMIT) throw new Error('its numbers grow too large')
  return made
}

export const [ZERO, ONE] = [fraction(0n), fraction(1n)]
export const plus = (a: Fraction, b: Fraction): Fraction => fraction(a.n * b.d + b.n * a.d, a.d * b.d)
export const times = (a: Fraction, b: Fraction): Fraction => fraction(a.n * b.n, a.d * b.d)
export const minus = (a: Fraction): Fraction => ({ n: -a.n, d: a.d })
export const inverse = (a: Fraction): Fraction => fraction(a.d, a.n)

/** Of a decimal number as a program writes it: `-12.5e-3`. */
export function fromDecimal(text: string): Fraction {
  const [digits = '', exponent = '0'] = text.toLowerCase().split('e')
  const [whole = '0', part = ''] = digits.split('.')
  const scale = Number(exponent) - part.length
  if (!Number.isSafeInteger(scale) || Math.abs(scale) > 5_000) throw new Error('its numbers are too large')
  const power = 10n ** BigInt(Math.abs(scale))
  return scale < 0 ? fraction(BigInt(whole + part), power) : fraction(BigInt(whole + part) * power)
}

/** Is it less than 10^-`digits`, whatever its sign? */
export const isTiny = (value: Fraction, digits: number): boolean => magnitude(value.n) * 10n ** BigInt(digits) < value.d

/** Cut off to `digits` decimal places. */
export function toDecimal({ n, d }: Fraction, digits: number): string {
  const scaled = (magnitude(n) * 10n ** BigInt(digits)) / d
  const text = String(scaled).padStart(digits + 1, '0')
  const part = text.slice(-digits).replace(/0+$/, '')
  return `${n < 0n ? '-' : ''}${text.slice(0, -digits)}${part ? `.${part}` : ''}`
}
