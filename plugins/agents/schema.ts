import { fieldProblems, type FieldProblem, type Schema } from '#core'

/** The standard interface's converter, which a schema library may have. */
type Convertible = { readonly jsonSchema?: { input(options: { readonly target: 'draft-07' }): Record<string, unknown> } }

export type Checked =
  | { readonly value: unknown; readonly problems?: undefined }
  | { readonly value?: undefined; readonly problems: readonly FieldProblem[] }

/** What the schema makes of a value, or what is wrong with which field. */
export async function check(schema: Schema, value: unknown, root: string): Promise<Checked> {
  const checked = await schema['~standard'].validate(value)
  if (!checked.issues) return { value: checked.value }
  return { problems: fieldProblems(schema, checked.issues, value, root).fields }
}

export const inWords = (problems: readonly FieldProblem[]): string => problems.map(({ path, message }) => (path ? `${path}: ${message}` : message)).join('; ')

/** For models; of a schema that can't be converted, that it is an object. */
export function jsonSchemaOf(schema: Schema): Record<string, unknown> {
  const converter = (schema['~standard'] as Convertible).jsonSchema
  return converter ? converter.input({ target: 'draft-07' }) : { type: 'object' }
}
