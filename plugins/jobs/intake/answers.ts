import type { Caller } from '#contracts/access'
import type { Tx } from '#contracts/database'
import { JobErrors } from '#contracts/jobs'
import { QuestionErrors, type Question, type QuestionFilter, type Questions } from '#contracts/questions'
import { accessOf } from './admission.ts'
import { ID_PATTERN } from '../tables/id.ts'
import { jsonOf } from '../tables/json.ts'
import { isFinal } from '../tables/machine.ts'
import { checkAnswer, isSameAnswer, toQuestion, type QuestionRow } from '../tables/questions.ts'
import type { JobRow } from '../tables/record.ts'
import type { Worker } from '../work/worker.ts'

const CURSOR = /^([0-9a-z]{26})\.(.{1,210})$/s

type Given = Parameters<Questions['answer']>[2]

/** What people do with the questions of jobs. */
export class JobQuestions implements Questions {
  constructor(readonly worker: Worker) {}

  async list(caller: Caller, { limit: wanted = 20, cursor, job_id, to, project_id }: QuestionFilter = {}): ReturnType<Questions['list']> {
    const { store } = this.worker.deps
    const projects = await accessOf(this.worker.deps).projects(caller, 'jobs:read')
    const limit = Math.min(Math.max(1, Math.trunc(wanted)), 100)
    const [, after, name] = CURSOR.exec(cursor ?? '') ?? []
    const rows = await store.questions.list({
      projects, limit: limit + 1, ...(job_id && { job_id }), ...(to && { to }), ...(project_id && { project_id }),
      ...(after !== undefined && name !== undefined && { cursor: [after, name] as const }),
    }, store.now)
    const items = rows.slice(0, limit).map(toQuestion)
    const last = items.at(-1)
    return { items, next: rows.length > limit ? `${last!.job_id}.${last!.name}` : null }
  }

  async answer(caller: Caller, jobId: string, given: Given): Promise<Question> {
    const { store, database, config } = this.worker.deps
    const access = accessOf(this.worker.deps)
    const row = ID_PATTERN.test(jobId) ? await store.read(jobId) : undefined
    await access.check(caller, 'jobs:answer', ...(row ? [{ kind: 'job', id: row.id, project_id: row.project_id }] : []))
    if (!row) throw JobErrors.NOT_FOUND({ id: String(jobId).slice(0, 40) })
    const answer: unknown = JSON.parse(jsonOf('answer', given.answer, config.max_result_bytes))
    for (;;) {
      try { return await database.transaction(tx => this.#answer(caller, row.id, { ...given, answer }, tx)) } catch (error) {
        // Somebody else has changed the job since it was read.
        if (!JobErrors.LEASE_LOST.is(error)) throw error
      }
    }
  }

  async #answer(caller: Caller, id: string, given: Given, tx: Tx): Promise<Question> {
    const { store } = this.worker.deps
    const { now, questions: table } = store
    const job = await store.read(id, tx)
    if (!job) throw JobErrors.NOT_FOUND({ id })
    const question = chosen(id, await table.of(id, tx), given)
    if (isSameAnswer(question, given.answer)) return toQuestion(question)
    if (question.state !== 'open') throw QuestionErrors.CLOSED({ id, question: question.name, state: question.state })
    if (isFinal(job.status)) throw JobErrors.FINAL({ id, status: job.status })
    if (question.expires_at !== null && question.expires_at <= now) throw QuestionErrors.CLOSED({ id, question: question.name, state: 'expired' })
    checkAnswer(question, given.answer)
    const closed = await table.close(question, { answer: given.answer }, job.attempt, caller.id, now, tx)
    await this.#goOn(job, question, caller, tx)
    return toQuestion(closed)
  }

  /** One that runs finds the answer when it comes to wait for it. */
  async #goOn(job: JobRow, { name }: QuestionRow, caller: Caller, tx: Tx): Promise<void> {
    const { store } = this.worker.deps
    if (job.status !== 'waiting') return
    const queued = await store.change(job, 'wake', { run_at: store.now }, tx, { question: name, answered_by: caller.id })
    await store.handOver([queued], tx)
  }
}

/** The one that is meant: by its name, else the only one that is open, else the last if this is its answer once more. */
function chosen(id: string, all: readonly QuestionRow[], { question, answer }: Given): QuestionRow {
  const open = all.filter(each => each.state === 'open')
  const found = question === undefined
    ? open[0] ?? all.findLast(each => isSameAnswer(each, answer)) ?? all.at(-1)
    : all.find(each => each.name === question)
  if (!found) throw QuestionErrors.NOT_FOUND({ id, question: (question ?? '').slice(0, 210) })
  if (question === undefined && open.length > 1) throw QuestionErrors.WHICH({ id, names: open.map(each => each.name).join(', ') })
  return found
}
