import assert from 'node:assert/strict'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { BackplaneError, definePlugin, Host } from '#core'
import { HttpRoute, HttpServer } from '#contracts/http'
import { createTestRuntime, eventually, type TestRuntime } from '#core/testing'
import accessOpen from '../../../plugins/access-open/index.ts'
import http from '../../../plugins/http/index.ts'
import { fakeAccessPlugin, httpEntry, open, head, problemOf, route, routesPlugin, serve } from '../../support/http.ts'

const latch = () => { let go!: () => void; const opened = new Promise<void>(resolve => { go = resolve }); return { go, opened } }
const early = routesPlugin('early', route('/early', undefined, { public: true, early: true }))
const urlOf = (t: TestRuntime) => eventually('the server', () => { try { return t.get(HttpServer).url } catch { return undefined } })
const failure = async (work: Promise<unknown>): Promise<BackplaneError> => {
  try { await work } catch (error) { return error as BackplaneError }
  throw new Error('it should have failed')
}

describe('http lifecycle', () => {
  it('answers 503 to all but early routes until everything has started', async () => {
    const { go, opened } = latch()
    const late = definePlugin({ name: 'late', setup: () => ({ start: () => opened }) })
    await using t = await createTestRuntime({ plugins: [fakeAccessPlugin(), httpEntry(), early, routesPlugin('a', route('/a')), late], manual: true })
    const started = t.runtime.start()
    const url = await urlOf(t)
    const answer = await fetch(`${url}/a`)
    assert.deepEqual([answer.status, answer.headers.get('retry-after'), (await problemOf(answer)).code], [503, '1', 'HTTP_STARTING'])
    assert.equal((await fetch(`${url}/early`)).status, 200)
    go()
    await started
    assert.equal((await fetch(`${url}/a`)).status, 200)
  })

  it('tells the command line where it is, for the owner\'s eyes only, and takes that back', async () => {
    let file = ''
    {
      await using t = await serve([])
      file = join(t.dataDir, 'server.json')
      const { url, pid, instanceId, startedAt } = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>
      assert.deepEqual([url, pid, instanceId], [t.url, process.pid, t.get(Host).instanceId])
      assert.ok(!Number.isNaN(Date.parse(String(startedAt))))
      assert.equal(statSync(file).mode & 0o777, 0o600)
      await t.runtime.stop()
      assert.equal(existsSync(file), false)
    }
  })

  it('says how to go on when the port is taken', async () => {
    const other = createServer().listen(0, '127.0.0.1')
    await new Promise(resolve => other.once('listening', resolve))
    const { port } = other.address() as { port: number }
    try {
      await using t = await createTestRuntime({ plugins: [fakeAccessPlugin(), httpEntry({ port })], manual: true })
      const error = await failure(t.runtime.start())
      const cause = (error.cause ?? error) as BackplaneError
      assert.equal(cause.code, 'HTTP_LISTEN_FAILED')
      assert.match(cause.message, /taken/)
      assert.match(cause.fix, /PORT/)
    } finally { await new Promise(resolve => other.close(resolve)) }
  })

  it('does not listen beyond loopback without an access plugin, nor with one for loopback only', async () => {
    for (const plugins of [[httpEntry({ host: '0.0.0.0' })], [{ plugin: accessOpen }, httpEntry({ host: '0.0.0.0' })],
      [{ plugin: accessOpen }, httpEntry({ host: '::' })]]) {
      await using t = await createTestRuntime({ plugins, manual: true })
      const error = await failure(t.runtime.start())
      assert.equal(((error.cause ?? error) as BackplaneError).code, 'ACCESS_BIND_REFUSED')
    }
  })

  it('writes an address that means all as one that a client can use', async () => {
    await using t = await serve([routesPlugin('a', route('/a'))], { config: { host: '0.0.0.0' } })
    assert.match(t.url, /^http:\/\/127\.0\.0\.1:\d+$/)
    assert.equal((await fetch(`${t.url}/a`)).status, 200)
  })

  describe('while a plugin is swapped', () => {
    it('answers 503 with Retry-After on its routes, never 404, and serves the others', async () => {
      const { go, opened } = latch()
      const slow = definePlugin({ name: 'a', contributes: [HttpRoute],
        async setup(ctx) { await opened; ctx.contribute(HttpRoute, route('/a', () => ({ body: 'new' }))) } })
      const { go: begin, opened: begun } = latch()
      const old = definePlugin({ name: 'a', contributes: [HttpRoute],
        setup(ctx) { ctx.contribute(HttpRoute, route('/a', () => ({ body: 'old' }))); return { stop: async () => begin() } } })
      await using t = await serve([old, routesPlugin('b', route('/b'))])
      assert.equal(await (await fetch(`${t.url}/a`)).text(), 'old')
      const swapped = t.runtime.swap('a', slow)
      await begun
      for (let at = 0; at < 5; at++) {
        const answer = await fetch(`${t.url}/a`)
        assert.deepEqual([answer.status, answer.headers.get('retry-after'), (await problemOf(answer)).code], [503, '1', 'HTTP_AWAY'])
        assert.equal((await fetch(`${t.url}/b`)).status, 200)
      }
      go()
      await swapped
      assert.equal(await (await fetch(`${t.url}/a`)).text(), 'new')
    })

    it('answers so from the moment the old one drains until the new one has started', async () => {
      const drain = latch()
      const start = latch()
      const states: string[] = []
      const make = (body: string) => definePlugin({
        name: 'a', contributes: [HttpRoute],
        setup(ctx) {
          ctx.contribute(HttpRoute, route('/a', () => ({ body })))
          return body === 'old' ? { drain: () => { states.push('draining'); return drain.opened } }
            : { start: () => { states.push('starting'); return start.opened } }
        },
      })
      await using t = await serve([make('old')])
      const swapped = t.runtime.swap('a', make('new'))
      await eventually('the old one to drain', () => states.includes('draining'))
      assert.equal((await fetch(`${t.url}/a`)).status, 503)
      drain.go()
      await eventually('the new one to start', () => states.includes('starting'))
      assert.equal((await fetch(`${t.url}/a`)).status, 503)
      start.go()
      await swapped
      assert.equal(await (await fetch(`${t.url}/a`)).text(), 'new')
    })

    it('ends requests that are still in it with 503, and keeps the connection', async () => {
      const signals: AbortSignal[] = []
      const hangs = (name: string) => routesPlugin(name, route(`/${name}`, ({ signal }) => { signals.push(signal); return new Promise(() => {}) }))
      await using t = await serve([hangs('a')])
      const under = fetch(`${t.url}/a`)
      await eventually('it to be under way', () => signals.length === 1)
      await t.runtime.swap('a', routesPlugin('a', route('/a')))
      const answer = await under
      assert.deepEqual([answer.status, (await problemOf(answer)).code, signals[0]!.aborted], [503, 'HTTP_AWAY', true])
      assert.equal((await fetch(`${t.url}/a`)).status, 200)
    })

    it('loses no request of the others over 20 swaps under keep-alive', async () => {
      let over = false
      const seen = new Map<string, number>()
      const served = (key: string) => seen.get(key) ?? 0
      // Each swap lasts until the others have been asked some more.
      const more = async () => { if (over) return; const from = served('/b 200')
        await eventually('more answers', () => served('/b 200') > from + 3) }
      const swapped = () => definePlugin({ name: 'a', contributes: [HttpRoute],
        setup(ctx) { ctx.contribute(HttpRoute, route('/a')); return { drain: more } } })
      await using t = await serve([swapped(), routesPlugin('b', route('/b'))])
      const worker = async (path: string) => {
        while (!over) {
          const answer = await fetch(`${t.url}${path}`)
          await answer.arrayBuffer()
          seen.set(`${path} ${answer.status}`, served(`${path} ${answer.status}`) + 1)
        }
      }
      const workers = ['/b', '/b', '/a', '/b'].map(worker)
      for (let at = 0; at < 20; at++) await t.runtime.swap('a', swapped())
      await eventually('the route to be back', async () => (await fetch(`${t.url}/a`)).status === 200)
      over = true
      await Promise.all(workers)
      assert.deepEqual([...seen.keys()].filter(key => !['/b 200', '/a 200', '/a 503'].includes(key)), [])
      assert.ok(served('/b 200') > 60 && served('/a 503') > 0)
    })
  })

  it('drains: what is under way finishes and closes its connection, what comes hears 503, health still answers', async () => {
    const work = latch()
    const other = latch()
    let begun = false
    const plugins = [early, routesPlugin('a', route('/a', async () => { begun = true; await work.opened; return { body: 'finished' } })),
      definePlugin({ name: 'slow', setup: () => ({ drain: () => other.opened }) })]
    await using t = await serve(plugins)
    const { url } = t
    const under = fetch(`${url}/a`)
    await eventually('it to be under way', () => begun)
    const stopped = t.runtime.stop()
    const refused = await eventually('the refusal', async () => { const answer = await fetch(`${url}/a`); return answer.status === 503 && answer })
    assert.deepEqual([(await problemOf(refused)).code, refused.headers.get('connection'), refused.headers.get('retry-after')],
      ['HTTP_STARTING', 'close', '1'])
    assert.equal((await fetch(`${url}/early`)).status, 200)
    work.go()
    const answer = await under
    assert.deepEqual([answer.status, await answer.text(), answer.headers.get('connection')], [200, 'finished', 'close'])
    assert.equal((await fetch(`${url}/early`)).status, 200)
    other.go()
    await stopped
    await assert.rejects(fetch(`${url}/early`))
  })

  it('gives open streams a while, then ends them', async () => {
    let aborted = false
    async function* ticks(signal: AbortSignal) { yield 'x'; await new Promise(resolve => signal.addEventListener('abort', resolve, { once: true }))
      aborted = true }
    await using t = await serve([routesPlugin('a', route('/a', ({ signal }) => ({ stream: ticks(signal) }), { streams: true }))],
      { config: { streamGraceMs: 50 } })
    const reading = (await fetch(`${t.url}/a`)).text().catch(() => 'broken')
    const from = performance.now()
    await t.runtime.stop()
    assert.ok(performance.now() - from < 2_000, 'the rest of the grace is not waited for')
    assert.equal(await reading, 'broken')
    assert.equal(aborted, true)
  })

  it('waits, beyond the time of open streams, for an answer on a route that might have streamed', async () => {
    const work = latch()
    let begun = false
    const waits = route('/a', async () => { begun = true; await work.opened; return { body: 'finished' } }, { streams: true })
    await using t = await serve([routesPlugin('a', waits)], { config: { streamGraceMs: 0 } })
    const under = fetch(`${t.url}/a`)
    await eventually('it to be under way', () => begun)
    const stopped = t.runtime.stop()
    // Longer than a cut of streams would take: the drain has asked for those that are open, and there are none.
    await eventually('it to drain', async () => (await fetch(`${t.url}/a`)).status === 503)
    await new Promise(resolve => setTimeout(resolve, 100))
    work.go()
    assert.deepEqual([(await under).status, await (await under).text()], [200, 'finished'])
    await stopped
  })

  it('does not keep back a process without the role api, nor one whose http is swapped, for a delay that is for balancers', async () => {
    await using t = await serve([routesPlugin('a', route('/a'))], { config: { drainDelayMs: 60_000 } })
    await t.runtime.swap('http', http)
    await using worker = await serve([], { config: { drainDelayMs: 60_000 }, host: { roles: ['worker'] } })
    const from = performance.now()
    await worker.runtime.stop()
    assert.ok(performance.now() - from < 5_000)
    // And a stop that has less time than that takes what it has.
    await using hasty = await serve([], { config: { drainDelayMs: 60_000 }, graceMs: 400 })
    await hasty.runtime.stop()
    assert.ok(performance.now() - from < 5_000)
    await t.runtime.change(new Map([['http', { plugin: http, config: { port: 0 } }]]))
  })

  it('ends what hangs when the time to drain is up', async () => {
    let signal: AbortSignal | undefined
    await using t = await serve([routesPlugin('a', route('/a', request => { signal = request.signal; return new Promise(() => {}) }))],
      { graceMs: 400 })
    const under = fetch(`${t.url}/a`).then(answer => answer.status, () => 'broken')
    await eventually('it to be under way', () => signal !== undefined)
    await t.runtime.stop()
    assert.equal(await under, 503)
    assert.equal(signal!.aborted, true)
  })

  it('closes connections that only stand open', async () => {
    await using t = await serve([early])
    await using silent = await open(t.url)
    await using idle = await open(t.url, head('GET /early'))
    await eventually('the answer', () => idle.text.includes('200 OK'))
    await t.runtime.stop()
    await Promise.all([silent.closed, idle.closed])
  })

  it('takes other limits in place, without closing a connection, and restarts for another port', async () => {
    await using t = await serve([routesPlugin('a', route('/a'))])
    const { url } = t
    await using kept = await open(url, head('GET /a'))
    await eventually('the answer', () => kept.text.includes('200 OK'))
    const settings = { port: 0, maxConcurrentRequests: 7, requestTimeoutMs: 1_000 }
    await t.runtime.change(new Map([['http', { plugin: http, config: settings }]]))
    assert.equal(t.url, url)
    kept.socket.write(head('GET /a'))
    await eventually('another answer', () => kept.text.match(/200 OK/g)?.length === 2)
    await t.runtime.change(new Map([['http', { plugin: http, config: { ...settings, host: 'localhost' } }]]))
    assert.notEqual(t.url, url)
    assert.equal((await fetch(`${t.url}/a`)).status, 200)
  })

  it('serves again, all routes there, after it was itself swapped', async () => {
    await using t = await serve([routesPlugin('a', route('/a')), early])
    await t.runtime.swap('http', http)
    assert.equal((await fetch(`${t.url}/a`)).status, 200)
    assert.equal(JSON.parse(readFileSync(join(t.dataDir, 'server.json'), 'utf8')).url, t.url)
  })
})
