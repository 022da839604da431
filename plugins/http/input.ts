import type { IncomingMessage } from 'node:http'
import { HttpErrors } from '#contracts/http'
import { fieldProblems, problemsInWords, reasonOf, type FieldProblem, type Schema } from '#core'
import { ClientGone } from './abort.ts'
import type { Exchange } from './exchange.ts'
import type { Gate } from './gate.ts'

type Part = 'params' | 'query' | 'body'

const MAX_PROBLEMS = 20
const MAX_MESSAGE = 300
const MAX_QUERY_FIELDS = 100
// eslint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u001f\u007f]/
// Neither can be stored by every database: NUL ends text in PostgreSQL, half a surrogate pair is no UTF-8.
const UNSTORABLE = /\u0000|\p{Surrogate}/u

const brief = (text: string): string => (text.length > MAX_MESSAGE ? `${text.slice(0, MAX_MESSAGE)}…` : text)

/** HTTP_INVALID that names the fields; `more` are not among those. */
const invalid = (errors: readonly FieldProblem[], more = 0) => {
  const fields = errors.map(({ path, message }) => ({ path: brief(path), message: brief(message) }))
  return HttpErrors.INVALID({ reason: problemsInWords({ fields, more }), errors: fields })
}
/** HTTP_INVALID for one field. */
export const wrong = (path: string, message: string) => invalid([{ path, message }])

/** Throws unless the path is well-formed UTF-8 without control characters. */
export function checkPath(path: string): void {
  if (!path.includes('%')) return
  let text: string
  try { text = decodeURIComponent(path) } catch { throw wrong('path', 'is not well-formed UTF-8') }
  if (CONTROL.test(text) || UNSTORABLE.test(text)) throw wrong('path', 'contains control characters')
}

/** A browser's EventSource can send no header: who it is stands in the address, where the route's schema takes that. */
export function tokenIn({ method, search }: Exchange): string | undefined {
  return method === 'GET' || method === 'HEAD' ? new URLSearchParams(search).get('token') ?? undefined : undefined
}

/** A repeated field becomes a list. */
export function readQuery(search: string): Record<string, string | string[]> {
  const query: Record<string, string | string[]> = {}
  if (search === '' || search === '?') return query
  try { decodeURIComponent(search) } catch { throw wrong('query', 'is not well-formed UTF-8') }
  let count = 0
  for (const [name, value] of new URLSearchParams(search)) {
    if (++count > MAX_QUERY_FIELDS) throw HttpErrors.TOO_LARGE({ what: 'query', limit: `${MAX_QUERY_FIELDS} fields` })
    if (name === '__proto__') throw wrong('query.__proto__', 'is not a known field')
    if (UNSTORABLE.test(name) || UNSTORABLE.test(value)) throw wrong(`query.${name}`, 'contains NUL or half a surrogate pair')
    const before = Object.hasOwn(query, name) ? query[name] : undefined
    query[name] = before === undefined ? value : [...(Array.isArray(before) ? before : [before]), value]
  }
  return query
}

export const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0

export interface BodyLimits { readonly bytes: number; readonly depth: number }

/** Reads and parses a JSON body; `undefined` if there is none. Nothing past a limit is kept. */
export async function readJson(exchange: Exchange, limits: BodyLimits, gate: Gate): Promise<unknown> {
  const { req, res } = exchange
  checkType(req)
  const limit = `${limits.bytes} bytes`
  if (Number(req.headers['content-length'] ?? 0) > limits.bytes) throw HttpErrors.TOO_LARGE({ what: 'body', limit })
  if (req.headers.expect !== undefined) res.writeContinue()
  const bytes = await receive(exchange, limits.bytes, gate, () => HttpErrors.TOO_LARGE({ what: 'body', limit }))
  let text: string
  const decoder = new TextDecoder('utf-8', { fatal: true })
  try { text = decoder.decode(bytes) } catch { throw wrong('body', 'is not well-formed UTF-8') }
  let value: unknown
  try { value = JSON.parse(text) } catch (error) { throw wrong('body', `is not well-formed JSON${placeIn(text, error)}`) }
  walk(value, 'body', limits.depth)
  return value
}

/** Where JSON is broken, if V8 says so; what stands there is not repeated. */
function placeIn(text: string, error: unknown): string {
  const at = /at position (\d+)/.exec(reasonOf(error))?.[1]
  if (at === undefined) return text.trim() === '' ? ': it is empty' : ''
  const before = text.slice(0, Number(at)).split('\n')
  return `, at line ${before.length}, column ${before.at(-1)!.length + 1}`
}

