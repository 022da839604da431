import { MAX_AMOUNT, findDates, zoneOf, type DateQuestion, type FoundDate, type Unit } from './dates.ts'

/** Characters of a request that are looked at: reading dates takes the event loop milliseconds. */
const MAX_REQUEST = 500
const MAX_QUESTIONS = 10

const UNIT: Readonly<Record<string, Unit>> = {
  year: 'years', month: 'months', week: 'weeks', day: 'days', hour: 'hours', minute: 'minutes', second: 'seconds', workday: 'working_days', weekday: 'working_days',
}
const unitOf = (word: string): Unit | undefined => (Object.hasOwn(UNIT, word) ? UNIT[word] : word.endsWith('s') ? unitOf(word.slice(0, -1)) : undefined)
const NUMBERS = ['a', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten', 'eleven', 'twelve']
const numberOf = (word: string): number | undefined => {
  if (/^\d{1,7}$/.test(word)) return Number(word)
  const at = NUMBERS.indexOf(word === 'an' ? 'a' : word)
  return at < 0 ? undefined : Math.max(1, at)
}
/** Words that say nothing here. */
const FILLERS = new Set([
  'the', 'a', 'is', 'are', 'was', 'were', 'will', 'be', 'there', 'it', 'its', 'please', 'tell', 'me', 'can', 'could', 'you', 'on', 'of', 'at', 'does', 'did', 'do', 'and', 'fall',
  'left', 'exactly', 'right', 'also', 'then', 's', 'for', 'have',
])

/** A part of a request: a date, a duration, a zone, a unit, or a word as it is. */
type Part =
  | ({ readonly kind: 'date' } & Pick<FoundDate, 'text' | 'timed' | 'year' | 'years'>)
  | { readonly kind: 'duration'; readonly amount: Partial<Record<Unit, number>> }
  | { readonly kind: 'zone'; readonly zone: string }
  | { readonly kind: 'unit'; readonly unit: Unit; readonly word: string }
  | { readonly kind: 'word'; readonly word: string }
type Of<K extends Part['kind']> = Extract<Part, { kind: K }>

interface Matched {
  readonly dates: readonly Of<'date'>[]
  readonly zones: readonly string[]
  readonly amount: Partial<Record<Unit, number>>
  readonly unit: Unit
}
interface Rule { readonly pattern: string; readonly make: (found: Matched) => DateQuestion | undefined }

const shift = (operation: 'add' | 'subtract', date?: string) => ({ dates, amount }: Matched): DateQuestion => ({ operation, date: date ?? dates[0]!.text, amount })
/** A date that names no year has that one. */
const inYear = ({ text, years }: Of<'date'>, year: number | undefined): string => (years && year !== undefined ? `${text} ${year}` : text)
const between = ({ dates: [from, to], unit }: Matched): DateQuestion =>
  ({ operation: 'difference', date: inYear(from!, to!.year), to: inYear(to!, from!.year), unit })
const today = ({ timed }: Of<'date'>) => (timed ? 'now' : 'today')
const until = ({ dates: [date], unit }: Matched): DateQuestion =>
  ({ operation: 'difference', date: today(date!), to: inYear(date!, date!.years?.next), unit })
const since = ({ dates: [date], unit }: Matched): DateQuestion =>
  ({ operation: 'difference', date: inYear(date!, date!.years?.last), to: today(date!), unit })
const weekday = ({ dates }: Matched): DateQuestion => ({ operation: 'weekday', date: dates[0]!.text })
const week = ({ dates }: Matched): DateQuestion => ({ operation: 'week', ...(dates[0] && { date: dates[0].text }) })
const now = ({ zones }: Matched): DateQuestion => ({ operation: 'now', ...(zones[0] && { zone: zones[0] }) })
const convert = ({ dates, zones }: Matched, from = 0): DateQuestion | undefined =>
  (dates[0]!.timed ? { operation: 'convert', date: dates[0]!.text, zone: zones[from]!, to_zone: zones[1 - from]! } : undefined)

/**
 * Capitals are parts of that kind; `a|b` is one of these words, `(a)` may be missing. A clause of a request must fit from
 * its first word to its last.
 */
const RULES: readonly Rule[] = [
  { pattern: '(what|which|when) (DAY) (date|time|weekday) DURATION after|from|since DATE', make: shift('add') },
  { pattern: '(what|which|when) (DAY) (date|time|weekday) DURATION before DATE', make: shift('subtract') },
  { pattern: '(what|calculate|compute) (date) DATE plus|+ DURATION', make: shift('add') },
  { pattern: '(what|calculate|compute) (date) DATE minus|- DURATION', make: shift('subtract') },
  { pattern: 'add DURATION to DATE', make: shift('add') },
  { pattern: 'subtract DURATION from DATE', make: shift('subtract') },
  { pattern: 'what|which (DAY) (date) in DURATION', make: found => shift('add', 'today')(found) },
  { pattern: 'what|which (DAY) (date) DURATION ago', make: found => shift('subtract', 'today')(found) },
  { pattern: 'how many UNIT between|from DATE to|until|till DATE', make: between },
  { pattern: 'how many UNIT between DATE DATE', make: between },
  { pattern: '(number) UNIT between DATE DATE', make: between },
  { pattern: '(what) difference (in UNIT) between DATE (to) DATE (in UNIT)', make: between },
  { pattern: 'how long between|from DATE (to|until|till) DATE', make: between },
  { pattern: 'how many UNIT (from) until|till|to|before DATE', make: until },
  { pattern: 'how long until|till DATE', make: until },
  { pattern: 'how many UNIT (passed) since DATE', make: since },
  { pattern: 'how long (ago) since DATE', make: since },
  { pattern: '(what|which) WEEKDAY DATE', make: weekday },
  { pattern: 'what|which DAY (WEEK) DATE', make: weekday },
  { pattern: '(what|which) DAY WEEK DATE', make: weekday },
  { pattern: '(what|which) (iso|calendar) WEEK (number) (in) (DATE) (in)', make: week },
  { pattern: 'what (current) time (NOW) (in ZONE) (NOW)', make: now },
  { pattern: 'current time (in ZONE)', make: now },
  { pattern: 'what (DAY) (date) TODAY (date) (in ZONE)', make: now },
  { pattern: 'what (current) date|time (in ZONE) TODAY', make: now },
  { pattern: '(what|convert) (time) DATE (in|from) ZONE (time) in|to ZONE (time)', make: found => convert(found) },
  { pattern: 'what time in ZONE when|if DATE in ZONE', make: found => convert(found, 1) },
]

const partsOfClause = (clause: string, at: number): Part[] => {
  const parts: Part[] = []
  let end = 0
  for (const { text, from, to, range, ...found } of findDates(clause, at)) {
    parts.push(...wordsOf(clause.slice(end, from)))
    const [first, last] = range ? text.split(/\s+(?:to|until|through)\s+|\s+[-–]\s+/i) : [text]
    parts.push({ kind: 'date', ...found, text: first! })
    if (range) parts.push({ kind: 'word', word: 'to' }, { kind: 'date', timed: found.timed, year: found.year, text: last ?? '' })
    end = to
  }
  return durations([...parts, ...wordsOf(clause.slice(end))])
}

function wordsOf(text: string): Part[] {
  const words = text.toLowerCase().replaceAll('working day', 'workday').replaceAll('business day', 'workday').match(/[\p{L}_]+(?:\/[\p{L}_]+)*|\d+|[^\s\p{L}\d]/gu) ?? []
  const parts: Part[] = []
  for (let i = 0; i < words.length;) {
    const word = words[i]!
    const unit = unitOf(word)
    const isZone = (count: number) => i + count <= words.length && zoneOf(words.slice(i, i + count).join(' ')) !== undefined
    const length = FILLERS.has(word) || unit ? undefined : [3, 2, 1].find(isZone)
    i += length ?? 1
    if (length) {
      parts.push({ kind: 'zone', zone: zoneOf(words.slice(i - length, i).join(' '))! })
      continue
    }
    if (unit) parts.push({ kind: 'unit', unit, word })
    else parts.push({ kind: 'word', word })
  }
  return parts
}

/** `90 days`, `two weeks and 3 days`: a number and a unit make a duration, those that follow each other one. Then what says nothing goes. */
function durations(parts: readonly Part[]): Part[] {
  const made: Part[] = []
  for (let i = 0; i < parts.length; i++) {
    const [part, next] = [parts[i]!, parts[i + 1]]
    const count = part.kind === 'word' ? numberOf(part.word) : undefined
    if (count !== undefined && next?.kind === 'unit') {
      const last = made.at(-1)
      if (last?.kind === 'duration') made[made.length - 1] = { kind: 'duration', amount: { ...last.amount, [next.unit]: count + (last.amount[next.unit] ?? 0) } }
      else made.push({ kind: 'duration', amount: { [next.unit]: count } })
      i++
    } else if (part.kind !== 'word' || !FILLERS.has(part.word) && !/^[,'’"]$/.test(part.word)) made.push(part)
  }
  return made
}

/** Does this part stand for that place of a pattern? */
function fits(part: Part | undefined, place: string): boolean {
  if (!part) return false
  switch (place) {
    case 'DATE': return part.kind === 'date'
    case 'TODAY': return part.kind === 'date' && /^today$/i.test(part.text)
    case 'NOW': return part.kind === 'date' && /^now$/i.test(part.text)
    case 'DURATION': return part.kind === 'duration'
    case 'ZONE': return part.kind === 'zone'
    case 'UNIT': return part.kind === 'unit'
    case 'DAY': case 'WEEK': case 'WEEKDAY': return part.kind === 'unit' && part.word === place.toLowerCase()
    default: return part.kind === 'word' && place.split('|').includes(part.word)
  }
}

/** How the parts fit a pattern, all of them. */
function match(parts: readonly Part[], places: readonly (readonly string[])[], taken: readonly Part[] = []): readonly Part[] | undefined {
  const [place, ...rest] = places
  if (!place) return parts.length === 0 ? taken : undefined
  const optional = place[0] === '?'
  const wanted = optional ? place.slice(1) : place
  const whole = wanted.every((each, i) => fits(parts[i], each))
  const found = whole ? match(parts.slice(wanted.length), rest, [...taken, ...parts.slice(0, wanted.length)]) : undefined
  return found ?? (optional ? match(parts, rest, taken) : undefined)
}
const placesOf = (pattern: string): string[][] =>
  (pattern.match(/\([^)]*\)|\S+/g) ?? []).map(each => (each.startsWith('(') ? ['?', ...each.slice(1, -1).split(' ')] : [each]))
const COMPILED = RULES.map(rule => ({ ...rule, places: placesOf(rule.pattern) }))

function questionOf(clause: string, at: number): DateQuestion | undefined {
  const parts = partsOfClause(clause, at)
  if (parts.length > 20) return undefined
  for (const { places, make } of COMPILED) {
    const found = match(parts, places)
    if (!found) continue
    const of = <K extends Part['kind']>(kind: K) => found.filter((part): part is Of<K> => part.kind === kind)
    const amount = of('duration')[0]?.amount ?? {}
    if (Object.values(amount).some(count => count > MAX_AMOUNT)) return undefined
    return make({ dates: of('date'), zones: of('zone').map(({ zone }) => zone), amount, unit: of('unit').at(-1)?.unit ?? 'days' })
  }
  return undefined
}

/** A word without which no question is about dates, so that no other request costs anything. */
const ABOUT = /\b(?:date|day|week|month|year|hour|minute|time|today|long|add|subtract|convert|plus|minus)|\d{4}-\d{2}-\d{2}/i

/** The questions about dates in a request, each of which is understood to its last word; `rest`: others were not. */
export function readDateQuestions(request: string, at: number): { readonly questions: DateQuestion[]; readonly rest: boolean } {
  if (request.length > MAX_REQUEST || !ABOUT.test(request)) return { questions: [], rest: false }
  const clauses = request.split(/[?;!\n]|\.(?=\s|$)|,? and (?=what|which|how|when|convert|add)|, (?=what|which|how|when)/i).filter(each => each.trim())
  const read = clauses.map((clause, i) => ({ clause, question: i < MAX_QUESTIONS ? questionOf(clause.trim(), at) : undefined }))
  const questions = read.flatMap(({ question }) => question ?? [])
  return { questions, rest: questions.length > 0 && read.some(({ clause, question }) => !question && findDates(clause, at).length > 0) }
}
