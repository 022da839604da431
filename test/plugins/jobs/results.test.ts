import assert from 'node:assert/strict'
import { eventually, type TestRuntime } from '#core/testing'
import { AccessErrors } from '#contracts/access'
import { Database } from '#contracts/database'
import { JobUpdates, type JobUpdate } from '#contracts/job-updates'
import { Jobs, JobSettled, JobSettling, type Job } from '#contracts/jobs'
import { definePlugin } from '#core'
import { serverAt } from '../../../core/cli/client.ts'
import commands from '../../../plugins/jobs/commands.ts'
import cluster from '../../../plugins/cluster/index.ts'
import events from '../../../plugins/events/index.ts'
import { postgresOrSkip } from '../../support/services.ts'
import { served } from '../sse/kit.ts'
import { jobType, openAccess, operator, runtime, until, type KitOptions } from './kit.ts'

/** As many bytes of JSON as it is given, with characters of more than one. */
const big = jobType('big', async ({ input }) => `ü${'x'.repeat(input - 4)}`)
const LARGE = `ü${'x'.repeat(99_996)}`
const start = (options: KitOptions = {}) => runtime({ types: [big], plugins: [cluster, events], ...options })
const request = (input: number) => ({ type: 'big', input })
const submit = async (t: TestRuntime, input: number) => (await t.get(Jobs).submit(operator, request(input))).id
const kept = (t: TestRuntime) => t.get(Database).knex()('job_results').pluck('job_id')
const refOf = (id: string) => ({ bytes: 100_000, url: `/api/v1/jobs/${id}/result` })

async function walkThrough(t: TestRuntime): Promise<void> {
  const [large, small] = [await submit(t, 100_000), await submit(t, 32_768)]
  for (const id of [large, small]) await until(t, id, 'completed')
  const listed = new Map((await t.get(Jobs).list(operator)).items.map(job => [job.id, job]))
  for (const job of [await t.get(Jobs).get(operator, large), listed.get(large)!]) assert.deepEqual([job.result, job.result_ref], [null, refOf(large)])
  for (const job of [await t.get(Jobs).get(operator, small), listed.get(small)!]) assert.deepEqual([(job.result as string).length, job.result_ref], [32_765, null])
  assert.equal(await t.get(Jobs).result(operator, large), LARGE)
  assert.equal((await t.get(Jobs).result(operator, small) as string).length, 32_765)
  assert.deepEqual(await kept(t), [large])
  await t.get(Database).knex()('jobs').where({ id: large }).delete()
  assert.deepEqual(await kept(t), [])
}

describe('a large result', () => {
  it('is kept apart: jobs and lists have where it is, and it goes with its job', async () => {
    await using t = await start()
    await walkThrough(t)
  })

  it('is so on PostgreSQL', async function () {
    const server = await postgresOrSkip(this)
    await using place = await server.newDatabase()
    await using t = await start({ url: place.url })
    await walkThrough(t)
  })

  it('is whole for who runs the job, and for the parent of it', async () => {
    const parent = jobType('parent', async ({ children }) => (await children([request(100_000), request(10)])).map(job => [(job.result as string).length, job.result_ref]))
    await using t = await start({ types: [big, parent] })
    const ran = await t.get(Jobs).run(operator, request(100_000))
    assert.deepEqual([ran.result, ran.result_ref], [LARGE, null])
    const joined = await t.get(Jobs).run(operator, { ...request(100_000), idempotency_key: 'k' })
    assert.equal((await t.get(Jobs).run(operator, { ...request(100_000), idempotency_key: 'k' })).result, LARGE, joined.id)
    assert.deepEqual((await t.get(Jobs).run(operator, { type: 'parent', input: null })).result, [[99_997, null], [7, null]])
  })

  it('is referred to in the event, in updates, and by the hooks', async () => {
    const seen: Job[] = []
    const hooks = definePlugin({
      name: 'hooks', summary: 'x', guards: [JobSettling],
      setup(ctx) { ctx.hook(JobSettling, ({ job }) => { seen.push(job) }); ctx.hook(JobSettled, ({ job }) => { seen.push(job) }) },
    })
    await using t = await start({ plugins: [cluster, events, hooks] })
    const id = await submit(t, 100_000)
    const updates: JobUpdate[] = []
    for await (const update of t.get(JobUpdates).follow(operator, id, { signal: AbortSignal.timeout(10_000) })) updates.push(update)
    assert.deepEqual([updates.at(-1)!.type, updates.at(-1)!.result, updates.at(-1)!.result_ref], ['completed', undefined, refOf(id)])
    assert.deepEqual(seen.map(job => [job.status, job.result, job.result_ref]), Array.from({ length: 2 }, () => ['completed', null, refOf(id)]))
    const small = await submit(t, 32_768)
    for await (const update of t.get(JobUpdates).follow(operator, small, { signal: AbortSignal.timeout(10_000) })) updates.push(update)
    assert.deepEqual([(updates.at(-1)!.result as string).length, updates.at(-1)!.result_ref], [32_765, undefined])
  })

  it('ends the job if it is larger than may be, and its veto keeps nothing', async () => {
    const veto = definePlugin({ name: 'veto', summary: 'x', guards: [JobSettling], setup(ctx) { ctx.hook(JobSettling, ({ job }) => { if (job.status === 'completed') throw new Error('no') }) } })
    await using t = await start({ config: { max_result_bytes: 100_000 }, plugins: [veto] })
    const [fits, not] = await Promise.all([{ ...request(100_000), max_attempts: 1 }, { ...request(100_001), max_attempts: 1 }].map(each => t.get(Jobs).run(operator, each)))
    assert.deepEqual([fits!.status, fits!.error!.code, not!.error!.code], ['dead', 'JOBS_FAILED', 'JOBS_TOO_LARGE'])
    assert.deepEqual([fits!.result_ref, await kept(t)], [null, []])
  })

  it('may be of any size from the first byte on', async () => {
    await using t = await start({ config: { inline_result_bytes: 0 } })
    assert.equal((await t.get(Jobs).run(operator, request(10))).result, 'üxxxxxx')
    assert.equal((await kept(t)).length, 1)
  })
})

