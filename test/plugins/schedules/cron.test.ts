import assert from 'node:assert/strict'
import fc from 'fast-check'
import { body } from '../../../plugins/schedules/config.ts'
import { dueTimes, faultOf, isTimeZone, MOST_MISSED, nextAfter, type Timing } from '../../../plugins/schedules/cron.ts'

const timing = (cron: string, time_zone = 'Europe/Berlin', more: Partial<Timing> = {}): Timing => ({ cron, time_zone, starts_at: null, ends_at: null, ...more })
const at = (text: string) => Date.parse(text)
const iso = (ms: number | null) => (ms === null ? null : new Date(ms).toISOString())
const following = (given: Timing, from: string, count: number) => {
  const times: (string | null)[] = []
  for (let now: number | null = at(from); times.length < count && now !== null;) times.push(iso(now = nextAfter(given, now)))
  return times
}

describe('times of schedules', () => {
  it('in spring, what falls into the hour that is not there comes right after it', () => {
    assert.deepEqual(following(timing('30 2 * * *'), '2026-03-27T12:00:00Z', 3), ['2026-03-28T01:30:00.000Z', '2026-03-29T01:00:00.000Z', '2026-03-30T00:30:00.000Z'])
  })

  it('in autumn, what falls into the hour that comes twice comes once', () => {
    assert.deepEqual(following(timing('30 2 * * *'), '2026-10-24T12:00:00Z', 2), ['2026-10-25T00:30:00.000Z', '2026-10-26T01:30:00.000Z'])
  })

  it('what comes each half hour does so on both days, without a gap', () => {
    const half = 30 * 60_000
    for (const day of ['2026-03-28T23:00:00Z', '2026-10-24T22:00:00Z']) {
      assert.deepEqual(following(timing('*/30 * * * *'), day, 10), Array.from({ length: 10 }, (_, index) => iso(at(day) + half * (index + 1))))
    }
  })

  it('lie between the first and the last moment, both included', () => {
    const given = timing('0 12 * * *', 'UTC', { starts_at: at('2026-05-01T12:00:00Z'), ends_at: at('2026-05-02T12:00:00Z') })
    assert.deepEqual(following(given, '2026-01-01T00:00:00Z', 5), ['2026-05-01T12:00:00.000Z', '2026-05-02T12:00:00.000Z', null])
    assert.deepEqual(dueTimes(given, at('2026-05-01T12:00:00Z'), at('2027-01-01T00:00:00Z')).map(iso), ['2026-05-01T12:00:00.000Z', '2026-05-02T12:00:00.000Z'])
  })

  it('of a long absence, the last hundred are due', () => {
    const now = at('2026-06-01T00:00:00.700Z')
    const times = dueTimes(timing('* * * * * *', 'UTC'), at('2020-01-01T00:00:00Z'), now)
    assert.deepEqual([times.length, times[0], times.at(-1)], [MOST_MISSED, now - 700 - 99_000, now - 700])
  })

  it('next times strictly increase, and those due are just these', () => {
    const field = (max: number, min = 0) => fc.oneof(fc.constant('*'), fc.integer({ min: 2, max: Math.min(max, 15) }).map(step => `*/${step}`), fc.integer({ min, max }).map(String),
      fc.tuple(fc.integer({ min, max }), fc.integer({ min, max })).map(([a, b]) => `${Math.min(a, b)}-${Math.max(a, b)}`))
    const cron = fc.tuple(field(59), field(23), fc.constant('*'), fc.constant('*'), field(6)).map(fields => fields.join(' '))
    const zone = fc.constantFrom('UTC', 'Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe', 'Asia/Kolkata', 'America/Sao_Paulo')
    const change = fc.constantFrom('2026-03-29T00:00:00Z', '2026-10-25T00:00:00Z', '2026-03-08T06:00:00Z', '2026-11-01T05:00:00Z', '2026-04-04T14:00:00Z', '2026-10-03T15:00:00Z')
    fc.assert(fc.property(cron, zone, change, fc.integer({ min: -90_000_000, max: 90_000_000 }), (expression, time_zone, day, offset) => {
      const given = timing(expression, time_zone)
      const from = at(day) + offset
      const times: number[] = []
      for (let now = from; times.length < 20;) {
        const next = nextAfter(given, now)
        assert.ok(next !== null && next > now, `${expression} ${time_zone}: ${iso(next)} after ${iso(now)}`)
        times.push(now = next)
      }
      assert.deepEqual(dueTimes(given, times[0]!, times.at(-1)!), times)
    }), { numRuns: 300 })
  }).timeout(30_000)

  it('are refused, with the reason, where there are none', () => {
    for (const [expression, reason] of [
      ['60 * * * *', /minute/], ['* * * *', /five/], ['* * * * * * *', /five or six/], ['0 0 31 2 *', /no such day/], ['@daily', /five or six fields/], ['every day', /five/],
    ] as const) assert.match(String(faultOf(expression)), reason)
    assert.equal(faultOf('0 0 29 2 *'), undefined)
    assert.deepEqual(['Europe/Berlin', 'UTC', 'Mars/Base', ''].map(isTimeZone), [true, true, false, false])
    const wrong = body.safeParse({ cron: '99 * * * *', time_zone: 'Mars/Base', agent: 'a', type: 'b', input: 1 })
    assert.deepEqual(wrong.error?.issues.map(issue => issue.path.join('.')), ['cron', 'time_zone', 'agent'])
  })

  it('no expression takes long to refuse', () => {
    const from = performance.now()
    for (const expression of ['0 0 31 2 *', '0 0 30 2 1', '0 0 31 4,6,9,11 *', `${'1,'.repeat(90)}1 * * * *`]) faultOf(expression)
    assert.ok(performance.now() - from < 2_000)
  })
})
