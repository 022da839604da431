import assert from 'node:assert/strict'
import type { Command, CommandIo } from '#core'
import type { HttpRoute } from '#contracts/http'
import { HttpRoute as Routes } from '#contracts/http'
import { JobErrors, Jobs, type Job } from '#contracts/jobs'
import { eventually, type TestRuntime } from '#core/testing'
import { Database } from '#contracts/database'
import commands from '../../../plugins/jobs/commands.ts'
import { jobType, operator, runtime, until } from './kit.ts'

const agent = jobType('agent', async ({ input, step }) => `${input.agent}: ${await step('think', async () => input.input)}`)
const errors = async (route: HttpRoute, part: 'body' | 'query', value: unknown): Promise<string[]> => {
  const checked = await route[part]!['~standard'].validate(value)
  return (checked.issues ?? []).map(issue => `${(issue.path ?? []).join('.')}: ${issue.message}`)
}
/** As http calls it, once the schemas let it through. */
interface Parts { readonly params?: object; readonly query?: object; readonly body?: unknown; readonly headers?: Record<string, string> }
async function call(t: TestRuntime, method: string, path: string, { params = {}, query = {}, body, headers = {} }: Parts = {}) {
  const route = t.runtime.collect(Routes).find(each => each.method === method && each.path === path)!
  const read = async (part: 'params' | 'query' | 'body', value: unknown) => {
    const checked = await route[part]?.['~standard'].validate(value)
    assert.equal(checked?.issues, undefined)
    return checked && 'value' in checked ? checked.value : undefined
  }
  return route.handler({
    id: 'r', method, path, params: await read('params', params), query: await read('query', query), body: await read('body', body),
    headers, caller: operator, signal: new AbortController().signal, address: '127.0.0.1',
  })
}

