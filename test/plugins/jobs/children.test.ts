import assert from 'node:assert/strict'
import { eventually, type TestRuntime } from '#core/testing'
import { Database } from '#contracts/database'
import { Jobs, type ChildRequest, type Job, type JobType } from '#contracts/jobs'
import { Questions } from '#contracts/questions'
import { postgresOrSkip } from '../../support/services.ts'
import { jobType, operator, runtime, until, type KitOptions } from './kit.ts'

const SWEEP = { sweep_ms: 20, retry: { base_ms: 1, max_ms: 1 } }
/** Sums what its children give: numbers are jobs of type `leaf`, lists are jobs of its own type. */
const sum = jobType('sum', async ({ input, children }) => {
  const requests = (input as unknown[]).map((each): ChildRequest => ({ type: Array.isArray(each) ? 'sum' : 'leaf', input: each, max_attempts: 1 }))
  const ended = await children(requests)
  return ended.reduce((total, { status, result }) => total + (status === 'completed' ? result as number : 0), 0)
})
const leaf = jobType('leaf', async ({ input }) => { if (input === 13) throw new Error('unlucky'); return input })
const stuck = jobType('stuck', () => new Promise(() => {}))
const start = (options: KitOptions = {}) => runtime({ types: [sum, leaf, stuck], config: SWEEP, ...options })
const submit = (t: TestRuntime, input: unknown, type = 'sum') => t.get(Jobs).submit(operator, { type, input })
const childrenOf = async (t: TestRuntime, { id }: Job) => (await t.get(Jobs).list(operator, { parent_id: id, limit: 100 })).items
const parentOf = (types: readonly JobType[]) => start({ types: [leaf, stuck, ...types] })

