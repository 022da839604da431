import assert from 'node:assert/strict'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { z } from 'zod'
import { eventually } from '#core/testing'
import { head, open, post, problemOf, route, routesPlugin, serve, type Served } from '../../support/http.ts'

const body = z.strictObject({ name: z.string().max(1_000_000), count: z.number().int().optional(), tags: z.array(z.string()).max(3).optional(),
  any: z.unknown().optional() })
const query = z.strictObject({ q: z.string().max(50).optional(), n: z.coerce.number().int().optional() })
const strict = z.strictObject({
  priority: z.int().min(0).max(9).optional(), status: z.enum(['queued', 'running']).optional(), name: z.string().min(1).max(200), tags: z.array(z.string()).min(1).max(3).optional(),
  target: z.union([z.string(), z.strictObject({ host: z.string(), port: z.int() })]).optional(), even: z.int().optional(), labels: z.record(z.string().max(5), z.string()).optional(),
  needs: z.strictObject({ any: z.nonoptional(z.unknown()) }).optional(), nested: z.strictObject({ base_ms: z.int().optional() }).optional(),
}).refine(({ even }) => even === undefined || even % 2 === 0, { message: 'is odd', path: ['even'] })
const limits = z.strictObject({ limit: z.coerce.number().int().min(1).max(100).optional() })
const params = z.strictObject({ id: z.string().regex(/^[a-z0-9]+$/) })

const plugin = routesPlugin('a',
  route('/body', request => ({ body: request.body as object }), { method: 'POST', body }), route('/none', () => ({}), { method: 'POST' }),
  route('/query', request => ({ body: request.query as object }), { query }),
    route('/params/:id', request => ({ body: request.params as object }), { params }),
  route('/strict', () => ({}), { method: 'POST', body: strict, query: limits }),
  route('/small', request => ({ body: request.body as object }), { method: 'POST', body, limits: { body: 20 } }))

