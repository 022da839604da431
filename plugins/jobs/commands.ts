import type { Command, CommandIo } from '#core'
import type { Job, Page } from '#contracts/jobs'
import type { Question } from '#contracts/questions'
import type { JobDetail } from './tables/record.ts'
import { ask, whole } from './watch/server.ts'
import { submit } from './submit.ts'
import { heldUp, lineOf, plain, watch } from './watch/watch.ts'

const post = <T>(io: CommandIo, path: string, body?: unknown) =>
  ask<T>(io, path, { method: 'POST', ...(body !== undefined && { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }) })
const pathOf = (io: CommandIo, id = io.args[0] ?? '') => `/api/v1/jobs/${encodeURIComponent(id)}`

const MINUTE = 60_000
/** How long it has been running, if it is. */
function runningFor({ status, started_at }: Job): string[] {
  if (status !== 'running' || started_at === null) return []
  const ms = Math.max(0, Date.now() - Date.parse(started_at))
  return [`for ${ms < 2 * MINUTE ? `${Math.floor(ms / 1_000)} s` : ms < 120 * MINUTE ? `${Math.floor(ms / MINUTE)} min` : `${Math.floor(ms / (60 * MINUTE))} h`}`]
}
const text = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value, null, 2))

const filters = [
  { flags: '--agent <agent>', summary: 'only those of this agent' },
  { flags: '--type <type>', summary: 'only those of this type' },
  { flags: '--project <project>', summary: 'only those of this project' },
  { flags: '--code <code>', summary: 'only those whose error has this code' },
]

function chosen({ options: { agent, type, project, code } }: CommandIo): Record<string, string> {
  return Object.fromEntries(Object.entries({ agent, type, project_id: project, code }).filter(([, value]) => value !== undefined))
}

const list: Command = {
  name: 'jobs list',
  summary: 'Lists jobs, the newest first',
  needs: 'server',
  options: [
    { flags: '--status <status>', summary: 'only these: queued, delayed, running, waiting, completed, failed, dead, cancelled' },
    ...filters,
    { flags: '--limit <count>', summary: 'at most so many (100)', default: '20' },
    { flags: '--cursor <id>', summary: 'those after this one' },
  ],
  examples: ['backplane jobs list --status dead'],
  async run(io) {
    const query = new URLSearchParams()
    for (const key of ['status', 'limit', 'cursor']) if (io.options[key] !== undefined) query.set(key, String(io.options[key]))
    for (const [key, value] of Object.entries(chosen(io))) query.set(key, value)
    const page = await ask<Page<Job>>(io, `/api/v1/jobs?${query}`, {}, field => field.replace(/^query\.(\w+?)(_id)?$/, '--$1'))
    if (!page) return 1
    if (io.json) io.out(JSON.stringify(page, null, 2))
    else for (const job of page.items) io.out([lineOf(job), ...runningFor(job)].join('  '))
    if (!io.json && !page.items.length) io.err('no jobs')
    if (!io.json && page.next) io.err(`more: --cursor ${page.next}`)
    return 0
  },
}

const isFinal = (outcome: string | null): boolean => outcome === 'dead' || outcome === 'cancelled'

const one = [{ name: '<id>', summary: 'the id of the job' }]

const show: Command = {
  name: 'jobs show',
  summary: 'Shows a job with its attempts and steps',
  needs: 'server',
  arguments: one,
  async run(io) {
    const found = await ask<JobDetail>(io, pathOf(io))
    if (!found) return 1
    const job = await whole(io, found)
    if (io.json) { io.out(JSON.stringify(job, null, 2)); return 0 }
    const tell = (told: string) => io.out(plain(io, told))
    tell(lineOf(job))
    tell(`input: ${text(job.input)}`)
    if (job.result !== null) tell(`result: ${text(job.result)}`)
    if (job.error) tell(`error: ${job.error.code}: ${job.error.message}${job.error.fix === undefined ? '' : `\n  fix: ${job.error.fix}`}`)
    if (job.held_up) tell(heldUp(job.held_up))
    if (job.status === 'failed' || job.status === 'delayed') tell(`next attempt: ${job.run_at}`)
    let last: JobDetail['attempts'][number] | undefined
    for (const each of job.attempts) {
      const { attempt, outcome, started_at, finished_at, error } = each
      // Its numbers begin anew then; those that were handed back are used again.
      if (last && attempt <= last.attempt && isFinal(last.outcome)) tell('run again, with all its attempts:')
      last = each
      tell(`attempt ${attempt}: ${outcome ?? 'running'}  ${started_at} to ${finished_at ?? 'now'}${error ? `  ${error.code}` : ''}`)
    }
    for (const each of job.questions.filter(({ state }) => state === 'open')) tell(asked(each))
    for (const each of job.steps) tell(`step ${each.name}: attempt ${each.attempt}, ${each.finished_at}`)
    return 0
  },
}

