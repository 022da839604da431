import { createRequire } from 'node:module'
import type * as Chrono from 'chrono-node/en'
import type { DateTime, DurationLikeObject } from 'luxon'
import type * as Luxon from 'luxon'
import type { Clock } from '#core'

export const UNITS = ['years', 'months', 'weeks', 'days', 'working_days', 'hours', 'minutes', 'seconds'] as const
export type Unit = (typeof UNITS)[number]
export const OPERATIONS = ['add', 'subtract', 'difference', 'weekday', 'week', 'now', 'convert'] as const

/** Dates are ISO or what people write: `1 March 2026`, `next friday`, `3pm`. Zones are `Asia/Tokyo`, `Tokyo`, `UTC+2`. */
export interface DateQuestion {
  readonly operation: (typeof OPERATIONS)[number]
  readonly date?: string
  readonly to?: string
  readonly amount?: Readonly<Partial<Record<Unit, number>>>
  readonly unit?: Unit
  readonly zone?: string
  readonly to_zone?: string
}
export interface DateAnswer {
  readonly question: DateQuestion
  /** The date or moment, in ISO 8601. */
  readonly iso?: string
  /** The number that was asked for. */
  readonly value?: number
  readonly text?: string
  readonly error?: string
}

export const MAX_DATE = 100
export const MAX_AMOUNT = 1_000_000
const LAST_YEAR = 9_999

const load = createRequire(import.meta.url)
let libraries: { readonly luxon: typeof Luxon; readonly reader: Chrono.Chrono } | undefined

/** Loaded by the first question: together they take 60 ms. */
function library(): NonNullable<typeof libraries> {
  if (libraries) return libraries
  const { Chrono: Reader, configuration } = load('chrono-node/en') as typeof Chrono
  const { parsers, refiners } = configuration.createCasualConfiguration()
  // Dates are its business, sums with them are not: it would take `90 days after 1 March` for one date.
  const reads = (part: object) => !/Relative|TimeUnit|EndOfPeriod|EndOfCurrent|SlashMonth/.test(part.constructor.name)
  libraries = { luxon: load('luxon') as typeof Luxon, reader: new Reader({ parsers: parsers.filter(reads), refiners: refiners.filter(reads) }) }
  return libraries
}

/** Big cities that have no zone of their own name. */
const CITIES: Readonly<Record<string, string>> = {
  'san francisco': 'America/Los_Angeles', seattle: 'America/Los_Angeles', boston: 'America/New_York', washington: 'America/New_York', miami: 'America/New_York', beijing: 'Asia/Shanghai',
  mumbai: 'Asia/Kolkata', delhi: 'Asia/Kolkata', bangalore: 'Asia/Kolkata', osaka: 'Asia/Tokyo', munich: 'Europe/Berlin', hamburg: 'Europe/Berlin', frankfurt: 'Europe/Berlin',
  barcelona: 'Europe/Madrid', milan: 'Europe/Rome', geneva: 'Europe/Zurich', 'rio de janeiro': 'America/Sao_Paulo', utc: 'UTC', gmt: 'UTC', z: 'UTC',
}
let cities: Map<string, string> | undefined

/** The zone of a name; undefined if there is none, or more than one. */
export function zoneOf(name: string): string | undefined {
  const plain = (text: string) => text.trim().replaceAll('_', ' ').toLowerCase()
  cities ??= new Map([...Intl.supportedValuesOf('timeZone').map(zone => [plain(zone.split('/').at(-1)!), zone] as const), ...Object.entries(CITIES)])
  const city = cities.get(plain(name))
  if (city) return city
  const known = /\/|^UTC[+-]/i.test(name) && library().luxon.DateTime.utc().setZone(name)
  return known && known.isValid ? known.zoneName ?? undefined : undefined
}

class Unclear extends Error {}

export interface FoundDate {
  readonly text: string
  readonly from: number
  readonly to: number
  readonly timed: boolean
  /** Two dates in one: `1 March to 3 April 2026`. */
  readonly range: boolean
  /** That it names; the last of two. */
  readonly year?: number
  /** For one that names day and month only: the years in which it is next, and was last. */
  readonly years?: { readonly next: number; readonly last: number }
}

/** The dates in a sentence. */
export function findDates(sentence: string, now: number): FoundDate[] {
  return library().reader.parse(sentence, { instant: new Date(now), timezone: 0 }).flatMap(({ text, index, start, end }) => {
    const dated = start.isCertain('day') || start.isCertain('weekday') || start.isCertain('hour')
    if (!dated || /^week(?:day|end)s?$/i.test(text)) return []
    const yearless = start.isCertain('month') && !start.isCertain('year')
    const [named, year, past] = [end ?? start, start.get('year')!, start.date().getTime() < now]
    return [{
      text, from: index, to: index + text.length, timed: start.isCertain('hour'), range: end !== null && end !== undefined,
      ...(named.isCertain('year') && { year: named.get('year')! }), ...(yearless && { years: { next: past ? year + 1 : year, last: past ? year : year - 1 } }),
    }]
  })
}

