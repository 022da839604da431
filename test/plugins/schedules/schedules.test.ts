import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { eventually, FakeClock, type TestRuntime } from '#core/testing'
import { AccessErrors, type Caller } from '#contracts/access'
import { Database } from '#contracts/database'
import { HealthCheck } from '#contracts/health'
import { JobErrors } from '#contracts/jobs'
import { ScheduleErrors, Schedules, type ScheduleRequest } from '#contracts/schedules'
import { instruments } from '../../../plugins/schedules/instruments.ts'
import { jobsOf, operator, runtime, timesOf } from './kit.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const request = (input: unknown = null) => ({ type: 'note', input })
const hourly: ScheduleRequest = { name: 'hourly', cron: '0 * * * *', request: request() }
const get = (t: TestRuntime, name = 'hourly') => t.get(Schedules).get(operator, { name })
/** Moves on, and waits until the schedule has decided on that time. */
async function to(t: TestRuntime, clock: FakeClock, time: string, name = 'hourly') {
  await clock.advance(Date.parse(time) - clock.now())
  await eventually(`${name} at ${time}`, async () => { const { next_at } = await get(t, name); return next_at === null || Date.parse(next_at) > clock.now() })
}
const counted = (reason: string) => instruments.missed.samples().find(each => each.labels['reason'] === reason)?.value ?? 0

