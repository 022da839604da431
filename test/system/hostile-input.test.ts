import assert from 'node:assert/strict'
import { Agent, request } from 'node:http'
import { connect, type Socket } from 'node:net'
import { gzipSync } from 'node:zlib'
import { z } from 'zod'
import { definePlugin, type Schema } from '#core'
import { HttpRoute, HttpServer } from '#contracts/http'
import { createTestRuntime, eventually, type TestRuntime } from '#core/testing'
import accessOpen from '../../plugins/access-open/index.ts'
import agentPackCore from '../../plugins/agent-pack-core/index.ts'
import agents from '../../plugins/agents/index.ts'
import database from '../../plugins/database/index.ts'
import health from '../../plugins/health/index.ts'
import http from '../../plugins/http/index.ts'
import jobs from '../../plugins/jobs/index.ts'
import models from '../../plugins/models/index.ts'
import pluginsApi from '../../plugins/plugins-api/index.ts'
import queueEmbedded from '../../plugins/queue-embedded/index.ts'
import { workplace } from '../support/cli.ts'

const PLUGINS = [http, accessOpen, database, jobs, queueEmbedded, models, agents, agentPackCore, health, pluginsApi]

const strings = ['', ' ', '\u0000', '\ud800', '\u202e\u200b', '😀'.repeat(50), '../../../../etc/passwd', '..%2f..%2f', '%00', '%ff', 'null', 'undefined', 'NaN', '-1', '0x10',
  '1e999', '\'; DROP TABLE jobs; --', '" OR 1=1 --', '${jndi:ldap://x}', '{{7*7}}', '$(id)', '`id`', '<script>alert(1)</script>', '__proto__', 'constructor',
  'toString', 'hasOwnProperty', 'a\r\nSet-Cookie: x=1', '\u001b[31m', 'ﬃ', 'İ', 'x'.repeat(5_000), '{"$gt":""}', '[object Object]', '/', '//', '.', '..']
const wrong: unknown[] = [null, true, 0, -1, 1.5, 1e308, -0, [], {}, [[]], [null], { __proto__: null, toString: 1 }, { length: -1 }, { '$ne': 1 }]

interface Shape {
  type?: string | string[]; enum?: unknown[]; const?: unknown; properties?: Record<string, Shape>; required?: string[]
  anyOf?: Shape[]; oneOf?: Shape[]; minimum?: number
}
const encoded = (text: string) => encodeURIComponent(Buffer.from(text).toString())
const shapeOf = (schema: Schema): Shape => z.toJSONSchema(schema as unknown as z.ZodType, { io: 'input', unrepresentable: 'any' }) as Shape

/** A value that fits, or nearly. */
function sample(shape: Shape): unknown {
  const [variant] = shape.anyOf ?? shape.oneOf ?? []
  if (variant) return sample(variant)
  if (shape.const !== undefined) return shape.const
  if (shape.enum) return shape.enum[0]
  const type = Array.isArray(shape.type) ? shape.type[0] : shape.type
  if (type === 'object') return Object.fromEntries((shape.required ?? []).map(key => [key, sample(shape.properties?.[key] ?? {})]))
  return { string: 'x', number: shape.minimum ?? 1, integer: shape.minimum ?? 1, boolean: true, array: [] as unknown[] }[type ?? 'string'] ?? 'x'
}

/** Where what the schema says is not enough for a body that is taken. */
const GOOD: Readonly<Record<string, object>> = { '/api/v1/jobs': { agent: 'math', input: '1+1' } }
/** One takes the place of the other; given both, it is not wrong to name either. */
const INSTEAD: Readonly<Record<string, string>> = { type: 'agent', agent: 'type' }
const bodyOf = ({ path, body }: HttpRoute): unknown => GOOD[path] ?? sample(shapeOf(body!))

