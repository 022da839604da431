/** `other` is what no expression can hold: a word of prose, a quotation mark, a dash between sentences. */
export type TokenKind = 'number' | 'name' | 'operator' | 'open' | 'close' | 'comma' | 'other'

export interface Token {
  readonly kind: TokenKind
  /** As the expression engine writes it. */
  readonly text: string
  /** Where it stands in the sentence. */
  readonly from: number
  readonly to: number
}

/** Which names the expression engine knows. */
export interface Names {
  /** What it calls this, or nothing. `call`: an opening parenthesis follows. */
  resolve(name: string, call: boolean): string | undefined
  /** Is this the unknown of an equation? Then its x is no times sign. */
  unknown?(name: string): boolean
}

const SYMBOLS: Readonly<Record<string, string>> = { '×': '*', '·': '*', '÷': '/', '−': '-', '²': '^2', '³': '^3', '**': '^', '≤': '<=', '≥': '>=', '≠': '!=' }
const OPERATORS = ['**', '<=', '>=', '==', '!=', '+', '-', '*', '/', '^', '%', '!', '=', '<', '>', '×', '·', '÷', '−', '²', '³', '≤', '≥', '≠']
const WORDS: Readonly<Record<string, string>> = { plus: '+', minus: '-', times: '*', percent: '%', mod: 'mod', modulo: 'mod', to: 'to', in: 'in', of: 'of', x: 'x' }

