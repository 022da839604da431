import { isDeepStrictEqual } from 'node:util'
import { z } from 'zod'
import { fieldProblems, problemsInWords } from '#core'
import type { Database, Tx } from '#contracts/database'
import { QuestionErrors, type Ask, type Question } from '#contracts/questions'
import { jsonOf } from './json.ts'
import { dataOf, timeOf, timeOrNull, type JobRow } from './record.ts'

const LONGEST = { question: 10_000, to: 200, option: 500, options: 100, schema: 65_536, timeout_ms: 365 * 86_400_000 }

/** A question as its table has it. */
export interface QuestionRow {
  readonly job_id: string
  /** Of the step whose result is the answer. */
  readonly name: string
  readonly project_id: string
  readonly created_by: string
  readonly addressee: string | null
  readonly question: string
  readonly options: string | null
  readonly schema: string | null
  readonly asked_at: number
  readonly expires_at: number | null
  readonly state: Question['state']
  readonly answer: string | null
  readonly answered_by: string | null
  readonly answered_at: number | null
}
export type NewQuestion = Pick<QuestionRow, 'name' | 'addressee' | 'question' | 'options' | 'schema'> & { readonly timeout_ms: number | undefined }

/** The result of the step, as it is stored: `{}` if nobody answered. */
export type Reply = { readonly answer: unknown } | { readonly answer?: never }

export const toQuestion = (row: QuestionRow): Question => ({
  job_id: row.job_id, name: row.name, project_id: row.project_id, to: row.addressee, question: row.question,
  options: dataOf(row.options), schema: dataOf(row.schema), state: row.state, asked_at: timeOf(row.asked_at), expires_at: timeOrNull(row.expires_at),
  answer: dataOf(row.answer), answered_by: row.answered_by, answered_at: timeOrNull(row.answered_at),
})

/** What the code of a run asks, checked. */
export function newQuestion(name: string, { to, question, options, schema, timeout_ms }: Ask): NewQuestion {
  const check = (fits: boolean, message: string) => { if (!fits) throw new TypeError(`ask: ${message}`) }
  const isText = (value: unknown, most: number) => typeof value === 'string' && value !== '' && value.length <= most
  check(isText(question, LONGEST.question), `question has 1 to ${LONGEST.question} characters`)
  check(to === undefined || isText(to, LONGEST.to), `to has 1 to ${LONGEST.to} characters`)
  check(options === undefined || schema === undefined, 'give either options or schema')
  check(options === undefined || (options.length > 0 && options.length <= LONGEST.options && options.every(each => isText(each, LONGEST.option))),
    `options are 1 to ${LONGEST.options} texts of 1 to ${LONGEST.option} characters`)
  check(timeout_ms === undefined || (Number.isInteger(timeout_ms) && timeout_ms >= 1 && timeout_ms <= LONGEST.timeout_ms), 'timeout_ms is at least 1, at most a year')
  // What can't be checked must not wait for weeks.
  if (schema !== undefined) z.fromJSONSchema(schema)
  return {
    name, addressee: to ?? null, question, options: options === undefined ? null : JSON.stringify(options),
    schema: schema === undefined ? null : jsonOf('schema of a question', schema, LONGEST.schema), timeout_ms,
  }
}

/** Rejects with QUESTIONS_ANSWER. */
export function checkAnswer({ name, options, schema }: QuestionRow, answer: unknown): void {
  if (options !== null) {
    const allowed = dataOf(options) as string[]
    if (!allowed.includes(answer as string)) throw QuestionErrors.ANSWER({ question: name, reason: `it is none of ${allowed.map(each => `"${each}"`).join(', ')}` })
  }
  if (schema === null) return
  const shape = z.fromJSONSchema(dataOf(schema))
  const { error } = shape.safeParse(answer)
  if (!error) return
  const problems = fieldProblems(shape, error.issues, answer, 'answer')
  throw QuestionErrors.ANSWER({ question: name, reason: problemsInWords(problems), errors: problems.fields })
}

