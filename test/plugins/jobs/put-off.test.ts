import assert from 'node:assert/strict'
import { Jobs } from '#contracts/jobs'
import { ModelErrors } from '#contracts/models'
import { eventually } from '#core/testing'
import { awayFor } from '../../../plugins/jobs/work/failure.ts'
import { JobQueries } from '../../../plugins/jobs/tables/queries.ts'
import { Database } from '#contracts/database'
import { jobType, operator, runtime, until } from './kit.ts'

const open = (retry_after: number) => ModelErrors.CIRCUIT_OPEN({ provider: 'p', failures: 5, retry_after })

describe('a job that meets what asks to be left alone', () => {
  it('is put off for as long as that asks, with its steps, and is charged no attempt', async () => {
    let [runs, steps] = [0, 0]
    const calling = jobType('calling', async ({ step, job }) => {
      await step('once', async () => ++steps)
      if (++runs < 4) throw open(0.05)
      return [runs, steps, job.attempt]
    })
    await using t = await runtime({ types: [calling], config: { sweep_ms: 86_400_000 } })
    const { id } = await t.get(Jobs).submit(operator, { type: 'calling', input: null, max_attempts: 1 })
    const job = await until(t, id, 'completed')
    assert.deepEqual([job.result, job.attempt, job.error], [[4, 1, 1], 1, null])
    const { attempts } = await new JobQueries(t.get(Database)).history(id)
    assert.deepEqual(attempts.map(each => each.outcome), ['handed_back', 'handed_back', 'handed_back', 'completed'])
  })

  it('says meanwhile why it waits and until when, and goes on at once if somebody wants it to', async () => {
    let well = false
    await using t = await runtime({ types: [jobType('calling', async () => { if (!well) throw open(600); return 1 })] })
    const { id, created_at } = await t.get(Jobs).submit(operator, { type: 'calling', input: null, max_attempts: 1 })
    const job = await eventually('to be put off', async () => { const each = await t.get(Jobs).get(operator, id); return each.error !== null && each })
    assert.deepEqual([job.status, job.attempt, job.error?.code], ['delayed', 0, 'MODELS_CIRCUIT_OPEN'])
    const waits = Date.parse(job.run_at) - Date.parse(created_at)
    assert.ok(waits >= 600_000 && waits < 740_000, `it waits for ${waits} ms`)
    well = true
    await t.get(Jobs).retry(operator, id)
    assert.equal((await until(t, id, 'completed')).attempt, 1)
  })

  it('goes on here, where it is run at once and nobody else would begin it again', async () => {
    let runs = 0
    await using t = await runtime({ types: [jobType('calling', async () => { if (++runs < 3) throw open(0.02); return runs })], setupOnly: true })
    assert.equal((await t.get(Jobs).run(operator, { type: 'calling', input: null, max_attempts: 1 })).result, 3)
  })

  it('pays with an attempt once it has gone on so for a day, and waits for the sweep if no time is named', () => {
    assert.deepEqual(awayFor(open(10), 86_399_999, () => 0), { is: 'put_off', error: open(10), ms: 10_000 })
    assert.equal(awayFor(open(10), 86_400_000).is, 'failed')
    assert.deepEqual(awayFor(open(1e9), 0, () => 0.5), { is: 'put_off', error: open(1e9), ms: 3_960_000 })
    assert.deepEqual(awayFor(ModelErrors.PROVIDER_AWAY({ provider: 'p' }), 1e12), { is: 'away' })
  })
})
