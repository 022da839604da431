import { fieldProblems, problemsInWords, type Schema } from '#core'
import { JobErrors } from '#contracts/jobs'

/** What the schema of a type makes of an input; rejects with JOBS_INPUT_INVALID, which names the fields. */
export async function checkInput(type: string, schema: Schema, input: unknown): Promise<unknown> {
  const checked = await schema['~standard'].validate(input)
  if (!checked.issues) return checked.value
  const problems = fieldProblems(schema, checked.issues, input, 'input')
  throw JobErrors.INPUT_INVALID({ type, reason: problemsInWords(problems), errors: problems.fields })
}
