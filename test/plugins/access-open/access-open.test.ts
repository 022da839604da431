import assert from 'node:assert/strict'
import { networkInterfaces } from 'node:os'
import { BackplaneError } from '#core'
import { Access, type Credentials } from '#contracts/access'
import { HttpServer } from '#contracts/http'
import { createTestRuntime } from '#core/testing'
import accessOpen from '../../../plugins/access-open/index.ts'
import { createOpenAccess } from '../../../plugins/access-open/operator.ts'
import { head, httpEntry, open, route, routesPlugin } from '../../support/http.ts'

const access = createOpenAccess()
const ask = (headers: Credentials['headers'], address = '127.0.0.1') => access.identify({ headers, address, method: 'GET', path: '/' })
const codeOf = async (work: Promise<unknown>): Promise<string> => {
  try { await work } catch (error) { return (error as BackplaneError).code }
  return 'admitted'
}

describe('access-open', () => {
  it('takes everybody on this machine for the operator, who may do everything', async () => {
    const caller = await ask({ host: 'localhost:8000' })
    assert.deepEqual(caller, { id: 'operator', kind: 'operator', name: 'operator', project_id: 'default' })
    await access.check(caller, 'jobs:submit')
    assert.equal(await access.projects(caller, 'jobs:read'), 'all')
  })

  it('restores the operator in the project of the work, and nobody else', async () => {
    assert.deepEqual(await access.restore('operator', 'p1'), { id: 'operator', kind: 'operator', name: 'operator', project_id: 'p1' })
    assert.equal(await codeOf(access.restore('somebody', 'p1')), 'ACCESS_FORBIDDEN')
  })

  const hosts: [string | undefined, boolean][] = [
    ['localhost', true], ['localhost:8000', true], ['LOCALHOST:8000', true], ['127.0.0.1', true], ['127.0.0.1:8000', true], ['127.1.2.3:1', true],
      ['[::1]', true], ['[::1]:8000', true],
    ['evil.example', false], ['evil.example:8000', false], ['localhost.evil.example', false], ['evil-localhost', false],
      ['127.0.0.1.evil.example', false], ['127.0.0.1.nip.io:8000', false], ['', false], [undefined, false],
    ['0.0.0.0', false], ['10.0.0.1', false], ['[::]', false], ['[::2]', false], ['::1', false], ['localhost:port', false],
      ['localhost:8000:9', false], ['evil.example@localhost', false], ['localhost#evil', false],
    ['2130706433', false], ['0x7f.1', false], ['127.1', false], ['localhost, evil.example', false], ['localhost.', false], [' localhost', false],
  ]
  for (const [host, admitted] of hosts) it(`${admitted ? 'admits' : 'refuses'} the host ${JSON.stringify(host)}`, async () => {
    assert.equal(await codeOf(ask({ host })), admitted ? 'admitted' : 'ACCESS_HOST_REFUSED')
  })

  const origins: [string, boolean][] = [
    ['http://localhost:8000', true], ['https://localhost:8000', true], ['http://localhost', false], ['http://localhost:9000', false],
      ['http://127.0.0.1:8000', false], ['https://evil.example', false], ['null', false],
    ['http://localhost:8000.evil.example', false], ['http://localhost:8000/', false], ['file://', false], ['', false],
      ['chrome-extension://abc', false],
  ]
  for (const [origin, admitted] of origins) it(`${admitted ? 'admits' : 'refuses'} the origin ${JSON.stringify(origin)} at localhost:8000`,
    async () => {
    assert.equal(await codeOf(ask({ host: 'localhost:8000', origin })), admitted ? 'admitted' : 'ACCESS_ORIGIN_REFUSED')
  })

  it('admits pages of a dev server that config names, and of no other, and lets the browser read the answers', async () => {
    const dev = 'http://localhost:5173'
    await using t = await createTestRuntime({ plugins: [{ plugin: accessOpen, config: { origins: [dev] } },
      httpEntry({ cors: { origins: [dev, 'http://localhost:3000'] } }), routesPlugin('a', route('/a'))] })
    const url = `${t.get(HttpServer).url}/a`
    const from = async (origin: string) => {
      const answer = await fetch(url, { headers: { origin } })
      return [answer.status, answer.headers.get('access-control-allow-origin'), ((await answer.json()) as { code?: string }).code]
    }
    assert.deepEqual(await from(dev), [200, dev, undefined])
    assert.deepEqual(await from('http://localhost:3000'), [403, 'http://localhost:3000', 'ACCESS_ORIGIN_REFUSED'])
    assert.deepEqual(await from(`${dev}0`), [403, null, 'ACCESS_ORIGIN_REFUSED'])
  })

  for (const origin of ['https://app.example.com', 'http://localhost.evil.example', 'http://localhost:5173/', 'http://10.0.0.1', 'http://127.1', '*', 'null', 'file://']) {
    it(`takes no config that names the origin ${JSON.stringify(origin)}`, async () => {
      await assert.rejects(createTestRuntime({ plugins: [{ plugin: accessOpen, config: { origins: [origin] } }] }), /must be an origin on this machine/)
    })
  }

  it('refuses what other sites load without an Origin, but lets a link be followed', async () => {
    const from = (site: string, mode: string) => codeOf(ask({ host: 'localhost', 'sec-fetch-site': site, 'sec-fetch-mode': mode }))
    assert.equal(await from('cross-site', 'no-cors'), 'ACCESS_ORIGIN_REFUSED')
    assert.deepEqual([await from('cross-site', 'navigate'), await from('same-origin', 'cors'), await from('none', 'navigate')],
      ['admitted', 'admitted', 'admitted'])
  })

  const peers: [string, boolean][] = [['127.0.0.1', true], ['127.0.0.53', true], ['::1', true], ['::ffff:127.0.0.1', true], ['10.0.0.1', false],
    ['192.168.1.2', false], ['::ffff:10.0.0.1', false], ['fe80::1', false], ['', false]]
  for (const [address, admitted] of peers) it(`${admitted ? 'admits' : 'refuses'} the peer ${JSON.stringify(address)}`, async () => {
    assert.equal(await codeOf(ask({ host: 'localhost' }, address)), admitted ? 'admitted' : 'ACCESS_PEER_REFUSED')
  })

  it('refuses what came through a proxy: who is behind it need not be here', async () => {
    for (const name of ['forwarded', 'x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto', 'x-forwarded-port', 'x-forwarded-prefix', 'x-forwarded-server',
      'via', 'cf-connecting-ip', 'cf-ray', 'true-client-ip', 'fastly-client-ip', 'x-client-ip', 'x-cluster-client-ip', 'cdn-loop', 'x-original-forwarded-for',
      'x-real-ip']) assert.equal(await codeOf(ask({ host: 'localhost', [name]: '127.0.0.1' })), 'ACCESS_PEER_REFUSED')
  })

  it('admits a bind to loopback and no other, without asking a resolver', async () => {
    for (const host of ['127.0.0.1', '127.0.0.2', 'localhost', '::1']) await access.admitBind(host)
    for (const host of ['0.0.0.0', '::', '10.0.0.1', 'example.com', 'ip6-localhost', '']) assert.equal(await codeOf(access.admitBind(host)),
      'ACCESS_BIND_REFUSED')
  })

  it('holds at the socket: DNS rebinding, a foreign Origin and a form of another site are 403, a good request is 200', async () => {
    await using t = await createTestRuntime({ plugins: [accessOpen, httpEntry(), routesPlugin('a', route('/a'))] })
    const url = t.get(HttpServer).url!
    const { host } = new URL(url)
    const raw = async (...headers: string[]) => {
      await using each = await open(url, ['GET /a HTTP/1.1', ...headers, 'Connection: close', '', ''].join('\r\n'))
      const text = await each.closed
      return [text.slice(9, 12), /"code":"(\w+)"/.exec(text)?.[1]]
    }
    assert.deepEqual(await raw(`Host: ${host}`), ['200', undefined])
    assert.deepEqual(await raw(`Host: ${host}`, `Origin: http://${host}`), ['200', undefined])
    assert.deepEqual(await raw('Host: rebound.evil.example'), ['403', 'ACCESS_HOST_REFUSED'])
    assert.deepEqual(await raw(`Host: ${host}`, 'Origin: https://evil.example'), ['403', 'ACCESS_ORIGIN_REFUSED'])
    assert.deepEqual(await raw(`Host: ${host}`, 'Origin: null'), ['403', 'ACCESS_ORIGIN_REFUSED'])
    assert.deepEqual(await raw(`Host: ${host}`, 'X-Forwarded-For: 10.0.0.1'), ['403', 'ACCESS_PEER_REFUSED'])
    assert.deepEqual(await raw(`Host: ${host}`, 'Via: 1.1 proxy'), ['403', 'ACCESS_PEER_REFUSED'])
    assert.deepEqual(await raw(`Host: ${host}`, 'CF-Connecting-IP: 10.0.0.1'), ['403', 'ACCESS_PEER_REFUSED'])
    assert.equal((await raw())[0], '400')
  })

  it('refuses a caller that reaches the server by another address of this machine', async function () {
    const outside = Object.values(networkInterfaces()).flat().find(each => each && !each.internal && each.family === 'IPv4')?.address
    if (!outside) return this.skip()
    // Let in by a bind that access-open would not have admitted, as after the access plugin was exchanged under a running server.
    const lenient = createOpenAccess()
    await using t = await createTestRuntime({ plugins: [httpEntry({ host: '0.0.0.0' }), routesPlugin('a', route('/a'))],
      services: [[Access, { ...lenient, admitBind: async () => {} }]] })
    const { port } = new URL(t.get(HttpServer).url!)
    await using raw = await open(`http://${outside}:${port}`, head('GET /a', 'Connection: close'))
    assert.match(await raw.closed, /^HTTP\/1\.1 403 [\s\S]*ACCESS_PEER_REFUSED/)
  })
})
