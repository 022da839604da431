import assert from 'node:assert/strict'
import { defineErrors, defineHook, definePlugin, maskSecrets, Secret } from '#core'
import { HttpRoute } from '#contracts/http'
import { problemOf, route, routesPlugin, serve } from '../../support/http.ts'

const Errors = defineErrors('T', {
  SHOWN: { message: '"{name}" is taken', fix: 'Choose another name.', status: 409, expose: true },
  HIDDEN: { message: 'SELECT * FROM users failed at /srv/data.db', fix: 'Mend it.', status: 503 },
  PASSING: { message: 'connect 10.0.0.1:5432 refused at /srv', fix: 'Mend it.', status: 503, retryable: true },
  LATER: { message: 'too many', fix: 'Wait.', status: 429, retryable: true, expose: true },
})

describe('http problems', () => {
  it('shows an error that is made for callers: code, message, fix and status', async () => {
    await using t = await serve([routesPlugin('a', route('/a', () => { throw Errors.SHOWN({ name: 'x' }) }))])
    const answer = await fetch(`${t.url}/a`)
    assert.deepEqual([answer.status, await problemOf(answer)], [409, {
      type: 'urn:backplane:error:T_SHOWN', title: 'Conflict', status: 409, code: 'T_SHOWN', detail: '"x" is taken', fix: 'Choose another name.',
        request_id: answer.headers.get('x-request-id'),
    }])
    assert.deepEqual(t.lines.filter(line => line.level === 'error'), [])
  })

  it('shows what a hook\'s handler threw, not the hook', async () => {
    const Before = defineHook.series<void>('t.before')
    const guard = definePlugin({ name: 'guard', guards: [Before], setup(ctx) { ctx.hook(Before, () => { throw Errors.SHOWN({ name: 'y' }) }) } })
    const owner = definePlugin({ name: 'owner', contributes: [HttpRoute],
      setup(ctx) { ctx.contribute(HttpRoute, route('/a', async () => { await ctx.call(Before, undefined); return {} })) } })
    await using t = await serve([guard, owner])
    assert.equal((await problemOf(await fetch(`${t.url}/a`))).code, 'T_SHOWN')
  })

  const unexpected: Record<string, () => unknown> = {
    'an Error': () => new Error('SELECT secret FROM t at /srv/app.js'), 'an error not made for callers': () => Errors.HIDDEN(),
      'a string': () => 'SELECT 1 at /srv', 'nothing at all': () => undefined, null: () => null,
  }
  for (const [what, make] of Object.entries(unexpected)) {
    it(`tells nothing of ${what} but the request id, and logs it under its plugin`, async () => {
      await using t = await serve([routesPlugin('owner', route('/a', () => { throw make() }))])
      const answer = await fetch(`${t.url}/a`)
      const text = await answer.text()
      const problem = JSON.parse(text) as Record<string, unknown>
      assert.deepEqual([answer.status, problem['code'], problem['request_id']], [500, 'HTTP_INTERNAL', answer.headers.get('x-request-id')])
      assert.doesNotMatch(text, /SELECT|srv|at /)
      const [line] = t.lines.filter(each => each.level === 'error')
      assert.deepEqual([line?.fields['plugin'], line?.fields['request_id'], line?.fields['route']], ['owner', problem['request_id'], '/a'])
    })
  }

  it('says that something is away for a moment, and not what', async () => {
    await using t = await serve([routesPlugin('owner', route('/a', () => { throw Errors.PASSING() }))])
    const answer = await fetch(`${t.url}/a`)
    const text = await answer.text()
    assert.deepEqual([answer.status, answer.headers.get('retry-after'), JSON.parse(text).code], [503, '1', 'HTTP_UNAVAILABLE'])
    assert.doesNotMatch(text, /10\.0|srv|connect/)
    assert.equal(t.lines.filter(each => each.level === 'error').length, 1)
  })

  it('says when to try again what may succeed later', async () => {
    await using t = await serve([routesPlugin('a', route('/a', () => { throw Errors.LATER() }),
      route('/b', () => { throw Errors.LATER({ retry_after: 12.2 }) }))])
    const [a, b] = [await fetch(`${t.url}/a`), await fetch(`${t.url}/b`)]
    assert.deepEqual([a.status, a.headers.get('retry-after'), b.headers.get('retry-after')], [429, '1', '13'])
  })

  it('masks secrets that found their way into a message', async () => {
    await Secret.of('k', 'sk-hidden-value').read()
    assert.equal(maskSecrets('sk-hidden-value'), '[secret]')
    await using t = await serve([routesPlugin('a', route('/a', () => { throw Errors.SHOWN({ name: 'sk-hidden-value' }) }))])
    assert.equal((await problemOf(await fetch(`${t.url}/a`))).detail, '"[secret]" is taken')
  })
})
