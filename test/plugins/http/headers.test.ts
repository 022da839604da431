import assert from 'node:assert/strict'
import fc from 'fast-check'
import { BootError } from '#core'
import http from '../../../plugins/http/index.ts'
import { Proxies, isNetwork } from '../../../plugins/http/proxies.ts'
import { route, routesPlugin, serve } from '../../support/http.ts'

const mirror = routesPlugin('a', route('/a', ({ address, id }) => ({ body: { address, id } })), route('/fails', () => { throw new Error('no') }),
  route('/page', () => ({ body: '<p>', headers: { 'content-security-policy': 'default-src \'self\'', 'Cache-Control': 'max-age=60' } })))
const SET = {
  'x-content-type-options': 'nosniff', 'x-frame-options': 'SAMEORIGIN', 'referrer-policy': 'no-referrer', 'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin', 'x-dns-prefetch-control': 'off', 'x-permitted-cross-domain-policies': 'none', 'cache-control': 'no-store',
  'content-security-policy': 'default-src \'none\';base-uri \'none\';form-action \'none\';frame-ancestors \'none\'',
}
const boot = async (config: Record<string, unknown>) => { await using _t = await serve([], { config }) }

describe('http headers', () => {
  it('has helmet\'s set on every answer, good or bad, and no policy of transport without TLS', async () => {
    await using t = await serve([mirror])
    for (const path of ['/a', '/fails', '/nowhere', '/%ff']) {
      const { headers } = await fetch(`${t.url}${path}`)
      for (const [name, value] of Object.entries(SET)) assert.equal(headers.get(name), value, `${name} of ${path}`)
      assert.deepEqual([headers.get('strict-transport-security'), headers.get('x-powered-by'), headers.get('access-control-allow-origin')], [null, null, null])
    }
  })

  it('lets a handler say otherwise, however it writes the name', async () => {
    await using t = await serve([mirror])
    const { headers } = await fetch(`${t.url}/page`)
    assert.deepEqual([headers.get('content-security-policy'), headers.get('cache-control'), headers.get('x-frame-options')],
      ['default-src \'self\'', 'max-age=60', 'SAMEORIGIN'])
  })

  describe('for pages of other origins', () => {
    const origin = 'https://app.example.com'
    const asking = (method: string, from: string) => ({ method, headers: { 'origin': from, 'access-control-request-method': 'GET' } })

    it('lets none call unless config names it', async () => {
      await using t = await serve([mirror])
      const answer = await fetch(`${t.url}/a`, asking('OPTIONS', origin))
      assert.deepEqual([...answer.headers.keys()].filter(name => name.startsWith('access-control')), [])
    })

    it('lets those call that config names, letter by letter, and tells caches', async () => {
      await using t = await serve([mirror], { config: { cors: { origins: [origin], credentials: true, maxAgeS: 60 } } })
      const before = await fetch(`${t.url}/a`, asking('OPTIONS', origin))
      assert.equal(before.status, 204)
      assert.equal(before.headers.get('access-control-allow-methods'), 'GET, HEAD, OPTIONS')
      assert.match(before.headers.get('access-control-allow-headers')!, /Authorization, Content-Type/)
      assert.equal(before.headers.get('access-control-max-age'), '60')
      for (const path of ['/a', '/nowhere']) {
        const { headers } = await fetch(`${t.url}${path}`, asking('GET', origin))
        assert.deepEqual([headers.get('access-control-allow-origin'), headers.get('access-control-allow-credentials'), headers.get('vary')], [origin, 'true', 'Origin'])
      }
      for (const other of ['https://app.example.com.evil.example', 'http://app.example.com', 'https://APP.example.com', 'null', 'https://app.example.com:8443']) {
        const { headers } = await fetch(`${t.url}/a`, asking('OPTIONS', other))
        assert.deepEqual([headers.get('access-control-allow-origin'), headers.get('access-control-allow-methods'), headers.get('vary')], [null, null, 'Origin'], other)
      }
    })

    it('takes no pattern and no path as an origin', async () => {
      for (const wrong of ['*', 'https://*.example.com', 'https://app.example.com/', 'app.example.com', 'https://app.example.com/x', 'ftp://a']) {
        await assert.rejects(boot({ cors: { origins: [wrong] } }), BootError, wrong)
      }
    })

    it('takes up another list while it runs', async () => {
      await using t = await serve([mirror])
      const { url } = t
      await t.runtime.change(new Map([['http', { plugin: http, config: { port: 0, cors: { origins: [origin] } } }]]))
      assert.equal(t.url, url)
      assert.equal((await fetch(`${url}/a`, asking('GET', origin))).headers.get('access-control-allow-origin'), origin)
    })
  })

  describe('of proxies', () => {
    const ask = async (url: string, headers: Record<string, string>) => {
      const answer = await fetch(`${url}/a`, { headers })
      return { ...await answer.json() as { address: string; id: string }, secure: answer.headers.has('strict-transport-security') }
    }
    const said = { 'x-forwarded-for': '203.0.113.9', 'x-forwarded-proto': 'https', 'x-request-id': 'from-the-proxy' }

    it('are believed from nobody unless config names him', async () => {
      await using t = await serve([mirror], { config: { trustedProxies: ['10.0.0.0/8'] } })
      const { address, id, secure } = await ask(t.url, said)
      assert.deepEqual([address, secure], ['127.0.0.1', false])
      assert.notEqual(id, 'from-the-proxy')
    })

    it('tell the client, the protocol and the request\'s id if config trusts them', async () => {
      await using t = await serve([mirror], { config: { trustedProxies: ['127.0.0.0/8', '10.0.0.0/8', 'fd00::/8'] } })
      assert.deepEqual(await ask(t.url, said), { address: '203.0.113.9', id: 'from-the-proxy', secure: true })
      const forwarded: [string, string][] = [
        ['198.51.100.7, 203.0.113.9', '203.0.113.9'], ['203.0.113.9, 10.1.2.3', '203.0.113.9'], ['1.1.1.1, 203.0.113.9, 10.1.2.3, fd00::1', '203.0.113.9'],
        ['2001:db8::1', '2001:db8::1'], ['[2001:db8::1]:443', '2001:db8::1'], ['203.0.113.9:5000', '203.0.113.9'], ['::ffff:203.0.113.9', '203.0.113.9'],
        ['10.1.2.3', '10.1.2.3'], ['unknown', '127.0.0.1'], ['evil, 10.1.2.3', '10.1.2.3'], ['', '127.0.0.1'],
      ]
      for (const [header, address] of forwarded) assert.equal((await ask(t.url, { 'x-forwarded-for': header })).address, address, header)
      assert.equal((await ask(t.url, { 'x-forwarded-proto': 'https, http' })).secure, false)
      for (const id of ['a b', 'x'.repeat(129), '"><script>', '{}']) assert.notEqual((await ask(t.url, { 'x-request-id': id })).id, id)
    })

    it('are addresses or networks, nothing else', async () => {
      for (const wrong of ['proxy.example', '10.0.0.0/33', '10.0.0.0/8/8', '10.0.0', '::/129', '', '*', '10.0.0.0/-1']) {
        await assert.rejects(boot({ trustedProxies: [wrong] }), BootError, wrong)
      }
    })

    it('never make an address of what is none, whatever the header says', () => {
      const proxies = new Proxies()
      proxies.update(['127.0.0.1', '10.0.0.0/8'])
      fc.assert(fc.property(fc.oneof(fc.string(), fc.array(fc.oneof(fc.ipV4(), fc.ipV6(), fc.string())).map(all => all.join(', '))), text => {
        const { address } = proxies.originOf({ socket: { remoteAddress: '127.0.0.1' }, headers: { 'x-forwarded-for': text } } as never)
        assert.ok(isNetwork(address) && !address.includes('/'), address)
      }))
    })
  })
})
