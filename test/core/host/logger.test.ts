import assert from 'node:assert/strict'
import * as fc from 'fast-check'
import { BackplaneError, CoreErrors, Secret, scope, type Fields } from '#core'
import { createLogger, type LoggerOptions } from '../../../core/host/logger.ts'

function logger(options: Partial<LoggerOptions> = {}) {
  const lines: string[] = []
  const log = createLogger({ level: 'debug', format: 'json', now: () => Date.UTC(2030, 0, 2, 3, 4, 5, 678), write: line => lines.push(line), ...options })
  return { log, lines, get last() { return JSON.parse(lines.at(-1)!) } }
}

const EVERYTHING = { withBigInt: true, withDate: true, withMap: true, withSet: true, withNullPrototype: true, withTypedArray: true }

describe('the log', () => {
  it('is one JSON object on each line, with what the logger and the scope know', () => {
    const it = logger()
    scope.run({ plugin: 'jobs', request_id: 'r1', traceparent: 't1' }, () => it.log.child({ part: 'lease' }).info('claimed\nit', { job_id: 'j1' }))
    assert.deepEqual(it.last, { time: '2030-01-02T03:04:05.678Z', level: 'info', msg: 'claimed\nit', plugin: 'jobs', request_id: 'r1', traceparent: 't1', part: 'lease', job_id: 'j1' })
    assert.equal(it.lines[0]!.split('\n').length, 2)
  })

  it('keeps time, level and message, whatever the fields are called', () => {
    const it = logger()
    it.log.warn('real', { time: 1, level: 'x', msg: 'forged' })
    assert.deepEqual(it.last, { time: '2030-01-02T03:04:05.678Z', level: 'warn', msg: 'real' })
  })

  it('leaves out what is below its level, which can be changed while it runs', () => {
    const { log, lines } = logger({ level: 'warn' })
    const child = log.child({ a: 1 })
    child.info('no')
    log.setLevel('debug')
    child.debug('yes')
    assert.equal(lines.length, 1)
  })

  it('tells an error with its code, fix, stack and causes, in both formats', () => {
    const error = CoreErrors.Lifecycle.FAILED({ phase: 'setup', plugin: 'p', reason: 'r', advice: 'Mend it.' }, { cause: new Error('below', { cause: new AggregateError([new TypeError('one')], 'lowest') }) })
    const it = logger()
    it.log.error('broke', { err: error })
    const { err } = it.last
    assert.deepEqual([err.code, err.fix, err.cause.message, err.cause.cause.errors[0].message], [error.code, error.fix, 'below', 'one'])
    assert.match(err.stack, /logger\.test/)
    const pretty = logger({ format: 'pretty' })
    pretty.log.error('broke', { err: error, plugin: 'p' })
    const text = pretty.lines[0]!
    for (const part of ['broke', error.code, error.fix, 'below', 'lowest', 'TypeError: one', 'caused by']) assert.ok(text.includes(part), `${part} in ${text}`)
    assert.ok(error instanceof BackplaneError)
  })

  it('is aligned for people, and coloured only if asked', () => {
    const plain = logger({ format: 'pretty' })
    plain.log.info('listening', { plugin: 'http', url: 'http://x', text: 'a b' })
    assert.equal(plain.lines[0], '03:04:05.678 info  http           listening url=http://x text="a b"\n')
    const colored = logger({ format: 'pretty', color: true })
    colored.log.error('x')
    assert.match(colored.lines[0]!, /\x1b\[31merror/)
  })

  it('does not let a message move the cursor', () => {
    const it = logger({ format: 'pretty' })
    it.log.info('a\x1b[2Jb', { err: new Error('c\x1b[2Jd') })
    assert.ok(!it.lines[0]!.includes('\x1b'))
  })

  it('does not let anything begin a line that looks like one of its own', () => {
    const it = logger({ format: 'pretty' })
    const forged = 'x\n03:04:05.678 info  jobs           forged\u009b31m\u2028y'
    it.log.info(forged, { plugin: forged, [forged]: 'plain\x1b[2J', list: [forged], fix: forged, err: { message: forged, stack: `Error: ${forged}`, code: forged, cause: forged } })
    const lines = it.lines[0]!.trimEnd().split(/[\n\u2028\u2029]/)
    assert.deepEqual(lines.filter(line => line.startsWith('03:04:05')).length, 1, it.lines[0])
    assert.doesNotMatch(it.lines[0]!, /[\x1b\x7f-\x9f]/)
    assert.ok(lines[0]!.includes('x\\n03:04') && lines[0]!.includes('\\u009b'), lines[0])
  })

  it('shows no part of a secret that stands where a text is cut', async () => {
    const value = 'sk-this-is-a-very-long-secret'
    await Secret.of('cut', value).read()
    const it = logger()
    it.log.info('m', { body: 'x'.repeat(9_985) + value })
    assert.doesNotMatch(it.lines[0]!, /sk-this/)
  })

  it('never shows a secret that was read, however it is written', async () => {
    const value = 'sword"fish\\with\nlines'
    const secret = Secret.of('smtp', value)
    await secret.read()
    for (const format of ['json', 'pretty'] as const) {
      const it = logger({ format })
      it.log.error(`sent ${value}`, { secret, text: `x${value}y`, nested: { list: [value] }, err: new Error(value, { cause: value }) })
      for (const part of [value, JSON.stringify(value).slice(1, -1), 'sword"fish', 'sword\\"fish']) assert.ok(!it.lines[0]!.includes(part), it.lines[0])
      assert.ok(it.lines[0]!.includes('[secret smtp]'))
    }
  })

  it('never throws on what cannot be printed', () => {
    const circle: Record<string, unknown> = { name: 'c' }
    circle['self'] = circle
    const cruel = {
      circle, big: 12n, nan: NaN, fn() {}, symbol: Symbol('s'), map: new Map([['a', circle]]), bytes: Buffer.alloc(10), long: 'x'.repeat(50_000),
      get thrower(): never { throw new Error('no') }, json: { toJSON() { throw new Error('not me') } }, proxy: new Proxy({}, { ownKeys() { throw new Error('nor me') } }),
      err: Object.defineProperty(new Error('e'), 'stack', { get() { throw new Error('no stack') } }), date: new Date(NaN), none: undefined, nil: null, weird: Object.create(null) as object,
    }
    for (const format of ['json', 'pretty'] as const) {
      const it = logger({ format })
      it.log.child(cruel as never).error('cruel', cruel)
      assert.equal(it.lines.length, 1)
      for (const part of ['[circular]', '12', '[unreadable: no]', '[unreadable: not me]', '[unreadable: nor me]', '50000 characters']) assert.ok(it.lines[0]!.includes(part), part)
    }
    assert.doesNotThrow(() => logger({ write() { throw new Error('EPIPE') } }).log.info('x'))
  })

  it('writes one line for anything', () => fc.assert(fc.property(fc.string(), fc.anything(EVERYTHING), (message, field) => {
    const it = logger()
    it.log.info(message, { field } as Fields)
    assert.equal(it.lines.length, 1)
    assert.equal(it.last.msg, message)
    const pretty = logger({ format: 'pretty' })
    pretty.log.info(message, field as Fields)
    assert.equal(pretty.lines.length, 1)
  })))
})