interface Moment { readonly at: DateTime; readonly timed: boolean }

/** Answers what is about dates. Today is that of the zone in which it is asked. */
export class Dates {
  constructor(readonly clock: Clock, readonly zone: string) {}

  /** What can't be answered is told in the answer. */
  answer(question: DateQuestion): DateAnswer {
    try { return { question, ...this.#answer(question) } } catch (error) {
      if (error instanceof Unclear) return { question, error: error.message }
      throw error
    }
  }

  #answer({ operation, date, to, amount, unit = 'days', zone, to_zone }: DateQuestion): Omit<DateAnswer, 'question'> {
    const home = this.#zone(zone)
    const read = (text: string | undefined, what: string) => {
      if (text === undefined) throw new Unclear(`"${operation}" needs "${what}"`)
      return this.#read(text, home)
    }
    switch (operation) {
      case 'now': {
        const at = this.#now(home)
        return { iso: at.toISO()!, text: `In ${home} it is ${spoken({ at, timed: true })}` }
      }
      case 'weekday': {
        const { at } = read(date, 'date')
        return { iso: at.toISODate()!, text: `${day(at)} is a ${at.weekdayLong}` }
      }
      case 'week': {
        const { at } = date === undefined ? { at: this.#now(home) } : read(date, 'date')
        return { iso: at.toISOWeekDate()!, value: at.weekNumber, text: `${spoken({ at, timed: false })} is in ISO week ${at.weekNumber} of ${at.weekYear}` }
      }
      case 'convert': {
        const moment = read(date, 'date')
        if (to_zone === undefined) throw new Unclear('"convert" needs "to_zone"')
        if (!moment.timed) throw new Unclear(`"${date}" names no time of day`)
        const there = moment.at.setZone(this.#zone(to_zone))
        return { iso: there.toISO()!, text: `${spoken(moment)} in ${moment.at.zoneName} is ${spoken({ at: there, timed: true })} in ${there.zoneName}` }
      }
      case 'difference': return this.#difference(read(date, 'date'), read(to, 'to'), unit)
      default: {
        const from = read(date, 'date')
        if (!amount || !Object.keys(amount).length) throw new Unclear(`"${operation}" needs "amount"`)
        return this.#shifted(from, amount, operation === 'add' ? 1 : -1)
      }
    }
  }

  #shifted(from: Moment, amount: Readonly<Partial<Record<Unit, number>>>, sign: 1 | -1): Omit<DateAnswer, 'question'> {
    const { working_days = 0, ...rest } = amount
    const duration = Object.fromEntries(Object.entries(rest).map(([unit, count]) => [unit, sign * count])) as DurationLikeObject
    const at = addWorkingDays(inRange(from.at.plus(duration)), sign * working_days)
    const timed = from.timed || ['hours', 'minutes', 'seconds'].some(unit => Object.hasOwn(amount, unit))
    const counted = Object.entries(amount).map(([unit, count]) => counts(count, unit as Unit)).join(' and ')
    const text = `${counted} ${sign > 0 ? 'after' : 'before'} ${spoken({ ...from, timed })} is ${spoken({ at, timed })}${working_days ? ` (${HOLIDAYS})` : ''}`
    return { iso: timed ? at.toISO()! : at.toISODate()!, text }
  }

  #difference(from: Moment, to: Moment, unit: Unit): Omit<DateAnswer, 'question'> {
    const timed = from.timed || to.timed
    // Dates without a time of day are as far apart as in a calendar, whatever clocks do between them.
    const [a, b] = [from.at, to.at].map(each => (timed ? each : each.setZone('UTC', { keepLocalTime: true })))
    const between = `between ${spoken({ at: a!, timed })} and ${spoken({ at: b!, timed })}`
    if (unit === 'working_days') {
      const value = workingDays(a!.startOf('day'), b!.startOf('day'))
      return { value, text: `There are ${counts(value, unit)} ${between}, the first counted and the last not (${HOLIDAYS})` }
    }
    const smaller = { years: ['months', 'days'], months: ['days'], weeks: ['days'], days: timed ? ['hours', 'minutes'] : [], hours: ['minutes'], minutes: ['seconds'], seconds: [] }[unit]
    const parts = b!.diff(a!, [unit, ...smaller] as Luxon.DurationUnit[]).toObject() as Partial<Record<Unit, number>>
    const value = b!.diff(a!, unit).as(unit)
    const all = ([unit, ...smaller] as Unit[]).map(each => ({ each, count: Math.trunc(parts[each] ?? 0) }))
    const words = all.filter(({ each, count }) => count !== 0 || each === unit).map(({ each, count }) => counts(Math.abs(count), each)).join(', ')
    return { value: Math.round(value * 1e6) / 1e6, text: `There ${/^1 \D+$/.test(words) ? 'is' : 'are'} ${words} ${between}${value < 0 ? ', which is before it' : ''}` }
  }

