import assert from 'node:assert/strict'
import { scope } from '#core'
import { eventually } from '#core/testing'
import type { HttpAnswer, HttpRequest } from '#contracts/http'
import { head, open, route, routesPlugin, serve } from '../../support/http.ts'

const never = () => new Promise<never>(() => {})
const streaming = (make: (request: HttpRequest) => AsyncIterable<string | Uint8Array>, more: Partial<HttpAnswer> = {}) =>
  routesPlugin('a', route('/a', request => ({ ...more, stream: make(request) }), { streams: true }))

describe('http streams', () => {
  it('sends each piece as it comes, in the scope of the plugin', async () => {
    let go = () => {}
    const plugins: unknown[] = []
    async function* pieces() {
      yield 'one '
      plugins.push(scope.current?.plugin)
      await new Promise<void>(resolve => { go = resolve })
      yield Buffer.from('two')
    }
    await using t = await serve([streaming(pieces, { headers: { 'Content-Type': 'text/event-stream' } })])
    const answer = await fetch(`${t.url}/a`)
    assert.deepEqual([answer.status, answer.headers.get('content-type')], [200, 'text/event-stream'])
    const reader = answer.body!.getReader()
    assert.equal(Buffer.from((await reader.read()).value!).toString(), 'one ')
    go()
    assert.equal(Buffer.from((await reader.read()).value!).toString(), 'two')
    assert.equal((await reader.read()).done, true)
    assert.deepEqual(plugins, ['a'])
  })

  it('tells the head at once, before there is a first piece', async () => {
    await using t = await serve([streaming(async function* () { yield await never() })])
    const stop = new AbortController()
    assert.equal((await fetch(`${t.url}/a`, { signal: stop.signal })).status, 200)
    stop.abort()
  })

  it('ends when the client leaves: the signal aborts, the generator is told to return', async () => {
    let ended = false
    let signal: AbortSignal | undefined
    async function* ticks(request: HttpRequest) {
      signal = request.signal
      try { for (;;) { yield 'tick '; await new Promise(resolve => setTimeout(resolve, 5)) } } finally { ended = true }
    }
    await using t = await serve([streaming(ticks)])
    const stop = new AbortController()
    const answer = await fetch(`${t.url}/a`, { signal: stop.signal })
    await answer.body!.getReader().read()
    stop.abort()
    await eventually('the end of the generator', () => ended)
    assert.equal(signal?.aborted, true)
    assert.deepEqual(t.lines.filter(line => line.level === 'error'), [])
  })

  it('ends too when the source hangs for ever, and asks it to return', async () => {
    let returned = 0
    const hanging: AsyncIterable<string> = { [Symbol.asyncIterator]: () =>
      ({ next: never, return: async () => { returned++; return { done: true, value: undefined } } }) }
    await using t = await serve([streaming(() => hanging)])
    const stop = new AbortController()
    await fetch(`${t.url}/a`, { signal: stop.signal })
    stop.abort()
    await eventually('return()', () => returned === 1)
  })

  it('asks for no more than the client reads', async () => {
    let made = 0
    const piece = Buffer.alloc(65_536)
    async function* flood() { for (;;) { made++; yield piece } }
    await using t = await serve([streaming(flood)])
    await using raw = await open(t.url)
    raw.socket.pause()
    raw.socket.write(head('GET /a'))
    // Full once the count stands still; kernel buffers take some megabytes.
    let before = -1
    await eventually('the source to stand still', async () => { const still = made === before && made > 0; before = made
      await new Promise(resolve => setTimeout(resolve, 50)); return still })
    assert.ok(made < 500, `${made} pieces`)
    const at = made
    raw.socket.resume()
    await eventually('it to go on', () => made > at + 10)
  })

  it('breaks the connection when a stream fails half way, so that it does not look whole; the failure is its plugin\'s', async () => {
    async function* breaks() { yield 'half'; throw new Error('boom') }
    await using t = await serve([streaming(breaks)])
    await assert.rejects(async () => await (await fetch(`${t.url}/a`)).text())
    await eventually('the log line', () => t.lines.some(line => line.level === 'error' && line.fields['plugin'] === 'a'
      && line.message.includes('boom')))
  })

  it('does not start the source for HEAD, and lets go of it', async () => {
    let begun = 0
    let returned = 0
    const source: AsyncIterable<string> = { [Symbol.asyncIterator]: () =>
      ({ next: async () => { begun++; return { done: true, value: undefined } },
      return: async () => { returned++; return { done: true, value: undefined } } }) }
    await using t = await serve([streaming(() => source)])
    assert.equal((await fetch(`${t.url}/a`, { method: 'HEAD' })).status, 200)
    assert.deepEqual([begun, returned], [0, 1])
  })
})
