import type { StandardSchemaV1 } from '@standard-schema/spec'
import { didYouMean, nearest } from './nearest.ts'
import { describe, jsonSchemaOf, keysOf, schemasAt, type JsonSchema } from './schema.ts'

type Issue = StandardSchemaV1.Issue
/** What zod tells beyond the standard interface. */
interface Told { readonly code?: unknown; readonly received?: unknown; readonly keys?: unknown; readonly errors?: unknown; readonly issues?: readonly Issue[] }

/** What is wrong with one field, in a sentence that says what to write instead. */
export interface FieldProblem { readonly path: string; readonly message: string }
export interface FieldProblems { readonly fields: readonly FieldProblem[]; /** How many more there are. */ readonly more: number }

/** How zod begins where nobody gave a text of his own. */
const RAW = /^(Invalid (input|option|string|number|key|element)\b|Invalid [\w -]+$|Too (big|small): |Unrecognized key)/
const isRaw = ({ message, code }: Issue & Told): boolean => (code === 'custom' ? message === 'Invalid input' : code !== undefined && RAW.test(message))
const LONGEST_KEY = 200
const schemas = new WeakMap<object, JsonSchema | undefined>()

function schemaOf(schema: StandardSchemaV1): JsonSchema | undefined {
  if (!schemas.has(schema)) schemas.set(schema, jsonSchemaOf(schema))
  return schemas.get(schema)
}

/** Why a schema does not take a value, for whoever wrote that. Repeats nothing of it but the names of fields that are not known. */
export function fieldProblems(schema: StandardSchemaV1, issues: readonly Issue[], value: unknown, root = '', most = 20): FieldProblems {
  const all = issues.flatMap(issue => singlesOf(issue))
  const json = schemaOf(schema)
  const fields = all.slice(0, most).map(({ issue, key }) => {
    const path = stepsOf(issue)
    const message = key === undefined ? reasonFor(issue, path, at(value, path), json) : `is not a known field. ${didYouMean(key.slice(0, LONGEST_KEY), keysOf(schemasAt(json, path)))}`
    return { path: [...(root ? [root] : []), ...path, ...(key === undefined ? [] : [key])].map(String).join('.'), message }
  })
  return { fields, more: all.length - fields.length }
}

/** In one line: the first of them, and how many are left. */
export function problemsInWords({ fields, more }: FieldProblems, most = 3): string {
  const left = more + Math.max(0, fields.length - most)
  return [...fields.slice(0, most).map(({ path, message }) => `${path ? `${path}: ` : ''}${message.replace(/\.$/, '')}`), ...(left ? [`and ${left} more`] : [])].join('; ')
}

const stepsOf = ({ path = [] }: Issue): PropertyKey[] => path.map(part => (typeof part === 'object' ? part.key : part))

/** One for each field: unknown ones are told together, and of alternatives, what is wrong with the one that was meant. */
function singlesOf(issue: Issue): { readonly issue: Issue; readonly key?: string }[] {
  const { keys, code, errors } = issue as Issue & Told
  if (Array.isArray(keys) && keys.length) return keys.map(key => ({ issue, key: String(key) }))
  if (code !== 'invalid_union' || !Array.isArray(errors)) return [{ issue }]
  const meant = (errors as Issue[][]).filter(each => each.every(inside => inside.path?.length || (inside as Told).code === 'unrecognized_keys'))
  const closest = meant.sort((a, b) => a.length - b.length)[0]
  return closest?.length ? closest.flatMap(inside => singlesOf({ ...inside, path: [...(issue.path ?? []), ...(inside.path ?? [])] })) : [{ issue }]
}

const at = (value: unknown, path: readonly PropertyKey[]): unknown =>
  path.reduce<any>((inside, step) => (typeof inside === 'object' && inside !== null && Object.hasOwn(inside, step) ? inside[step] : undefined), value)

/** Why `found` can't stand at the path, in words; what the schema's author wrote himself stays as it is. */
export function reasonFor(issue: Issue, path: readonly PropertyKey[], found: unknown, json: JsonSchema | undefined): string {
  const { code, received, issues: [inside] = [] } = issue as Issue & Told
  if (!isRaw(issue)) return issue.message
  if (code === 'invalid_key' && inside) {
    const names = schemasAt(json, path.slice(0, -1)).flatMap(({ propertyNames }) => (propertyNames ? [propertyNames as JsonSchema] : []))
    return `has a name that does not fit: ${isRaw(inside) ? `it must be ${describe(names)}` : inside.message}`
  }
  const there = schemasAt(json, path)
  const described = describe(there)
  if (found === undefined) return `is missing${described && `; give ${described}`}`
  const expected = described || issue.message.replace(/^[^:]*: (expected )?/, '').replace(/, received.*$/, '')
  const options = there.flatMap(each => (Array.isArray(each['enum']) ? each['enum'].map(String) : []))
  const [close] = typeof found === 'string' ? nearest(found.slice(0, LONGEST_KEY), options) : []
  const kind = code === 'invalid_type' && received !== 'NaN' ? `, not ${kindOf(found)}` : ''
  return `must be ${expected}${kind}${close === undefined ? '' : `. Did you mean "${close}"?`}`
}

function kindOf(value: unknown): string {
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'a list'
  // A value of the caller's may have a `toString` of its own, which is no function.
  if (typeof value === 'boolean') return String(value)
  return { string: 'a text', number: 'a number', object: 'a map' }[typeof value as string] ?? typeof value
}
