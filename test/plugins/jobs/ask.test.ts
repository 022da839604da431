import assert from 'node:assert/strict'
import { eventually, FakeClock, type TestRuntime } from '#core/testing'
import { AccessErrors } from '#contracts/access'
import { Database } from '#contracts/database'
import { JobErrors, Jobs, JobSettled, JobSettling, type Job, type JobContext, type JobType } from '#contracts/jobs'
import { Questions, type Ask } from '#contracts/questions'
import { definePlugin } from '#core'
import { postgresOrSkip } from '../../support/services.ts'
import { jobType, openAccess, operator, runtime, until, type KitOptions } from './kit.ts'

const SWEEP = { sweep_ms: 20 }
/** Asks as its input says. */
const asking = (more: (ctx: JobContext, answer: unknown) => unknown = (_, answer) => ({ answer })): JobType =>
  jobType('asking', async ctx => more(ctx, await ctx.ask(ctx.input as Ask)))
const start = (options: KitOptions = {}) => runtime({ types: [asking()], config: SWEEP, ...options })
const submit = (t: TestRuntime, ask: Ask = { question: 'go?' }, more = {}) => t.get(Jobs).submit(operator, { type: 'asking', input: ask, ...more })
const answer = (t: TestRuntime, { id }: Job, answer: unknown, question?: string) =>
  t.get(Questions).answer(operator, id, { answer, ...(question !== undefined && { question }) })
const open = async (t: TestRuntime, filter = {}) => (await t.get(Questions).list(operator, filter)).items.map(({ job_id, name, question, to }) => [job_id, name, question, to])
const attemptsOf = async (t: TestRuntime, id: string) => (await t.get(Database).knex()('job_attempts').where({ job_id: id }).orderBy('token')).map(each => each.outcome)

