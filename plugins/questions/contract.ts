import { defineErrors, defineService } from '#core'
import type { Caller } from '#contracts/access'

/** What a run asks a person. */
export interface Ask {
  /** Whom: a name that those who answer know themselves by. */
  readonly to?: string
  /** 1 to 10,000 characters. */
  readonly question: string
  /** The answer is one of these texts. */
  readonly options?: readonly string[]
  /** JSON Schema (draft 2020-12) that the answer fits; not with `options`. */
  readonly schema?: Readonly<Record<string, unknown>>
  /** After this time without an answer `ask` rejects with JOBS_ASK_TIMEOUT; without it the question stays open. */
  readonly timeout_ms?: number
}

/** A question that a run asked, as every API shows it. Times are ISO 8601. */
export interface Question {
  readonly job_id: string
  /** `ask#1` is the first that this job asked. */
  readonly name: string
  readonly project_id: string
  readonly to: string | null
  readonly question: string
  readonly options: readonly string[] | null
  readonly schema: Readonly<Record<string, unknown>> | null
  readonly state: 'open' | 'answered' | 'expired'
  readonly asked_at: string
  readonly expires_at: string | null
  readonly answer: unknown
  readonly answered_by: string | null
  readonly answered_at: string | null
}

export interface QuestionFilter {
  readonly job_id?: string
  readonly to?: string
  readonly project_id?: string
  /** 1 to 100; 20. */
  readonly limit?: number
  /** `next` of the page before. */
  readonly cursor?: string
}

/** What people are asked by jobs. Provided by whoever provides `Jobs`. */
export interface Questions {
  /** Those that wait for an answer and that the caller may see (`jobs:read`), in the order of their jobs. */
  list(caller: Caller, filter?: QuestionFilter): Promise<{ readonly items: readonly Question[]; readonly next: string | null }>
  /**
   * Writes the answer as the result of that step, and lets the job go on. `question` is its name; it may be left out while one is open.
   * The same answer again changes nothing. Rejects with JOBS_NOT_FOUND, JOBS_FINAL, QUESTIONS_NOT_FOUND, QUESTIONS_CLOSED, QUESTIONS_WHICH, QUESTIONS_ANSWER.
   */
  answer(caller: Caller, jobId: string, answer: { readonly question?: string; readonly answer: unknown }): Promise<Question>
}
export const Questions = defineService<Questions>('questions.questions')

export const QuestionErrors = defineErrors('QUESTIONS', {
  NOT_FOUND: { message: 'job "{id}" asks no question "{question}"', fix: 'See `GET /api/v1/jobs/{id}` for what it asks.', status: 404, expose: true },
  CLOSED: { message: 'question "{question}" of job "{id}" is {state} already', fix: 'Nothing to do: the job goes on without this answer.', status: 409, expose: true },
  WHICH: { message: 'job "{id}" asks more than one question', fix: 'Name one of them as `question`: {names}.', status: 400, expose: true },
  ANSWER: { message: 'the answer to question "{question}" does not fit: {reason}', fix: 'Correct the answer.', status: 400, expose: true },
})
