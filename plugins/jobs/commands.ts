import type { Command, CommandIo } from '#core'
import type { Job, Page } from '#contracts/jobs'
import type { JobDetail } from './record.ts'

async function ask<T>(io: CommandIo, path: string): Promise<T | undefined> {
  const response = await io.server!.fetch(path, { signal: io.signal })
  const body = await response.json() as T & { detail?: string; title?: string; fix?: string }
  if (response.ok) return body
  io.err(`${body.detail ?? body.title ?? `the server answered ${response.status}`}${body.fix ? `\n  fix: ${body.fix}` : ''}`)
  return undefined
}

const line = (job: Job) =>
  [job.id, job.status.padEnd(9), (job.agent ?? job.type).padEnd(16), `${job.attempt}/${job.max_attempts}`, job.created_at].join('  ')
const text = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value, null, 2))

const list: Command = {
  name: 'jobs list',
  summary: 'Lists jobs, the newest first',
  needs: 'server',
  options: [
    { flags: '--status <status>', summary: 'only these: queued, running, completed, failed, dead, cancelled' },
    { flags: '--agent <agent>', summary: 'only those of this agent' },
    { flags: '--limit <count>', summary: 'at most so many (100)', default: '20' },
    { flags: '--cursor <id>', summary: 'those after this one' },
  ],
  examples: ['backplane jobs list --status dead'],
  async run(io) {
    const query = new URLSearchParams()
    for (const key of ['status', 'agent', 'limit', 'cursor']) if (io.options[key] !== undefined) query.set(key, String(io.options[key]))
    const page = await ask<Page<Job>>(io, `/api/v1/jobs?${query}`)
    if (!page) return 1
    if (io.json) io.out(JSON.stringify(page, null, 2))
    else for (const job of page.items) io.out(line(job))
    if (!io.json && !page.items.length) io.err('no jobs')
    if (!io.json && page.next) io.err(`more: --cursor ${page.next}`)
    return 0
  },
}

const show: Command = {
  name: 'jobs show',
  summary: 'Shows a job with its attempts and steps',
  needs: 'server',
  arguments: [{ name: '<id>', summary: 'the id of the job' }],
  async run(io) {
    const job = await ask<JobDetail>(io, `/api/v1/jobs/${encodeURIComponent(io.args[0] ?? '')}`)
    if (!job) return 1
    if (io.json) { io.out(JSON.stringify(job, null, 2)); return 0 }
    io.out(line(job))
    io.out(`input: ${text(job.input)}`)
    if (job.result !== null) io.out(`result: ${text(job.result)}`)
    if (job.error) io.out(`error: ${job.error.code}: ${job.error.message}`)
    for (const { attempt, outcome, started_at, finished_at, error } of job.attempts) {
      io.out(`attempt ${attempt}: ${outcome ?? 'running'}  ${started_at} to ${finished_at ?? 'now'}${error ? `  ${error.code}` : ''}`)
    }
    for (const each of job.steps) io.out(`step ${each.name}: attempt ${each.attempt}, ${each.finished_at}`)
    return 0
  },
}

export default [list, show] as readonly Command[]