describe('jobs: ctx.ask', () => {
  it('lets the job wait without a worker, and go on with the answer in an attempt that is the first still', async () => {
    let [before, after] = [0, 0]
    const type = jobType('asking', async ({ ask, step }) => {
      await step('before', async () => ++before)
      const said = await ask<string>({ question: 'go?', to: 'ann', options: ['yes', 'no'] })
      after++
      return said
    })
    await using t = await start({ types: [type], config: { ...SWEEP, concurrency: 1 } })
    const jobs = [await submit(t), await submit(t), await submit(t)]
    for (const job of jobs) await until(t, job.id, 'waiting')
    assert.deepEqual(await open(t), jobs.map(({ id }) => [id, 'ask#1', 'go?', 'ann']).sort())
    assert.deepEqual([before, after], [3, 0])
    const waiting = await t.get(Jobs).get(operator, jobs[0]!.id)
    assert.deepEqual([waiting.attempt, waiting.finished_at], [0, null])
    for (const job of jobs) assert.deepEqual((await answer(t, job, 'yes')).state, 'answered')
    for (const job of jobs) {
      const done = await until(t, job.id, 'completed')
      assert.deepEqual([done.result, done.attempt], ['yes', 1])
      assert.deepEqual(await attemptsOf(t, job.id), ['waiting', 'completed'])
    }
    assert.deepEqual([before, after], [3, 3])
    assert.deepEqual(await open(t), [])
  })

  it('takes the same answer twice, and no other; what does not fit; and none for a question that is not there', async () => {
    await using t = await start()
    const job = await submit(t, { question: 'which?', options: ['a', 'b'] })
    await until(t, job.id, 'waiting')
    await assert.rejects(answer(t, job, 'c'), { code: 'QUESTIONS_ANSWER', status: 400 })
    await assert.rejects(answer(t, job, 'a', 'ask#2'), { code: 'QUESTIONS_NOT_FOUND' })
    await assert.rejects(answer(t, { ...job, id: '0'.repeat(26) }, 'a'), { code: 'JOBS_NOT_FOUND' })
    const [one, two] = await Promise.allSettled([answer(t, job, 'a'), answer(t, job, 'b')])
    assert.deepEqual([one.status, two.status].sort(), ['fulfilled', 'rejected'])
    await until(t, job.id, 'completed')
    assert.equal((await answer(t, job, 'a')).answer, 'a')
    await assert.rejects(answer(t, job, 'b'), { code: 'QUESTIONS_CLOSED', status: 409 })
  })

  it('checks an answer against the schema of the question, and refuses a question that can not be asked at once', async () => {
    await using t = await start()
    const job = await submit(t, { question: 'how many?', schema: { type: 'object', properties: { n: { type: 'integer', minimum: 1 } }, required: ['n'] } })
    await until(t, job.id, 'waiting')
    await assert.rejects(answer(t, job, { n: 0 }), (error: any) => error.code === 'QUESTIONS_ANSWER' && error.details.errors[0].path === 'answer.n')
    await answer(t, job, { n: 3 })
    assert.deepEqual((await until(t, job.id, 'completed')).result, { answer: { n: 3 } })
    for (const wrong of [{ question: '' }, { question: 'a', options: [] }, { question: 'a', timeout_ms: 0 }, { question: 'a', options: ['a'], schema: {} }]) {
      await until(t, (await submit(t, wrong as Ask, { max_attempts: 1 })).id, 'dead')
    }
  })

  it('rejects with JOBS_ASK_TIMEOUT when nobody answers in time: at that moment, once and for all', async () => {
    const type = jobType('asking', async ({ ask, step }) => {
      const said = await ask({ question: 'go?', timeout_ms: 60_000 }).catch(error => (JobErrors.ASK_TIMEOUT.is(error) ? 'nobody' : Promise.reject(error)))
      return [said, await step('after', async () => 1)]
    })
    const clock = new FakeClock()
    await using t = await runtime({ types: [type, asking()].slice(0, 1), clock, config: { sweep_ms: 3_600_000 } })
    const job = await submit(t)
    await until(t, job.id, 'waiting')
    await clock.advance(59_999)
    assert.equal((await t.get(Jobs).get(operator, job.id)).status, 'waiting')
    await clock.advance(1)
    const done = await until(t, job.id, 'completed')
    assert.deepEqual(done.result, ['nobody', 1])
    await assert.rejects(answer(t, job, 'late'), { code: 'QUESTIONS_CLOSED' })
  })

  it('ends a job that does not catch the time-out, as dead', async () => {
    await using t = await start()
    const job = await submit(t, { question: 'go?', timeout_ms: 1 })
    const dead = await until(t, job.id, 'dead')
    assert.deepEqual([dead.error!.code, dead.error!.retryable, dead.attempt], ['JOBS_ASK_TIMEOUT', false, 1])
    // Run again, it asks again.
    await t.get(Database).knex()('job_questions').update({ addressee: 'the first' })
    await t.get(Jobs).replay(operator, { id: job.id })
    await until(t, job.id, 'dead')
    assert.deepEqual(await attemptsOf(t, job.id), ['waiting', 'dead', 'waiting', 'dead'])
  })

  it('can be cancelled while it waits, and takes no answer then', async () => {
    await using t = await start()
    const job = await submit(t)
    await until(t, job.id, 'waiting')
    assert.equal((await t.get(Jobs).cancel(operator, job.id)).status, 'cancelled')
    await assert.rejects(answer(t, job, 1), { code: 'JOBS_FINAL' })
    assert.deepEqual(await open(t), [])
    // Again, it asks the same question, and the answer counts.
    await t.get(Jobs).retry(operator, job.id)
    await until(t, job.id, 'waiting')
    await answer(t, job, 1)
    assert.deepEqual((await until(t, job.id, 'completed')).result, { answer: 1 })
  })

  it('has all its time again when it is run again, whatever passed meanwhile, and keeps the answers that it had', async () => {
    const clock = new FakeClock()
    const type = jobType('asking', async ({ ask }) => Promise.all([ask({ question: 'one?', timeout_ms: 60_000 }), ask({ question: 'two?', timeout_ms: 60_000 })]))
    await using t = await runtime({ types: [type], clock, config: { sweep_ms: 86_400_000 } })
    const job = await submit(t)
    await until(t, job.id, 'waiting')
    await answer(t, job, 'yes', 'ask#1')
    await eventually('it to wait for the other', async () => (await attemptsOf(t, job.id)).length === 2 && (await t.get(Jobs).get(operator, job.id)).status === 'waiting')
    await t.get(Jobs).cancel(operator, job.id)
    await clock.advance(3_600_000)
    await t.get(Jobs).retry(operator, job.id)
    await until(t, job.id, 'waiting')
    await clock.advance(59_000)
    const { items } = await t.get(Questions).list(operator)
    assert.deepEqual(items.map(each => [each.name, Date.parse(each.expires_at!) - clock.now()]), [['ask#2', 1_000]])
    await answer(t, job, 'no', 'ask#2')
    assert.deepEqual((await until(t, job.id, 'completed')).result, ['yes', 'no'])
  })

  it('finishes steps that are under way, begins no other, and runs nothing that comes after it', async () => {
    const done: string[] = []
    let go = () => {}
    const type = jobType('asking', async ({ ask, step, signal }) => {
      signal.addEventListener('abort', () => done.push('aborted'))
      const slow = step('slow', async () => { await new Promise<void>(resolve => { go = resolve }); done.push('slow'); return 1 })
      const chain = slow.then(() => step('next', async () => { done.push('next'); return 2 }))
      const [said, other] = await Promise.all([ask({ question: 'a?' }), ask({ question: 'b?' }), chain])
      done.push('after')
      return [said, other]
    })
    await using t = await start({ types: [type] })
    const job = await submit(t)
    await eventually('the step', async () => { await new Promise(resolve => setTimeout(resolve, 5)); return (await t.get(Jobs).get(operator, job.id)).status === 'running' })
    assert.deepEqual(done, [])
    go()
    await until(t, job.id, 'waiting')
    assert.deepEqual(done, ['slow', 'aborted'])
    assert.deepEqual((await open(t)).map(each => each[1]), ['ask#1', 'ask#2'])
    await assert.rejects(answer(t, job, 1), { code: 'QUESTIONS_WHICH' })
    await answer(t, job, 'A', 'ask#1')
    await eventually('the next question alone', async () => (await open(t)).length === 1 && done.filter(each => each === 'aborted').length === 2)
    await answer(t, job, 'B')
    assert.deepEqual((await until(t, job.id, 'completed')).result, ['A', 'B'])
    assert.deepEqual([done.filter(each => each === 'slow').length, done.filter(each => each === 'next').length], [1, 1])
  })

  it('tells nobody who settles, and is followed by run() until it is answered', async () => {
    const told: string[] = []
    const observer = definePlugin({ name: 'observer', guards: [JobSettling], setup(ctx) {
      ctx.hook(JobSettling, ({ job }) => void told.push(`settling ${job.status}`))
      ctx.hook(JobSettled, ({ job }) => void told.push(`settled ${job.status}`))
    } })
    await using t = await start({ plugins: [observer] })
    let begun: Job | undefined
    const run = t.get(Jobs).run(operator, { type: 'asking', input: { question: 'go?' } }, { onBegin: job => { begun = job } })
    await eventually('the question', async () => (await open(t)).length === 1)
    assert.deepEqual(told, [])
    await answer(t, begun!, 'yes')
    assert.deepEqual((await run).result, { answer: 'yes' })
    await eventually('both', () => told.length === 2)
    assert.deepEqual(told, ['settling completed', 'settled completed'])
  })

  it('lets only those answer who have the permission for this job', async () => {
    const asked: unknown[] = []
    const check = async (_: unknown, permission: string, resource?: object) => {
      asked.push([permission, resource])
      if (permission === 'jobs:answer') throw AccessErrors.FORBIDDEN({ permission, reason: 'no' })
    }
    await using t = await start({ services: [openAccess({ check })] })
    const job = await submit(t)
    await until(t, job.id, 'waiting')
    await assert.rejects(answer(t, job, 1), { code: 'ACCESS_FORBIDDEN' })
    assert.deepEqual(asked.at(-1), ['jobs:answer', { kind: 'job', id: job.id, project_id: 'default' }])
  })

  it('waits on through a restart', async () => {
    const { mkdtempSync, rmSync } = await import('node:fs')
    const dataDir = mkdtempSync('/tmp/backplane-ask-')
    try {
      let job: Job
      { await using t = await start({ host: { dataDir } }); job = await submit(t); await until(t, job.id, 'waiting') }
      await using t = await start({ host: { dataDir } })
      await answer(t, job, 42)
      assert.deepEqual((await until(t, job.id, 'completed')).result, { answer: 42 })
    } finally { rmSync(dataDir, { recursive: true }) }
  })

  it('does all that on PostgreSQL', async function () {
    const server = await postgresOrSkip(this)
    await using place = await server.newDatabase()
    await using t = await start({ url: place.url })
    const [job, late] = [await submit(t, { question: 'go?', to: 'ann' }), await submit(t, { question: 'late?', timeout_ms: 50 })]
    await until(t, job.id, 'waiting')
    assert.deepEqual(await open(t, { to: 'ann', limit: 1 }), [[job.id, 'ask#1', 'go?', 'ann']])
    const results = await Promise.allSettled(Array.from({ length: 8 }, (_, at) => answer(t, job, at)))
    assert.equal(results.filter(each => each.status === 'fulfilled').length, 1)
    await until(t, job.id, 'completed')
    assert.equal((await until(t, late.id, 'dead')).error!.code, 'JOBS_ASK_TIMEOUT')
  })
})