describe('jobs: ctx.children', () => {
  it('lets the parent wait without a worker until all are final, and go on with them', async () => {
    await using t = await start({ config: { ...SWEEP, concurrency: 1 } })
    const job = await submit(t, [1, [2, 3], 13, []])
    const done = await until(t, job.id, 'completed')
    assert.deepEqual([done.result, done.attempt], [6, 1])
    const children = await childrenOf(t, job)
    assert.deepEqual(children.map(({ type, status, parent_id, project_id, created_by }) => [type, status, parent_id, project_id, created_by]).sort(), [
      ['leaf', 'completed', job.id, 'default', 'op'], ['leaf', 'dead', job.id, 'default', 'op'],
      ['sum', 'completed', job.id, 'default', 'op'], ['sum', 'completed', job.id, 'default', 'op'],
    ])
    assert.equal(done.parent_id, null)
  })

  it('keeps those that are dead from being discarded until the parent has ended, which still asks for them', async () => {
    let open!: () => void
    const door = new Promise<void>(resolve => { open = resolve })
    const parent = jobType('parent', async ({ children }) => (await children([{ type: 'leaf', input: 13, max_attempts: 1 }, { type: 'slow', input: 1 }])).map(each => each.status))
    await using t = await parentOf([parent, jobType('slow', () => door)])
    const job = await submit(t, null, 'parent')
    const dead = await eventually('the dead one', async () => (await childrenOf(t, job)).find(each => each.status === 'dead'))
    await assert.rejects(t.get(Jobs).discard(operator, dead.id), { code: 'JOBS_AWAITED', status: 409 })
    open()
    assert.deepEqual((await until(t, job.id, 'completed')).result, ['dead', 'completed'])
    await t.get(Jobs).discard(operator, dead.id)
    await assert.rejects(t.get(Jobs).get(operator, dead.id), { code: 'JOBS_NOT_FOUND' })
  })

  it('submits them once, however often the parent is run again', async () => {
    let attempts = 0
    const parent = jobType('parent', async ({ children }) => {
      const ended = await children([{ type: 'leaf', input: 1 }, { type: 'leaf', input: 2 }])
      if (++attempts < 3) throw new Error('again')
      return ended.map(each => each.result)
    })
    await using t = await parentOf([parent])
    const job = await submit(t, null, 'parent')
    const done = await until(t, job.id, 'completed')
    assert.deepEqual([done.result, done.attempt], [[1, 2], 3])
    assert.equal((await childrenOf(t, job)).length, 2)
  })

  it('takes in all of them or none, and asks as for any job', async () => {
    const parent = jobType('parent', async ({ children }) => children([{ type: 'leaf', input: 1 }, { type: 'nothing', input: 1 }]))
    const keyed = jobType('keyed', async ({ children }) => children([{ type: 'leaf', input: 1, idempotency_key: 'k' } as ChildRequest]))
    await using t = await parentOf([parent, keyed])
    const job = await submit(t, null, 'parent')
    const dead = await until(t, job.id, 'dead')
    assert.equal(dead.error!.code, 'JOBS_TYPE_UNKNOWN')
    assert.deepEqual(await childrenOf(t, job), [])
    assert.deepEqual(await childrenOf(t, await submit(t, null, 'keyed')), [])
  })

  it('are cancelled with their parent, and theirs with them', async () => {
    const nest = jobType('nest', async ({ input, children }) => children([input > 0 ? { type: 'nest', input: input - 1 } : { type: 'stuck', input: 0 }, { type: 'leaf', input: 1 }]))
    await using t = await parentOf([nest])
    const job = await submit(t, 2, 'nest')
    const running = await eventually('the innermost', async () => (await t.get(Jobs).list(operator, { type: 'stuck', status: 'running' })).items[0])
    await t.get(Jobs).cancel(operator, job.id)
    assert.equal((await until(t, running.id, 'cancelled')).error!.code, 'JOBS_CANCELLED')
    const { items } = await t.get(Jobs).list(operator, { limit: 100 })
    assert.deepEqual(items.filter(({ status }) => !['completed', 'cancelled'].includes(status)), [])
    assert.equal(items.filter(({ type, status }) => type === 'nest' && status === 'cancelled').length, 3)
  })

  it('are cancelled, and parents woken, by a sweep, if a process died in between', async () => {
    await using t = await start({ config: { ...SWEEP, concurrency: 1 } })
    const blocker = await submit(t, null, 'stuck')
    await until(t, blocker.id, 'running')
    const knex = () => t.get(Database).knex()('jobs')
    // As the tables are if the cascade never began, and if no child woke its parent.
    const [cancelled, forgotten] = [await submit(t, [], 'sum'), await submit(t, [], 'sum')]
    const orphan = await t.get(Jobs).submit(operator, { type: 'leaf', input: 1, parent_id: cancelled.id })
    await knex().where({ id: cancelled.id }).update({ status: 'cancelled', finished_at: 1 })
    await until(t, orphan.id, 'cancelled')
    await t.get(Jobs).submit(operator, { type: 'leaf', input: 1, parent_id: forgotten.id })
    await knex().where({ parent_id: forgotten.id }).update({ status: 'completed', finished_at: 1 })
    await knex().where({ id: forgotten.id }).update({ status: 'waiting', for_children: 1 })
    await until(t, forgotten.id, 'queued')
    await t.get(Jobs).cancel(operator, blocker.id)
  })

  it('are no deeper than ten, and no more than max_children', async () => {
    const chain = jobType('chain', async ({ input, children }) => {
      const [child] = await children([{ type: 'chain', input: input + 1, max_attempts: 1 }])
      return child!.status === 'completed' ? child!.result : input
    })
    const many = jobType('many', async ({ children }) => children(Array.from({ length: 4 }, () => ({ type: 'leaf', input: 1 }))))
    await using t = await start({ types: [chain, many, leaf], config: { ...SWEEP, max_children: 3 } })
    assert.equal((await until(t, (await submit(t, 0, 'chain')).id, 'completed')).result, 9)
    assert.equal((await until(t, (await submit(t, 0, 'many')).id, 'dead')).error!.code, 'JOBS_PARENT')
  })

  it('may be submitted by whoever sees the parent, while that is unfinished, for its project', async () => {
    await using t = await start()
    const parent = await submit(t, null, 'stuck')
    const child = await t.get(Jobs).submit(operator, { type: 'leaf', input: 1, parent_id: parent.id })
    assert.equal(child.parent_id, parent.id)
    await assert.rejects(t.get(Jobs).submit(operator, { type: 'leaf', input: 1, parent_id: parent.id, project_id: 'other' }), { code: 'JOBS_PARENT' })
    await assert.rejects(t.get(Jobs).submit(operator, { type: 'leaf', input: 1, parent_id: child.id.replace(/.$/, '0') }), { code: 'JOBS_PARENT' })
    await t.get(Jobs).cancel(operator, parent.id)
    await assert.rejects(t.get(Jobs).submit(operator, { type: 'leaf', input: 1, parent_id: parent.id }), { code: 'JOBS_PARENT', status: 409 })
  })

  it('ask beside it: whatever comes first lets the parent go on, and it waits for the rest', async () => {
    const both = jobType('both', async ({ ask, children }) => {
      const [said, [child]] = await Promise.all([ask({ question: 'go?' }), children([{ type: 'asker', input: 0 }])])
      return [said, child!.result]
    })
    const asker = jobType('asker', async ({ ask }) => ask({ question: 'and you?' }))
    await using t = await parentOf([both, asker])
    const job = await submit(t, null, 'both')
    const child = await eventually('the child', async () => (await t.get(Jobs).list(operator, { type: 'asker', status: 'waiting' })).items[0])
    await until(t, job.id, 'waiting')
    await t.get(Questions).answer(operator, child.id, { answer: 'I' })
    await until(t, child.id, 'completed')
    await eventually('the parent to wait again', async () => (await t.get(Database).knex()('job_attempts').where({ job_id: job.id, outcome: 'waiting' })).length === 2)
    await t.get(Questions).answer(operator, job.id, { answer: 'you' })
    assert.deepEqual((await until(t, job.id, 'completed')).result, ['you', 'I'])
  })

  it('run where no worker was started, as for a command', async () => {
    await using t = await start({ setupOnly: true })
    const job = await t.get(Jobs).run(operator, { type: 'sum', input: [1, [2]] })
    assert.equal(job.result, 3)
  })

  it('end at the same moment, on PostgreSQL, and one of them wakes the parent', async function () {
    const server = await postgresOrSkip(this)
    await using place = await server.newDatabase()
    this.timeout(30_000)
    await using t = await start({ url: place.url, config: { ...SWEEP, sweep_ms: 60_000, concurrency: 20 } })
    const jobs = await Promise.all(Array.from({ length: 10 }, () => submit(t, [1, 2, 3, [4, 5]])))
    for (const { id } of jobs) assert.equal((await until(t, id, 'completed', 20_000)).result, 15)
  })
})
