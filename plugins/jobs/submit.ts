import { readFile, stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import { reasonOf, type Command, type CommandIo } from '#core'
import type { Job } from '#contracts/jobs'
import type { JobDetail } from './tables/record.ts'
import { ask, whole } from './watch/server.ts'
import { follow, INTERRUPTED, lineOf } from './watch/watch.ts'

/** As much as a batch may have. */
const MOST_BYTES = 16 * 1_048_576
const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** A mistake in the command line. */
class Misuse extends Error {
  constructor(message: string, readonly fix: string) { super(message) }
}

type Request = Record<string, unknown>
interface Setting {
  readonly flags: string
  readonly summary: string
  /** Where it goes in the request. */
  readonly field: string
  read(given: string, flag: string): unknown
}

const text = (given: string): unknown => given
function count(given: string, flag: string): number {
  if (!/^-?\d+$/.test(given)) throw new Misuse(`${flag} takes a whole number, not "${given}"`, `Write it like ${flag} 7.`)
  return Number(given)
}
function duration(given: string, flag: string): number {
  const [, amount, unit = ''] = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(given) ?? []
  if (amount === undefined) throw new Misuse(`${flag} takes a time with its unit, not "${given}"`, `Write it like ${flag} 500ms, 30s, 10m, 2h or 1d.`)
  return Math.round(Number(amount) * UNITS[unit]!)
}
function data(given: string, flag: string): unknown {
  try { return JSON.parse(given) } catch (error) { throw new Misuse(`what ${flag} was given is not JSON: ${reasonOf(error)}`, `Quote it for the shell, as in ${flag} '{"n":1}'; a plain text goes without ${flag}.`) }
}

const settings: readonly Setting[] = [
  { flags: '--agent <agent>', summary: 'the agent to run, instead of a type', field: 'agent', read: text },
  { flags: '--project <project>', summary: 'the project it belongs to', field: 'project_id', read: text },
  { flags: '--priority <0-9>', summary: 'the highest goes first; 5 if not given', field: 'priority', read: count },
  { flags: '--delay <time>', summary: 'not before so much time has passed: 30s, 10m, 2h', field: 'delay_ms', read: duration },
  { flags: '--at <moment>', summary: 'not before this moment: 2026-01-31T09:00:00Z', field: 'run_at', read: text },
  { flags: '--max-attempts <count>', summary: 'after so many it is dead', field: 'max_attempts', read: count },
  { flags: '--timeout <time>', summary: 'of one attempt', field: 'timeout_ms', read: duration },
  { flags: '--idempotency-key <key>', summary: 'the same command with this key gets the first job; of a file, each line has a key of its own made from it', field: 'idempotency_key', read: text },
  { flags: '--dedupe <key>', summary: 'no two unfinished jobs of a project have one key: you get the one that has it', field: 'dedupe.key', read: text },
  { flags: '--replace', summary: 'with --dedupe: one that has not begun becomes this', field: 'dedupe.mode', read: () => 'replace' },
  { flags: '--dedupe-ttl <time>', summary: 'with --dedupe: the job has the key for so long, even if it has ended', field: 'dedupe.ttl_ms', read: duration },
  { flags: '--parent <id>', summary: 'the unfinished job that it is a part of', field: 'parent_id', read: text },
  { flags: '--metadata <json>', summary: 'kept with the job', field: 'metadata', read: data },
]
const flagOf = ({ flags }: Setting): string => flags.split(' ')[0]!
const keyOf = (setting: Setting): string => flagOf(setting).slice(2).replaceAll(/-(\w)/g, (_, letter: string) => letter.toUpperCase())

/** What the options say, as the server takes it. */
function requestOf({ options }: CommandIo): Request {
  const request: Request = {}
  for (const setting of settings) {
    const given = options[keyOf(setting)]
    if (given === undefined) continue
    const value = setting.read(String(given), flagOf(setting))
    const [field, inner] = setting.field.split('.') as [string, string?]
    request[field] = inner === undefined ? value : { ...request[field] as object, [inner]: value }
  }
  const dedupe = request['dedupe'] as { key?: string } | undefined
  if (dedupe && dedupe.key === undefined) throw new Misuse('--replace and --dedupe-ttl go with --dedupe', 'Give the key: --dedupe nightly.')
  return request
}

async function readAll({ stdin }: CommandIo): Promise<string> {
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of stdin()) {
    if ((bytes += chunk.length) > MOST_BYTES) throw tooLarge('standard input')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}
const tooLarge = (what: string) => new Misuse(`${what} has more than ${MOST_BYTES} bytes`, 'Keep it elsewhere and submit a reference; split a file of jobs.')

async function textOf(io: CommandIo, file: string): Promise<string> {
  if (file === '-') return readAll(io)
  let read: string
  try {
    if ((await stat(file)).size > MOST_BYTES) throw tooLarge(file)
    read = await readFile(file, 'utf8')
  } catch (error) {
    if (error instanceof Misuse) throw error
    // npm runs scripts in the folder of the package, not where you are.
    throw new Misuse(`${resolve(file)} can't be read: ${reasonOf(error).replace(/,.*$/, '')}`, 'Correct the path, or write it in full.')
  }
  return read
}

/** The words, standard input for `-`, or the data of --input. */
async function inputOf(io: CommandIo, words: readonly string[]): Promise<unknown> {
  const given = io.options['input'] as string | undefined
  if (given !== undefined && words.length) throw new Misuse(`there is an input twice: --input, and "${words.join(' ').slice(0, 60)}"`, 'Give one of them.')
  if (given !== undefined) return data(given === '-' || given.startsWith('@') ? await textOf(io, given === '-' ? given : given.slice(1)) : given, '--input')
  if (!words.length) throw new Misuse('there is no input', 'Write it after the name, or as data: --input \'{"n":1}\', --input @file.json, --input - for standard input; --input null if there is none.')
  return words.length === 1 && words[0] === '-' ? (await readAll(io)).trimEnd() : words.join(' ')
}

const post = <T>(io: CommandIo, path: string, body: unknown, called: (field: string) => string) =>
  ask<T>(io, path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }, called)

