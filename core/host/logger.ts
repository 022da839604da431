import { types } from 'node:util'
import { BackplaneError } from '../errors.ts'
import type { Fields, Level, Logger } from '../plugin.ts'
import { scope } from '../scope.ts'
import { maskSecrets } from '../secret.ts'

export interface LoggerOptions {
  /** The least that is written. */
  readonly level: Level
  readonly format: 'json' | 'pretty'
  /** Gets one line, with its newline. */
  write(line: string): void
  readonly color?: boolean
  /** Milliseconds since the epoch. */
  readonly now?: () => number
}

const RANK: Readonly<Record<Level, number>> = { debug: 0, info: 1, warn: 2, error: 3 }
const PAINT: Readonly<Record<Level, string>> = { debug: '\x1b[90m', info: '\x1b[32m', warn: '\x1b[33m', error: '\x1b[31m' }
const MAX_DEPTH = 8
const MAX_TEXT = 10_000
const MAX_KEYS = 100

/** One line for each message; never throws, whatever it is given, and never shows a secret that was read in this process. */
export function createLogger({ level: first, format, write, color = false, now = Date.now }: LoggerOptions): Logger & { setLevel(level: Level): void } {
  let least = RANK[first]
  const print = format === 'json' ? json : pretty(color)
  const at = (bound: Fields): Logger => {
    const log = (level: Level) => (message: string, fields?: Fields): void => {
      if (RANK[level] < least) return
      const all = { ...scope.current, ...bound, ...own(fields) }
      try { write(`${maskSecrets(print(new Date(now()).toISOString(), level, maskSecrets(String(message)), all))}\n`) } catch { /* It has nowhere to say so. */ }
    }
    return { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error'), child: fields => at({ ...bound, ...own(fields) }) }
  }
  return Object.assign(at({}), { setLevel: (level: Level) => { least = RANK[level] } })
}

/** The fields of an object, each as plain data, with a getter that throws told as such. */
function own(fields: unknown): Record<string, unknown> {
  if (typeof fields !== 'object' || fields === null) return {}
  const copy: Record<string, unknown> = {}
  for (const key of Object.keys(fields).slice(0, MAX_KEYS)) {
    try { copy[key] = plain((fields as Fields)[key], 0, []) } catch (error) { copy[key] = unreadable(error) }
  }
  return copy
}

const unreadable = (error: unknown): string => `[unreadable: ${error instanceof Error ? error.message : 'it threw'}]`

function plain(value: unknown, depth: number, above: readonly unknown[]): unknown {
  // Masked here, not in the finished line: there a quote or a line break inside a secret is written as an escape.
  // And masked before it is cut: of a secret that was cut in two, nobody would know the first half.
  if (typeof value === 'string') {
    const text = maskSecrets(value)
    return text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}… (${value.length} characters)` : text
  }
  if (typeof value === 'bigint') return `${value}`
  if (typeof value === 'function') return `[function ${value.name}]`
  if (typeof value === 'symbol') return String(value)
  if (typeof value === 'number' && !Number.isFinite(value)) return String(value)
  if (typeof value !== 'object' || value === null) return value
  if (above.includes(value)) return '[circular]'
  if (depth >= MAX_DEPTH) return '[deep]'
  const inside = [...above, value]
  const read = (key: PropertyKey): unknown => {
    try { return plain((value as Record<PropertyKey, unknown>)[key], depth + 1, inside) } catch (error) { return unreadable(error) }
  }
  if (types.isNativeError(value) || value instanceof Error) return errorOf(value, read)
  if (Array.isArray(value)) return value.slice(0, MAX_KEYS).map((_, at) => read(at))
  if (value instanceof Map) return plain([...value].slice(0, MAX_KEYS), depth + 1, inside)
  if (value instanceof Set) return plain([...value].slice(0, MAX_KEYS), depth + 1, inside)
  if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`
  if (typeof (value as { toJSON?: unknown }).toJSON === 'function') {
    const short = (value as { toJSON(): unknown }).toJSON()
    return short === value ? '[circular]' : plain(short, depth + 1, inside)
  }
  return Object.fromEntries(Object.keys(value).slice(0, MAX_KEYS).map(key => [key, read(key)]))
}

function errorOf(error: Error, read: (key: PropertyKey) => unknown): Record<string, unknown> {
  const known = Object.fromEntries(['name', 'message', 'code', 'fix', 'stack', 'cause', 'errors'].map(key => [key, key in error ? read(key) : undefined]))
  const details = error instanceof BackplaneError ? {} : Object.fromEntries(Object.keys(error).filter(key => !(key in known)).slice(0, 20).map(key => [key, read(key)]))
  return { ...known, ...details }
}

function json(time: string, level: Level, msg: string, { time: _t, level: _l, msg: _m, ...fields }: Record<string, unknown>): string {
  return JSON.stringify({ time, level, msg, ...fields })
}

const pretty = (color: boolean) => (time: string, level: Level, msg: string, { plugin, ...fields }: Record<string, unknown>): string => {
  const paint = (code: string, text: string) => (color ? `${code}${text}\x1b[0m` : text)
  const grey = (text: string) => paint('\x1b[90m', text)
  const errors: string[] = []
  const rest = Object.entries(fields).flatMap(([key, value]) => {
    if (value === undefined || key === 'fix') return []
    if (isError(value)) { errors.push(...story(value, '  ')); return [] }
    const text = typeof value === 'string' && /^[^\s"=]+$/.test(value) ? value : JSON.stringify(value)
    return [`${grey(`${clean(key)}=`)}${clean(String(text))}`]
  })
  const head = `${grey(time.slice(11, 23))} ${paint(PAINT[level], level.padEnd(5))} ${clean(String(plugin ?? '')).padEnd(14)} ${clean(msg)}`
  const fix = typeof fields['fix'] === 'string' ? [`  fix: ${clean(fields['fix'])}`] : []
  return [[head, ...rest].join(' ').trimEnd(), ...fix, ...errors.map(line => (color ? grey(line) : line))].join('\n')
}

/** What comes from elsewhere must not move the cursor of whoever reads, nor begin a line that looks like one of ours. */
const clean = (text: string): string => text.replace(/[\0-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]/g, found => (
  found < ' ' ? JSON.stringify(found).slice(1, -1) : `\\u${found.charCodeAt(0).toString(16).padStart(4, '0')}`))
const isError = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && 'stack' in value && 'message' in value

function story({ name, message, code, fix, stack, cause, errors }: Record<string, unknown>, indent: string): string[] {
  const lines = typeof stack === 'string' && stack ? stack.split('\n') : [`${String(name)}: ${String(message)}`]
  return [
    ...lines.map(line => indent + clean(line)),
    ...(code === undefined ? [] : [`${indent}code: ${clean(String(code))}`]),
    ...(fix === undefined ? [] : [`${indent}fix: ${clean(String(fix))}`]),
    ...(Array.isArray(errors) ? errors.filter(isError).slice(0, 20).flatMap(each => story(each, `${indent}  `)) : []),
    ...(cause === undefined ? [] : isError(cause) ? [`${indent}caused by`, ...story(cause, `${indent}  `)] : [`${indent}caused by ${clean(String(JSON.stringify(cause)))}`]),
  ]
}