const CLOCK = String.raw`(?:[T ]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?`
/** What is written with digits and signs and is no sum: dates, telephone numbers, hexadecimal numbers. */
const LABEL = new RegExp([
  String.raw`\d{4}-\d{1,2}-\d{1,2}(?!\d)${CLOCK}`, String.raw`\d{4}/\d{1,2}/\d{1,2}(?!\d)${CLOCK}`, String.raw`\d{1,2}([-/])\d{1,2}\1\d{4}(?!\d)`,
  String.raw`(?:\+?\d{1,3}[ -])?(?:\(\d{3}\) ?|\d{3}-)\d{3}-\d{4}(?!\d)`, String.raw`0\d+[-/]\d+(?:-\d+)*`, String.raw`0[xob][\da-f]+`,
].join('|'), 'iuy')
const ABROAD = /\+\d{1,3}(?:[ -]\d{2,}){2,}/uy
const LOCAL = /\d{3}-\d{4}(?!\d)/uy
const TELEPHONE = /\b(?:call|phone|telephone|tel|dial|fax|mobile)\b/i
/** Digits with signs between them. What of these is no number as a whole must not be read in parts: `3,5`, `1.2.3`, `10:30`, `1'000`. */
const RUN = /(?:\d+|\.\d+)(?:[.,:'’_]\d+| : \d+)*/uy
const RUN_IN_CALL = /(?:\d+|\.\d+)(?:[.:'’_]\d+| : \d+)*/uy
const NUMBER = /(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+(?![\p{L}\d]))?/uy
const GROUPED = /\d{1,3}(?:,\d{3})+(?!\d|,\d)(?:\.\d+)?/uy
const NAME = /°[CF]?|[\p{L}_][\p{L}\p{M}\d_]*(?:['’][\p{L}]+)*/uy
const ORDINAL = /^(?:st|nd|rd|th)$/i
const DEGREES: Readonly<Record<string, string>> = { '°': 'deg', '°C': 'degC', '°F': 'degF' }

/** Cuts a sentence into words and symbols. Every character that is not blank belongs to a token. */
export function tokenize(sentence: string, names: Names): Token[] {
  const tokens: Token[] = []
  const calls: boolean[] = []
  const telephone = TELEPHONE.test(sentence)
  const match = (pattern: RegExp, at: number) => { pattern.lastIndex = at; return pattern.exec(sentence)?.[0] }
  for (let at = 0; at < sentence.length;) {
    const add = (kind: TokenKind, text: string, length: number) => { tokens.push({ kind, text, from: at, to: at + length }); at += length }
    const char = sentence[at]!
    if (/\s/.test(char)) { at++; continue }
    const label = match(LABEL, at) ?? (telephone ? match(LOCAL, at) : undefined) ?? (endsOperand(tokens.at(-1)) ? undefined : match(ABROAD, at))
    if (label) { add('other', label, label.length); continue }
    // Inside a call a comma parts arguments; elsewhere `1,000` is one number.
    const run = match(calls.at(-1) ? RUN_IN_CALL : RUN, at)
    const number = (calls.at(-1) ? undefined : match(GROUPED, at)) ?? match(NUMBER, at)
    const torn = run && number && (run.length > number.length || (char === '.' && /[\p{L}\p{N}._:]$/u.test(sentence.slice(at - 2 < 0 ? 0 : at - 2, at))))
    if (torn) { add('other', run, run.length); continue }
    if (number) {
      const suffix = match(NAME, at + number.length)
      if (suffix && ORDINAL.test(suffix)) add('other', number + suffix, number.length + suffix.length)
      else add('number', number.replaceAll(',', ''), number.length)
      continue
    }
    const name = match(NAME, at)
    if (name) { addName(name, add); continue }
    const operator = OPERATORS.find(each => sentence.startsWith(each, at))
    if (operator) add('operator', SYMBOLS[operator] ?? operator, operator.length)
    else if (char === '(') {
      const call = tokens.at(-1)?.kind === 'name' && tokens.at(-1)!.to === at
      calls.push(call)
      add('open', '(', 1)
    }
    else if (char === ')') {
      calls.pop()
      add('close', ')', 1)
    }
    else if (char === ',' && calls.at(-1)) add('comma', ',', 1)
    else add('other', char, 1)
  }
  return settle(tokens, sentence, names)

  function addName(name: string, add: (kind: TokenKind, text: string, length: number) => void): void {
    const rest = /^\s*by\b/i.exec(sentence.slice(tokenEnd(name), tokenEnd(name) + 20))
    const lower = name.toLowerCase()
    if (lower === 'divided' && rest) return add('operator', '/', name.length + rest[0].length)
    if (lower === 'multiplied' && rest) return add('operator', '*', name.length + rest[0].length)
    if (names.unknown?.(name)) return add('name', name, name.length)
    const word = Object.hasOwn(WORDS, lower) ? WORDS[lower] : undefined
    if (word) return add(word === 'of' || word === 'in' || word === 'x' ? 'name' : 'operator', word, name.length)
    const known = DEGREES[name] ?? names.resolve(name, sentence[tokenEnd(name)] === '(')
    add(known === undefined ? 'other' : 'name', known ?? name, name.length)
  }
  function tokenEnd(name: string): number { return (tokens.at(-1)?.to ?? 0) + blanks(tokens.at(-1)?.to ?? 0) + name.length }
  function blanks(from: number): number { return /^\s*/.exec(sentence.slice(from))![0].length }
}

/** Operators that stand behind what they work on. */
export const POSTFIX: ReadonlySet<string> = new Set(['!', '%', '^2', '^3'])
const startsOperand = (token: Token | undefined) => token !== undefined && (token.kind === 'number' || token.kind === 'name' || token.kind === 'open') && token.text !== 'of'
const endsOperand = (token: Token | undefined) =>
  token !== undefined && (token.kind === 'number' || token.kind === 'name' || token.kind === 'close' || POSTFIX.has(token.text))
const sign = (token: Token) => token.text === '-' || token.text === '+'
/** Digits that are no number: a date, `3,5`, `1.2.3`. */
export const isUnclear = (token: Token | undefined): boolean => token?.kind === 'other' && /^[\d.+(].*[\dZ]$|^0[xob]/iu.test(token.text)
/** An operand that can't be read: what stands by its operators is a part. */
const variable = (token: Token | undefined) => isUnclear(token) || (token?.kind === 'other' && /^\p{L}$/u.test(token.text))

/** Tells apart what is written alike: the x of 3 x 4, the in of `5 km in m`, the dash of a sentence. */
function settle(tokens: readonly Token[], sentence: string, names: Names): Token[] {
  const settled: Token[] = []
  tokens.forEach((token, i) => {
    const [before, after] = [settled.at(-1), tokens[i + 1]]
    settled.push({ ...token, ...role(token, before, after) })
  })
  return settled

  function role(token: Token, before: Token | undefined, after: Token | undefined): Partial<Token> {
    if (token.text === 'x' && token.kind === 'name' && !names.unknown) return endsOperand(before) && startsOperand(after) ? { kind: 'operator', text: '*' } : { kind: 'other' }
    if (token.text === 'of' && token.kind === 'name') return before?.text === '%' ? {} : { kind: 'other' }
    // As a unit it is the inch, which only a number can come before, and a sentence says `in` too often to believe it at the end of an expression.
    if (token.text === 'in' && token.kind === 'name') {
      if (endsOperand(before) && after?.kind === 'name') return { kind: 'operator', text: 'to' }
      return before?.kind === 'number' && after?.kind === 'operator' ? { text: 'inch' } : { kind: 'other' }
    }
    if (token.kind !== 'operator' || POSTFIX.has(token.text)) return token.text === '!' && !endsOperand(before) ? { kind: 'other' } : {}
    if (token.text === 'to') return endsOperand(before) && after?.kind === 'name' ? {} : { kind: 'other' }
    const spaced = after === undefined || sentence.slice(token.to, after.from) !== ''
    if (sign(token) && spaced && !endsOperand(before) && before?.kind !== 'operator' && before?.kind !== 'open' && !variable(before)) return { kind: 'other' }
    if (!sign(token) && !endsOperand(before) && !variable(before) && (before === undefined || before.to !== token.from)) return { kind: 'other' }
    const trails = endsOperand(before) && !startsOperand(after) && after?.kind !== 'operator' && !variable(after)
    return trails && (spaced || !/^\p{L}/u.test(after?.text ?? '')) ? { kind: 'other' } : {}
  }
}

/** Writes the tokens of one expression as the engine reads them. */
export function render(tokens: readonly Token[]): string {
  const parts: string[] = []
  const starts = [0]
  tokens.forEach((token, i) => {
    const after = tokens[i + 1]
    if (token.text === '%' && after?.text === 'of') {
      const last = parts.pop()
      parts.push(tokens[i - 1]?.kind === 'number' ? `(${last} / 100)` : `${last} / 100`)
    } else if (token.text === '%' && after !== undefined && sign(after)) {
      // The engine takes the sign for that of an operand and computes a remainder.
      parts.splice(starts.at(-1)!, 0, '(')
      parts.push('% )')
    } else if (token.text === 'of') parts.push('*')
    else parts.push(token.text)
    if (token.kind === 'open') starts.push(parts.length)
    else if (token.kind === 'close') { if (starts.length > 1) starts.pop() }
    else if (token.kind === 'comma' || ['to', '=', '==', '<', '>', '<=', '>=', '!='].includes(token.text)) starts[starts.length - 1] = parts.length
  })
  return parts.join(' ')
}
