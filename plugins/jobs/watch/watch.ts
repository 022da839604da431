import type { Command, CommandIo } from '#core'
import type { JobUpdate } from '#contracts/job-updates'
import type { Job, JobError, ResultRef } from '#contracts/jobs'
import type { JobDetail } from '../tables/record.ts'
import type { Holdup } from './holdup.ts'
import { whole } from './server.ts'

const LONGEST = 400
const FIRST_LOOK_MS = 2_500
const NEXT_LOOK_MS = 5_000
const EXIT: Readonly<Record<string, number>> = { completed: 0, dead: 1, cancelled: 3 }
export const INTERRUPTED = 130

export const watch: Command = {
  name: 'jobs watch',
  summary: 'Shows what a job says and does, from its beginning until its end; exits with 1 if it is dead, 3 if it was cancelled',
  needs: 'server',
  arguments: [{ name: '<id>', summary: 'the id of the job' }],
  examples: ['backplane jobs watch 01kazr3xj7fw0v5j9q0m8d2c4e', 'backplane jobs watch 01kazr3xj7fw0v5j9q0m8d2c4e --json | jq .type'],
  run: io => follow(io, io.args[0] ?? ''),
}

/** Until it is final; the exit code says how it ended. `quiet`: nothing of it is shown. */
export async function follow(io: CommandIo, id: string, quiet = false): Promise<number> {
  const screen = new Screen(io)
  using vigil = new Vigil(io, id)
  for await (const { data } of io.server!.events(`/sse/jobs/${encodeURIComponent(id)}`, { signal: io.signal })) {
    const update = JSON.parse(data) as JobUpdate
    vigil.saw(update)
    if (!quiet && io.json) io.out(data)
    else if (!quiet) await screen.show(update)
    if (update.final) return EXIT[update.status] ?? 1
  }
  screen.endLine()
  if (!io.signal.aborted) return 1
  io.err(`the job goes on; to end it: backplane jobs cancel ${id}`)
  return INTERRUPTED
}

export const heldUp = ({ message, fix }: Holdup): string => `held up: ${message}\n  fix: ${fix}`

/** Asks, while a job does not begin, what holds it up, and says so once. */
class Vigil implements Disposable {
  #timer: NodeJS.Timeout | undefined
  #told = ''
  #queued = true

  constructor(readonly io: CommandIo, readonly id: string) { this.#later(FIRST_LOOK_MS) }

  saw({ status }: JobUpdate): void {
    if (status === 'queued' && !this.#queued) this.#later(FIRST_LOOK_MS)
    this.#queued = status === 'queued'
    if (!this.#queued) clearTimeout(this.#timer)
  }

  [Symbol.dispose](): void {
    this.#queued = false
    clearTimeout(this.#timer)
  }

  #later(ms: number): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => void this.#look(), ms)
    this.#timer.unref()
  }

  async #look(): Promise<void> {
    const { io, id } = this
    const answer = await io.server!.fetch(`/api/v1/jobs/${encodeURIComponent(id)}`, { signal: io.signal }).catch(() => undefined)
    const { held_up } = (answer?.ok ? await answer.json().catch(() => ({})) : {}) as Partial<JobDetail>
    if (!this.#queued || io.signal.aborted) return
    if (held_up && held_up.reason !== this.#told) io.err(heldUp(held_up))
    this.#told = held_up?.reason ?? ''
    this.#later(NEXT_LOOK_MS)
  }
}

export const lineOf = (job: Job): string =>
  [job.id, job.status.padEnd(9), (job.agent ?? job.type).padEnd(16), `${job.attempt}/${job.max_attempts}`, job.created_at].join('  ')

/** What a model says must not steer a terminal. */
export const plain = ({ tty }: Pick<CommandIo, 'tty'>, text: string): string => (tty ? text.replace(/[^\P{Cc}\n\t]/gu, '') : text)

function waiting({ job_id, questions, children }: Record<string, unknown>): string {
  const asked = (questions as { name: string; question: string }[] | undefined) ?? []
  const answer = `to answer: backplane jobs answer ${job_id} <answer>`
  return [...asked.map(({ name, question }) => `asks (${name}): ${short(question)}`), ...(asked.length ? [answer] : []), ...(children ? ['waits for its children'] : [])].join('\n')
}

const whyOf = ({ code, message, fix }: JobError): string => `${code}: ${message}${fix === undefined ? '' : `\n  fix: ${fix}`}`

const short = (value: unknown): string => {
  const text = typeof value === 'string' ? value : JSON.stringify(value) ?? ''
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text
}

/** What the job says goes to standard output, as it comes; what happens to it to standard error, a line each. */
class Screen {
  #midLine = false
  #said = ''

  constructor(readonly io: CommandIo) {}

  async show(update: JobUpdate): Promise<void> {
    const { type, attempt, error } = update
    if (type === 'token') return this.#say(String(update['content']))
    const told = this.#line(update)
    if (told !== undefined) { this.endLine(); this.io.err(plain(this.io, told)) }
    if (type === 'started' && attempt > 0) this.#said = ''
    if (type === 'completed') await this.#result(update)
    if (type === 'gap' && update.final && update.job && !error) await this.#result(update.job)
    if (update.final) this.endLine()
  }

  endLine(): void {
    if (this.#midLine) this.io.write('\n')
    this.#midLine = false
  }

  #say(said: string): void {
    const text = plain(this.io, said)
    this.io.write(text)
    this.#said += text
    this.#midLine = !text.endsWith('\n')
  }

  /** Unless it was said already. */
  async #result(told: Pick<JobUpdate, 'result'> & { readonly result_ref?: ResultRef | null }): Promise<void> {
    if (this.#said !== '') return
    const { result } = await whole(this.io, told)
    if (result === null || result === undefined) return
    this.io.out(plain(this.io, typeof result === 'string' ? result : JSON.stringify(result, null, 2)))
  }

  #line({ type, status, attempt, error, ...rest }: JobUpdate): string | undefined {
    const why = error && whyOf(error as JobError)
    switch (type) {
      case 'started': return `started, attempt ${attempt}`
      case 'tool_start': return `> ${rest['tool']} ${short(rest['input'])}`
      case 'tool_end': return `< ${rest['tool']} ${why ?? short(rest['output'])}`
      case 'progress': return [rest['percent'] === undefined ? '' : `${rest['percent']} %`, rest['message'] ?? ''].join(' ').trim()
      case 'waiting': return waiting(rest)
      case 'failed': return `attempt ${attempt} failed, and another one follows: ${why}`
      case 'gap': return `what happened before is no longer kept; the job is ${status}`
      case 'token': return undefined
      default: return why ? `${type.replaceAll('_', ' ')}: ${why}` : type.replaceAll('_', ' ')
    }
  }
}