export const isSameAnswer = (row: QuestionRow, answer: unknown): boolean => row.state === 'answered' && isDeepStrictEqual(dataOf(row.answer), answer)

export interface QuestionSelection {
  readonly projects: readonly string[] | 'all'
  readonly job_id?: string
  readonly to?: string
  readonly project_id?: string
  readonly limit: number
  readonly cursor?: readonly [job_id: string, name: string]
}

/** The table of questions. The answer is written as the result of its step too, so that the run finds it as it finds all others. */
export class QuestionStore {
  constructor(readonly database: Database) {}

  #table(tx?: Tx) { return this.database.knex(tx)<QuestionRow>('job_questions') }

  async of(jobId: string, tx?: Tx): Promise<QuestionRow[]> { return this.#table(tx).where({ job_id: jobId }).orderBy(['asked_at', 'name']) }

  /** Those that are open there already stay as they are. */
  async open(job: Pick<JobRow, 'id' | 'project_id' | 'created_by'>, asked: readonly NewQuestion[], now: number, tx: Tx): Promise<void> {
    if (!asked.length) return
    await this.#table(tx).insert(asked.map(({ timeout_ms, ...question }): QuestionRow => ({
      ...question, job_id: job.id, project_id: job.project_id, created_by: job.created_by, asked_at: now,
      expires_at: timeout_ms === undefined ? null : now + timeout_ms, state: 'open', answer: null, answered_by: null, answered_at: null,
    }))).onConflict(['job_id', 'name']).ignore()
  }

  /** Closes it, with the answer or without one. */
  async close(row: QuestionRow, reply: Reply, attempt: number, by: string | null, now: number, tx: Tx): Promise<QuestionRow> {
    const answered = 'answer' in reply
    const closed = {
      state: answered ? 'answered' as const : 'expired' as const, answer: answered ? JSON.stringify(reply.answer ?? null) : null,
      answered_by: by, answered_at: answered ? now : null,
    }
    const { job_id, name, asked_at } = row
    await this.#table(tx).where({ job_id, name }).update(closed)
    await this.database.knex(tx)('job_steps').insert({ job_id, name, result: JSON.stringify(reply), attempt, started_at: asked_at, finished_at: now })
    return { ...row, ...closed }
  }

  /** Of jobs that had ended and are run again: what nobody answered will be asked anew, with all its time. */
  async askAgain(jobIds: readonly string[], tx: Tx): Promise<void> {
    await this.#table(tx).whereIn('job_id', [...jobIds]).where({ state: 'open' }).delete()
  }

  /** The one that a job died of is asked again when it is run again: with all others it has its answer, or went on without one. */
  async reopen(jobId: string, tx: Tx): Promise<void> {
    const last = await this.#table(tx).where({ job_id: jobId, state: 'expired' }).orderBy('asked_at', 'desc').first()
    if (!last) return
    await this.#table(tx).where({ job_id: jobId, name: last.name }).delete()
    await this.database.knex(tx)('job_steps').where({ job_id: jobId, name: last.name }).delete()
  }

  /** What waits for an answer, of jobs that still can take one. */
  async list({ projects, job_id, to, project_id, limit, cursor }: QuestionSelection, now: number): Promise<QuestionRow[]> {
    const knex = this.database.knex()
    const query = knex('job_questions as q').join('jobs as j', 'j.id', 'q.job_id').select('q.*')
      .whereRaw("q.state = 'open'").whereNotIn('j.status', ['completed', 'dead', 'cancelled'])
      .where(open => open.whereNull('q.expires_at').orWhere('q.expires_at', '>', now))
      .orderBy(['q.job_id', 'q.name']).limit(limit)
    if (projects !== 'all') query.whereIn('q.project_id', [...projects])
    if (job_id !== undefined) query.where('q.job_id', job_id)
    if (to !== undefined) query.where('q.addressee', to)
    if (project_id !== undefined) query.where('q.project_id', project_id)
    if (cursor) query.where(after => after.where('q.job_id', '>', cursor[0]).orWhere(same => same.where('q.job_id', cursor[0]).where('q.name', '>', cursor[1])))
    return query
  }
}
