import assert from 'node:assert/strict'
import fc from 'fast-check'
import { JOB_EVENTS, isFinal, next, type Standing } from '../../../plugins/jobs/tables/machine.ts'

const STATUSES = ['queued', 'delayed', 'running', 'waiting', 'completed', 'failed', 'dead', 'cancelled'] as const
const events = fc.array(fc.constantFrom(...JOB_EVENTS), { maxLength: 60 })
const limits = fc.integer({ min: 1, max: 5 })
/** Every standing on the way; events that have no way are passed over. */
const walk = (max_attempts: number, list: readonly (typeof JOB_EVENTS)[number][], from: Standing = { status: 'queued', attempt: 0, max_attempts }) =>
  list.reduce<Standing[]>((way, event) => [...way, next(way.at(-1)!, event) ?? way.at(-1)!], [from])

describe('the states of a job', () => {
  it('never count more attempts than there may be, nor fewer than none', () => {
    fc.assert(fc.property(limits, events, (max, list) => {
      for (const { attempt, status } of walk(max, list)) {
        assert.ok(attempt >= 0 && attempt <= max)
        if (status === 'running' || status === 'completed' || status === 'failed') assert.ok(attempt >= 1)
        if (status === 'queued' || status === 'failed' || status === 'waiting') assert.ok(attempt < max, 'it waits for an attempt that it does not have')
      }
    }))
  })

  it('stay as they are once they are final, unless somebody wants a job that has no result to be run again', () => {
    for (const status of STATUSES.filter(isFinal)) {
      for (const event of JOB_EVENTS) {
        const again = event === 'retry' && status !== 'completed' ? { status: 'queued', attempt: 0, max_attempts: 3 } : undefined
        assert.deepEqual(next({ status, attempt: 3, max_attempts: 3 }, event), again, `${status} ${event}`)
      }
    }
  })

  it('let a retry go ahead of a pause or a delay, with the attempts that are left', () => {
    for (const status of STATUSES.filter(each => !isFinal(each))) {
      const waits = status === 'failed' || status === 'delayed'
      const after = next({ status, attempt: 1, max_attempts: 3 }, 'retry')
      assert.deepEqual(after, waits ? { status: 'queued', attempt: 1, max_attempts: 3 } : undefined, status)
    }
  })

  it('leave running by every way but a claim, and come to it by nothing else', () => {
    for (const status of STATUSES) {
      for (const event of JOB_EVENTS) {
        const after = next({ status, attempt: 1, max_attempts: 3 }, event)
        assert.equal(after?.status === 'running', status === 'queued' && event === 'claim', `${status} ${event}`)
      }
    }
  })

  it('come to an end when every attempt fails or is interrupted', () => {
    fc.assert(fc.property(limits, fc.array(fc.constantFrom('fail', 'interrupt', 'hand_back'), { maxLength: 40 }), (max, ends) => {
      const list = ends.flatMap(end => ['claim', end, 'due'] as const) as (typeof JOB_EVENTS)[number][]
      const last = walk(max, list).at(-1)!
      const counted = ends.filter(end => end !== 'hand_back').length
      assert.equal(last.status, counted >= max ? 'dead' : 'queued')
      assert.equal(last.attempt, Math.min(counted, max))
    }))
  })

  it('wait without an attempt, and go on from nowhere but there', () => {
    const running = next({ status: 'queued', attempt: 2, max_attempts: 3 }, 'claim')!
    const waiting = next(running, 'park')!
    assert.deepEqual(waiting, { status: 'waiting', attempt: 2, max_attempts: 3 })
    assert.deepEqual(next(waiting, 'wake'), { status: 'queued', attempt: 2, max_attempts: 3 })
    assert.equal(next(waiting, 'cancel')?.status, 'cancelled')
    for (const event of JOB_EVENTS.filter(each => each !== 'wake' && each !== 'cancel')) assert.equal(next(waiting, event), undefined, event)
    for (const status of STATUSES.filter(each => each !== 'waiting')) assert.equal(next({ status, attempt: 1, max_attempts: 3 }, 'wake'), undefined, status)
  })

  it('give an attempt back that was not the job\'s fault', () => {
    const running = next({ status: 'queued', attempt: 1, max_attempts: 3 }, 'claim')!
    assert.deepEqual(next(running, 'hand_back'), { status: 'queued', attempt: 1, max_attempts: 3 })
  })
})