describe('schedules', () => {
  it('submit a job at each time, with what they are for', async () => {
    const clock = new FakeClock(new Date('2026-01-01T00:30:00Z'))
    await using t = await runtime({ clock })
    const made = await t.get(Schedules).put(operator, { ...hourly, request: { ...request({ a: 1 }), priority: 7, metadata: { from: 'test' } } })
    assert.deepEqual([made.next_at, made.time_zone, made.missed, made.overlap, made.enabled, made.last_at], ['2026-01-01T01:00:00.000Z', 'UTC', 'once', 'allow', true, null])
    await clock.advance(29 * MINUTE)
    assert.deepEqual(await jobsOf(t), [])
    await to(t, clock, '2026-01-01T01:00:00Z')
    await to(t, clock, '2026-01-01T02:00:00Z')
    const jobs = await jobsOf(t)
    assert.deepEqual(jobs.map(({ type, input, priority, project_id, created_by, metadata }) => ({ type, input, priority, project_id, created_by, metadata })), ['01', '02'].map(hour => ({
      type: 'note', input: { a: 1 }, priority: 7, project_id: 'default', created_by: 'op', metadata: { from: 'test', schedule: 'hourly', scheduled_at: `2026-01-01T${hour}:00:00.000Z` },
    })))
    const now = await get(t)
    assert.deepEqual([now.last_at, now.next_at, now.last_job_id, now.last_error], ['2026-01-01T02:00:00.000Z', '2026-01-01T03:00:00.000Z', jobs[1]!.id, null])
  })

  it('fire though one of them can\'t be read any more, which says so and is tried again', async () => {
    const clock = new FakeClock(new Date('2026-01-01T00:30:00Z'))
    await using t = await runtime({ clock })
    await t.get(Schedules).put(operator, { ...hourly, name: 'a-bad-one', time_zone: 'Europe/Berlin' })
    await t.get(Schedules).put(operator, hourly)
    const zone = (time_zone: string) => t.get(Database).knex()('schedules').where({ name: 'a-bad-one' }).update({ time_zone })
    await zone('Nowhere/Gone')
    await to(t, clock, '2026-01-01T01:00:00Z')
    assert.equal((await jobsOf(t)).length, 1)
    await eventually('it to say so', async () => (await get(t, 'a-bad-one')).last_error?.code === 'SCHEDULES_FAILED')
    await zone('Europe/Paris')
    await clock.advance(10_000)
    await eventually('its job', async () => (await jobsOf(t)).length === 2)
  })

  for (const [season, from, expected] of [
    ['spring', '2026-03-28T00:00:00Z', ['2026-03-28T01:30:00.000Z', '2026-03-29T01:00:00.000Z', '2026-03-30T00:30:00.000Z']],
    ['autumn', '2026-10-24T00:00:00Z', ['2026-10-24T00:30:00.000Z', '2026-10-25T00:30:00.000Z', '2026-10-26T01:30:00.000Z']],
  ] as const) it(`fire once a day when the clocks change in ${season}`, async () => {
    const clock = new FakeClock(new Date(from))
    await using t = await runtime({ clock })
    await t.get(Schedules).put(operator, { ...hourly, name: 'nightly', cron: '30 2 * * *', time_zone: 'Europe/Berlin' })
    for (let hour = 1; hour <= 60; hour++) await to(t, clock, new Date(Date.parse(from) + hour * HOUR).toISOString(), 'nightly')
    assert.deepEqual(await timesOf(t), expected)
  })

  it('after a downtime submit nothing, one job, or one for each time', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'backplane-test-'))
    try {
      const clock = new FakeClock(new Date('2026-01-01T00:30:00Z'))
      {
        await using t = await runtime({ clock, host: { dataDir: folder } })
        for (const missed of ['skip', 'once', 'all'] as const) await t.get(Schedules).put(operator, { ...hourly, name: missed, missed, request: request(missed) })
      }
      const later = new FakeClock(new Date('2026-01-01T05:10:00Z'))
      const before = counted('late')
      await using t = await runtime({ clock: later, host: { dataDir: folder } })
      for (const name of ['skip', 'once', 'all']) await eventually(name, async () => (await get(t, name)).next_at === '2026-01-01T06:00:00.000Z')
      const jobs = await jobsOf(t)
      const of = (missed: string) => jobs.filter(job => job.input === missed).map(job => String(job.metadata['scheduled_at']).slice(11, 13)).toSorted()
      assert.deepEqual({ skip: of('skip'), once: of('once'), all: of('all') }, { skip: [], once: ['05'], all: ['01', '02', '03', '04', '05'] })
      assert.equal(counted('late') - before, 5 + 4)
      // A little late is not missed.
      await later.advance(50 * MINUTE + 30_000)
      await eventually('the next', async () => (await get(t, 'skip')).last_job_id !== null)
    } finally { rmSync(folder, { recursive: true }) }
  })

  it('of more than a hundred that were missed, all submits the last hundred', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'backplane-test-'))
    try {
      {
        await using t = await runtime({ clock: new FakeClock(new Date('2026-01-01T00:00:00Z')), host: { dataDir: folder } })
        await t.get(Schedules).put(operator, { ...hourly, cron: '* * * * *', missed: 'all' })
      }
      await using t = await runtime({ clock: new FakeClock(new Date('2026-01-02T00:00:00Z')), host: { dataDir: folder } })
      await eventually('all', async () => (await get(t)).next_at === '2026-01-02T00:01:00.000Z', 15_000)
      const times = await timesOf(t)
      assert.deepEqual([times.length, times[0], times.at(-1)], [100, '2026-01-01T22:21:00.000Z', '2026-01-02T00:00:00.000Z'])
    } finally { rmSync(folder, { recursive: true }) }
  }).timeout(30_000)

  it('write down a refusal, and go on with the next time', async () => {
    const clock = new FakeClock(new Date('2026-01-01T00:30:00Z'))
    let allowed = true
    const check = async (_caller: Caller, permission: string) => { if (!allowed && permission === 'jobs:submit') throw AccessErrors.FORBIDDEN({ permission, reason: 'the role is gone' }) }
    await using t = await runtime({ clock, access: { check } })
    await t.get(Schedules).put(operator, hourly)
    allowed = false
    await to(t, clock, '2026-01-01T01:00:00Z')
    const refused = await get(t)
    assert.deepEqual([refused.last_error?.code, refused.last_job_id, refused.last_at, refused.next_at], ['ACCESS_FORBIDDEN', null, '2026-01-01T01:00:00.000Z', '2026-01-01T02:00:00.000Z'])
    await clock.advance(30 * MINUTE)
    assert.equal(t.lines.filter(line => line.message === 'a time of a schedule brought no job').length, 1)
    allowed = true
    await to(t, clock, '2026-01-01T02:00:00Z')
    assert.deepEqual([(await get(t)).last_error, (await timesOf(t)).length], [null, 1])
  })

  it('tell nobody what was not written for callers, and are not stuck by it', async () => {
    const clock = new FakeClock(new Date('2026-01-01T00:30:00Z'))
    await using t = await runtime({ clock, access: { restore: async () => { throw new Error('password of the directory') } } })
    await t.get(Schedules).put(operator, hourly)
    await to(t, clock, '2026-01-01T01:00:00Z')
    assert.deepEqual((await get(t)).last_error, { code: 'SCHEDULES_FAILED', message: 'the firing failed; the server\'s log has the reason', retryable: false })
  })

  it('try a firing again that could not be done for now, and lose no time by it', async () => {
    const clock = new FakeClock(new Date('2026-01-01T00:30:00Z'))
    let away = true
    const restore = async (id: string, project_id: string) => { if (away) throw JobErrors.TYPE_AWAY({ type: 'note' }); return { ...operator, id, project_id } }
    await using t = await runtime({ clock, config: { retry_ms: 10_000 }, access: { restore } })
    await t.get(Schedules).put(operator, hourly)
    await clock.advance(30 * MINUTE)
    await eventually('the refusal', async () => (await get(t)).last_error?.code === 'JOBS_TYPE_AWAY')
    assert.equal((await get(t)).next_at, '2026-01-01T01:00:00.000Z')
    away = false
    await clock.advance(10_000)
    await eventually('the job', async () => (await get(t)).last_job_id !== null)
    assert.deepEqual(await timesOf(t), ['2026-01-01T01:00:00.000Z'])
  })

  it('with overlap skip, wait for the end of the job before', async () => {
    const clock = new FakeClock(new Date('2026-01-01T00:30:00Z'))
    const before = counted('overlap')
    await using t = await runtime({ clock })
    await t.get(Schedules).put(operator, { ...hourly, overlap: 'skip' })
    await to(t, clock, '2026-01-01T01:00:00Z')
    await to(t, clock, '2026-01-01T02:00:00Z')
    assert.deepEqual([(await get(t)).last_error?.code, (await jobsOf(t)).length, counted('overlap') - before], ['SCHEDULES_OVERLAP', 1, 1])
    await t.get(Database).knex()('jobs').update({ status: 'completed' })
    await to(t, clock, '2026-01-01T03:00:00Z')
    assert.deepEqual([(await get(t)).last_error, (await jobsOf(t)).length], [null, 2])
  })

  it('rest while they are paused, and miss nothing by it', async () => {
    const clock = new FakeClock(new Date('2026-01-01T00:30:00Z'))
    await using t = await runtime({ clock })
    const schedules = t.get(Schedules)
    await schedules.put(operator, { ...hourly, missed: 'all' })
    assert.deepEqual(await schedules.pause(operator, hourly).then(each => [each.enabled, each.next_at]), [false, null])
    await clock.advance(3 * HOUR)
    // Whoever writes it again does not wake it by that.
    assert.equal((await schedules.put(operator, { ...hourly, missed: 'once' })).enabled, false)
    assert.equal((await schedules.resume(operator, hourly)).next_at, '2026-01-01T04:00:00.000Z')
    assert.deepEqual(await jobsOf(t), [])
  })

  it('keep their time when they are written again, and take a new one only with a new expression', async () => {
    const clock = new FakeClock(new Date('2026-01-01T00:30:00Z'))
    await using t = await runtime({ clock })
    const schedules = t.get(Schedules)
    const first = await schedules.put(operator, hourly)
    assert.deepEqual(await schedules.put(operator, hourly), first)
    const second = await schedules.put(operator, { ...hourly, request: request(2) })
    assert.deepEqual([second.id, second.next_at], [first.id, first.next_at])
    assert.equal((await schedules.put(operator, { ...hourly, cron: '45 * * * *' })).next_at, '2026-01-01T00:45:00.000Z')
  })

  it('do not fire a time twice when the clock is set back', async () => {
    const clock = new FakeClock(new Date('2026-01-01T00:30:00Z'))
    await using t = await runtime({ clock })
    await t.get(Schedules).put(operator, hourly)
    await to(t, clock, '2026-01-01T01:00:00Z')
    const { now } = clock
    clock.now = () => now.call(clock) - HOUR
    const changed = await t.get(Schedules).put(operator, { ...hourly, request: request('other'), starts_at: '2025-01-01T00:00:00Z' })
    assert.equal(changed.next_at, '2026-01-01T02:00:00.000Z')
  })

  it('run now, as whoever asks', async () => {
    await using t = await runtime()
    await t.get(Schedules).put(operator, hourly)
    const asking = { ...operator, id: 'other' }
    const [one, two] = [await t.get(Schedules).runNow(asking, hourly), await t.get(Schedules).runNow(asking, hourly)]
    assert.notEqual(one.id, two.id)
    assert.deepEqual([one.created_by, one.metadata['schedule'], (await get(t)).last_job_id], ['other', 'hourly', two.id])
  })

  it('that the config declares come and go with it, and are changed nowhere else', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'backplane-test-'))
    try {
      const declared = { nightly: { cron: '0 2 * * *', type: 'note', input: 1, principal: 'robot' } }
      {
        await using t = await runtime({ host: { dataDir: folder }, config: { schedules: declared } })
        const made = await get(t, 'nightly')
        assert.deepEqual([made.declared, made.created_by, made.principal_id, made.project_id, made.request], [true, 'robot', 'robot', 'default', { type: 'note', input: 1 }])
        await assert.rejects(t.get(Schedules).put(operator, { ...hourly, name: 'nightly' }), ScheduleErrors.DECLARED.is)
        await assert.rejects(t.get(Schedules).remove(operator, { name: 'nightly' }), ScheduleErrors.DECLARED.is)
        await t.get(Schedules).pause(operator, { name: 'nightly' })
        await t.get(Schedules).put(operator, hourly)
      }
      {
        await using t = await runtime({ host: { dataDir: folder }, config: { schedules: declared } })
        assert.equal((await get(t, 'nightly')).enabled, false)
      }
      await using t = await runtime({ host: { dataDir: folder } })
      assert.deepEqual((await t.get(Schedules).list(operator)).items.map(each => each.name), ['hourly'])
    } finally { rmSync(folder, { recursive: true }) }
  })

  it('are listed page by page, and only where one may look', async () => {
    let projects: readonly string[] | 'all' = 'all'
    await using t = await runtime({ access: { projects: async () => projects } })
    const schedules = t.get(Schedules)
    for (const project_id of ['b', 'a']) for (const name of ['two', 'one']) await schedules.put(operator, { ...hourly, name, project_id })
    const first = await schedules.list(operator, { limit: 3 })
    assert.deepEqual(first.items.map(each => `${each.project_id}/${each.name}`), ['a/one', 'a/two', 'b/one'])
    const second = await schedules.list(operator, { limit: 3, cursor: first.next! })
    assert.deepEqual([second.items.map(each => `${each.project_id}/${each.name}`), second.next], [['b/two'], null])
    projects = ['b']
    assert.deepEqual((await schedules.list(operator)).items.map(each => each.project_id), ['b', 'b'])
    assert.deepEqual((await schedules.list(operator, { project_id: 'a' })).items, [])
    await assert.rejects(schedules.list(operator, { cursor: 'x' }), ScheduleErrors.INVALID.is)
  })

  it('refuse what could never run, and more than there may be', async () => {
    await using t = await runtime({ config: { max_schedules: 2 } })
    const schedules = t.get(Schedules)
    const refused = (change: object, match: RegExp) => assert.rejects(schedules.put(operator, { ...hourly, ...change } as ScheduleRequest), match)
    await refused({ cron: '99 * * * *' }, /cron: not a cron expression: .*minute/)
    await refused({ time_zone: 'Mars/Base' }, /time_zone: not a time zone/)
    await refused({ name: 'a b' }, /name: not a name/)
    await refused({ missed: 'twice' }, /missed/)
    await refused({ starts_at: '2030-01-02T00:00:00Z', ends_at: '2030-01-01T00:00:00Z' }, /ends_at: before starts_at/)
    await refused({ request: { ...request(), delay_ms: 5 } }, /request\.delay_ms/)
    await refused({ request: { type: 'nothing', input: 1 } }, /nothing here runs jobs of type "nothing"/)
    await schedules.put(operator, hourly)
    await schedules.put(operator, { ...hourly, name: 'second' })
    await assert.rejects(schedules.put(operator, { ...hourly, name: 'third' }), ScheduleErrors.TOO_MANY.is)
    await schedules.put(operator, { ...hourly, cron: '1 * * * *' })
    await assert.rejects(get(t, 'none'), ScheduleErrors.NOT_FOUND.is)
    await assert.rejects(schedules.pause(operator, { name: 'none' }), ScheduleErrors.NOT_FOUND.is)
  })

  it('tell when nobody fires them', async () => {
    const clock = new FakeClock(new Date('2026-01-01T00:30:00Z'))
    await using t = await runtime({ clock, host: { roles: ['api', 'worker'] } })
    await t.get(Schedules).put(operator, hourly)
    const health = async () => t.runtime.collect(HealthCheck).find(each => each.name === 'schedules')!.check(AbortSignal.timeout(1_000))
    assert.equal((await health()).status, 'healthy')
    await clock.advance(32 * MINUTE)
    assert.deepEqual(await health(), { status: 'degraded', message: 'a schedule is 120 s late: does a process with the role scheduler run?', details: { late_ms: 120_000, refused: 0 } })
    assert.deepEqual(await jobsOf(t), [])
  })
})
