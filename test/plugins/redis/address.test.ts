import assert from 'node:assert/strict'
import fc from 'fast-check'
import { RedisErrors } from '#contracts/redis'
import { readAddress } from '../../../plugins/redis/address.ts'

describe('redis: its address', () => {
  const read: [text: string, expected: object][] = [
    ['redis://localhost', { kind: 'standalone', tls: false, nodes: [{ host: 'localhost', port: 6379 }], db: 0 }],
    ['rediss://u:p%40%2F@h:7/3', { kind: 'standalone', tls: true, nodes: [{ host: 'h', port: 7 }], db: 3, username: 'u', password: 'p@/' }],
    ['redis://:only@[::1]:6380', { kind: 'standalone', tls: false, nodes: [{ host: '::1', port: 6380 }], db: 0, password: 'only' }],
    ['redis+sentinel://a,b:5/main?db=2&sentinel_password=s', {
      kind: 'sentinel', tls: false, nodes: [{ host: 'a', port: 26379 }, { host: 'b', port: 5 }], db: 2, master: 'main', sentinelPassword: 's',
    }],
    ['redis+sentinel://a/main/4', { kind: 'sentinel', tls: false, nodes: [{ host: 'a', port: 26379 }], db: 4, master: 'main' }],
    ['rediss+cluster://u:p@a,b:7001', { kind: 'cluster', tls: true, nodes: [{ host: 'a', port: 6379 }, { host: 'b', port: 7001 }], db: 0, username: 'u', password: 'p' }],
  ]
  for (const [text, expected] of read) it(`reads ${text}`, () => assert.deepEqual(readAddress(text), expected))

  const refused: [text: string, reason: RegExp][] = [
    ['', /none of the schemes/], ['http://h', /none of the schemes/], ['redis://a,b', /more than one host/], ['redis://h:99999', /hosts is none/], ['redis://', /hosts is none/],
    ['redis://h/x', /not a number/], ['redis://h/1/2', /not a number/], ['redis://h?ssl=1', /a parameter/], ['redis+sentinel://h', /name of the master/],
    ['redis+cluster://h/1', /no databases/], ['redis://u:secret%@h', /%25/], ['redis://u:se/cret@h', /hosts is none/],
  ]
  for (const [text, reason] of refused) {
    it(`refuses ${text || 'nothing'}, and tells no part of it`, () => assert.throws(() => readAddress(text), (error: Error) => {
      assert.ok(RedisErrors.ADDRESS.is(error))
      assert.match(error.message, reason)
      assert.doesNotMatch(error.message, /secret|cret@/)
      return true
    }))
  }

  it('reads what it is written from', () => {
    const text = fc.string({ minLength: 1, unit: 'grapheme' })
    fc.assert(fc.property(text, text, fc.integer({ min: 1, max: 65_535 }), fc.nat(99), (username, password, port, db) => {
      const found = readAddress(`redis://${encodeURIComponent(username)}:${encodeURIComponent(password)}@h:${port}/${db}`)
      assert.deepEqual(found, { kind: 'standalone', tls: false, nodes: [{ host: 'h', port }], db, username, password })
    }))
  })

  it('throws nothing but REDIS_ADDRESS, whatever it is given', () => {
    fc.assert(fc.property(fc.oneof(fc.string(), fc.string().map(each => `redis://${each}`), fc.string().map(each => `redis+sentinel://${each}`)), text => {
      try { readAddress(text) } catch (error) { assert.ok(RedisErrors.ADDRESS.is(error)) }
    }))
  })
})