const asked = ({ name, to, question, options, expires_at }: Question): string =>
  [`asks${to === null ? '' : ` ${to}`} (${name}): ${question}`, ...(options ? [`one of: ${options.join(', ')}`] : []), ...(expires_at === null ? [] : [`until ${expires_at}`])].join('\n  ')

const answer: Command = {
  name: 'jobs answer',
  summary: 'Answers what a job asks; it goes on with the answer',
  needs: 'server',
  arguments: [...one, { name: '<answer>', summary: 'a text' }],
  options: [
    { flags: '--question <name>', summary: 'which one, if it asks more than one (see `jobs show`)' },
    { flags: '--as-json', summary: 'the answer is JSON: `true`, `{"n":1}`' },
  ],
  examples: ['backplane jobs answer 01kazr3xj7fw0v5j9q0m8d2c4e yes'],
  async run(io) {
    const [, given = ''] = io.args
    let answer: unknown = given
    if (io.options['asJson'] === true) try { answer = JSON.parse(given) } catch (error) { io.err(`the answer is not JSON: ${(error as Error).message}`); return 2 }
    const { question } = io.options
    const closed = await post<Question>(io, `${pathOf(io)}/answer`, { answer, ...(question !== undefined && { question }) })
    if (!closed) return 1
    io.out(io.json ? JSON.stringify(closed, null, 2) : plain(io, `${closed.job_id}  ${closed.name} answered: ${text(closed.answer)}`))
    return 0
  },
}

/** A command that does one thing to one job. */
const change = (name: string, summary: string): Command => ({
  name: `jobs ${name}`, summary, needs: 'server', arguments: one, examples: [`backplane jobs ${name} 01kazr3xj7fw0v5j9q0m8d2c4e`],
  async run(io) {
    const job = await post<Job>(io, `${pathOf(io)}/${name}`)
    if (!job) return 1
    io.out(io.json ? JSON.stringify(job, null, 2) : lineOf(job))
    return 0
  },
})

const replay: Command = {
  name: 'jobs replay',
  summary: 'Runs dead jobs again, with all their attempts: one, or all that fit',
  needs: 'server',
  arguments: [{ name: '[id]', summary: 'the id of the job' }],
  options: [{ flags: '--all', summary: 'all of them, or of those that the filters below name' }, ...filters],
  examples: ['backplane jobs replay 01kazr3xj7fw0v5j9q0m8d2c4e', 'backplane jobs replay --all --agent math --code MODELS_TIMEOUT'],
  async run(io) {
    const [id] = io.args
    const filter = chosen(io)
    const wrong = wrongReplay(id, io.options['all'] === true, Object.keys(filter).length > 0)
    if (wrong !== undefined) { io.err(wrong); return 2 }
    const done = await (id === undefined
      ? post<{ replayed: number }>(io, '/api/v1/dlq/replay', filter)
      : post<{ replayed: number }>(io, `/api/v1/dlq/${encodeURIComponent(id)}/replay`))
    if (!done) return 1
    io.out(io.json ? JSON.stringify(done) : `${done.replayed} ${done.replayed === 1 ? 'job' : 'jobs'} replayed`)
    return 0
  },
}

/** Nobody should replay everything by a slip. */
function wrongReplay(id: string | undefined, all: boolean, filtered: boolean): string | undefined {
  if (id === undefined && !all) return 'name a job, or give --all\n  fix: see `backplane jobs list --status dead`'
  if (id !== undefined && (all || filtered)) return 'give either a job or --all\n  fix: filters go with --all'
  return undefined
}

export default [
  submit, list, show, watch, answer, change('cancel', 'Cancels a job; what runs is told to stop'), change('retry', 'Runs a job again, or at once if it waits'), replay,
] as readonly Command[]
