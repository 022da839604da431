import assert from 'node:assert/strict'
import { createTestRuntime } from 'backplane/testing'
import { HttpRoute, type HttpRequest } from 'backplane/contracts/http'
import plugin from './index.ts'

const request = (parts: Partial<HttpRequest>): HttpRequest => ({
  id: 'r1', method: 'GET', path: '/api/v1/{{name}}/Ann', params: { name: 'Ann' }, query: { loud: 'false' }, body: undefined, headers: {},
  caller: { id: 'ann', kind: 'user', name: 'Ann', project_id: 'default' }, signal: new AbortController().signal, address: '127.0.0.1', ...parts,
})

describe('{{name}}', () => {
  it('adds one route, with a permission', async () => {
    await using t = await createTestRuntime({ plugins: [plugin] })
    const [route, ...others] = t.runtime.collect(HttpRoute)
    assert.equal(others.length, 0)
    assert.equal(route?.permission, '{{name}}:read')
  })

  it('greets', async () => {
    await using t = await createTestRuntime({ plugins: [plugin] })
    const [route] = t.runtime.collect(HttpRoute)
    assert.deepEqual(await route!.handler(request({})), { body: { greeting: 'Hello, Ann' } })
    assert.deepEqual(await route!.handler(request({ query: { loud: 'true' } })), { body: { greeting: 'HELLO, ANN' } })
  })
})
