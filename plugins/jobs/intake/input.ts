import type { Schema } from '#core'
import { JobErrors } from '#contracts/jobs'

/** What the schema of a type makes of an input; rejects with JOBS_INPUT_INVALID, which names the fields. */
export async function checkInput(type: string, schema: Schema, input: unknown): Promise<unknown> {
  const checked = await schema['~standard'].validate(input)
  if (!checked.issues) return checked.value
  const errors = checked.issues.slice(0, 20).map(({ path = [], message }) =>
    ({ path: ['input', ...path.map(part => String(typeof part === 'object' ? part.key : part))].join('.'), message }))
  throw JobErrors.INPUT_INVALID({ type, reason: errors.map(({ path, message }) => `${path}: ${message}`).join('; '), errors })
}
