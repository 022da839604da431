import assert from 'node:assert/strict'
import { definePlugin, defineService, Host, live } from '#core'
import { eventually } from '#core/testing'
import pluginsApi from '../../../plugins/plugins-api/index.ts'
import { problemOf, route, routesPlugin, serve } from '../../support/http.ts'

const Base = defineService<{ n: number }>('test.base')
const base = definePlugin({ name: 'base', summary: 'Stands below', provides: [Base], setup(ctx) { ctx.provide(Base, { n: 1 }) } })
const user = definePlugin({ name: 'user', uses: { base: Base }, setup() {} })
const looker = definePlugin({ name: 'looker', uses: { base: live(Base) }, setup() {} })
const to = (url: string, path: string) => fetch(`${url}/api/v1/plugins/${path}`, { method: 'POST' })

/** What the server's own Host does with a config: it knows the names, and what was disabled can be enabled. */
function hostOf(served: () => Awaited<ReturnType<typeof serve>>) {
  const known = new Map([base, user, looker].map(plugin => [plugin.name, { plugin }]))
  return { enable: async (name: string) => served().runtime.change(new Map([[name, known.get(name)!]])) }
}
async function serveAll(...more: Parameters<typeof serve>[0][number][]) {
  const t: Awaited<ReturnType<typeof serve>> = await serve([pluginsApi, base, user, looker, ...more], { host: hostOf(() => t) })
  return t
}

