import assert from 'node:assert/strict'
import { z } from 'zod'
import type { Credentials } from '#contracts/access'
import { createTestRuntime, eventually } from '#core/testing'
import { HttpServer } from '#contracts/http'
import { fakeAccessPlugin, head, httpEntry, open, OPERATOR, post, problemOf, route, routesPlugin, serve } from '../../support/http.ts'

const body = z.strictObject({ a: z.number() })
const taker = () => {
  const seen: unknown[] = []
  return { seen, plugin: routesPlugin('a', route('/a', request => { seen.push(request.body); return {} }, { method: 'POST', body })) }
}

describe('http identity and permission', () => {
  it('asks who is there, with headers, address, method and path, and hands the caller on', async () => {
    const asked: Credentials[] = []
    await using t = await createTestRuntime({ plugins: [fakeAccessPlugin(asked), httpEntry(),
      routesPlugin('a', route('/a/:id', ({ caller }) => ({ body: caller })))] })
    const answer = await fetch(`${t.get(HttpServer).url}/a/1`, { headers: { authorization: 'Bearer x' } })
    assert.deepEqual(await answer.json(), OPERATOR)
    const { headers, ...rest } = asked[0]!
    assert.deepEqual(rest, { address: '127.0.0.1', method: 'GET', path: '/a/1' })
    assert.equal(headers['authorization'], 'Bearer x')
  })

  it('answers 401 with WWW-Authenticate to strangers and 403, naming the permission, to the weak', async () => {
    const { plugin, seen } = taker()
    await using t = await serve([plugin])
    const stranger = await post(`${t.url}/a`, { a: 1 }, { 'x-refuse': 'identity' })
    assert.deepEqual([stranger.status, stranger.headers.get('www-authenticate'), (await problemOf(stranger)).code],
      [401, 'Bearer', 'ACCESS_UNAUTHENTICATED'])
    const weak = await post(`${t.url}/a`, { a: 1 }, { 'x-refuse': 'permission' })
    const problem = await problemOf(weak)
    assert.deepEqual([weak.status, problem['code']], [403, 'ACCESS_FORBIDDEN'])
    assert.match(problem['detail'], /test:use/)
    assert.deepEqual(seen, [])
  })

  it('refuses before the body was sent at all', async () => {
    const { plugin } = taker()
    await using t = await serve([plugin])
    await using raw = await open(t.url, head('POST /a', 'X-Refuse: permission', 'Content-Type: application/json', 'Content-Length: 1000000'))
    await eventually('the refusal', () => raw.text.includes('ACCESS_FORBIDDEN'))
    assert.match(raw.text, /^HTTP\/1\.1 403 /)
    assert.match(raw.text, /connection: close/i)
    await raw.closed
  })

  it('tells a client that waits to be told to go on only when it was let in', async () => {
    const { plugin, seen } = taker()
    await using t = await serve([plugin])
    const ask = (...more: string[]) => head('POST /a', 'Content-Type: application/json', 'Content-Length: 7', 'Expect: 100-continue', ...more)
    await using refused = await open(t.url, ask('X-Refuse: permission'))
    await eventually('the refusal', () => refused.text.includes('ACCESS_FORBIDDEN'))
    assert.doesNotMatch(refused.text, /100 Continue/)
    await using admitted = await open(t.url, ask())
    await eventually('to be told to go on', () => admitted.text.startsWith('HTTP/1.1 100 Continue'))
    admitted.socket.write('{"a":1}')
    await eventually('the answer', () => admitted.text.includes('204 No Content'))
    assert.deepEqual(seen, [{ a: 1 }])
  })

  it('lets nobody in while no access plugin runs, except on public routes', async () => {
    await using t = await serve([routesPlugin('a', route('/a'),
      route('/open', ({ caller }) => ({ body: { caller: caller ?? 'nobody' } }), { public: true }))], { access: false })
    const answer = await fetch(`${t.url}/a`)
    assert.deepEqual([answer.status, (await problemOf(answer)).code], [503, 'ACCESS_UNAVAILABLE'])
    assert.deepEqual(await (await fetch(`${t.url}/open`)).json(), { caller: 'nobody' })
  })

  it('does so too when the access plugin leaves, and lets in again when it is back', async () => {
    await using t = await serve([routesPlugin('a', route('/a'))])
    const { url } = t
    await t.runtime.change(new Map([['access', undefined]]))
    assert.equal((await fetch(`${url}/a`)).status, 503)
    await t.runtime.change(new Map([['access', { plugin: fakeAccessPlugin() }]]))
    assert.equal((await fetch(`${url}/a`)).status, 200)
  })
})