function checkType({ headers }: IncomingMessage): void {
  const encoding = headers['content-encoding']?.trim().toLowerCase() ?? 'identity'
  const type = headers['content-type'] ?? ''
  const [media = '', ...parameters] = type.toLowerCase().split(';').map(part => part.trim())
  const charset = parameters.find(each => each.startsWith('charset='))?.slice(8).replaceAll('"', '') ?? 'utf-8'
  if (encoding !== 'identity') throw HttpErrors.MEDIA_TYPE({ type: brief(`${type}, encoded as ${encoding}`) })
  if (media !== 'application/json' || (charset !== 'utf-8' && charset !== 'utf8')) throw HttpErrors.MEDIA_TYPE({ type: brief(type) })
}

/** Not `for await`: leaving that loop early destroys the socket, and with it the answer. */
function receive(exchange: Exchange, limit: number, gate: Gate, tooLarge: () => Error): Promise<Buffer> {
  const { req } = exchange
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let size = 0
    let held = 0
    const settle = (then: () => void) => {
      req.off('data', data).off('end', end).off('error', gone).off('close', gone)
      exchange.interrupt = undefined
      gate.release(held)
      req.pause()
      then()
    }
    const data = (chunk: Buffer) => {
      size += chunk.length
      if (size > limit) return settle(() => reject(tooLarge()))
      try { gate.hold(chunk.length) } catch (error) { return settle(() => reject(error)) }
      held += chunk.length
      chunks.push(chunk)
    }
    const end = () => settle(() => resolve(Buffer.concat(chunks)))
    const gone = () => settle(() => reject(new ClientGone()))
    req.on('data', data).on('end', end).on('error', gone).on('close', gone)
    exchange.interrupt = reason => settle(() => reject(reason))
    if (exchange.aborted) exchange.interrupt(exchange.reason)
  })
}

/** Recursion is bounded by `depth`, however deep the value is. */
function walk(value: unknown, path: string, depth: number): void {
  if (typeof value === 'string') { if (UNSTORABLE.test(value)) throw wrong(path, 'contains NUL or half a surrogate pair') }
  if (typeof value !== 'object' || value === null) return
  if (depth === 0) throw wrong(brief(path), 'is nested too deep')
  if (Array.isArray(value)) { for (let at = 0; at < value.length; at++) walk(value[at], `${path}.${at}`, depth - 1); return }
  for (const key of Object.keys(value)) {
    if (key === '__proto__') throw wrong(`${path}.__proto__`, 'is not a known field')
    if (UNSTORABLE.test(key)) throw wrong(path, 'has a field name with NUL or half a surrogate pair')
    walk((value as Record<string, unknown>)[key], `${path}.${key}`, depth - 1)
  }
}

export interface Input { readonly params: unknown; readonly query: unknown; readonly body: unknown }
type Schemas = Partial<Readonly<Record<Part, Schema>>>

/**
 * Holds each part against its schema and tells all problems at once. A query without a schema takes no field.
 * A promise only if a schema gives one.
 */
export function validate(schemas: Schemas, input: Input): Input | Promise<Input> {
  const { params, query, body } = schemas
  const results = [params && check(params, input.params), query && check(query, input.query), body && check(body, input.body)] as const
  if (results.some(each => each instanceof Promise)) return Promise.all(results).then(all => conclude(schemas, input, all))
  return conclude(schemas, input, results as Results)
}

type Result = Schema.Result<unknown> | undefined
type Results = readonly [Result, Result, Result]
const check = (schema: Schema, value: unknown) => schema['~standard'].validate(value)

function conclude(schemas: Schemas, input: Input, [params, query, body]: Results): Input {
  if (!params?.issues && !query?.issues && !body?.issues && (schemas.query || isEmpty(input.query as object))) {
    return { params: params ? params.value : input.params, query: query ? query.value : {}, body: body?.value }
  }
  const told = [['params', params, schemas.params], ['query', query, schemas.query], ['body', body, schemas.body]] as const
  const all: FieldProblem[] = []
  let left = 0
  for (const [part, result, schema] of told) if (schema && result?.issues) {
    const { fields, more } = fieldProblems(schema, result.issues, input[part], part, MAX_PROBLEMS - all.length)
    all.push(...fields)
    left += more
  }
  if (!schemas.query) for (const name of Object.keys(input.query as object).slice(0, MAX_PROBLEMS - all.length)) all.push({ path: `query.${name}`, message: 'is not a known field; this takes none' })
  throw invalid(all, left)
}

const isEmpty = (value: object): boolean => { for (const _ in value) return false; return true }
