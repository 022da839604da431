import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { Agent, request } from 'node:https'
import { connect, type TLSSocket } from 'node:tls'
import { definePlugin, Secret, SecretResolve, SecretRotated } from '#core'
import { HttpServer, HttpUpgrade } from '#contracts/http'
import { eventually } from '#core/testing'
import http from '../../../plugins/http/index.ts'
import { selfSigned } from '../../support/certificate.ts'
import { head, route, routesPlugin, serve } from '../../support/http.ts'

const keyOf = (key: string) => Secret.of('tls-key', key)
const fingerprint = (pem: string) => new X509Certificate(pem).fingerprint256

interface Answer { readonly status: number; readonly text: string; readonly headers: Record<string, unknown>; readonly peer: string | undefined; readonly socket: TLSSocket }
const get = (url: string, ca: string[], agent?: Agent): Promise<Answer> => new Promise((resolve, reject) => {
  // A resumed session would show no certificate.
  request(url, { ca, agent: agent ?? new Agent({ maxCachedSessions: 0 }) }, response => {
    const socket = response.socket as TLSSocket
    const peer = socket.getPeerX509Certificate()?.fingerprint256
    let text = ''
    response.on('data', chunk => { text += String(chunk) }).on('end', () => resolve({ status: response.statusCode!, text, headers: response.headers, peer, socket }))
  }).on('error', reject).end()
})
const hello = routesPlugin('a', route('/a', () => ({ body: 'hello' })))

describe('http over TLS', () => {
  it('speaks https, says so in its address and to browsers, and does not speak HTTP beside it', async () => {
    const { cert, key } = selfSigned()
    await using t = await serve([hello], { config: { tls: { cert, key: keyOf(key) } } })
    assert.match(t.url, /^https:\/\/127\.0\.0\.1:/)
    const { status, text, headers } = await get(`${t.url}/a`, [cert])
    assert.deepEqual([status, text], [200, 'hello'])
    assert.match(String(headers['strict-transport-security']), /max-age=\d{8}/)
    await assert.rejects(fetch(`${t.url.replace('https', 'http')}/a`))
    await assert.rejects(get(`${t.url}/a`, [selfSigned().cert]), 'a stranger\'s certificate is not taken')
    assert.equal((await get(`${t.url}/a`, [cert])).status, 200)
  })

  it('hands upgrades over it too', async () => {
    const { cert, key } = selfSigned()
    const echo = definePlugin({ name: 'echo', contributes: [HttpUpgrade], setup(ctx) {
      ctx.contribute(HttpUpgrade, { path: '/echo', permission: 'test:use', upgrade: (_request, socket) => {
        socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n')
        socket.on('data', data => socket.write(data))
      } })
    } })
    await using t = await serve([echo], { config: { tls: { cert, key: keyOf(key) } } })
    const socket = connect({ port: Number(new URL(t.url).port), host: '127.0.0.1', ca: [cert] })
    let text = ''
    socket.on('data', data => { text += String(data) })
    socket.write(head('GET /echo', 'Connection: Upgrade', 'Upgrade: echo'))
    await eventually('the upgrade', () => text.includes('101'))
    socket.write('still secret')
    await eventually('the echo', () => text.endsWith('still secret'))
    socket.destroy()
  })

  it('takes up a renewed certificate without closing a connection', async () => {
    const [first, second] = [selfSigned('first'), selfSigned('second')]
    await using t = await serve([hello], { config: { tls: { cert: first.cert, key: keyOf(first.key) } } })
    const agent = new Agent({ keepAlive: true, maxCachedSessions: 0 })
    const both = [first.cert, second.cert]
    const before = await get(`${t.url}/a`, both, agent)
    const { url } = t
    await t.runtime.change(new Map([['http', { plugin: http, config: { port: 0, tls: { cert: second.cert, key: keyOf(second.key) } } }]]))
    assert.equal(t.get(HttpServer).url, url)
    const kept = await get(`${url}/a`, both, agent)
    assert.deepEqual([kept.status, kept.socket === before.socket], [200, true])
    assert.deepEqual([before.peer, (await get(`${url}/a`, both)).peer], [fingerprint(first.cert), fingerprint(second.cert)])
    agent.destroy()
  })

  it('takes up a key that was rotated; one that does not fit is told, and the old one stays', async () => {
    const { cert, key } = selfSigned()
    let current = key
    const store = definePlugin({ name: 'store', guards: [SecretResolve], setup(ctx) { ctx.hook(SecretResolve, () => current) } })
    await using t = await serve([store, hello], { config: { tls: { cert, key: new Secret([{ secret: 'tls-key' }]) } } })
    assert.equal((await get(`${t.url}/a`, [cert])).status, 200)
    current = selfSigned().key
    await t.call(SecretRotated, { name: 'tls-key' })
    await eventually('the log line', () => t.lines.some(line => line.level === 'error' && line.message.includes('belongs to another certificate')))
    assert.equal((await get(`${t.url}/a`, [cert])).status, 200)
    assert.ok(!JSON.stringify(t.lines).includes(current.slice(40, 80)))
  })

  it('does not start with what is no certificate, or a key of another one', async () => {
    const { cert, key } = selfSigned()
    for (const [tls, code] of [[{ cert: 'no', key: keyOf(key) }, /cert.*not a certificate/s], [{ cert, key: keyOf(selfSigned().key) }, /belongs to another certificate/],
      [{ cert, key: keyOf('no') }, /HTTP_TLS_INVALID|can't be used/], [{ cert, key: 'plain' }, /key/]] as const) {
      await assert.rejects(async () => { await using _t = await serve([], { config: { tls } }) }, (error: Error) => {
        assert.match(`${error.message} ${String((error as AggregateError).errors?.[0] ?? '')} ${String(error.cause ?? '')}`, code)
        return true
      })
    }
  })
})
