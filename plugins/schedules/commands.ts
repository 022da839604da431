import { readFile } from 'node:fs/promises'
import { reasonOf, type Command, type CommandIo } from '#core'
import type { Job } from '#contracts/jobs'
import type { Schedule } from '#contracts/schedules'

interface Refusal {
  readonly code?: string
  readonly detail?: string
  readonly title?: string
  readonly fix?: string
  readonly errors?: readonly { readonly path: string; readonly message: string }[]
}

/** The answer's JSON; nothing, once it is told, if the server refuses. */
async function ask<T>(io: CommandIo, path: string, init: RequestInit = {}): Promise<T | undefined> {
  const { project } = io.options
  const query = project === undefined ? '' : `${path.includes('?') ? '&' : '?'}project_id=${encodeURIComponent(String(project))}`
  const response = await io.server!.fetch(`/api/v1/schedules${path}${query}`, { ...init, signal: io.signal })
  const body = await response.json().catch(() => ({})) as T & Refusal
  if (response.ok) return body
  const errors = (body.errors ?? []).map(({ path: at, message }) => `\n  ${at}: ${message}`).join('')
  const told = body.detail ?? body.title ?? `the server answered ${response.status}`
  io.err(`${body.code ? `${body.code}: ` : ''}${told}${errors}${body.fix ? `\n  fix: ${body.fix}` : ''}`)
  return undefined
}

const pathOf = (io: CommandIo) => `/${encodeURIComponent(io.args[0]!)}`
const stateOf = ({ enabled, next_at }: Schedule) => (enabled ? next_at ?? 'over' : 'paused')
const line = (each: Schedule) =>
  [each.name.padEnd(20), each.cron.padEnd(14), each.time_zone.padEnd(16), (each.request.agent ?? each.request.type).padEnd(12), stateOf(each)]
    .join('  ')

function print(io: CommandIo, schedule: Schedule | undefined): number {
  if (!schedule) return 1
  io.out(io.json ? JSON.stringify(schedule, null, 2) : line(schedule))
  return 0
}

const one = [{ name: '<name>', summary: 'its name' }]
const project = { flags: '--project <project>', summary: 'the project that it belongs to, if not yours' }

const list: Command = {
  name: 'schedules list', summary: 'Lists schedules with the time that comes next', needs: 'server',
  options: [
    { ...project, summary: 'only those of this project' },
    { flags: '--limit <count>', summary: 'at most so many (100)', default: '50' },
    { flags: '--cursor <cursor>', summary: 'those after this one' },
  ],
  async run(io) {
    const query = new URLSearchParams({ limit: String(io.options['limit']) })
    if (io.options['cursor'] !== undefined) query.set('cursor', String(io.options['cursor']))
    const page = await ask<{ items: Schedule[]; next: string | null }>(io, `?${query}`)
    if (!page) return 1
    if (io.json) io.out(JSON.stringify(page, null, 2))
    else for (const each of page.items) io.out(line(each))
    if (!io.json && !page.items.length) io.err('no schedules')
    if (!io.json && page.next) io.err(`more: --cursor ${page.next}`)
    return 0
  },
}

const show: Command = {
  name: 'schedules show', summary: 'Shows a schedule, and how its last firing ended', needs: 'server', arguments: one, options: [project],
  async run(io) {
    const schedule = await ask<Schedule>(io, pathOf(io))
    if (print(io, schedule) || io.json) return schedule ? 0 : 1
    const { request, missed, overlap, last_at, last_job_id, last_error } = schedule!
    io.out(`input: ${JSON.stringify(request.input)}`)
    io.out(`missed: ${missed}, overlap: ${overlap}`)
    if (last_at !== null) io.out(`last: ${last_at}${last_job_id === null ? '' : `, job ${last_job_id}`}`)
    if (last_error) io.out(`error: ${last_error.code}: ${last_error.message}`)
    return 0
  },
}

const put: Command = {
  name: 'schedules put', summary: 'Makes a schedule, or puts this one in its place', needs: 'server', arguments: one,
  options: [
    { flags: '--file <file>', summary: 'what PUT /api/v1/schedules takes, as JSON; instead of the options below' },
    { flags: '--cron <cron>', summary: 'five fields: minute, hour, day of month, month, day of week; six begin with seconds' },
    { flags: '--time-zone <zone>', summary: 'where its hours are read; UTC' },
    { flags: '--agent <agent>', summary: 'the agent to run' }, { flags: '--type <type>', summary: 'another type of job' },
    { flags: '--input <input>', summary: 'what it is to work on: JSON, else a text' },
    { flags: '--missed <policy>', summary: 'of times that nobody fired: skip, once or all' },
    { flags: '--overlap <policy>', summary: 'while the job before runs: allow or skip' },
    project,
  ],
  examples: [
    'backplane schedules put nightly --cron "0 2 * * *" --time-zone Europe/Berlin --agent math --input "2+2"',
    'backplane schedules put nightly --file nightly.json',
  ],
  async run(io) {
    const { file, cron, timeZone, agent, type, input, missed, overlap } = io.options
    const given = { cron, time_zone: timeZone, agent, type, input: input === undefined ? undefined : valueOf(String(input)), missed, overlap }
    if ((file === undefined) !== Object.values(given).some(each => each !== undefined)) {
      io.err('give either --file or the other options\n  fix: see `backplane schedules put --help`')
      return 2
    }
    let body = JSON.stringify(given)
    try { if (file !== undefined) body = await readFile(String(file), 'utf8') } catch (error) {
      io.err(`${String(file)} can't be read: ${reasonOf(error)}`)
      return 2
    }
    return print(io, await ask<Schedule>(io, pathOf(io), { method: 'PUT', headers: { 'content-type': 'application/json' }, body }))
  },
}

const valueOf = (text: string): unknown => { try { return JSON.parse(text) as unknown } catch { return text } }

const remove: Command = {
  name: 'schedules remove', summary: 'Removes a schedule; its jobs stay', needs: 'server', arguments: one, options: [project],
  async run(io) {
    if (!await ask(io, pathOf(io), { method: 'DELETE' })) return 1
    if (!io.json) io.err(`${io.args[0]} is removed`)
    return 0
  },
}

const change = (name: string, summary: string): Command => ({
  name: `schedules ${name}`, summary, needs: 'server', arguments: one, options: [project],
  run: async io => print(io, await ask<Schedule>(io, `${pathOf(io)}/${name}`, { method: 'POST' })),
})

const run: Command = {
  name: 'schedules run', summary: 'Submits the job of a schedule now, whatever its times are', needs: 'server', arguments: one, options: [project],
  async run(io) {
    const job = await ask<Job>(io, `${pathOf(io)}/run`, { method: 'POST' })
    if (!job) return 1
    io.out(io.json ? JSON.stringify(job, null, 2) : job.id)
    return 0
  },
}

export default [
  list, show, put, remove, change('pause', 'Lets a schedule rest'), change('resume', 'Lets a schedule go on'), run,
] as readonly Command[]