/** Every way to spoil a value: each field in turn by each naughty value, a field that is not known, and `__proto__`. */
function* spoiled(shape: Shape, value: unknown, path: string): Generator<{ path: string; text: string }> {
  for (const each of [...strings, ...wrong]) yield { path, text: JSON.stringify(each) }
  yield { path, text: `${'['.repeat(100_000)}${']'.repeat(100_000)}` }
  yield { path, text: `${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}` }
  const found = [shape, ...(shape.anyOf ?? shape.oneOf ?? [])].find(each => each.properties)
  if (!found) return
  const base = typeof value === 'object' && value !== null ? value as Record<string, unknown> : {}
  const around = (key: string, text: string) => {
    const others = Object.entries(base).filter(([name]) => name !== key && name !== INSTEAD[key]).map(([name, each]) => `${JSON.stringify(name)}:${JSON.stringify(each)}`)
    return `{${[...others, `${JSON.stringify(key)}:${text}`].join(',')}}`
  }
  yield { path: `${path}.__proto__`, text: around('__proto__', '{"admin":true}') }
  yield { path: `${path}.constructor`, text: around('constructor', '{"prototype":{"admin":true}}') }
  yield { path: `${path}.surprise`, text: around('surprise', '1') }
  for (const [key, child] of Object.entries(found.properties!)) {
    for (const each of spoiled(child, base[key] ?? sample(child), `${path}.${key}`)) yield { path: each.path, text: around(key, each.text) }
  }
}

/** Nothing of ours may be told: no stack, no file, no SQL, no error of a library. What was sent may come back. */
const LEAK = /\n\s+at |\.[jt]s:\d+|node:internal|node_modules|SQLITE_|no such (?:table|column)|SELECT .* FROM|INSERT INTO|TypeError|ReferenceError|RangeError/

const agent = new Agent({ keepAlive: true, maxSockets: 16 })
interface Told { readonly status: number; readonly text: string }
const send = (url: string, method: string, path: string, body?: string | Buffer, headers: Record<string, string> = {}) => new Promise<Told>((resolve, reject) => {
  // Of a DELETE node tells no length: its body would be read as the next request.
  const framed = body === undefined ? {} : { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(body)) }
  const asked = request(url, { agent, method, path, headers: { ...framed, ...headers } }, answer => {
    const chunks: Buffer[] = []
    answer.on('data', (chunk: Buffer) => chunks.push(chunk)).on('end', () => resolve({ status: answer.statusCode!, text: Buffer.concat(chunks).toString() }))
      .on('error', reject)
  })
  asked.on('error', reject).end(body)
})

function judge({ status, text }: Told, about: string, field?: string): void {
  assert.ok(status < 500, `${about}: ${status} ${text.slice(0, 500)}`)
  if (status < 400) return
  const problem = JSON.parse(text) as { code: string; errors?: { path: string }[] }
  assert.doesNotMatch(text, LEAK, about)
  if (problem.code !== 'HTTP_INVALID') return
  const paths = (problem.errors ?? []).map(each => each.path)
  assert.ok(paths.length > 0, `${about}: names no field`)
  const near = (path: string) => field === undefined || path.startsWith(field) || field.startsWith(path)
  assert.ok(paths.some(near), `${about}: names ${paths.join(', ')}, not ${field}`)
}

async function inParallel<T>(items: Iterable<T>, work: (item: T) => Promise<void>): Promise<number> {
  const iterator = items[Symbol.iterator]()
  let count = 0
  await Promise.all(Array.from({ length: 16 }, async () => {
    for (let next = iterator.next(); !next.done; next = iterator.next()) { count++; await work(next.value) }
  }))
  return count
}

