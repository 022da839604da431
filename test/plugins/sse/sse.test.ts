import assert from 'node:assert/strict'
import { definePlugin } from '#core'
import { eventually, FakeClock } from '#core/testing'
import { AccessErrors } from '#contracts/access'
import { Jobs, type JobContext } from '#contracts/jobs'
import { serverAt } from '../../../core/cli/client.ts'
import { readEvents } from '../../../core/cli/events.ts'
import { frames } from '../../../plugins/sse/frames.ts'
import { jobType, operator } from '../jobs/kit.ts'
import { open } from '../../support/http.ts'
import { gate, gist, openStreams, read, served, submit, talk, TEXT, WHOLE, type Access } from './kit.ts'

describe('server-sent events of a job', () => {
  it('are all there, live, and end with the job; who comes back is sent away', async () => {
    await using t = await served({ types: [talk()] })
    const id = await submit(t)
    const response = await fetch(`${t.url}/sse/jobs/${id}`)
    const { headers } = response
    assert.deepEqual([response.status, headers.get('content-type'), headers.get('cache-control'), headers.get('x-accel-buffering')],
      [200, 'text/event-stream; charset=utf-8', 'no-cache, no-transform', 'no'])
    const updates = await read(response)
    assert.deepEqual(gist(updates), WHOLE)
    assert.ok(updates.filter(each => each.type === 'token').length > 20, 'words come one by one')
    assert.deepEqual([updates.at(-1).final, updates.at(-1).result], [true, 'done'])
    const last = updates.at(-1).cursor
    assert.equal((await fetch(`${t.url}/sse/jobs/${id}`, { headers: { 'last-event-id': last } })).status, 204)
    assert.equal((await fetch(`${t.url}/sse/jobs/${id}?last_event_id=${last}`)).status, 204)
    const header = await fetch(`${t.url}/sse/jobs/${id}?last_event_id=1`, { headers: { 'last-event-id': String(last - 1) } })
    assert.deepEqual((await read(header)).map(each => each.type), ['completed'], 'the header is newer than the address')
    await eventually('all to be closed', () => openStreams(t) === 0)
  })

  it('miss none and repeat none when the connection is cut at any byte and taken up again', async () => {
    await using t = await served({ types: [talk()] })
    for (let round = 0; round < 4; round++) {
      const id = await submit(t)
      const whole: any[] = []
      let last = ''
      for (let cuts = 0; whole.at(-1)?.type !== 'completed'; cuts++) {
        assert.ok(cuts < 100)
        await using connection = await open(t.url, `GET /sse/jobs/${id} HTTP/1.1`, 'Host: localhost', ...(last ? [`Last-Event-ID: ${last}`] : []), '', '')
        const enough = cuts < 12 ? 700 + ((round * 997 + cuts * 331) % 2_500) : Infinity
        await eventually('more', () => connection.text.length > enough || connection.text.endsWith('\r\n0\r\n\r\n') || connection.text.includes('"type":"completed"'))
        connection.socket.destroy()
        // What came whole before the cut, without the frames of HTTP.
        const body = connection.text.slice(connection.text.indexOf('\r\n\r\n') + 4).replace(/(^|\r\n)[\da-f]+\r\n/g, '')
        for await (const { id: cursor, data } of readEvents(new Response(body.slice(0, enough)))) { last = cursor; whole.push(JSON.parse(data)) }
      }
      assert.deepEqual(gist(whole), WHOLE)
    }
    await eventually('all to be closed', () => openStreams(t) === 0)
  })

  it('go on over a swap of the plugin, for a client that connects again', async () => {
    const door = gate()
    await using t = await served({ types: [talk(door.closed)], config: { retryMs: 20 } })
    const id = await submit(t)
    const found: any[] = []
    const reading = (async () => {
      for await (const { data } of serverAt(t.url).events(`/sse/jobs/${id}`, { signal: new AbortController().signal })) found.push(JSON.parse(data))
    })()
    await eventually('half of it', () => gist(found)[0]!.includes('word20 '))
    await t.runtime.host.reload('sse')
    await eventually('all of it', () => gist(found)[0] === TEXT)
    await t.runtime.host.reload('sse')
    door.open()
    await reading
    assert.deepEqual(gist(found), WHOLE)
  })

  it('are refused before they begin, as a problem', async () => {
    const check: NonNullable<Access>['check'] = async (_caller, permission, resource) => { if (resource?.project_id === 'closed') throw AccessErrors.FORBIDDEN({ permission, reason: 'no' }) }
    await using t = await served({ types: [talk()], access: { check } })
    const id = await submit(t)
    const answer = async (path: string, headers = {}) => {
      const response = await fetch(t.url + path, { headers })
      const { code } = await response.json() as { code: string }
      return [response.status, code, response.headers.get('content-type')]
    }
    const problem = 'application/problem+json; charset=utf-8'
    assert.deepEqual(await answer('/sse/jobs/nobody'), [404, 'JOBS_NOT_FOUND', problem])
    assert.deepEqual(await answer('/sse/projects/closed'), [403, 'ACCESS_FORBIDDEN', problem])
    assert.deepEqual(await answer(`/sse/jobs/${id}`, { 'last-event-id': 'x' }), [400, 'JOB_UPDATES_CURSOR_INVALID', problem])
    assert.deepEqual(await answer('/sse/projects/default', { 'last-event-id': '1.5' }), [400, 'SSE_CURSOR_INVALID', problem])
    assert.deepEqual(await answer(`/sse/jobs/${id}?key=x`), [400, 'HTTP_INVALID', problem])
    assert.equal(openStreams(t), 0)
  })

  it('are given to who sends his token in the address, which no log and no answer tells', async () => {
    const asked: (string | undefined)[] = []
    const identify: NonNullable<Access>['identify'] = async ({ token, headers }) => {
      asked.push(token)
      if (token !== 'hush-4711' && !headers.authorization) throw AccessErrors.UNAUTHENTICATED({ reason: 'this is no key' })
      return operator
    }
    await using t = await served({ types: [talk()], access: { identify } })
    const id = await submit(t)
    assert.equal((await read(await fetch(`${t.url}/sse/jobs/${id}?token=hush-4711`))).at(-1).result, 'done')
    const answers = [await fetch(`${t.url}/sse/jobs/${id}?token=hush-4712`), await fetch(`${t.url}/sse/jobs/${id}?token=hush-4711&token=hush-4711`),
      await fetch(`${t.url}/api/v1/jobs/${id}?token=hush-4711`), await fetch(`${t.url}/api/v1/jobs?token=hush-4711`, { headers: { authorization: 'x' } })]
    assert.deepEqual(answers.map(each => each.status), [401, 400, 401, 400])
    assert.deepEqual(asked, ['hush-4711', 'hush-4712', 'hush-4711', undefined, undefined], 'only streams take it')
    for (const each of answers) assert.doesNotMatch(await each.text(), /hush/)
    assert.ok(t.lines.some(line => line.message === 'request'))
    assert.doesNotMatch(JSON.stringify(t.lines), /hush/)
  })

  it('let a browser come back to a server that stops, which would stay away for ever after a 503', async () => {
    const [door, slow] = [gate(), gate()]
    const late = definePlugin({ name: 'late', setup: () => ({ drain: () => slow.closed }) })
    await using t = await served({ types: [talk(door.closed)], plugins: [late] })
    const id = await submit(t)
    const { url } = t
    const ask = (accept: string) => fetch(`${url}/sse/jobs/${id}`, { headers: { accept, 'last-event-id': '1' } })
    const stopped = t.runtime.stop()
    const refused = await eventually('it to drain', async () => { const answer = await ask('*/*'); return answer.status === 503 && answer })
    assert.equal(((await refused.json()) as { code: string }).code, 'HTTP_STARTING')
    const answer = await ask('text/event-stream')
    assert.deepEqual([answer.status, answer.headers.get('content-type'), answer.headers.get('connection'), await answer.text()],
      [200, 'text/event-stream; charset=utf-8', 'close', 'retry: 1000\n'])
    door.open()
    slow.open()
    await stopped
  })

  it('begin by saying the last id again, since a connection forgets it with its first empty line', async () => {
    const door = gate()
    await using t = await served({ types: [talk(door.closed)], config: { heartbeatMs: 100 } })
    const id = await submit(t)
    const whole = await read(await fetch(`${t.url}/sse/jobs/${id}`), update => String(update.content ?? '').includes('word59'))
    const { cursor } = whole.at(-1)
    await using connection = await open(t.url, `GET /sse/jobs/${id} HTTP/1.1`, 'Host: localhost', `Last-Event-ID: ${cursor}`, '', '')
    await eventually('the head', () => connection.text.includes(`\nretry: 2000\nid: ${cursor}\n\n`))
    door.open()
  })

  it('let go of what waits for a client that leaves', async () => {
    let returned = 0
    const updates = { next: async () => ({ done: false, value: { cursor: '1' } }), return: async () => { returned++; return { done: true as const, value: undefined } } }
    const options = { clock: new FakeClock(), heartbeatMs: 1_000, retryMs: 1, cursor: '', onRefusal: () => {} }
    const begun = (done: () => void) => frames(updates.next(), updates, { ...options, done })[Symbol.asyncIterator]()
    const [never, later] = [begun(() => {}), begun(() => {})]
    await never.return!()
    assert.equal(returned, 1)
    for (let at = 0; at < 2; at++) await later.next()
    await later.return!()
    assert.equal(returned > 1, true, 'an update was on its way to it')
  })

  it('are so many and no more, of one caller and in all', async () => {
    const door = gate()
    const identify: NonNullable<Access>['identify'] = async ({ headers }) => ({ ...operator, id: String(headers['x-who'] ?? 'op') })
    await using t = await served({ types: [talk(door.closed)], access: { identify }, config: { maxStreams: 3, maxPerCaller: 2 } })
    const id = await submit(t)
    const gone = new AbortController()
    const ask = (who: string) => fetch(`${t.url}/sse/jobs/${id}`, { headers: { 'x-who': who }, signal: gone.signal })
    const statuses: number[] = []
    for (const who of ['a', 'a', 'a', 'b', 'c']) statuses.push((await ask(who)).status)
    assert.deepEqual(statuses, [200, 200, 429, 200, 429])
    const refused = await ask('c')
    assert.match(((await refused.json()) as { fix: string }).fix, /plugins\.sse\.config\.maxStreams/)
    assert.ok(refused.headers.get('retry-after'))
    gone.abort()
    await eventually('all to be closed', () => openStreams(t) === 0)
    assert.equal((await fetch(`${t.url}/sse/jobs/${id}`, { headers: { 'x-who': 'a' } })).status, 200)
    assert.equal((await fetch(`${t.url}/sse/jobs/${id}`, { headers: { 'x-who': 'b' }, method: 'HEAD' })).status, 200)
    await eventually('the place of a HEAD to be free', () => openStreams(t) === 1)
    door.open()
  })

  it('hold up neither the job nor the memory when the client reads nothing, and are all there when it does', async function () {
    this.timeout(120_000)
    let said = 0
    const loud = jobType('loud', async ({ emit }: JobContext) => {
      for (let at = 0; at < 4_000; at++, said++) { emit({ type: 'token', content: `${at}`.padEnd(1_000) }); if (at % 20 === 0) await new Promise(resolve => setImmediate(resolve)) }
    })
    await using t = await served({ types: [loud] })
    const id = await submit(t, { type: 'loud' })
    await using connection = await open(t.url, `GET /sse/jobs/${id} HTTP/1.1`, 'Host: localhost', '', '')
    connection.socket.pause()
    await eventually('the job to end', async () => (await t.get(Jobs).get(operator, id)).status === 'completed', 15_000, () => said)
    assert.ok(connection.text.length < 3_000_000, String(connection.text.length))
    connection.socket.resume()
    await eventually('all of it', () => connection.text.endsWith('0\r\n\r\n'), 10_000, () => connection.text.length)
    const body = connection.text.slice(connection.text.indexOf('\r\n\r\n') + 4).replace(/(^|\r\n)[\da-f]+\r\n/g, '')
    assert.equal(gist(await read(new Response(body)))[0], Array.from({ length: 4_000 }, (_, at) => `${at}`.padEnd(1_000)).join(''))
  })

  it('say that they live while nothing happens, also before the first', async () => {
    const door = gate()
    await using t = await served({ types: [talk(door.closed)], config: { heartbeatMs: 100 } })
    const id = await submit(t)
    await read(await fetch(`${t.url}/sse/jobs/${id}`), update => String(update.content ?? '').includes('word59'))
    const { seq } = await t.get(Jobs).get(operator, id)
    await eventually('the log to be quiet', async () => (await t.get(Jobs).get(operator, id)).seq >= seq)
    await using connection = await open(t.url, `GET /sse/jobs/${id} HTTP/1.1`, 'Host: localhost', '', '')
    await eventually('signs of life', () => connection.text.split(':\n\n').length > 3)
    door.open()
    await eventually('the end', () => connection.text.includes('"final":true') && connection.text.endsWith('0\r\n\r\n'))
  })
})