  #zone(name = this.zone): string {
    const zone = zoneOf(name)
    if (!zone) throw new Unclear(`the time zone "${name}" is not known; write it as Europe/Berlin or UTC+2`)
    return zone
  }
  #now(zone: string): DateTime { return library().luxon.DateTime.fromMillis(this.clock.now(), { zone }) }

  #read(text: string, zone: string): Moment {
    const { DateTime: Time } = library().luxon
    const iso = Time.fromISO(text.trim(), { zone, setZone: true })
    if (iso.isValid && /^\d{4}-/.test(text.trim())) return { at: inRange(iso), timed: text.includes(':') }
    ambiguous(text)
    const now = this.#now(zone)
    const [found, ...more] = library().reader.parse(text, { instant: now.toJSDate(), timezone: now.offset })
    if (!found || more.length || found.end || found.text.trim().length < text.trim().length) throw new Unclear(`"${text}" is no date that can be read; write it as 2026-12-24`)
    const { start } = found
    const timed = start.isCertain('hour')
    if (!timed && !start.isCertain('day') && !start.isCertain('weekday')) throw new Unclear(`"${text}" names no day`)
    const [year, month, dayOfMonth, hour, minute, second] = (['year', 'month', 'day', 'hour', 'minute', 'second'] as const).map(each => start.get(each) ?? 0)
    const clock = timed ? { hour, minute, second } : {}
    const offset = start.isCertain('timezoneOffset') && !/^now$/i.test(text.trim()) ? start.get('timezoneOffset') : undefined
    const place = offset === null || offset === undefined ? zone : library().luxon.FixedOffsetZone.instance(offset)
    const at = Time.fromObject({ year, month, day: dayOfMonth, ...clock }, { zone: place })
    if (!at.isValid) throw new Unclear(`"${text}" does not exist`)
    if (timed && (at.hour !== hour || at.minute !== minute)) throw new Unclear(`"${text}" does not exist in ${zone}: clocks go forward over it`)
    return { at: inRange(at), timed }
  }
}

const HOLIDAYS = 'Monday to Friday; holidays are not known'

/** 03/04/2026 is in March or in April, depending on who reads it. */
function ambiguous(text: string): void {
  const [, a, , b, year] = /^\s*(\d{1,2})([/.-])(\d{1,2})\2(\d{2,4})\b/.exec(text) ?? []
  if (!a || !b || Number(a) > 12 || Number(b) > 12 || Number(a) === Number(b)) return
  const [first, second, full] = [a.padStart(2, '0'), b.padStart(2, '0'), year!.length === 2 ? `20${year}` : year]
  throw new Unclear(`"${text}" is ambiguous: write ${full}-${second}-${first} or ${full}-${first}-${second}`)
}

function inRange(at: DateTime): DateTime {
  if (!at.isValid || at.year < 1 || at.year > LAST_YEAR) throw new Unclear(`only the years 1 to ${LAST_YEAR} can be computed`)
  return at
}

function addWorkingDays(from: DateTime, count: number): DateTime {
  const [step, whole] = [Math.sign(count), Math.trunc(count / 5)]
  let at = inRange(from.plus({ weeks: whole }))
  // Whole weeks from a weekend end on it again, when the last day of work was before it.
  if (count !== 0 && count % 5 === 0 && at.weekday > 5) at = at.plus({ days: step > 0 ? 5 - at.weekday : 8 - at.weekday })
  for (let left = Math.abs(count % 5); left > 0;) {
    at = at.plus({ days: step })
    if (at.weekday <= 5) left--
  }
  return inRange(at)
}

/** Those from the first on, without the last. */
function workingDays(from: DateTime, to: DateTime): number {
  if (to < from) return -workingDays(to, from)
  const days = Math.round(to.diff(from, 'days').days)
  const rest = Array.from({ length: days % 7 }, (_, i) => (from.weekday - 1 + i) % 7).filter(each => each < 5).length
  return Math.floor(days / 7) * 5 + rest
}

const day = (at: DateTime): string => at.setLocale('en-GB').toFormat('d LLLL y')
const spoken = ({ at, timed }: Moment): string => at.setLocale('en-GB').toFormat(timed ? `cccc, d LLLL y, ${at.second ? 'HH:mm:ss' : 'HH:mm'}` : 'cccc, d LLLL y')
const counts = (count: number, unit: Unit): string => `${count} ${(Math.abs(count) === 1 ? unit.slice(0, -1) : unit).replace('_', ' ')}`
