import assert from 'node:assert/strict'
import type { Duplex } from 'node:stream'
import { definePlugin } from '#core'
import type { Caller } from '#contracts/access'
import { HttpUpgrade } from '#contracts/http'
import { eventually } from '#core/testing'
import { head, open, OPERATOR, route, routesPlugin, serve } from '../../support/http.ts'

/** Answers the upgrade and echoes what comes. */
function echo(name = 'echo', path = '/echo') {
  const callers: Caller[] = []
  const sockets: Duplex[] = []
  const plugin = definePlugin({
    name, contributes: [HttpUpgrade],
    setup(ctx) {
      ctx.contribute(HttpUpgrade, { path, permission: 'test:use', upgrade(_request, socket, first, caller) {
        callers.push(caller)
        sockets.push(socket)
        socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n${first.toString()}`)
        socket.on('data', data => socket.write(data))
      } })
    },
  })
  return { plugin, callers, sockets }
}
const ask = (path: string, ...more: string[]) => head(`GET ${path}`, 'Connection: Upgrade', 'Upgrade: echo', ...more)

describe('http upgrade', () => {
  it('hands the connection over with its caller', async () => {
    const { plugin, callers } = echo()
    await using t = await serve([plugin])
    await using raw = await open(t.url, `${ask('/echo/')}first `)
    await eventually('the first bytes', () => raw.text.includes('101 Switching') && raw.text.endsWith('first '))
    raw.socket.write('again')
    await eventually('the echo', () => raw.text.endsWith('first again'))
    assert.deepEqual(callers.map(({ id }) => id), [OPERATOR.id])
  })

  const refusals: [string, string, string[], RegExp, string][] = [
    ['an unknown path', '/other', [], /^HTTP\/1\.1 404 /, 'HTTP_NOT_FOUND'],
      ['a stranger', '/echo', ['X-Refuse: identity'], /^HTTP\/1\.1 401 /, 'ACCESS_UNAUTHENTICATED'],
    ['a caller without the permission', '/echo', ['X-Refuse: permission'], /^HTTP\/1\.1 403 /, 'ACCESS_FORBIDDEN'],
  ]
  for (const [who, path, headers, first, code] of refusals) {
    it(`refuses ${who} in the usual form and closes the connection`, async () => {
      const { plugin, callers } = echo()
      await using t = await serve([plugin])
      await using raw = await open(t.url, ask(path, ...headers))
      const text = await raw.closed
      assert.match(text, first)
      assert.equal((JSON.parse(text.slice(text.indexOf('\r\n\r\n') + 4)) as { code: string }).code, code)
      assert.deepEqual(callers, [])
    })
  }

  it('refuses everybody while no access plugin runs', async () => {
    await using t = await serve([echo().plugin], { access: false })
    await using raw = await open(t.url, ask('/echo'))
    assert.match(await raw.closed, /^HTTP\/1\.1 503 [\s\S]*ACCESS_UNAVAILABLE/)
  })

  it('bounds how many are open', async () => {
    await using t = await serve([echo().plugin], { config: { maxStreams: 1 } })
    await using first = await open(t.url, ask('/echo'))
    await eventually('the upgrade', () => first.text.includes('101'))
    await using second = await open(t.url, ask('/echo'))
    assert.match(await second.closed, /^HTTP\/1\.1 503 [\s\S]*HTTP_BUSY/)
  })

  it('survives a client that resets the connection', async () => {
    const { plugin, sockets } = echo()
    await using t = await serve([plugin, routesPlugin('a', route('/a'))])
    await using raw = await open(t.url, ask('/echo'))
    await eventually('the upgrade', () => raw.text.includes('101'))
    raw.socket.resetAndDestroy()
    await eventually('the other end', () => sockets[0]!.destroyed)
    assert.equal((await fetch(`${t.url}/a`)).status, 200)
  })

  it('closes what a plugin took when that plugin leaves, and leaves the others alone', async () => {
    await using t = await serve([echo('gone', '/gone').plugin, echo('stays', '/stays').plugin])
    await using gone = await open(t.url, ask('/gone'))
    await using stays = await open(t.url, ask('/stays'))
    await eventually('both upgrades', () => gone.text.includes('101') && stays.text.includes('101'))
    await t.runtime.change(new Map([['gone', undefined]]))
    await gone.closed
    stays.socket.write('still here')
    await eventually('the echo', () => stays.text.endsWith('still here'))
  })

  it('closes all that are open when the server itself goes, which the HTTP server alone would wait for', async () => {
    await using t = await serve([echo().plugin])
    await using raw = await open(t.url, ask('/echo'))
    await eventually('the upgrade', () => raw.text.includes('101'))
    const from = performance.now()
    await t.runtime.change(new Map([['http', undefined]]))
    await raw.closed
    assert.ok(performance.now() - from < 2_000)
  })

  it('serves a request that merely offers an upgrade when nobody takes any', async () => {
    await using t = await serve([routesPlugin('a', route('/a', () => ({ body: 'plain' })))])
    await using raw = await open(t.url, head('GET /a', 'Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c',
      'HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA'))
    await eventually('the answer', () => raw.text.endsWith('plain'))
  })
})