describe('server-sent events of a project', () => {
  it('are the changes of its jobs from now on, and can be resumed', async () => {
    await using t = await served({ types: [talk()] })
    await submit(t)
    const stream = await fetch(`${t.url}/sse/projects/default`)
    const [id] = [await submit(t), await submit(t, { project_id: 'other' })]
    const mine = (update: any) => update.job_id === id
    const whole = (await read(stream, update => mine(update) && update.final)).filter(mine)
    assert.deepEqual(whole.map(each => each.type), ['created', 'started', 'progress', 'progress', 'progress', 'completed'])
    assert.ok(whole.every(each => each.project_id === 'default' && each.timestamp && each.seq))
    const rest = await read(await fetch(`${t.url}/sse/projects/default`, { headers: { 'last-event-id': whole[1].cursor } }), update => mine(update) && update.final)
    assert.deepEqual(rest.filter(mine).map(each => each.cursor), whole.slice(2).map(each => each.cursor))
    const beyond = await read(await fetch(`${t.url}/sse/projects/default`, { headers: { 'last-event-id': '99999999' } }), () => true)
    assert.equal(beyond[0].type, 'gap')
  })

  it('begin with a place to come back to', async () => {
    await using t = await served({ types: [talk()] })
    await using connection = await open(t.url, 'GET /sse/projects/default HTTP/1.1', 'Host: localhost', '', '')
    await eventually('the head', () => /\nid: \d+\n\n/.test(connection.text))
  })
})
