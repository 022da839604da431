import assert from 'node:assert/strict'
import { definePlugin, scope, type ScopeFields } from '#core'
import { Health } from '#contracts/health'
import { HttpMiddleware, HttpRoute } from '#contracts/http'
import { Metric } from '#contracts/metrics'
import { contribute } from '#core/testing'
import health from '../../../plugins/health/index.ts'
import { problemOf, route, routesPlugin, serve } from '../../support/http.ts'

describe('http routing', () => {
  it('hands parameters, decoded, to the handler of the route that fits', async () => {
    await using t = await serve([routesPlugin('a', route('/a/:id/b/:other', ({ params }) => ({ body: params })))])
    const answer = await fetch(`${t.url}/a/x%20y/b/z`)
    assert.deepEqual(await answer.json(), { id: 'x y', other: 'z' })
    assert.match(answer.headers.get('content-type')!, /^application\/json/)
  })

  it('lets a name win over a parameter, whichever came first', async () => {
    await using t = await serve([routesPlugin('a', route('/jobs/:id', () => ({ body: 'one' })), route('/jobs/stats', () => ({ body: 'stats' })))])
    assert.equal(await (await fetch(`${t.url}/jobs/stats`)).text(), 'stats')
    assert.equal(await (await fetch(`${t.url}/jobs/7`)).text(), 'one')
  })

  it('answers 404 to what is not there and 405, with Allow, to a method that a path does not take', async () => {
    await using t = await serve([routesPlugin('a', route('/a'), route('/a', undefined, { method: 'DELETE' }))])
    const missing = await fetch(`${t.url}/b`)
    assert.equal(missing.status, 404)
    assert.match(missing.headers.get('content-type')!, /^application\/problem\+json/)
    assert.equal((await problemOf(missing)).code, 'HTTP_NOT_FOUND')
    const wrong = await fetch(`${t.url}/a`, { method: 'PUT' })
    assert.equal(wrong.status, 405)
    assert.equal(wrong.headers.get('allow'), 'DELETE, GET, HEAD, OPTIONS')
    assert.equal((await problemOf(wrong)).code, 'HTTP_METHOD_NOT_ALLOWED')
    const options = await fetch(`${t.url}/a`, { method: 'OPTIONS' })
    assert.deepEqual([options.status, options.headers.get('allow'), await options.text()], [204, 'DELETE, GET, HEAD, OPTIONS', ''])
    assert.equal((await fetch(`${t.url}/A`)).status, 404)
  })

  it('tells of the routes that were perhaps meant, to who may use them', async () => {
    const [shown, secret] = [(path: string, method: 'GET' | 'POST' = 'GET') => route(path, undefined, { method, public: true, permission: undefined }),
      (path: string, method: 'GET' | 'POST' = 'GET') => route(path, undefined, { method })]
    await using t = await serve([routesPlugin('a', secret('/api/v1/jobs'), secret('/api/v1/jobs', 'POST'), secret('/api/v1/jobs/:id'), secret('/api/v1/jobs/:id/cancel', 'POST'),
      secret('/api/v1/jobs/:id/retry', 'POST'), secret('/api/v1/agents/:name/run', 'POST'), secret('/api/v1/agents'), shown('/health/ready'), shown('/metrics'), shown('/:anything/else'))])
    const fix = async (path: string, headers = {}, method = 'GET') => (await problemOf(await fetch(t.url + path, { method, headers }))).fix as string
    const meant = (...routes: string[]) => `Did you mean ${routes.map(each => `\`${each}\``).join(' or ')}?`
    for (const [path, method, ...routes] of [
      ['/job/x', 'GET', 'GET /api/v1/jobs/:id'], ['/jobs', 'GET', 'GET /api/v1/jobs'], ['/jobs', 'POST', 'POST /api/v1/jobs'], ['/api/jobs', 'GET', 'GET /api/v1/jobs'], ['/api/v2/jobs/7', 'GET', 'GET /api/v1/jobs/:id'],
      ['/api/v1/jobs/7/cancle', 'POST', 'POST /api/v1/jobs/:id/cancel'], ['/API/v1/Jobs', 'GET', 'GET /api/v1/jobs'], ['/agent/math/run', 'POST', 'POST /api/v1/agents/:name/run'], ['/ready', 'GET', 'GET /health/ready'],
      ['/metric', 'GET', 'GET /metrics'],
    ] as const) assert.equal(await fix(path, {}, method), meant(...routes), path)
    const nothing = /^See `GET \/`/
    for (const path of ['/wp-login.php', `/${'a/'.repeat(50)}`, `/${'j'.repeat(5_000)}`, '/x', '/index.html', '/events']) assert.match(await fix(path), nothing)
    for (const refused of ['identity', 'permission']) {
      assert.match(await fix('/job/x', { 'x-refuse': refused }), nothing, 'a stranger learns of no route')
      assert.equal(await fix('/metric', { 'x-refuse': refused }), meant('GET /metrics'))
    }
  })

  it('answers HEAD as GET without the body', async () => {
    await using t = await serve([routesPlugin('a', route('/a', () => ({ body: 'twelve bytes' })))])
    const answer = await fetch(`${t.url}/a`, { method: 'HEAD' })
    assert.deepEqual([answer.status, answer.headers.get('content-length'), await answer.text()], [200, '12', ''])
  })

  it('gives each request an id of its own, in the answer and in the scope of the handler, with its plugin and trace', async () => {
    let seen: ScopeFields | undefined
    await using t = await serve([routesPlugin('owner', route('/a', request => { seen = scope.current; return { body: request.id } }))])
    const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
    const answer = await fetch(`${t.url}/a`, { headers: { traceparent, 'x-request-id': 'chosen by the client' } })
    const id = answer.headers.get('x-request-id')
    assert.equal(await answer.text(), id)
    assert.match(id!, /^[\da-f-]{36}$/)
    assert.deepEqual({ ...seen }, { request_id: id, plugin: 'owner', traceparent })
    await fetch(`${t.url}/a`, { headers: { traceparent: 'x\u00e9' } })
    assert.equal(seen?.traceparent, undefined)
    assert.notEqual(seen?.request_id, id)
  })

  const odd: Record<string, unknown> = {
    'neither permission nor public': { permission: undefined }, 'both permission and public': { public: true },
      'public: false': { permission: undefined, public: false },
    'a pattern': { path: '/a/*rest' }, 'a regular expression': { path: '/a/:id(\\d+)' }, 'an empty segment': { path: '/a//b' },
      'no slash': { path: 'a' }, 'no path': { path: undefined },
    'a parameter twice': { path: '/:id/:id' }, 'an unknown method': { method: 'TRACE' }, 'a GET with a body': { body: {} },
      'no handler': { handler: undefined }, 'an odd permission': { permission: 'everything' },
  }
  for (const [what, fields] of Object.entries(odd)) {
    it(`does not register a route with ${what}: it is told as its plugin's fault and shown in health`, async () => {
      await using t = await serve([health, routesPlugin('bad', { ...route('/odd'), ...fields as object } as HttpRoute),
        routesPlugin('good', route('/good'))])
      assert.equal((await fetch(`${t.url}/odd`)).status, 404)
      assert.equal((await fetch(`${t.url}/good`)).status, 200)
      const told = t.lines.filter(line => line.level === 'error')
      assert.deepEqual(told.map(line => [line.fields['plugin'], line.fields['code']]), [['bad', 'HTTP_ROUTE_INVALID']])
      const { checks } = await t.get(Health).report()
      assert.equal(checks['http']?.status, 'degraded')
      assert.equal((checks['http']?.details?.['refused'] as string[]).length, 1)
    })
  }

  it('does not register a route that another has under other parameter names, until that one leaves', async () => {
    const [first, second] = [routesPlugin('first', route('/a/:id', () => ({ body: 'first' }))),
      routesPlugin('second', route('/a/:name', () => ({ body: 'second' })))]
    await using t = await serve([first, second])
    assert.equal(await (await fetch(`${t.url}/a/1`)).text(), 'first')
    await t.runtime.change(new Map([['first', undefined]]))
    assert.equal(await (await fetch(`${t.url}/a/1`)).text(), 'second')
  })

  it('follows plugins as they come and go', async () => {
    await using t = await serve([routesPlugin('a', route('/a'))])
    await t.runtime.change(new Map([['b', { plugin: routesPlugin('b', route('/b')) }]]))
    assert.equal((await fetch(`${t.url}/b`)).status, 200)
    await t.runtime.change(new Map([['b', undefined]]))
    assert.equal((await fetch(`${t.url}/b`)).status, 404)
    assert.equal((await fetch(`${t.url}/a`)).status, 200)
  })

  it('tells at / what it is and where to look, to everybody, unless a plugin has a page there', async () => {
    await using t = await serve([routesPlugin('a', route('/api/v1/agents'))])
    const answer = await fetch(`${t.url}/`, { headers: { 'x-refuse': 'identity' } })
    const { version, ...rest } = await answer.json() as Record<string, unknown>
    assert.deepEqual([answer.status, rest, typeof version], [200, { name: 'backplane', see: ['/api/v1/agents'] }, 'string'])
    await t.runtime.change(new Map([['page', { plugin: routesPlugin('page', route('/')) }]]))
    assert.deepEqual(await (await fetch(`${t.url}/`)).json(), { path: '/' })
    await t.runtime.change(new Map([['page', undefined]]))
    assert.equal((await (await fetch(`${t.url}/`)).json() as { name: string }).name, 'backplane')
  })

  describe('answers', () => {
    const answers: Record<string, [object | undefined, number, string, RegExp | null]> = {
      'an object as JSON': [{ body: { a: 1 } }, 200, '{"a":1}', /^application\/json/],
      'null as JSON': [{ body: null }, 200, 'null', /^application\/json/],
      'text as it is': [{ body: 'text' }, 200, 'text', /^text\/plain/],
      'bytes as they are': [{ body: new Uint8Array([104, 105]) }, 200, 'hi', /^application\/octet-stream/],
      'a type of its own': [{ body: '<p>', headers: { 'Content-Type': 'text/html' } }, 200, '<p>', /^text\/html$/],
      'nothing as 204': [{}, 204, '', null],
      'not even an answer as 204': [undefined, 204, '', null],
      'an empty 202': [{ status: 202 }, 202, '', null],
      'an empty text': [{ body: '' }, 200, '', /^text\/plain/],
    }
    for (const [what, [given, status, text, type]] of Object.entries(answers)) {
      it(`sends ${what}`, async () => {
        await using t = await serve([routesPlugin('a', route('/a', () => given as never))])
        const answer = await fetch(`${t.url}/a`)
        assert.deepEqual([answer.status, await answer.text()], [status, text])
        if (type) assert.match(answer.headers.get('content-type')!, type)
      })
    }

    const cycle: Record<string, unknown> = {}
    cycle['cycle'] = cycle
    const unsendable: Record<string, object> = {
      'a status that is none': { status: 9_000 }, 'a function': { body: () => 1 }, 'a circle': { body: cycle }, 'a BigInt': { body: { big: 1n } },
        'a broken header': { headers: { 'x-a': 'b\r\nx-c: d' } },
    }
    for (const [what, given] of Object.entries(unsendable)) {
      it(`answers 500 when the handler gave ${what}`, async () => {
        await using t = await serve([routesPlugin('a', route('/a', () => given))])
        const answer = await fetch(`${t.url}/a`)
        assert.deepEqual([answer.status, (await problemOf(answer)).code, answer.headers.get('x-c')], [500, 'HTTP_INTERNAL', null])
      })
    }
  })

  it('stands middleware around handlers in order, each in the scope of its plugin', async () => {
    const seen: string[] = []
    const layer = (name: string, order?: 'pre' | 'normal' | 'post') => definePlugin({
      name, contributes: [HttpMiddleware],
      setup(ctx) {
        ctx.contribute(HttpMiddleware, { name, order, async handle(request, at, next) {
          seen.push(`${name} ${scope.current?.plugin} ${at.path}`)
          if (request.headers['x-stop'] === name) return { status: 418, body: name }
          const answer = await next()
          return { ...answer, headers: { ...answer.headers, [`x-${name}`]: '1' } }
        } })
      },
    })
    await using t = await serve([layer('last', 'post'), layer('middle'), layer('first', 'pre'),
      routesPlugin('a', route('/a', () => { seen.push(`handler ${scope.current?.plugin}`); return {} }))])
    const answer = await fetch(`${t.url}/a`)
    assert.deepEqual(seen, ['first first /a', 'middle middle /a', 'last last /a', 'handler a'])
    assert.deepEqual(['first', 'middle', 'last'].map(name => answer.headers.get(`x-${name}`)), ['1', '1', '1'])
    assert.equal((await fetch(`${t.url}/a`, { headers: { 'x-stop': 'middle' } })).status, 418)
  })

  it('counts requests by pattern, never by path, and logs each once', async () => {
    await using t = await serve([routesPlugin('a', route('/a/:id'), route('/fails', () => { throw new Error('no') })), contribute(Metric)])
    for (const path of ['/a/1', '/a/2', '/nowhere/1', '/nowhere/2', '/fails']) await (await fetch(`${t.url}${path}`)).text()
    const metrics = new Map(t.runtime.collect(Metric).map(each => [each.name, each]))
    const counted = metrics.get('http_requests_total')!.samples().map(({ labels, value }) => [labels['route'], labels['status'], value])
    assert.deepEqual(counted, [['/a/:id', '200', 2], ['none', '404', 2], ['/fails', '500', 1]])
    assert.equal(metrics.get('http_requests_in_progress')!.samples()[0]!.value, 0)
    assert.equal(metrics.get('http_request_duration_seconds')!.samples().length, 3)
    const lines = t.lines.filter(line => line.message === 'request')
    assert.deepEqual(lines.map(line => [line.level, line.fields['path'], line.fields['status']]), [
      ['debug', '/a/1', 200], ['debug', '/a/2', 200], ['debug', '/nowhere/1', 404], ['debug', '/nowhere/2', 404], ['info', '/fails', 500]])
  })
})