/** `body.delay_ms` was written as `--delay`. */
function optionOf(field: string): string {
  const path = field.replace(/^body\./, '')
  const setting = settings.find(each => each.field === path || each.field.split('.')[0] === path)
  return setting ? flagOf(setting) : path === 'input' || path.startsWith('input.') ? path.replace('input', '--input') : field
}

async function submitOne(io: CommandIo): Promise<number> {
  const request = requestOf(io)
  const words = [...io.args]
  if (request['agent'] === undefined) {
    if (!words.length) throw new Misuse('nothing says what is to run', 'Name a type of job, or --agent and an agent of `backplane agents list`.')
    request['type'] = words.shift()
  }
  request['input'] = await inputOf(io, words)
  const job = await post<Job>(io, '/api/v1/jobs', request, optionOf)
  if (!job) return 1
  if (io.options['wait'] !== true) {
    io.out(io.json ? JSON.stringify(job, null, 2) : lineOf(job))
    if (!io.json) io.err(`to follow it: backplane jobs watch ${job.id}`)
    return 0
  }
  if (!io.json) io.err(`job ${job.id}`)
  const code = await follow(io, job.id, io.json)
  if (io.json && code !== INTERRUPTED) io.out(JSON.stringify(await read(io, job.id), null, 2))
  return code
}

async function read(io: CommandIo, id: string): Promise<JobDetail | undefined> {
  const found = await ask<JobDetail>(io, `/api/v1/jobs/${id}`)
  return found && whole(io, found)
}

interface Line { readonly number: number; readonly request: Request }

