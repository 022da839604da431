import { BackplaneError, type FieldProblem } from '#core'

const FIELDS = 20
const IN_WORDS = 3

interface Refused { readonly at: number; readonly error: BackplaneError }

/** Does something for each job of a batch. Rejects with everything that is wrong with any of them; at once, if it is no fault of theirs. */
export async function allOf<In, Out>(jobs: readonly In[], work: (job: In) => Promise<Out>): Promise<Out[]> {
  const done: Out[] = []
  const refused: Refused[] = []
  for (const [at, job] of jobs.entries()) {
    try { done.push(await work(job)) } catch (error) {
      if (!(error instanceof BackplaneError)) throw error
      if (!isTheirs(error)) throw refusal([{ at, error }])
      refused.push({ at, error })
    }
  }
  if (refused.length) throw refusal(refused)
  return done
}

/** Not what the server lacks, nor whom it lets do what: who may not is told so once. */
const isTheirs = ({ expose, retryable, status }: BackplaneError): boolean =>
  expose && !retryable && status >= 400 && status < 500 && status !== 401 && status !== 403

function refusal(refused: readonly Refused[]): BackplaneError {
  const [{ at, error: first }] = refused as [Refused]
  const { code, fix, status, retryable, expose, details } = first
  const all = refused.flatMap(fieldsOf)
  const left = refused.length - IN_WORDS
  const message = [...refused.slice(0, IN_WORDS).map(each => `jobs.${each.at}: ${each.error.message}`), ...(left > 0 ? [`and ${left} more`] : [])].join('; ')
  const shape = { message: '{message}', fix: '{fix}', status, retryable, expose }
  const advice = refused.length > 1 ? 'Correct those that `errors` names, at most the first 20, and send all again: none was taken in.' : fix
  return new BackplaneError(code, shape, { ...details, at, message, fix: advice, errors: all.slice(0, FIELDS) }, { cause: first })
}

function fieldsOf({ at, error }: Refused): FieldProblem[] {
  const named = Array.isArray(error.details['errors']) ? error.details['errors'] as FieldProblem[] : [{ path: '', message: error.message }]
  return named.map(({ path, message }) => ({ path: ['jobs', at, path].filter(part => part !== '').join('.'), message }))
}
