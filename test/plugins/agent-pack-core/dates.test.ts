import assert from 'node:assert/strict'
import fc from 'fast-check'
import { FakeClock, createTestRuntime, recordLog } from '#core/testing'
import { Tool, type ToolContext } from '#contracts/agents'
import { readDateQuestions } from '../../../plugins/agent-pack-core/date-sentence.ts'
import { Dates, type DateQuestion } from '../../../plugins/agent-pack-core/dates.ts'
import pack from '../../../plugins/agent-pack-core/index.ts'

const NOW = new Date('2026-11-21T12:03:00Z')
const at = (now: Date | string, zone = 'UTC') => new Dates(new FakeClock(new Date(now)), zone)
const dates = at(NOW)
const told = (question: DateQuestion, by = dates): string => { const { text, error } = by.answer(question); return text ?? `! ${error}` }
const asked = (request: string, now = NOW): string => readDateQuestions(request, now.getTime()).questions.map(question => told(question, at(now))).join(' | ')

describe('answering about dates', () => {
  it('goes by the calendar: ends of months, leap years, changes of clocks', () => {
    assert.equal(dates.answer({ operation: 'add', date: '2026-01-31', amount: { months: 1 } }).iso, '2026-02-28')
    assert.equal(dates.answer({ operation: 'add', date: '2024-02-28', amount: { days: 1 } }).iso, '2024-02-29')
    assert.equal(dates.answer({ operation: 'subtract', date: '2024-02-29', amount: { years: 1 } }).iso, '2023-02-28')
    assert.equal(dates.answer({ operation: 'difference', date: '2026-03-28', to: '2026-03-30', unit: 'days', zone: 'Europe/Berlin' }).value, 2)
    assert.equal(dates.answer({ operation: 'difference', date: '2026-03-28T12:00', to: '2026-03-30T12:00', unit: 'hours', zone: 'Europe/Berlin' }).value, 47)
    assert.equal(dates.answer({ operation: 'week', date: '2027-01-01' }).text, 'Friday, 1 January 2027 is in ISO week 53 of 2026')
  })
  it('reads zones by their name, their city or their offset', () => {
    for (const zone of ['Asia/Tokyo', 'Tokyo', 'tokyo', 'UTC+9']) assert.match(told({ operation: 'now', zone }), /it is Saturday, 21 November 2026, 21:03$/, zone)
    assert.match(told({ operation: 'now', zone: 'Atlantis' }), /^! the time zone "Atlantis" is not known/)
    assert.equal(at(NOW, 'Pacific/Auckland').answer({ operation: 'weekday', date: 'today' }).iso, '2026-11-22')
    assert.equal(dates.answer({ operation: 'convert', date: '2026-07-01T09:00-04:00', to_zone: 'Berlin' }).iso, '2026-07-01T15:00:00.000+02:00')
  })
  it('says what it can\'t tell, and does not guess', () => {
    const refusals: [DateQuestion, RegExp][] = [
      [{ operation: 'weekday', date: '03/04/2026' }, /"03\/04\/2026" is ambiguous: write 2026-04-03 or 2026-03-04/], [{ operation: 'weekday', date: '3.4.26' }, /ambiguous/],
      [{ operation: 'weekday', date: '2026-02-30' }, /no date that can be read/], [{ operation: 'weekday', date: '31 February 2026' }, /no date that can be read/], [{ operation: 'weekday', date: 'soon' }, /no date/],
      [{ operation: 'weekday', date: 'March 2026' }, /names no day/], [{ operation: 'weekday', date: '1 March 2026 or 2 March 2026' }, /no date/], [{ operation: 'weekday' }, /needs "date"/],
      [{ operation: 'add', date: 'today' }, /needs "amount"/], [{ operation: 'difference', date: 'today' }, /needs "to"/], [{ operation: 'convert', date: 'today', to_zone: 'Tokyo' }, /names no time of day/],
      [{ operation: 'convert', date: '3pm' }, /needs "to_zone"/], [{ operation: 'add', date: 'today', amount: { years: 900_000 } }, /only the years 1 to 9999/],
      [{ operation: 'convert', date: '29 March 2026 2:30 am', zone: 'Berlin', to_zone: 'UTC' }, /does not exist in Europe\/Berlin: clocks go forward/],
    ]
    for (const [question, reason] of refusals) assert.match(told(question), reason, JSON.stringify(question))
    assert.equal(told({ operation: 'weekday', date: '25/12/2026' }), '25 December 2026 is a Friday')
    assert.equal(told({ operation: 'weekday', date: '05/05/2026' }), '5 May 2026 is a Tuesday')
  })

  const date = fc.integer({ min: 0, max: 80_000 }).map(days => new Date(Date.UTC(1900, 0, 1) + days * 86_400_000).toISOString().slice(0, 10))
  it('a difference is what must be added, in days and in working days', () => {
    fc.assert(fc.property(date, fc.integer({ min: 0, max: 50_000 }), (from, days) => {
      const to = dates.answer({ operation: 'add', date: from, amount: { days } }).iso!
      assert.equal(dates.answer({ operation: 'difference', date: from, to, unit: 'days' }).value, days)
      assert.equal(dates.answer({ operation: 'subtract', date: to, amount: { days } }).iso, from)
    }), { numRuns: 200 })
    fc.assert(fc.property(date, fc.integer({ min: 1, max: 400 }), (from, days) => {
      const to = dates.answer({ operation: 'add', date: from, amount: { working_days: days } }).iso!
      let [day, left] = [Date.parse(from), days]
      while (left > 0) if ([1, 2, 3, 4, 5].includes(new Date(day += 86_400_000).getUTCDay())) left--
      assert.equal(to, new Date(day).toISOString().slice(0, 10))
      const first = dates.answer({ operation: 'difference', date: from, to, unit: 'working_days' }).value!
      assert.equal(first, [0, 6].includes(new Date(from).getUTCDay()) ? days - 1 : days)
    }), { numRuns: 200 })
  })
  it('there and back between zones is the same moment', () => {
    const zone = fc.constantFrom('Asia/Tokyo', 'America/New_York', 'Europe/Berlin', 'Asia/Kolkata', 'Australia/Sydney', 'UTC')
    fc.assert(fc.property(date, zone, zone, (day, zone, to_zone) => {
      const there = dates.answer({ operation: 'convert', date: `${day}T12:00`, zone, to_zone }).iso!
      assert.equal(dates.answer({ operation: 'convert', date: there, to_zone: zone }).iso!.slice(0, 16), `${day}T12:00`)
    }), { numRuns: 200 })
  })
})

