import type { StandardSchemaV1 } from '@standard-schema/spec'

/** What is used of JSON Schema 2020-12. */
export interface JsonSchema {
  readonly [key: string]: unknown
  readonly type?: string | readonly string[]
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly additionalProperties?: boolean | JsonSchema
  readonly items?: JsonSchema
  readonly $ref?: string
}

/** The JSON Schema of what a plugin takes, before defaults; undefined if its library gives none. */
export function jsonSchemaOf(schema: StandardSchemaV1 | undefined): JsonSchema | undefined {
  const standard = schema?.['~standard'] as { jsonSchema?: { input(options: object): JsonSchema } } | undefined
  try { return standard?.jsonSchema?.input({ target: 'draft-2020-12', libraryOptions: { unrepresentable: 'any' } }) } catch { return undefined }
}

/** A schema and all that it may be instead: references and alternatives unfolded. */
export function variants(schema: JsonSchema | undefined, root: JsonSchema | undefined = schema, depth = 0): JsonSchema[] {
  if (!schema || depth > 8) return []
  const more = ['anyOf', 'oneOf', 'allOf'].flatMap(key => (Array.isArray(schema[key]) ? schema[key] as JsonSchema[] : []))
  if (typeof schema.$ref === 'string' && schema.$ref.startsWith('#')) {
    const target = schema.$ref.slice(1).split('/').filter(Boolean).reduce<any>((at, step) => at?.[step.replaceAll('~1', '/').replaceAll('~0', '~')], root)
    if (target) more.push(target)
  }
  return [schema, ...more.flatMap(each => variants(each, root, depth + 1))]
}

/** The schemas of one key; `undefined` if the schema does not say which keys there are, none if it is not a key. */
export function childrenOf(schemas: readonly JsonSchema[], key: string | undefined, root: JsonSchema | undefined): JsonSchema[] | undefined {
  const objects = schemas.filter(each => each.properties || each.additionalProperties !== undefined)
  if (!objects.length) return undefined
  return objects.flatMap(each => {
    const own = key !== undefined && each.properties && Object.hasOwn(each.properties, key) ? each.properties[key] : undefined
    const child = own ?? (typeof each.additionalProperties === 'object' ? each.additionalProperties : each.additionalProperties === true ? {} : undefined)
    return child ? variants(child, root) : []
  })
}

export const keysOf = (schemas: readonly JsonSchema[]): string[] => [...new Set(schemas.flatMap(each => Object.keys(each.properties ?? {})))]

/** The schemas at a path. */
export function schemasAt(root: JsonSchema | undefined, path: readonly PropertyKey[]): JsonSchema[] {
  return path.reduce<JsonSchema[]>((schemas, step) => (typeof step === 'number'
    ? schemas.flatMap(each => variants(each.items, root))
    : childrenOf(schemas, String(step), root) ?? []), variants(root))
}

/** A schema in a few words: `a whole number from 0 to 65535`. */
export function describe(schemas: readonly JsonSchema[]): string {
  const words = schemas.flatMap(each => {
    const { type, enum: options, const: only, minimum, maximum, exclusiveMinimum: above, exclusiveMaximum: below, format, minLength, maxLength, pattern, items, ...rest } = each
    if (Array.isArray(options)) return [options.length > 1 ? `one of ${options.map(each => JSON.stringify(each)).join(', ')}` : JSON.stringify(options[0])]
    if (only !== undefined) return [JSON.stringify(only)]
    const safe = (limit: unknown) => (typeof limit === 'number' && Math.abs(limit) < Number.MAX_SAFE_INTEGER ? limit : undefined)
    const [low, high] = [safe(minimum), safe(maximum)]
    const range = [low !== undefined && `from ${low}`, safe(above) !== undefined && `above ${above}`, high !== undefined && `to ${high}`, safe(below) !== undefined && `below ${below}`]
    const length = span(minLength, maxLength)
    const size = span(rest['minItems'], rest['maxItems'])
    return (Array.isArray(type) ? type : type ? [type] : []).map(each => [
      NAMES[each as string] ?? String(each),
      ...(each === 'object' && rest.properties ? [`with ${Object.keys(rest.properties).join(', ')}`] : []),
      ...(each === 'integer' || each === 'number' ? range.filter(Boolean) : []),
      ...(each === 'string' && length ? [`of ${length} characters`] : each === 'array' && size ? [`of ${size}`] : []),
      ...(each === 'array' && Array.isArray(items?.['enum']) ? [`out of ${items['enum'].map(option => JSON.stringify(option)).join(', ')}`] : []),
      ...(each === 'string' && typeof format === 'string' ? [`(${format})`] : each === 'string' && typeof pattern === 'string' && pattern.length < 60 ? [`like ${pattern}`] : []),
    ].join(' '))
  })
  return [...new Set(words)].join(', or ')
}
const span = (least: unknown, most: unknown): string => (typeof least === 'number' && typeof most === 'number' ? `${least} to ${most}`
  : [typeof least === 'number' && `at least ${least}`, typeof most === 'number' && `at most ${most}`].filter(Boolean).join(''))
const NAMES: Readonly<Record<string, string>> = { string: 'a text', number: 'a number', integer: 'a whole number', boolean: 'true or false', object: 'a map', array: 'a list', null: 'nothing' }

/** For editors: a reference may stand wherever a value may. */
export function withReferences(schema: JsonSchema): JsonSchema {
  const inner = Object.fromEntries(Object.entries(schema).map(([key, value]) => [key,
    key === 'properties' || key === '$defs' ? Object.fromEntries(Object.entries(value as Record<string, JsonSchema>).map(([name, each]) => [name, withReferences(each)]))
      : key === 'items' || (key === 'additionalProperties' && typeof value === 'object') ? withReferences(value as JsonSchema)
        : key === 'anyOf' || key === 'oneOf' ? (value as JsonSchema[]).map(withReferences) : value]))
  const scalar = ['number', 'integer', 'boolean'].includes(String(schema.type)) || Array.isArray(schema['enum']) || (schema.type === 'string' && (schema['pattern'] ?? schema['format']))
  if (!scalar) return inner
  const { description, default: preset, ...rest } = inner
  return { ...(description !== undefined && { description }), ...(preset !== undefined && { default: preset }), anyOf: [rest, { type: 'string', pattern: '\\$\\{' }] }
}