describe('GET /api/v1/jobs/:id/result', () => {
  it('answers the JSON of any result as it is, and 304 to who has it', async () => {
    await using t = await served({ types: [big, jobType('nothing', async () => undefined), jobType('never', async () => { throw Object.assign(new Error('no'), { retryable: false }) })] })
    const get = (id: string, headers: Record<string, string> = {}) => fetch(`${t.url}/api/v1/jobs/${id}/result`, { headers })
    for (const bytes of [100_000, 10]) {
      const { id } = await t.get(Jobs).run(operator, request(bytes))
      const answer = await get(id)
      assert.deepEqual([answer.status, answer.headers.get('content-type'), answer.headers.get('content-length')], [200, 'application/json; charset=utf-8', String(bytes)])
      assert.equal((await answer.json() as string).length, bytes - 3)
      const again = await get(id, { 'if-none-match': answer.headers.get('etag')! })
      assert.deepEqual([again.status, await again.text()], [304, ''])
    }
    const { id } = await t.get(Jobs).run(operator, { type: 'nothing', input: null })
    assert.equal(await (await get(id)).text(), 'null')
    const dead = await t.get(Jobs).run(operator, { type: 'never', input: null })
    for (const known of [{} as Record<string, string>, { 'if-none-match': '"1"' }]) {
      const none = await get(dead.id, known)
      assert.deepEqual([none.status, (await none.json() as { code: string }).code], [404, 'JOBS_NO_RESULT'])
    }
    assert.equal((await get('none')).status, 404)
  })

  it('asks for the same permission as the job itself', async () => {
    const asked: unknown[] = []
    const check = async (...args: unknown[]) => { asked.push(args.slice(1)); if (args[1] === 'jobs:read') throw AccessErrors.FORBIDDEN({ permission: 'jobs:read', reason: 'no' }) }
    await using t = await start({ services: [openAccess({ check })] })
    const { id } = await t.get(Jobs).run(operator, request(100_000))
    await assert.rejects(t.get(Jobs).result(operator, id), { code: 'ACCESS_FORBIDDEN' })
    assert.deepEqual(asked.at(-1), ['jobs:read', { kind: 'job', id, project_id: 'default' }])
  })

  it('is what the commands show and print', async () => {
    await using t = await served({ types: [big] })
    const id = await submit(t, 100_000)
    await eventually('its end', async () => (await t.get(Jobs).get(operator, id)).status === 'completed')
    const run = async (name: string, json: boolean) => {
      let out = ''
      const code = await commands.find(each => each.name === name)!.run({
        args: [id], options: {}, json, tty: false, signal: new AbortController().signal, stdin: async function* () {}, get: () => assert.fail(), server: serverAt(t.url),
        out: text => { out += `${text}\n` }, write: text => { out += text }, err() {},
      })
      assert.equal(code, 0)
      return out
    }
    assert.ok((await run('jobs show', false)).includes(`result: ${LARGE}\n`))
    const shown = JSON.parse(await run('jobs show', true)) as Job
    assert.deepEqual([shown.result, shown.result_ref], [LARGE, null])
    assert.equal(await run('jobs watch', false), `${LARGE}\n`)
  })
})