/** The jobs of a file, one on each line; what the options say goes for those that say nothing else. */
function linesOf(file: string, content: string, shared: Request): Line[] {
  const lines: Line[] = []
  const wrong: string[] = []
  for (const [at, line] of content.split('\n').entries()) {
    if (line.trim() === '') continue
    try {
      const own: unknown = JSON.parse(line)
      if (typeof own !== 'object' || own === null || Array.isArray(own)) throw new Error('it is no map such as {"type":"report","input":1}')
      const key = shared['idempotency_key']
      const kind = 'agent' in own || 'type' in own ? { agent: undefined, type: undefined } : {}
      lines.push({ number: at + 1, request: { ...shared, ...kind, ...(key !== undefined && { idempotency_key: `${key}:${at + 1}` }), ...own } })
    } catch (error) { wrong.push(`line ${at + 1}: ${reasonOf(error)}`) }
  }
  const left = wrong.length > 20 ? [`and ${wrong.length - 20} more`] : []
  const what = file === '-' ? 'standard input' : file
  const told = [`${what} is not one job in JSON on each line:`, ...wrong.slice(0, 20), ...left].join('\n    ')
  if (wrong.length) throw new Misuse(told, 'Correct these lines; nothing was submitted.')
  if (!lines.length) throw new Misuse(`${what} holds no job`, 'Write one on each line: {"agent":"math","input":"1+1"}')
  return lines
}

async function submitFile(io: CommandIo, file: string): Promise<number> {
  const shared = requestOf(io)
  const { agent } = shared
  const beside = io.options['input'] !== undefined || io.args.length > (agent === undefined ? 1 : 0)
  if (beside) throw new Misuse('with --file, each line has its own input', 'Leave out what stands beside it.')
  const [type] = io.args
  const lines = linesOf(file, await textOf(io, file), { ...shared, ...(type !== undefined && { type }) })
  const called = (field: string) => field.replace(/^(?:body\.)?jobs\.(\d+)(\.?)/, (_, at: string, more: string) => `line ${lines[Number(at)]?.number}${more && ', '}`)
  const made = await post<{ items: Job[] }>(io, '/api/v1/jobs/batch', { jobs: lines.map(({ request }) => request) }, called)
  if (!made) return 1
  if (io.options['wait'] !== true) {
    if (io.json) io.out(JSON.stringify(made, null, 2))
    else for (const job of made.items) io.out(lineOf(job))
    return 0
  }
  return waitForAll(io, made.items)
}

/** One after another: the last is as late either way. */
async function waitForAll(io: CommandIo, jobs: readonly Job[]): Promise<number> {
  const ended: JobDetail[] = []
  const codes = new Set<number>()
  for (const { id } of jobs) {
    const code = await follow(io, id, true)
    if (code === INTERRUPTED) return code
    codes.add(code)
    const job = await read(io, id)
    if (!job) return 1
    ended.push(job)
    if (!io.json) io.out(`${lineOf(job)}${job.error ? `  ${job.error.code}` : ''}`)
    if (io.tty && !io.json) io.err(`${ended.length} of ${jobs.length}`)
  }
  if (io.json) io.out(JSON.stringify({ items: ended }, null, 2))
  return codes.has(1) ? 1 : Math.max(...codes)
}

export const submit: Command = {
  name: 'jobs submit',
  summary: 'Submits a job, or those of a file, all or none; with --wait, follows to the end and exits with 1 if it is dead, 3 if it was cancelled',
  needs: 'server',
  arguments: [{ name: '[type-and-input...]', summary: 'a type of job (not with --agent), and a text as its input; `-` reads that from standard input' }],
  options: [
    { flags: '--input <json>', summary: 'the input as data; @file reads it from a file, `-` from standard input' },
    { flags: '--file <file>', summary: 'one job in JSON on each line; `-` reads standard input' },
    { flags: '--wait', summary: 'stay until it has ended, and show what it says and does' },
    ...settings.map(({ flags, summary }) => ({ flags, summary })),
  ],
  examples: [
    'backplane jobs submit --agent math "What is (2+3)*7?" --wait',
    'backplane jobs submit report --input \'{"month":"2026-01"}\' --priority 8 --idempotency-key report-2026-01',
    'backplane jobs submit report --input @report.json --delay 10m --json',
    'backplane jobs submit --agent math --file questions.ndjson --wait',
  ],
  async run(io) {
    const file = io.options['file'] as string | undefined
    try { return await (file === undefined ? submitOne(io) : submitFile(io, file)) } catch (error) {
      if (io.signal.aborted) return INTERRUPTED
      if (!(error instanceof Misuse)) throw error
      io.err(`${error.message}\n  fix: ${error.fix}`)
      return 2
    }
  },
}