describe('the routes of jobs', () => {
  it('take a job in, show it, and list it', async () => {
    await using t = await runtime({ types: [agent] })
    const made = await call(t, 'POST', '/api/v1/jobs', { body: { agent: 'math', input: '1+1', priority: 3, metadata: { a: 1 } } })
    const job = made.body as Job
    assert.deepEqual([made.status, made.headers], [202, { Location: `/api/v1/jobs/${job.id}` }])
    assert.deepEqual([job.type, job.agent, job.input, job.priority, job.metadata], ['agent', 'math', { agent: 'math', input: '1+1' }, 3, { a: 1 }])
    const shown = await eventually('the end', async () => {
      const { body } = await call(t, 'GET', '/api/v1/jobs/:id', { params: { id: job.id } })
      return (body as Job).status === 'completed' && body as Job & { attempts: any[]; steps: any[] }
    })
    assert.equal(shown.result, 'math: 1+1')
    assert.deepEqual([shown.attempts.map(each => each.outcome), shown.steps.map(each => each.name)], [['completed'], ['think#1']])
    const listed = await call(t, 'GET', '/api/v1/jobs', { query: { agent: 'math', limit: '5', status: 'completed' } })
    assert.deepEqual((listed.body as { items: Job[] }).items.map(each => each.id), [job.id])
    await assert.rejects(call(t, 'GET', '/api/v1/jobs/:id', { params: { id: '../x' } }), { code: 'JOBS_NOT_FOUND', status: 404 })
  })

  it('take the idempotency key from its header too, and refuse another one in the body', async () => {
    await using t = await runtime({ types: [agent] })
    const submit = async (key: string, more = {}) =>
      (await call(t, 'POST', '/api/v1/jobs', { body: { agent: 'math', input: '1', ...more }, headers: { 'idempotency-key': key } })).body as Job
    const first = await submit('monday')
    assert.deepEqual([(await submit('monday')).id, (await submit('monday', { idempotency_key: 'monday' })).id], [first.id, first.id])
    assert.notEqual((await submit('tuesday')).id, first.id)
    await assert.rejects(submit('monday', { input: '2' }), { code: 'JOBS_KEY_REUSED' })
    await assert.rejects(submit('monday', { idempotency_key: 'tuesday' }), { code: 'HTTP_INVALID', status: 400 })
    for (const key of ['', '""', 'x'.repeat(201)]) await assert.rejects(submit(key), { code: 'HTTP_INVALID' })
  })

  it('take in many, cancel, run again, and keep the dead-letter queue', async () => {
    let mended = false
    const failing = jobType('agent', async () => { if (!mended) throw Object.assign(new Error('no'), { retryable: false }) })
    await using t = await runtime({ types: [failing] })
    const one = { agent: 'math', input: 1 }
    const batch = (await call(t, 'POST', '/api/v1/jobs/batch', { body: { jobs: [one, one, { ...one, delay_ms: 3_600_000, backoff: { base_ms: 5 } }] } })).body as { items: Job[] }
    assert.deepEqual(batch.items.map(each => each.status), ['queued', 'queued', 'delayed'])
    const [first, second, delayed] = batch.items.map(each => ({ id: each.id })) as [{ id: string }, { id: string }, { id: string }]
    const dead = async (query: object = {}) => ((await call(t, 'GET', '/api/v1/dlq', { query })).body as { items: Job[] }).items.map(each => each.id)
    await eventually('two to be dead', async () => (await dead()).length === 2)
    assert.deepEqual(await Promise.all([{ agent: 'math', code: 'JOBS_FAILED' }, { agent: 'other' }, { limit: '1' }].map(async query => (await dead(query)).length)), [2, 0, 1])
    assert.equal(((await call(t, 'POST', '/api/v1/jobs/:id/cancel', { params: delayed })).body as Job).status, 'cancelled')
    await assert.rejects(call(t, 'POST', '/api/v1/dlq/:id/replay', { params: delayed }), { code: 'JOBS_NOT_DEAD', status: 409 })
    mended = true
    const replayed = await call(t, 'POST', '/api/v1/dlq/:id/replay', { params: first })
    assert.deepEqual([replayed.status, replayed.body], [202, { replayed: 1 }])
    const retried = await call(t, 'POST', '/api/v1/jobs/:id/retry', { params: delayed })
    assert.deepEqual([retried.status, (retried.body as Job).status], [202, 'queued'])
    assert.deepEqual((await call(t, 'POST', '/api/v1/dlq/replay', { body: { agent: 'other' } })).body, { replayed: 0 })
    assert.equal((await call(t, 'DELETE', '/api/v1/dlq/:id', { params: second })).status, 204)
    await assert.rejects(call(t, 'GET', '/api/v1/jobs/:id', { params: second }), { code: 'JOBS_NOT_FOUND' })
    assert.deepEqual([await dead(), (await call(t, 'POST', '/api/v1/dlq/replay', { body: {} })).body], [[], { replayed: 0 }])
    for (const [method, path] of [['GET', '/api/v1/jobs/:id'], ['POST', '/api/v1/jobs/:id/cancel'], ['POST', '/api/v1/jobs/:id/retry'], ['POST', '/api/v1/dlq/:id/replay'], ['DELETE', '/api/v1/dlq/:id']] as const) {
      await assert.rejects(call(t, method, path, { params: { id: 'x'.repeat(10_000) } }), (error: any) => error.code === 'JOBS_NOT_FOUND' && error.message.length < 100)
    }
  })

  it('show what a job asks, take the answer, and show it then', async () => {
    const asking = jobType('agent', async ({ ask }) => ask({ question: 'go?', to: 'ann', options: ['yes'] }))
    await using t = await runtime({ types: [asking] })
    const { id } = (await call(t, 'POST', '/api/v1/jobs', { body: { agent: 'math', input: 1 } })).body as Job
    await until(t, id, 'waiting')
    const { items } = (await call(t, 'GET', '/api/v1/questions', { query: { to: 'ann', limit: '5' } })).body as { items: { job_id: string; name: string }[] }
    assert.deepEqual(items.map(({ job_id, name }) => [job_id, name]), [[id, 'ask#1']])
    await assert.rejects(call(t, 'POST', '/api/v1/jobs/:id/answer', { params: { id }, body: { answer: 'no' } }), { code: 'QUESTIONS_ANSWER', status: 400 })
    await call(t, 'POST', '/api/v1/jobs/:id/answer', { params: { id }, body: { answer: 'yes', question: 'ask#1' } })
    await until(t, id, 'completed')
    const shown = (await call(t, 'GET', '/api/v1/jobs/:id', { params: { id } })).body as { questions: { state: string; answered_by: string; answer: unknown }[]; events: { type: string; data: any }[] }
    assert.deepEqual(shown.questions.map(({ state, answered_by, answer }) => [state, answered_by, answer]), [['answered', 'op', 'yes']])
  })

  it('answer as they say they do', async () => {
    await using t = await runtime({ types: [agent], config: { concurrency: 0 } })
    const made = await call(t, 'POST', '/api/v1/jobs', { body: { type: 'agent', input: { agent: 'a', input: 'b' } } })
    const id = (made.body as Job).id
    for (const [method, path, status, answer] of [
      ['POST', '/api/v1/jobs', 202, made], ['GET', '/api/v1/jobs', 200, await call(t, 'GET', '/api/v1/jobs')], ['GET', '/api/v1/jobs/:id', 200, await call(t, 'GET', '/api/v1/jobs/:id', { params: { id } })],
      ['POST', '/api/v1/jobs/batch', 202, await call(t, 'POST', '/api/v1/jobs/batch', { body: { jobs: [{ type: 'agent', input: { agent: 'a', input: 1 } }] } })],
      ['POST', '/api/v1/jobs/:id/cancel', 200, await call(t, 'POST', '/api/v1/jobs/:id/cancel', { params: { id } })],
      ['POST', '/api/v1/jobs/:id/retry', 202, await call(t, 'POST', '/api/v1/jobs/:id/retry', { params: { id } })],
      ['GET', '/api/v1/dlq', 200, await call(t, 'GET', '/api/v1/dlq')], ['POST', '/api/v1/dlq/replay', 202, await call(t, 'POST', '/api/v1/dlq/replay', { body: {} })],
    ] as const) {
      const route = t.runtime.collect(Routes).find(each => each.method === method && each.path === path)!
      assert.ok(route.permission?.startsWith('jobs:'))
      assert.equal((await route.answers![status]!['~standard'].validate(answer.body)).issues, undefined)
    }
  })

  it('name each field that is wrong', async () => {
    await using t = await runtime({ types: [agent] })
    const of = (method: string) => t.runtime.collect(Routes).find(each => each.method === method && each.path === '/api/v1/jobs')!
    const submit = (body: unknown) => errors(of('POST'), 'body', body)
    const at = async (body: unknown) => (await submit(body)).map(each => each.split(':')[0])
    assert.deepEqual(await submit({ agent: 'a', input: 'x' }), [])
    assert.deepEqual(await submit({ agent: 'a', type: 'b', input: 'x' }), ['agent: give either "agent" or "type"'])
    assert.deepEqual(await at({ input: 'x' }), ['agent'])
    assert.deepEqual(await submit({ agent: 'a' }), ['input: is missing; null is something'])
    assert.deepEqual(await at({}), ['agent', 'input'])
    assert.deepEqual(await submit({ agent: 'a', input: null }), [])
    assert.deepEqual(await at({ agent: '', input: 1 }), ['agent'])
    for (const [key, value] of [['priority', 10], ['priority', 1.5], ['max_attempts', 0], ['timeout_ms', 1e12], ['idempotency_key', ''], ['metadata', []], ['project_id', 7],
      ['delay_ms', -1], ['delay_ms', 4e10], ['run_at', 'tomorrow'], ['backoff.base_ms', { base_ms: 0 }], ['backoff', { base: 1 }]] as const) {
      assert.deepEqual(await at({ agent: 'a', input: 'x', [key.split('.')[0]!]: value }), [key])
    }
    assert.deepEqual(await at({ agent: 'a', input: 'x', delay_ms: 1, run_at: '2030-01-01T00:00:00Z' }), ['run_at'])
    assert.match((await submit({ agent: 'a', input: 'x', prioritty: 1 }))[0]!, /prioritty/)
    assert.deepEqual((await at({ agnt: 'a', inputs: 'x', priority: 10, delay_ms: 1, run_at: '2030-01-01T00:00:00Z' })).sort(), ['', 'agent', 'input', 'priority', 'run_at'])
    assert.match((await submit('x'))[0]!, /object/)
    for (const query of [{ limit: '0' }, { limit: '101' }, { limit: 'x' }, { status: 'gone' }, { cursor: 'x' }, { other: '1' }]) {
      assert.equal((await errors(of('GET'), 'query', query)).length, 1, JSON.stringify(query))
    }
  })
})