describe('hostile input', function () {
  this.timeout(60_000)
  let t: TestRuntime
  let url = ''
  let routes: readonly HttpRoute[] = []
  const watcher = definePlugin({ name: 'watcher', setup(ctx) { ctx.collect(HttpRoute).watch(all => { routes = all.map(each => each.value) }) } })
  before(async () => {
    t = await createTestRuntime({ plugins: [watcher, ...PLUGINS.map(plugin => ({ plugin, config: plugin.name === 'http' ? { port: 0 } : {} }))] })
    url = t.get(HttpServer).url!
  })
  after(async () => { agent.destroy(); await t[Symbol.asyncDispose]() })
  afterEach(() => {
    const told = t.lines.filter(line => line.level === 'error' && line.fields['plugin'] !== 'jobs').map(line => line.message)
    assert.deepEqual(told, [], 'none of it may look like a fault of ours')
  })
  const pathOf = (route: HttpRoute, value: (name: string) => string) => route.path.replaceAll(/:(\w+)/g, (_, name: string) => value(name))

  it('in every parameter of every path is a 4xx or means nothing', async () => {
    const cases = routes.flatMap(route => [...route.path.matchAll(/:(\w+)/g)].flatMap(([, name]) => strings.map(text => ({ route, name, text }))))
    const count = await inParallel(cases, async ({ route, name, text }) => {
      const path = pathOf(route, each => (each === name ? encoded(text) : 'x'))
      judge(await send(url, route.method, path), `${route.method} ${path}`)
    })
    assert.ok(count > 200, `${count} cases`)
  })

  it('in every field of every query, and in fields that nobody knows, is a 4xx that names it', async () => {
    const cases = routes.filter(route => !route.streams).flatMap(route => {
      const fields = Object.keys((route.query ? shapeOf(route.query).properties : undefined) ?? {})
      const spoil = [...fields, 'surprise', '__proto__'].flatMap(field => strings.map(text => ({ field, query: `${field}=${encoded(text)}` })))
      return [...spoil, ...fields.map(field => ({ field, query: `${field}=1&${field}=2` })), ...fields.map(field => ({ field, query: `${field}[a]=1` })), { field: '', query: '%ff=%c0' },
        { field: '', query: Array.from({ length: 200 }, (_, at) => `a${at}=1`).join('&') }].map(each => ({ route, ...each }))
    })
    const count = await inParallel(cases, async ({ route, field, query }) => {
      const path = `${pathOf(route, () => 'x')}?${query}`
      const answer = await send(url, route.method, path, route.body ? JSON.stringify(bodyOf(route)) : undefined)
      judge(answer, `${route.method} ${path.slice(0, 200)}`)
      if (field === 'surprise' || field === '__proto__') assert.ok(answer.status >= 400 && (answer.status !== 400 || answer.text.includes(`query.${field}`)), answer.text)
    })
    assert.ok(count > 500, `${count} cases`)
  })

  it('in every field of every body is a 4xx that names it, or is taken as the text that it is', async () => {
    const cases = routes.flatMap(route => {
      if (!route.body) return []
      return [...spoiled(shapeOf(route.body), bodyOf(route), 'body')].map(each => ({ route, ...each }))
    })
    const count = await inParallel(cases, async ({ route, path, text }) => {
      const about = `${route.method} ${route.path}, ${path}: ${text.slice(0, 100)}`
      judge(await send(url, route.method, pathOf(route, () => 'x'), text), about, path)
    })
    assert.ok(count > 50, `${count} cases`)
    assert.equal(({} as { admin?: unknown }).admin, undefined)
  })

  it('of 100 MB, as a gzip bomb, in bad UTF-8 or cut short is a 4xx for every route, and takes no memory', async () => {
    const bomb = gzipSync(Buffer.alloc(50_000_000, '['))
    const chunk = Buffer.alloc(1_000_000, 'x')
    const rss = () => process.memoryUsage().rss
    const before = rss()
    let most = 0
    for (const route of routes.filter(each => each.method !== 'GET')) {
      const path = pathOf(route, () => 'x')
      for (const [what, body, headers] of [['a gzip bomb', bomb, { 'content-encoding': 'gzip' }], ['bad UTF-8', Buffer.from('7b2261223a22c328227d', 'hex'), {}],
        ['cut short', '{"a":', {}], ['no JSON', '<a/>', { 'content-type': 'text/xml' }], ['a lie about its type', '\u0000\u0001', {}]] as const) {
        const answer = await send(url, route.method, path, body, headers)
        assert.ok(answer.status >= 400, what)
        judge(answer, `${what} to ${route.path}`)
      }
      const status = await new Promise<number>((resolve, reject) => {
        let sent = 0
        const asked = request(url, { method: route.method, path, agent: false, headers: { 'content-type': 'application/json', 'transfer-encoding': 'chunked' } }, answer => {
          answer.resume()
          resolve(answer.statusCode!)
          asked.destroy()
        })
        asked.on('error', error => { if (sent < 100) reject(error) })
        const push = () => { while (sent < 100 && !asked.destroyed) { sent++; most = Math.max(most, rss()); if (!asked.write(chunk)) { asked.once('drain', push); return } } }
        push()
      })
      assert.ok(status === 413 || status === 400 || status === 404, `${status} of ${route.path}`)
    }
    assert.ok(most - before < 150_000_000, `${Math.round((most - before) / 1e6)} MB more`)
  })

  it('is not told by what headers can be made of, or a first line', async () => {
    const lines = ['GET / HTTP/1.1\r\nHost: a\r\nX: \u0000\r\n\r\n', 'GET  / HTTP/9.9\r\n\r\n', '\u0016\u0003\u0001\u0002', `GET /${'a'.repeat(100_000)} HTTP/1.1\r\n\r\n`,
      'GET http://evil.example/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n', 'GET * HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n', 'CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n',
      'POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
      'POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n', 'POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n']
    for (const line of lines) {
      const text = await new Promise<string>(resolve => {
        let heard = ''
        const socket: Socket = connect(Number(new URL(url).port), '127.0.0.1')
        socket.on('data', chunk => { heard += String(chunk); if (/\r\n\r\n[^]+/.test(heard)) socket.destroy() }).on('error', () => {}).on('close', () => resolve(heard))
        socket.write(line, 'latin1')
      })
      assert.match(text, /^(?:HTTP\/1\.1 4\d\d |$)/, JSON.stringify(line.slice(0, 60)))
      assert.doesNotMatch(text, LEAK)
    }
  })

  it('from 500 slow clients keeps nobody else waiting: p99 of the others is at most twice what it was', async () => {
    await using place = workplace({ 'config/default.yaml': `plugins:\n  http: { config: { port: 0, headersTimeoutMs: 60000 } }\n${['access-open', 'database', 'jobs', 'queue-embedded',
      'health'].map(name => `  ${name}: {}`).join('\n')}\n` })
    const { url: server } = await place.start(['start', '--no-watch']).line('the start', line => line['msg'] === 'started') as { url: string }
    const others = async () => {
      const times: number[] = []
      for (let round = 0; round < 400; round++) {
        const from = performance.now()
        const { status } = await send(server, 'GET', '/health/live')
        times.push(performance.now() - from)
        assert.equal(status, 200)
      }
      return times.sort((a, b) => a - b)[Math.floor(times.length * 0.99)]!
    }
    await others()
    const alone = await others()
    const slow = Array.from({ length: 500 }, (_, at) => {
      const socket = connect(Number(new URL(server).port), '127.0.0.1').on('error', () => {})
      const text = at % 2 ? 'POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"a":"' : 'GET /health/live HTTP/1.1\r\nX-A'
      socket.write(text)
      return socket
    })
    await Promise.all(slow.map(socket => new Promise<void>(resolve => { if (!socket.connecting) resolve(); else socket.once('connect', () => resolve()) })))
    const drip = setInterval(() => { for (const socket of slow) socket.write('x') }, 200)
    // In one run, and again if the machine had something else to do just then.
    const besides = await eventually('others as quick as before', async () => { const p99 = await others(); return p99 <= Math.max(2 * alone, alone + 5) && p99 }, 20_000)
    clearInterval(drip)
    assert.ok(besides > 0 && slow.every(socket => !socket.destroyed), 'they were there all the time')
    for (const socket of slow) socket.destroy()
  })
})
