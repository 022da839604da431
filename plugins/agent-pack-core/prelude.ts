/**
 * Runs in the sandbox before the code does, and makes its `console`. Answers the two functions that put a value and an error
 * into words there, where a hostile getter or toJSON is under the same limits as the rest of the code.
 */
export const PRELUDE = `(function (print, limit) {
  'use strict'
  const { stringify } = JSON
  const { apply } = Reflect
  const { Map, Set, Error, Array, String, RegExp, Number } = globalThis
  const { slice } = String.prototype
  const { isFinite } = Number
  const bounded = text => apply(slice, text, [0, limit])
  const plain = (key, value) => {
    if (typeof value === 'bigint') return String(value) + 'n'
    if (typeof value === 'number' && !isFinite(value)) return String(value)
    if (typeof value === 'function') return '[function ' + (value.name || 'anonymous') + ']'
    if (typeof value === 'symbol') return String(value)
    if (value instanceof Map) return Array.from(value)
    if (value instanceof Set) return Array.from(value)
    if (value instanceof RegExp) return String(value)
    if (value instanceof Error) return value.name + ': ' + value.message
    return value
  }
  const json = value => {
    try {
      const short = stringify(value, plain)
      return short && short.length > 100 ? stringify(value, plain, 2) : String(short)
    }
    catch (error) { return '[no JSON: ' + (error && error.message) + ']' }
  }
  const word = value => typeof value === 'string' ? value : typeof value === 'object' && value !== null && !(value instanceof Error) ? json(value) : String(plain('', value))
  const log = (...values) => {
    let line = ''
    for (let i = 0; i < values.length; i++) line += (i ? ' ' : '') + bounded(word(values[i]))
    print(bounded(line))
  }
  globalThis.console = { log, info: log, warn: log, error: log, debug: log }
  return {
    // Not as text: what is no string must not look like one, and NaN is not null.
    result: value => bounded(typeof value === 'string' || (typeof value === 'object' && value !== null) ? json(value) : String(plain('', value))),
    error: error => stringify(error instanceof Error
      ? { message: bounded(error.name + ': ' + error.message), stack: bounded(String(error.stack)) }
      : { message: 'uncaught: ' + bounded(word(error)) }),
  }
})`