describe('http input', () => {
  let t: Served
  before(async () => { t = await serve([plugin]) })
  after(async () => { await t[Symbol.asyncDispose]() })
  afterEach(() => { assert.deepEqual(t.lines.filter(line => line.level === 'error'), [], 'no input may look like a fault of ours') })

  it('hands a good body on as the schema made it', async () => {
    const answer = await post(`${t.url}/body`, { name: 'ü 😀', count: 2 })
    assert.deepEqual([answer.status, await answer.json()], [200, { name: 'ü 😀', count: 2 }])
    assert.equal((await post(`${t.url}/body`, '\ufeff{"name":"with a byte order mark"}')).status, 200)
    assert.equal((await post(`${t.url}/body`, { name: 'x' }, { 'content-type': 'application/json; charset="UTF-8"' })).status, 200)
  })

  it('tells all problems at once, each with its field', async () => {
    const answer = await post(`${t.url}/body?x=1&y=2`, { name: 1, count: 1.5, tags: ['a', 2], more: 1, other: 2 })
    assert.equal(answer.status, 400)
    const problem = await problemOf(answer)
    assert.equal(problem['code'], 'HTTP_INVALID')
    assert.deepEqual(problem['errors'].map((each: { path: string }) => each.path).sort(),
      ['body.count', 'body.more', 'body.name', 'body.other', 'body.tags.1', 'query.x', 'query.y'])
  })

  const said: readonly [what: string, query: string, body: unknown, field: string, message: string][] = [
    ['a field that is missing', '', {}, 'body.name', 'is missing; give a text of 1 to 200 characters'],
    ['anything that is missing', '', { name: 'x', needs: {} }, 'body.needs.any', 'is missing'],
    ['a field name with a slip', '', { name: 'x', priorty: 1 }, 'body.priorty', 'is not a known field. Did you mean "priority"?'],
    ['a field name with a slip, inside', '', { name: 'x', nested: { basems: 1 } }, 'body.nested.basems', 'is not a known field. Did you mean "base_ms"?'],
    ['a field name that is like none', '', { name: 'x', nested: { zzz: 1 } }, 'body.nested.zzz', 'is not a known field. Known here: base_ms.'],
    ['a number out of its range', '', { name: 'x', priority: 10 }, 'body.priority', 'must be a whole number from 0 to 9'],
    ['a text for a number', '', { name: 'x', priority: 'high' }, 'body.priority', 'must be a whole number from 0 to 9, not a text'],
    ['null for a text', '', { name: null }, 'body.name', 'must be a text of 1 to 200 characters, not null'],
    ['an empty text', '', { name: '' }, 'body.name', 'must be a text of 1 to 200 characters'],
    ['one of a few names, with a slip', '', { name: 'x', status: 'queud' }, 'body.status', 'must be one of "queued", "running". Did you mean "queued"?'],
    ['an empty list', '', { name: 'x', tags: [] }, 'body.tags', 'must be a list of 1 to 3'],
    ['an item of a list', '', { name: 'x', tags: [1] }, 'body.tags.0', 'must be a text, not a number'],
    ['the alternative that was meant', '', { name: 'x', target: { host: 'a', port: 'b' } }, 'body.target.port', 'must be a whole number, not a text'],
    ['none of the alternatives', '', { name: 'x', target: 5 }, 'body.target', 'must be a text, or a map with host, port'],
    ['a name in a map', '', { name: 'x', labels: { toolong: 'x' } }, 'body.labels.toolong', 'has a name that does not fit: it must be a text of at most 5 characters'],
    ['what the route says itself', '', { name: 'x', even: 3 }, 'body.even', 'is odd'],
    ['a number in the address', '?limit=abc', { name: 'x' }, 'query.limit', 'must be a whole number from 1 to 100'],
    ['a field in the address', '?limt=1', { name: 'x' }, 'query.limt', 'is not a known field. Did you mean "limit"?'],
  ]
  for (const [what, query, sent, path, message] of said) {
    it(`says in words what is wrong with ${what}`, async () => {
      const answer = await post(`${t.url}/strict${query}`, sent)
      const problem = await problemOf(answer)
      assert.deepEqual([answer.status, problem.errors], [400, [{ path, message }]])
      assert.equal(problem.detail, `the request does not fit: ${path}: ${message.replace(/\.$/, '')}`)
    })
  }

  it('says where JSON is broken', async () => {
    for (const [sent, message] of [['{"name":"x",}', 'is not well-formed JSON, at line 1, column 13'], ['{\n  name: 1\n}', 'is not well-formed JSON, at line 2, column 3'], [' ', 'is not well-formed JSON: it is empty']]) {
      assert.equal((await problemOf(await post(`${t.url}/body`, sent))).errors[0].message, message)
    }
  })

  it('tells of very many problems the first 20 and how many are left, in little time and few bytes', async () => {
    const many = await post(`${t.url}/strict`, { name: 'x', ...Object.fromEntries(Array.from({ length: 20_000 }, (_, at) => [`priorit${at}${'y'.repeat(20)}`, 1])) })
    const text = await many.text()
    const { detail, errors } = JSON.parse(text) as { detail: string; errors: unknown[] }
    assert.deepEqual([many.status, errors.length, text.length < 8_000], [400, 20, true])
    assert.match(detail, /; and 19997 more$/)
  })

  const deep = (depth: number) => `{"name":"x","any":${'['.repeat(depth)}${']'.repeat(depth)}}`
  const naughty: Record<string, [string | Uint8Array, number, string, Record<string, string>?]> = {
    'an empty body': ['', 400, 'body'],
    'no JSON': ['name=x', 400, 'body'],
    'JSON cut short': ['{"name":"x"', 400, 'body'],
    'two values': ['{"name":"x"} {}', 400, 'body'],
    'a text instead of an object': ['"x"', 400, 'body'],
    'null': ['null', 400, 'body'],
    'a list': ['[]', 400, 'body'],
    'NaN': ['{"name":"x","count":NaN}', 400, 'body'],
    'a number beyond all bounds': ['{"name":"x","count":1e999}', 400, 'body.count'],
    'bad UTF-8': [Buffer.from('7b226e616d65223a22c328227d', 'hex'), 400, 'body'],
    'UTF-16': [Buffer.from('\ufeff{"name":"x"}', 'utf16le'), 400, 'body'],
    'a __proto__ field': ['{"name":"x","__proto__":{"admin":true}}', 400, 'body.__proto__'],
    'an escaped __proto__, deep inside': ['{"name":"x","any":[{"__pr\\u006fto__":1}]}', 400, 'body.any.0.__proto__'],
    'a constructor field': ['{"name":"x","constructor":{"prototype":{"admin":true}}}', 400, 'body.constructor'],
    'NUL in a text': ['{"name":"a\\u0000b"}', 400, 'body.name'],
    'half a surrogate pair': ['{"name":"\\ud800"}', 400, 'body.name'],
    'NUL in a field name': ['{"name":"x","any":{"a\\u0000":1}}', 400, 'body.any'],
    'depth 65': [deep(64), 400, 'body.any'],
    'depth 100,000': [deep(100_000), 400, 'body.any'],
    'depth 500,000, never closed': ['['.repeat(500_000), 400, 'body'],
    'an unknown field of 100,000 letters': [`{"name":"x","${'k'.repeat(100_000)}":1}`, 400, 'body.kkk'],
    'more than the limit': [`{"name":"${'x'.repeat(1_048_577)}"}`, 413, ''],
    'a form': ['name=x', 415, '', { 'content-type': 'application/x-www-form-urlencoded' }],
    'a form that is JSON in disguise': ['{"name":"x"}', 415, '', { 'content-type': 'text/plain' }],
    'another charset': ['{"name":"x"}', 415, '', { 'content-type': 'application/json; charset=latin1' }],
    'gzip': [gzipSync('{"name":"x"}'), 415, '', { 'content-encoding': 'gzip' }],
    'an encoding of many layers': ['x', 415, '', { 'content-encoding': 'gzip, gzip, br' }],
  }
  for (const [what, [sent, status, field, headers]] of Object.entries(naughty)) {
    it(`answers ${status} to ${what}${field ? `, naming ${field}` : ''}`, async () => {
      const answer = await post(`${t.url}/body`, sent, headers)
      const problem = await problemOf(answer)
      assert.equal(answer.status, status, JSON.stringify(problem))
      if (field) assert.ok(problem['errors'][0].path.startsWith(field), problem['errors'][0].path)
      assert.ok(JSON.stringify(problem).length < 4_000)
    })
  }

  it('accepts depth 64, and leaves no trace of a refused __proto__', async () => {
    assert.equal((await post(`${t.url}/body`, deep(63))).status, 200)
    assert.equal(({} as Record<string, unknown>)['admin'], undefined)
  })

  it('takes no body on a route that has none, and reads only as much as a route\'s own limit', async () => {
    const none = await post(`${t.url}/none`, {})
    assert.deepEqual([none.status, (await problemOf(none)).errors[0].path], [400, 'body'])
    assert.equal((await fetch(`${t.url}/none`, { method: 'POST' })).status, 204)
    assert.equal((await post(`${t.url}/small`, { name: 'x' })).status, 200)
    assert.equal((await post(`${t.url}/small`, { name: 'x'.repeat(20) })).status, 413)
  })

  it('stops reading a body without a length once it is too large', async () => {
    await using raw = await open(t.url, head('POST /body', 'Content-Type: application/json', 'Transfer-Encoding: chunked'))
    const chunk = `10000\r\n${'x'.repeat(0x10000)}\r\n`
    for (let sent = 0; sent < 64 && !raw.socket.destroyed; sent++) raw.socket.write(chunk)
    await eventually('the refusal', () => raw.text.includes('HTTP_TOO_LARGE'))
    await raw.closed
    assert.match(raw.text, /^HTTP\/1\.1 413 /)
  })

  const queries: Record<string, [string, number, string]> = {
    'an unknown field': ['/query?z=1', 400, 'query.z'], 'a repeated field': ['/query?q=1&q=2', 400, 'query.q'],
      'a wrong type': ['/query?n=x', 400, 'query.n'], 'bad UTF-8': ['/query?q=%c3%28', 400, 'query'],
    'a lone percent sign': ['/query?q=100%', 400, 'query'], 'a __proto__ field': ['/query?__proto__=1', 400, 'query.__proto__'],
      'NUL': ['/query?q=%00', 400, 'query.q'],
    'a bad parameter': ['/params/A-B', 400, 'params.id'], 'a path that is no UTF-8': ['/params/%ff', 400, 'path'],
      'NUL in the path': ['/params/a%00', 400, 'path'], 'a climb': ['/params/..%2f..%2fetc', 400, 'params.id'],
    'a line break in the path': ['/params/a%0d%0aSet-Cookie:x', 400, 'path'], '200 fields': [`/query?${'q=1&'.repeat(200)}`, 413, ''],
      'a query where none is taken': ['/params/a?x=1', 400, 'query.x'],
  }
  for (const [what, [path, status, field]] of Object.entries(queries)) {
    it(`answers ${status} to ${what} in the address${field ? `, naming ${field}` : ''}`, async () => {
      const answer = await fetch(`${t.url}${path}`)
      const problem = await problemOf(answer)
      assert.equal(answer.status, status, JSON.stringify(problem))
      if (field) assert.equal(problem['errors'][0].path, field)
    })
  }

  const targets = ['*', 'http://evil.example/query', '//query', '/query#x', '/\\\\evil', '/query/../params', '/%2e%2e/', `/${'a/'.repeat(2_000)}`,
    '/params/__proto__', '/;q', '/[', '/query?']
  it('answers no odd request target with 5xx', async () => {
    for (const target of targets) {
      await using raw = await open(t.url, head(`GET ${target}`, 'Connection: close'))
      assert.match(await raw.closed, /^HTTP\/1\.1 [24]\d\d /, target)
    }
  })

  it('answers any JSON, any bytes and any address with success or 4xx', async () => {
    const ok = async (answer: Promise<Response>) => { const { status } = await answer; assert.ok(status < 500, String(status)) }
    await fc.assert(fc.asyncProperty(fc.jsonValue(), fc.uint8Array({ maxLength: 200 }), fc.string({ unit: 'binary' }), async (value, bytes, text) => {
      await ok(post(`${t.url}/body`, JSON.stringify(value)))
      await ok(post(`${t.url}/body`, JSON.stringify({ name: text, any: value })))
      await ok(post(`${t.url}/body`, bytes))
      const escaped = encodeURIComponent(text.replaceAll(/\p{Surrogate}/gu, ''))
      await ok(fetch(`${t.url}/params/${escaped}?q=${escaped}`))
    }), { numRuns: 60 })
  })
})