describe('plugins-api', () => {
  it('lists every plugin with its state, what it uses and provides, and how long each step took', async () => {
    await using t = await serveAll()
    const { items } = await (await fetch(`${t.url}/api/v1/plugins`)).json() as { items: Record<string, any>[] }
    const found = items.find(each => each['name'] === 'base')!
    assert.deepEqual({ ...found, ms: undefined }, { name: 'base', plugin: 'base', summary: 'Stands below', state: 'running', optional: false, problem: null,
      faults: 0, uses: [], provides: ['test.base'], contributes: [], ms: undefined })
    assert.equal(typeof found['ms'].setup, 'number')
    assert.deepEqual(items.map(each => each['state']), items.map(() => 'running'))
  })

  it('shows an optional plugin that failed, with phase, code, message and fix', async () => {
    const broken = { plugin: definePlugin({ name: 'broken', setup() { throw new Error('no luck') } }), optional: true }
    await using t = await serveAll(broken)
    const { items } = await (await fetch(`${t.url}/api/v1/plugins`)).json() as { items: Record<string, any>[] }
    const { state, problem } = items.find(each => each['name'] === 'broken')!
    assert.deepEqual([state, problem.phase, problem.code], ['failed', 'setup', 'LIFECYCLE_FAILED'])
    assert.match(problem.message, /no luck/)
    assert.ok(problem.fix)
  })

  it('gives the graph as data, for Mermaid and for Graphviz', async () => {
    await using t = await serveAll()
    const get = (format = '') => fetch(`${t.url}/api/v1/plugins/graph${format}`)
    const { nodes, edges } = await (await get()).json() as { nodes: string[]; edges: Record<string, string>[] }
    assert.ok(nodes.indexOf('base') < nodes.indexOf('user'))
    assert.deepEqual(edges.filter(each => each['to'] === 'base').map(each => [each['from'], each['kind']]), [['user', 'hard'], ['looker', 'live']])
    assert.match(await (await get('?format=mermaid')).text(), /^graph LR\n/)
    assert.match(await (await get('?format=dot')).text(), /"user" -> "base"/)
    const wrong = await get('?format=png')
    assert.deepEqual([wrong.status, (await problemOf(wrong))['errors'][0].path], [400, 'query.format'])
  })

  it('reloads a plugin with those that stand on it, and nobody else', async () => {
    await using t = await serveAll()
    const answer = await to(t.url, 'base/reload')
    assert.deepEqual([answer.status, await answer.json()], [200, { name: 'base', state: 'running', restarted: ['base', 'user'] }])
  })

  it('disables a plugin, goes on listing it, and enables it again', async () => {
    await using t = await serveAll()
    assert.deepEqual(await (await to(t.url, 'looker/disable')).json(), { name: 'looker', state: 'disabled', restarted: [] })
    const { items } = await (await fetch(`${t.url}/api/v1/plugins`)).json() as { items: Record<string, any>[] }
    assert.equal(items.find(each => each['name'] === 'looker')!['state'], 'disabled')
    assert.deepEqual(await (await to(t.url, 'looker/enable')).json(), { name: 'looker', state: 'running', restarted: ['looker'] })
    const after = await (await fetch(`${t.url}/api/v1/plugins`)).json() as { items: Record<string, any>[] }
    assert.equal(after.items.filter(each => each['name'] === 'looker').length, 1)
  })

  it('refuses a change that others could not live with: 409 with every problem, and all is as before', async () => {
    const second = definePlugin({ name: 'second', uses: { base: Base }, setup() {} })
    await using t = await serveAll(second)
    const answer = await to(t.url, 'base/disable')
    const problem = await problemOf(answer)
    assert.deepEqual([answer.status, problem['code']], [409, 'PLUGINS_REFUSED'])
    assert.deepEqual(problem['errors'].map((each: { path: string }) => each.path), ['plugins.user', 'plugins.second'])
    assert.equal(t.get(Base).n, 1)
  })

  it('puts the old one back when the new one can not start, and says why', async () => {
    let lives = 0
    const once = definePlugin({ name: 'once', setup() { if (++lives === 2) throw new Error('the second time is too much') } })
    await using t = await serveAll(once)
    const answer = await to(t.url, 'once/reload')
    const problem = await problemOf(answer)
    assert.deepEqual([answer.status, problem['code'], problem['errors'][0].path], [409, 'PLUGINS_REFUSED', 'plugins.once'])
    assert.match(problem['detail'], /too much/)
    assert.equal(t.runtime.inspect().plugins.find(each => each.name === 'once')?.state, 'running')
  })

  it('answers 404 for a name that is not there', async () => {
    await using t = await serveAll()
    const answer = await to(t.url, 'nobody/reload')
    assert.deepEqual([answer.status, (await problemOf(answer))['code']], [404, 'PLUGIN_UNKNOWN'])
  })

  for (const [name, reason] of [['http', /server that carries/], ['plugins-api', /answers this request/], ['access', /nobody could enable/]] as const) {
    it(`does not disable ${name}, which it needs to be asked again`, async () => {
      await using t = await serveAll()
      const answer = await to(t.url, `${name}/disable`)
      const problem = await problemOf(answer)
      assert.deepEqual([answer.status, problem['code']], [409, 'PLUGINS_NEEDED'])
      assert.match(problem['detail'], reason)
      assert.equal((await fetch(`${t.url}/api/v1/plugins`)).status, 200)
    })
  }

  it('reloads itself after it has said so', async () => {
    await using t = await serveAll()
    const life = () => t.runtime.inspect().plugins.find(each => each.name === 'plugins-api')!
    const before = life().ms
    const answer = await to(t.url, 'plugins-api/reload')
    assert.deepEqual([answer.status, await answer.json()], [202, { name: 'plugins-api', state: 'running', restarted: ['plugins-api'], accepted: true }])
    await eventually('its new life', () => t.lines.some(line => line.message === '"plugins-api" was reloaded'))
    assert.notEqual(life().ms, before)
    assert.equal((await to(t.url, 'base/reload')).status, 200)
  })

  it('reloads the server after it has said so, which comes back and lets go of nobody else', async () => {
    await using t = await serveAll(routesPlugin('a', route('/a')))
    const id = t.get(Host).instanceId
    assert.equal((await to(t.url, 'http/reload')).status, 202)
    await eventually('the new server', () => t.lines.some(line => line.message === '"http" was reloaded'))
    assert.equal((await fetch(`${t.url}/a`)).status, 200)
    assert.equal(t.get(Host).instanceId, id)
  })

  it('asks for plugins:read to look and plugins:write to change', async () => {
    await using t = await serveAll()
    const headers = { 'x-refuse': 'permission' }
    for (const [method, path, permission] of [['GET', '', 'plugins:read'], ['GET', '/graph', 'plugins:read'], ['POST', '/base/enable', 'plugins:write'],
      ['POST', '/base/disable', 'plugins:write'], ['POST', '/base/reload', 'plugins:write']] as const) {
      const answer = await fetch(`${t.url}/api/v1/plugins${path}`, { method, headers })
      assert.equal(answer.status, 403)
      assert.match((await problemOf(answer))['detail'], new RegExp(permission))
    }
  })
})
