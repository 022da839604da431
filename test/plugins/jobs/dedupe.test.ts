import assert from 'node:assert/strict'
import type { TestRuntime } from '#core/testing'
import { AccessErrors } from '#contracts/access'
import { Database } from '#contracts/database'
import { Jobs } from '#contracts/jobs'
import { postgresOrSkip } from '../../support/services.ts'
import { jobType, openAccess, operator, runtime, until, type KitOptions } from './kit.ts'

const quick = jobType('quick', async ({ input }) => { if (input === 'fail') throw Object.assign(new Error('no'), { retryable: false }); return input })
const start = (options: KitOptions = {}) => runtime({ types: [quick], config: { sweep_ms: 20 }, ...options })
const submit = (t: TestRuntime, input: unknown, more: object = {}, caller = operator) => t.get(Jobs).submit(caller, { type: 'quick', input, dedupe: { key: 'k' }, ...more })
const count = async (t: TestRuntime) => (await t.get(Jobs).list(operator, { limit: 100 })).items.length
const other = { ...operator, id: 'other' }

async function walkThrough(t: TestRuntime): Promise<void> {
  const first = await submit(t, 1, { delay_ms: 3_600_000 })
  assert.equal((await submit(t, 2)).id, first.id)
  assert.notEqual((await submit(t, 2, { project_id: 'p2' })).id, first.id)
  assert.notEqual((await submit(t, 2, { dedupe: { key: 'l' } })).id, first.id)
  const [a, b, c] = await t.get(Jobs).submitMany(operator, [1, 2, 3].map(input => ({ type: 'quick', input, delay_ms: 60_000, dedupe: { key: input === 3 ? 'k' : 'batch' } })))
  assert.equal(a!.id, b!.id)
  assert.equal(c!.id, first.id)
  await t.get(Jobs).retry(operator, first.id)
  await until(t, first.id, 'completed')
  const second = await submit(t, 'fail')
  assert.notEqual(second.id, first.id)
  await until(t, second.id, 'dead')
  const many = await Promise.all(Array.from({ length: 20 }, () => submit(t, 3, { delay_ms: 60_000 })))
  assert.equal(new Set(many.map(each => each.id)).size, 1)
  // What has ended can be run again although there is a newer one.
  assert.equal((await t.get(Jobs).retry(operator, second.id)).status, 'queued')
  await until(t, second.id, 'dead')
  assert.deepEqual(await t.get(Database).knex()('jobs').where({ dedupe_key: 'k', project_id: 'default' }).pluck('id'), [many[0]!.id])
}

describe('jobs: dedupe', () => {
  it('resolves to the unfinished job of the project that has the key; once that has ended, to a new one', async () => {
    await using t = await start()
    await walkThrough(t)
  })

  it('does so on PostgreSQL', async function () {
    const server = await postgresOrSkip(this)
    await using place = await server.newDatabase()
    await using t = await start({ url: place.url })
    await walkThrough(t)
    const ids = await Promise.all(Array.from({ length: 200 }, async () => (await submit(t, 1, { dedupe: { key: 'race' } })).id))
    assert.ok(ids.length === 200)
  })

  it('shows another\'s job only to those who may see it', async () => {
    const check = async (caller: { id: string }, permission: string) => { if (permission === 'jobs:read' && caller.id === 'other') throw AccessErrors.FORBIDDEN({ permission, reason: 'no' }) }
    await using t = await start({ services: [openAccess({ check })] })
    await submit(t, 1, { delay_ms: 60_000 })
    await assert.rejects(submit(t, 1, {}, other), { code: 'ACCESS_FORBIDDEN' })
    assert.equal(await count(t), 1)
  })

  it('goes together with an idempotency key, and refuses what is no key', async () => {
    await using t = await start()
    const keyed = await submit(t, 1, { delay_ms: 60_000, idempotency_key: 'i' })
    assert.equal((await submit(t, 1, { delay_ms: 60_000, idempotency_key: 'i' })).id, keyed.id)
    await assert.rejects(submit(t, 2, { idempotency_key: 'i' }), { code: 'JOBS_KEY_REUSED' })
    assert.equal((await submit(t, 2, { idempotency_key: 'j' })).id, keyed.id)
    await assert.rejects(submit(t, 2, { dedupe: { key: '' } }), { code: 'JOBS_INPUT_INVALID' })
  })

  it('lets run() wait for the job that is there', async () => {
    await using t = await start()
    const first = await submit(t, 1, { delay_ms: 300 })
    const ran = await t.get(Jobs).run(operator, { type: 'quick', input: 2, dedupe: { key: 'k' } })
    assert.deepEqual([ran.id, ran.result], [first.id, 1])
  })
})
