import assert from 'node:assert/strict'
import { z } from 'zod'
import { definePlugin } from '#core'
import { Access } from '#contracts/access'
import { Metric } from '#contracts/metrics'
import { eventually, FakeClock } from '#core/testing'
import { fakeAccess, head, open, post, problemOf, route, routesPlugin, serve } from '../../support/http.ts'

/** A route whose answers wait until they are let go. */
function held(path = '/held', more = {}) {
  const waiting: (() => void)[] = []
  const signals: AbortSignal[] = []
  return { waiting, signals, release: () => { for (const go of waiting.splice(0)) go() },
    route: route(path, ({ signal }) => { signals.push(signal); return new Promise(resolve => waiting.push(() => resolve({ body: 'held' }))) }, more) }
}
async function* forever(signal: AbortSignal) { while (!signal.aborted) { yield 'x'
  await new Promise(resolve => signal.addEventListener('abort', resolve, { once: true })) } }

describe('http limits', () => {
  it('answers 503 with Retry-After past the bound of concurrent requests; health and streams are not counted', async () => {
    const { route: slow, waiting, release } = held()
    const streaming = route('/stream', ({ signal }) => ({ stream: forever(signal) }), { streams: true })
    await using t = await serve([routesPlugin('a', slow, route('/quick'), streaming, route('/early', undefined, { early: true }))],
      { config: { maxConcurrentRequests: 2, maxStreams: 1 } })
    const stop = new AbortController()
    const stream = await fetch(`${t.url}/stream`, { signal: stop.signal })
    assert.equal(stream.status, 200)
    const under = [fetch(`${t.url}/held`), fetch(`${t.url}/held`)]
    await eventually('both to be under way', () => waiting.length === 2)
    const refused = await fetch(`${t.url}/quick`)
    assert.deepEqual([refused.status, refused.headers.get('retry-after'), (await problemOf(refused)).code], [503, '1', 'HTTP_BUSY'])
    assert.equal((await fetch(`${t.url}/early`)).status, 200)
    assert.equal((await fetch(`${t.url}/stream`)).status, 503)
    release()
    assert.deepEqual(await Promise.all(under.map(async each => (await each).status)), [200, 200])
    await eventually('room', async () => (await fetch(`${t.url}/quick`)).status === 200)
    stop.abort()
    await eventually('room for a stream', async () => {
      const next = new AbortController()
      const { status } = await fetch(`${t.url}/stream`, { signal: next.signal })
      next.abort()
      return status === 200
    })
  })

  it('counts as a stream what turns out to be one', async () => {
    await using t = await serve([routesPlugin('a', route('/quick'), route('/stream', ({ signal }) => ({ stream: forever(signal) })))],
      { config: { maxConcurrentRequests: 1 } })
    const stop = new AbortController()
    await fetch(`${t.url}/stream`, { signal: stop.signal })
    assert.equal((await fetch(`${t.url}/quick`)).status, 200)
    stop.abort()
  })

  it('does not let those in the way whose bodies come slowly', async () => {
    const body = z.unknown()
    await using t = await serve([routesPlugin('a', route('/a', request => ({ body: request.body as object }), { method: 'POST', body }))],
      { config: { maxConcurrentRequests: 1 } })
    const slow = await Promise.all(Array.from({ length: 20 },
      () => open(t.url, head('POST /a', 'Content-Type: application/json', 'Content-Length: 7', 'Connection: close'), '{')))
    assert.equal((await post(`${t.url}/a`, { a: 1 })).status, 200)
    for (const each of slow) await each[Symbol.asyncDispose]()
  })

  it('does not let those in the way who are slow to read their answers', async () => {
    const large = 'x'.repeat(16 * 2 ** 20)
    const plugin = routesPlugin('a', route('/large', () => ({ body: large })), route('/quick'))
    await using t = await serve([plugin], { config: { maxConcurrentRequests: 1 } })
    await using deaf = await open(t.url)
    deaf.socket.pause()
    deaf.socket.write(head('GET /large'))
    const served = () => t.runtime.collect(Metric).find(each => each.name === 'http_requests_in_progress')!.samples()[0]?.value === 1
    await eventually('the answer to be under way', served)
    await eventually('room', async () => (await fetch(`${t.url}/quick`)).status === 200)
    assert.ok(served(), 'the large answer has not been read')
  })

  it('ends the wait for an access plugin that does not answer', async () => {
    const clock = new FakeClock()
    let asked = 0
    const hangs = definePlugin({
      name: 'access', provides: [Access],
      setup(ctx) { ctx.provide(Access, { ...fakeAccess(), identify: () => { asked++; return new Promise(() => {}) } }) },
    })
    await using t = await serve([hangs, routesPlugin('a', route('/a'))], { clock, access: false })
    const answer = fetch(`${t.url}/a`)
    await eventually('the question', () => asked === 1)
    await clock.advance(31_000)
    assert.equal((await answer).status, 503)
  })

  it('bounds the memory of all bodies together', async () => {
    const body = z.unknown()
    await using t = await serve([routesPlugin('a', route('/a', () => ({ body: 1 }), { method: 'POST', body }))], { config: { bodyMemory: 1_000 } })
    await using slow = await open(t.url, head('POST /a', 'Content-Type: application/json', 'Content-Length: 1000'), `"${'x'.repeat(900)}`)
    const refused = await eventually('the bound', async () => { const answer = await post(`${t.url}/a`, 'x'.repeat(200).replace(/^|$/g, '"'))
      return answer.status === 503 && answer })
    assert.equal((await problemOf(refused)).code, 'HTTP_BUSY')
    await slow[Symbol.asyncDispose]()
    await eventually('room', async () => (await post(`${t.url}/a`, 'x'.repeat(200).replace(/^|$/g, '"'))).status === 200)
  })

  it('answers 503 and aborts the signal when a handler does not answer in time', async () => {
    const clock = new FakeClock()
    const [usual, quick] = [held('/usual'), held('/quick', { limits: { timeout: 200 } })]
    await using t = await serve([routesPlugin('a', usual.route, quick.route)], { clock })
    const answers = [fetch(`${t.url}/quick`), fetch(`${t.url}/usual`)]
    await eventually('both to be under way', () => usual.waiting.length + quick.waiting.length === 2)
    await clock.advance(300)
    const first = await answers[0]!
    assert.deepEqual([first.status, (await problemOf(first)).code, quick.signals[0]!.aborted, usual.signals[0]!.aborted],
      [503, 'HTTP_TIMEOUT', true, false])
    await clock.advance(30_000)
    assert.equal((await answers[1]!).status, 503)
  })

  it('aborts the signal when the client leaves, and counts that as 499', async () => {
    const { route: slow, signals } = held()
    await using t = await serve([routesPlugin('a', slow)])
    const stop = new AbortController()
    const left = fetch(`${t.url}/held`, { signal: stop.signal }).catch(error => error.name)
    await eventually('it to be under way', () => signals.length === 1)
    stop.abort()
    assert.equal(await left, 'AbortError')
    await eventually('the signal', () => signals[0]!.aborted)
    await eventually('the log line', () => t.lines.some(line => line.fields['status'] === 499))
    assert.deepEqual(t.lines.filter(line => line.level === 'error'), [])
  })

  it('refuses what is no HTTP, has too large a head, or comes too slowly, in the usual form', async () => {
    await using t = await serve([routesPlugin('a', route('/a'))], { config: { headersTimeoutMs: 200, requestTimeoutMs: 400, maxHeaderBytes: 2_048 } })
    const cases: [string, RegExp, string][] = [
      ['HELO\r\n\r\n', /^HTTP\/1\.1 400 /, 'HTTP_INVALID'], [head('GET /a', `X-Long: ${'x'.repeat(4_000)}`), /^HTTP\/1\.1 431 /, 'HTTP_TOO_LARGE'],
      ['GET /a HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ', /^HTTP\/1\.1 408 /, 'HTTP_INVALID'],
      [head('POST /a', 'Content-Length: 5', 'Transfer-Encoding: chunked'), /^HTTP\/1\.1 400 /, 'HTTP_INVALID'],
        [head('GET /a', 'X-A: a\u0001b'), /^HTTP\/1\.1 400 /, 'HTTP_INVALID'],
    ]
    await Promise.all(cases.map(async ([sent, first, code]) => {
      await using raw = await open(t.url, sent)
      const text = await raw.closed
      assert.match(text, first)
      const problem = JSON.parse(text.slice(text.indexOf('\r\n\r\n') + 4)) as Record<string, unknown>
      assert.deepEqual([problem['code'], problem['status']], [code, Number(text.slice(9, 12))])
    }))
    assert.equal((await fetch(`${t.url}/a`)).status, 200)
  })
})