describe('the commands of jobs', () => {
  const find = (name: string): Command => commands.find(each => each.name === name)!
  /** A terminal, and a server that answers from the routes. */
  function terminal(t: TestRuntime, args: string[], options: Record<string, unknown> = {}, json = false) {
    const out: string[] = []
    const err: string[] = []
    const io: CommandIo = {
      args, options, json, tty: false, stdin: async function* () {}, signal: new AbortController().signal,
      out: text => void out.push(text), write: text => void out.push(text), err: text => void err.push(text), get: () => assert.fail(),
      server: {
        url: 'http://x', events: () => assert.fail(),
        async fetch(path, { method = 'GET', body } = {}) {
          const url = new URL(path, 'http://x')
          const route = t.runtime.collect(Routes).filter(each => each.method === method).toSorted((one, two) => Number(one.path.includes(':')) - Number(two.path.includes(':')))
            .find(each => new RegExp(`^${each.path.replace(':id', '[^/]+')}$`).test(url.pathname))!
          try {
            const answer = await call(t, method, route.path, {
              params: { id: url.pathname.split('/')[4] }, query: Object.fromEntries(url.searchParams), ...(body ? { body: JSON.parse(body as string) } : {}),
            })
            return Response.json(answer.body)
          } catch (error) {
            const { status, message, fix } = error as { status: number; message: string; fix: string }
            return Response.json({ title: 'no', detail: message, fix }, { status })
          }
        },
      },
    }
    return { io, out, err }
  }

  it('list and show', async () => {
    await using t = await runtime({ types: [agent], config: { concurrency: 0 } })
    const none = terminal(t, [], { limit: '20' })
    assert.equal(await find('jobs list').run(none.io), 0)
    assert.deepEqual([none.out, none.err], [[], ['no jobs']])
    const { body } = await call(t, 'POST', '/api/v1/jobs', { body: { agent: 'math', input: '1+1' } })
    const { id } = body as Job
    const list = terminal(t, [], { limit: '20', status: 'queued' })
    assert.equal(await find('jobs list').run(list.io), 0)
    assert.match(list.out.join('\n'), new RegExp(`^${id}  queued +math +0/3`))
    const shown = terminal(t, [id], {}, true)
    assert.equal(await find('jobs show').run(shown.io), 0)
    assert.equal(JSON.parse(shown.out.join('\n')).id, id)
    const text = terminal(t, [id])
    assert.equal(await find('jobs show').run(text.io), 0)
    assert.match(text.out.join('\n'), /input: \{/)
    await t.get(Database).knex()('jobs').where({ id }).update({ result: JSON.stringify('red: \u001b[31m\u0007') })
    const screen = terminal(t, [id])
    assert.equal(await find('jobs show').run({ ...screen.io, tty: true }), 0)
    assert.ok(screen.out.includes('result: red: [31m'), 'nothing steers the terminal')
  })

  it('tell how to mend what failed, when the next attempt is, what was run again, and how long it has been running', async () => {
    let ends = [JobErrors.TIMEOUT({ ms: 1 }), undefined]
    const failing = jobType('agent', async ({ signal }) => {
      const error = ends.shift()
      if (error) throw error
      await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
    })
    await using t = await runtime({ types: [failing], config: { retry: { base_ms: 3_600_000, max_ms: 3_600_000 } } })
    const { id } = (await call(t, 'POST', '/api/v1/jobs', { body: { agent: 'math', input: 1 } })).body as Job
    const { run_at } = await until(t, id, 'failed')
    const show = async () => { const { io, out } = terminal(t, [id]); await find('jobs show').run(io); return out.join('\n') }
    assert.match(await show(), new RegExp(`error: JOBS_TIMEOUT: the job took longer than 1 ms\n {2}fix: Give it a larger timeout_ms.*\nnext attempt: ${run_at}\nattempt 1: failed`))
    await t.get(Jobs).retry(operator, id)
    await until(t, id, 'running')
    const list = terminal(t, [], { limit: '20' })
    await find('jobs list').run(list.io)
    assert.match(list.out.join('\n'), /running .* 2\/3 .* for \d s$/)
    await t.get(Jobs).cancel(operator, id)
    ends = [JobErrors.ASK_TIMEOUT({ question: 'well?' })]
    await t.get(Jobs).retry(operator, id)
    await until(t, id, 'dead')
    assert.match(await show(), /attempt 1: failed.*\nattempt 2: cancelled.*\nrun again, with all its attempts:\nattempt 1: dead/)
  })

  it('cancel, run again, and replay', async () => {
    let mended = false
    const failing = jobType('agent', async () => { if (!mended) throw Object.assign(new Error('no'), { retryable: false }) })
    await using t = await runtime({ types: [failing] })
    const submit = async (more: object = {}) => ((await call(t, 'POST', '/api/v1/jobs', { body: { agent: 'math', input: 1, ...more } })).body as Job).id
    const run = async (name: string, args: string[], options: Record<string, unknown> = {}, json = false) => {
      const { io, out, err } = terminal(t, args, options, json)
      return { code: await find(name).run(io), out: out.join('\n'), err: err.join('\n') }
    }
    const delayed = await submit({ delay_ms: 3_600_000 })
    assert.match((await run('jobs cancel', [delayed])).out, new RegExp(`^${delayed}  cancelled`))
    const ids = [await submit(), await submit()]
    for (const id of ids) await until(t, id, 'dead')
    assert.equal((await run('jobs list', [], { status: 'dead', agent: 'math', code: 'JOBS_FAILED', limit: '20' })).out.split('\n').length, 2)
    mended = true
    assert.deepEqual(await run('jobs replay', [ids[0]!]), { code: 0, out: '1 job replayed', err: '' })
    assert.equal((await run('jobs replay', [ids[0]!])).code, 1)
    assert.deepEqual(await run('jobs replay', [], { all: true, agent: 'other' }), { code: 0, out: '0 jobs replayed', err: '' })
    assert.deepEqual(JSON.parse((await run('jobs replay', [], { all: true, code: 'JOBS_FAILED' }, true)).out), { replayed: 1 })
    assert.equal(JSON.parse((await run('jobs retry', [delayed], {}, true)).out).id, delayed)
    for (const id of [...ids, delayed]) await until(t, id, 'completed')
    const late = await run('jobs retry', [delayed])
    assert.deepEqual([late.code, /is completed, so it can't be run again\n {2}fix: /.test(late.err)], [1, true])
  })

  it('replay nothing by a slip', async () => {
    await using t = await runtime({ types: [agent] })
    for (const [args, options] of [[[], {}], [[], { agent: 'math' }], [['x'], { all: true }], [['x'], { agent: 'math' }]] as const) {
      const { io, err } = terminal(t, [...args], options)
      assert.equal(await find('jobs replay').run(io), 2)
      assert.match(err.join('\n'), /fix: /)
    }
  })

  it('fail with what the server says and how to mend it', async () => {
    await using t = await runtime({ types: [agent] })
    const { io, err } = terminal(t, ['none'])
    assert.equal(await find('jobs show').run(io), 1)
    assert.match(err.join('\n'), /there is no job "none"\n {2}fix: /)
  })
})
