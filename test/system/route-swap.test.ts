import assert from 'node:assert/strict'
import { Agent, get, request } from 'node:http'
import { definePlugin } from '#core'
import { HttpRoute, HttpUpgrade } from '#contracts/http'
import { eventually } from '#core/testing'
import { route, routesPlugin, serve } from '../support/http.ts'
import { echoWebSocket, openWebSocket } from '../support/socket.ts'

const SECONDS = process.env['BACKPLANE_CHAOS'] ? 20 : 3
const [SWAPS, PER_SECOND, STREAMS] = [20, 1_000, 25]
const TICK_MS = 10

const pause = (ms: number) => new Promise(resolve => setTimeout(resolve, ms))
/** Its answers take a while, so that a swap always finds some under way, and so does its own coming, so that requests come in between. */
const owner = (life: number) => definePlugin({
  name: 'owner', contributes: [HttpRoute, HttpUpgrade],
  async setup(ctx) {
    let started = false
    await pause(15)
    ctx.contribute(HttpUpgrade, { path: '/owned', permission: 'test:use', upgrade: echoWebSocket })
    ctx.contribute(HttpRoute, route('/owned/:id', async () => {
      if (!started) throw new Error('called before it has started')
      await pause(3)
      return { body: { life } }
    }))
    return { start: async () => { await pause(15); started = true } }
  },
})
const live = definePlugin({
  name: 'live', contributes: [HttpRoute, HttpUpgrade],
  setup(ctx) {
    ctx.contribute(HttpUpgrade, { path: '/ws', permission: 'test:use', upgrade: echoWebSocket })
    ctx.contribute(HttpRoute, route('/sse', ({ signal }) => ({ headers: { 'Content-Type': 'text/event-stream' }, stream: (async function* () {
      for (let at = 1; !signal.aborted; at++) { yield `id: ${at}\n\n`; await pause(50) }
    })() }), { streams: true }))
  },
})

describe('a route owner that is swapped under load', function () {
  this.timeout(SECONDS * 1_000 + 20_000)

  it(`${SWAPS} times under ${PER_SECOND} requests a second: nobody else fails, no connection closes, streams and sockets of others live on`, async () => {
    await using t = await serve([owner(0), routesPlugin('other', route('/other/:id')), live])
    const agent = new Agent({ keepAlive: true, maxSockets: 64, scheduling: 'fifo' })
    const sockets = new Set<object>()
    let [closed, ending] = [0, false]
    const counts = { 'other 200': 0, 'owned 200': 0, 'owned 503': 0 } as Record<string, number>
    const ask = (whose: string, path: string) => new Promise<void>(resolve => {
      const wrong = (what: string) => { counts[`${whose} ${what}`] = (counts[`${whose} ${what}`] ?? 0) + 1; resolve() }
      const asked = get(`${t.url}${path}`, { agent }, answer => {
        const { statusCode, headers } = answer
        const told = statusCode === 503 && headers['retry-after'] === undefined ? '503 without Retry-After' : String(statusCode)
        answer.resume().on('end', () => wrong(headers.connection === 'close' ? `${told}, closing` : told)).on('error', error => wrong(error.message))
      })
      asked.on('error', error => wrong(error.message))
      asked.on('socket', socket => {
        if (sockets.has(socket)) return
        sockets.add(socket)
        socket.once('close', () => { if (!ending) closed++ })
      })
    })

    const events: number[][] = Array.from({ length: STREAMS }, () => [])
    let broken = 0
    const readers = events.map(seen => request(`${t.url}/sse`, { agent: false }, answer => {
      answer.on('data', chunk => { for (const [, id] of String(chunk).matchAll(/id: (\d+)/g)) seen.push(Number(id)) })
      answer.on('close', () => { if (!ending) broken++ }).on('error', () => {})
    }).on('error', () => {}))
    for (const each of readers) each.end()
    const clients = await Promise.all(Array.from({ length: STREAMS }, () => openWebSocket(t.url, '/ws')))
    await eventually('every stream', () => events.every(seen => seen.length > 0))

    const asked: Promise<void>[] = []
    let said = 0
    const from = performance.now()
    let swaps = 0
    const swapping = (async () => {
      while (swaps < SWAPS) {
        await pause(Math.max(0, from + (swaps + 0.5) * SECONDS * 1_000 / SWAPS - performance.now()))
        await t.runtime.swap('owner', owner(++swaps))
      }
    })()
    while (performance.now() - from < SECONDS * 1_000) {
      const due = Math.floor((performance.now() - from) * PER_SECOND / 1_000)
      while (asked.length < due) asked.push(asked.length % 2 ? ask('owned', '/owned/1') : ask('other', '/other/1'))
      if (asked.length > said * 100) { said++; for (const client of clients) client.say(`ping ${said}`) }
      await pause(TICK_MS)
    }
    await Promise.all([...asked, swapping])
    await eventually('the last echoes', () => clients.every(client => client.heard.length === said))

    const { 'other 200': others = 0, 'owned 200': own = 0, 'owned 503': away = 0, ...failed } = counts
    assert.deepEqual(failed, {}, 'nothing but 200, and 503 with Retry-After for its own')
    assert.equal(others, Math.ceil(asked.length / 2))
    assert.ok(asked.length >= SECONDS * PER_SECOND * 0.9, `${asked.length} requests`)
    assert.ok(own > away, `${own} of its own answered, ${away} while it was away`)
    assert.deepEqual([swaps, closed, broken], [SWAPS, 0, 0])
    for (const seen of events) assert.deepEqual(seen, seen.map((_, at) => at + 1))
    for (const client of clients) assert.deepEqual([client.closed, client.heard.at(-1)], [false, `ping ${said}`])

    ending = true
    for (const each of readers) each.destroy()
    for (const { socket } of clients) socket.destroy()
    agent.destroy()
  })
})