describe('finding questions about dates in a request', () => {
  const cases: Record<string, string> = {
    'How many days are between 2026-01-01 and 2026-03-01?': 'There are 59 days between Thursday, 1 January 2026 and Sunday, 1 March 2026',
    'days between 2026-01-01 and 2026-11-21': 'There are 324 days between Thursday, 1 January 2026 and Saturday, 21 November 2026',
    'What date is 90 days after 1 March 2026?': '90 days after Sunday, 1 March 2026 is Saturday, 30 May 2026',
    'What weekday is 24 December 2026?': '24 December 2026 is a Thursday', 'What day of the week is 24 December 2026': '24 December 2026 is a Thursday',
    'what time is it in Tokyo?': 'In Asia/Tokyo it is Saturday, 21 November 2026, 21:03', 'What is today\'s date?': 'In UTC it is Saturday, 21 November 2026, 12:03', 'What day is today?': '21 November 2026 is a Saturday',
    'What date is in 90 days?': '90 days after Saturday, 21 November 2026 is Friday, 19 February 2027', 'What was the date two weeks ago?': '2 weeks before Saturday, 21 November 2026 is Saturday, 7 November 2026',
    'How many weeks until 24 December?': 'There are 4 weeks, 5 days between Saturday, 21 November 2026 and Thursday, 24 December 2026', 'How many days until 1 March?': 'There are 100 days between Saturday, 21 November 2026 and Monday, 1 March 2027',
    'How many days since 24 December?': 'There are 332 days between Wednesday, 24 December 2025 and Saturday, 21 November 2026', 'How many days from 1 March to 3 April 2026?': 'There are 33 days between Sunday, 1 March 2026 and Friday, 3 April 2026',
    'What is 1 month and 3 days before 31 March 2026?': '1 month and 3 days before Tuesday, 31 March 2026 is Wednesday, 25 February 2026', '2026-01-31 plus 1 month': '1 month after Saturday, 31 January 2026 is Saturday, 28 February 2026',
    'What is 3pm New York time in Tokyo?': 'Saturday, 21 November 2026, 15:00 in America/New_York is Sunday, 22 November 2026, 05:00 in Asia/Tokyo',
    'What time is it in Tokyo when it is 9:30 am in London?': 'Saturday, 21 November 2026, 09:30 in Europe/London is Saturday, 21 November 2026, 18:30 in Asia/Tokyo',
    'How many working days are there between 1 March 2026 and 31 March 2026?': 'There are 21 working days between Sunday, 1 March 2026 and Tuesday, 31 March 2026, the first counted and the last not (Monday to Friday; holidays are not known)',
    'What ISO week is 2026-01-01 in?': 'Thursday, 1 January 2026 is in ISO week 1 of 2026', 'What weekday is 03/04/2026?': '! "03/04/2026" is ambiguous: write 2026-04-03 or 2026-03-04',
    'What is 2+3, and what weekday is 24 December 2026? How many days until 24 December 2026?': '24 December 2026 is a Thursday | There are 33 days between Saturday, 21 November 2026 and Thursday, 24 December 2026',
  }
  for (const [request, expected] of Object.entries(cases)) it(`${request} -> ${expected}`, () => assert.equal(asked(request), expected))
  it('takes nothing that it does not understand to the last word', () => {
    for (const request of ['what is the weather today?', 'I was born on 3 May 1990', 'What is the meaning of 1 March 2026?', 'How many days are in a year?', 'may I go on Monday', 'what time is it in Atlantis?',
      'How many days between 1 March 2026 and the end?', 'What happened 90 days after 1 March 2026?', 'What is 5 km in miles?', 'Who are you?', `${'day '.repeat(200)} what day is today?`]) {
      assert.deepEqual(readDateQuestions(request, NOW.getTime()).questions, [], request)
    }
  })
  it('tells when the request says more about dates than was understood', () => {
    assert.equal(readDateQuestions('What weekday is 24 December 2026? Who was born on 3 May 1990?', NOW.getTime()).rest, true)
    assert.equal(readDateQuestions('What weekday is 24 December 2026? And what is 2+3?', NOW.getTime()).rest, false)
  })
  it('holds the event loop for no more than a moment over hostile requests', () => {
    for (const piece of ['1 ', '2026-', 'jan ', '1 march ', '3pm ', 'to ', 'monday ', '12:', '/', '12/', 'the ', 'day ', '1 day ', 'today ', 'in tokyo ', ', how ', 'a ', '2026-01-01T', '🙂']) {
      for (const length of [500, 65_536]) {
        let ms = Infinity
        for (let i = 0; i < 5; i++) {
          const from = process.cpuUsage()
          readDateQuestions(`what day ${piece.repeat(length)}`.slice(0, length), NOW.getTime())
          const { user, system } = process.cpuUsage(from)
          ms = Math.min(ms, (user + system) / 1_000)
        }
        assert.ok(ms < 40, `${piece}: ${ms} ms`)
      }
    }
  })
  it('never throws, whatever it reads, and answers what it takes', () => {
    const piece = fc.oneof(fc.constantFrom('what ', 'day ', 'is ', 'days ', '90 ', 'after ', 'before ', 'between ', 'and ', '1 March 2026 ', 'today ', '2026-02-30 ', 'in ', 'Tokyo ', '3pm ', '99/99/9999 ', 'how many ', 'until ', '? '), fc.string({ maxLength: 5 }))
    fc.assert(fc.property(fc.array(piece, { maxLength: 12 }).map(parts => parts.join('')), request => {
      for (const question of readDateQuestions(request, NOW.getTime()).questions) assert.ok(told(question))
    }), { numRuns: 500 })
  })
})

describe('the tool dates', () => {
  it('takes today from the clock of the runtime and the zone from the config', async () => {
    const ctx: ToolContext = { caller: { id: 'ann', kind: 'user', name: 'Ann', project_id: 'p' }, project_id: 'p', agent: 'math', job_id: 'j', signal: new AbortController().signal, log: recordLog() }
    await using t = await createTestRuntime({ plugins: [{ plugin: pack, config: { time_zone: 'Asia/Tokyo' } }], clock: new FakeClock(new Date('2026-11-21T20:00:00Z')) })
    const tool = t.runtime.collect(Tool).find(({ name }) => name === 'dates')!
    const input = tool.recognize!('What weekday is 03/04/2026? And what day is today?')
    assert.equal(((await tool.run(input, ctx)) as { text: string }).text, 'This can\'t be answered: "03/04/2026" is ambiguous: write 2026-04-03 or 2026-03-04.\n22 November 2026 is a Sunday.')
    assert.equal(tool.recognize!('Who are you?'), undefined)
  })
})
