import { BackplaneError, reasonOf, type Command, type CommandIo } from '#core'
import { Access, type Caller } from '#contracts/access'
import { AgentErrors, Agents, type AgentAnswer, type AgentInfo } from '#contracts/agents'
import type { Problem } from '#contracts/http'
import { Jobs, type Job, type JobError, type JobProgress } from '#contracts/jobs'

const MAX_STDIN = 1024 * 1024
const LOOK_MS = 2_500
/** Of a program that was ended by Ctrl-C. */
const INTERRUPTED = 130

/** Who works at this machine: what `access` makes of its operator. */
const operator = (io: CommandIo): Promise<Caller> => io.get(Access).restore('operator', 'default')

/** The answer, if it is a good one; a problem answer becomes the error that it tells of. */
async function ask(io: CommandIo, path: string, init?: RequestInit): Promise<Response> {
  const answer = await io.server!.fetch(path, { ...init, signal: io.signal })
  if (answer.ok) return answer
  const { code, title, detail, fix } = (await answer.json().catch(() => ({}))) as Partial<Problem>
  const message = detail ?? title ?? `${path} answered ${answer.status}`
  throw new BackplaneError(code ?? 'HTTP_FAILED', { message, fix: fix ?? 'See the server\'s log.', status: answer.status })
}
const read = async <T>(io: CommandIo, path: string): Promise<T> => await (await ask(io, path)).json() as T

/** With its result, if that is kept apart. */
async function readJob(io: CommandIo, id: string): Promise<Job> {
  const job = await read<Job>(io, `/api/v1/jobs/${encodeURIComponent(id)}`)
  return job.result_ref ? { ...job, result: await read(io, job.result_ref.url), result_ref: null } : job
}

/** A frame of the stream, as POST /api/v1/agents/:name/run sends it. */
type Frame = { readonly seq: number } & (
  | { readonly type: 'start'; readonly job_id: string }
  | Exclude<JobProgress, { type: 'progress' }>
  | { readonly type: 'metadata'; readonly message?: string; readonly percent?: number }
  | { readonly type: 'done'; readonly job_id: string; readonly text: string }
  | JobError & { readonly type: 'error'; readonly job_id: string; readonly status?: string }
)
/** How a run ended; without `text` it has no answer. */
interface Ending { readonly job_id: string; readonly text?: string; readonly status: string; readonly error?: JobError | null; readonly job?: Job }

/** Shows a run as it goes: its text on standard output, its tools beside it. */
class Screen {
  said = ''
  constructor(readonly io: CommandIo) {}

  /** What a model says must not steer a terminal. */
  #plain(text: string): string { return this.io.tty ? text.replace(/[^\P{Cc}\n\t]/gu, '') : text }

  show(progress: JobProgress): void {
    const { io } = this
    if (progress.type === 'token' && !io.json) {
      this.said += progress.content
      io.write(this.#plain(progress.content))
    } else if (progress.type === 'tool_start') io.err(this.#plain(`→ ${progress.tool} ${JSON.stringify(progress.input)}`))
    else if (progress.type === 'tool_end' && progress.error) io.err(this.#plain(`✗ ${progress.tool}: ${progress.error.message}`))
    else if (progress.type === 'progress' && progress.message) io.err(this.#plain(`· ${progress.message}`))
  }

  /** What was streamed may be more (text before a tool call) or less (an answer that was stored already). */
  close(text: string | undefined): void {
    if (text === undefined) { if (this.said) this.io.out('') } else if (this.said.endsWith(text)) this.io.out('')
    else this.io.out(this.#plain(this.said ? `\n${text}` : text))
  }
}

async function runHere(io: CommandIo, agent: string, input: unknown, screen: Screen): Promise<Ending> {
  const request = { type: 'agent', agent, input: { agent, input } }
  const job = await io.get(Jobs).run(await operator(io), request, { signal: io.signal, onProgress: progress => screen.show(progress) })
  return { job_id: job.id, status: job.status, error: job.error, job, ...(job.status === 'completed' && { text: (job.result as AgentAnswer).text }) }
}

/** What holds up a job that has not begun, once. */
async function tellHoldup(io: CommandIo, id: string): Promise<void> {
  const { held_up } = await read<{ held_up?: { message: string; fix: string } | null }>(io, `/api/v1/jobs/${encodeURIComponent(id)}`).catch(() => ({ held_up: null }))
  if (held_up && !io.signal.aborted) io.err(`held up: ${held_up.message}\n  fix: ${held_up.fix}`)
}

async function runOnServer(io: CommandIo, agent: string, input: unknown, screen: Screen): Promise<Ending> {
  const headers = { 'content-type': 'application/json', accept: 'text/event-stream' }
  const answer = await ask(io, `/api/v1/agents/${encodeURIComponent(agent)}/run`, { method: 'POST', headers, body: JSON.stringify({ input }) })
  let job_id = ''
  let look: NodeJS.Timeout | undefined
  try {
    for await (const { data } of io.server!.events(answer, { signal: io.signal })) {
      const frame = JSON.parse(data) as Frame
      clearTimeout(look)
      if (frame.type === 'start') {
        job_id = frame.job_id
        look = setTimeout(() => void tellHoldup(io, job_id), LOOK_MS)
        look.unref()
      } else if (frame.type === 'done') return { job_id, status: 'completed', text: frame.text }
      else if (frame.type === 'error') return { job_id, status: frame.status ?? 'lost', error: frame }
      else screen.show(frame.type === 'metadata' ? { ...frame, type: 'progress' } : frame)
    }
  } catch (error) { if (!io.signal.aborted) io.err(`the connection broke: ${reasonOf(error)}`) } finally { clearTimeout(look) }
  // The server cancels what nobody waits for any more.
  if (io.signal.aborted) return { job_id, status: 'cancelled' }
  io.err(`the job may go on; follow it with: backplane jobs watch ${job_id}`)
  return { job_id, status: 'lost' }
}

/** The words, standard input for `-`, or the data of --input-json. */
async function inputOf(io: CommandIo): Promise<unknown> {
  const { args: [, ...words], options } = io
  const json = options['inputJson'] as string | undefined
  if (json !== undefined) {
    try { return JSON.parse(json === '-' ? await readAll(io) : json) } catch (error) {
      if (io.signal.aborted || AgentErrors.INPUT.is(error)) throw error
      const message = `what --input-json was given is not JSON: ${reasonOf(error)}`
      throw new BackplaneError('AGENTS_INPUT', { message, fix: 'Quote it for the shell: --input-json \'{"n":1}\'.' })
    }
  }
  if (!words.length) throw AgentErrors.NO_INPUT()
  return words.length === 1 && words[0] === '-' ? (await readAll(io)).trimEnd() : words.join(' ')
}

async function readAll({ args: [agent], stdin }: CommandIo): Promise<string> {
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of stdin()) {
    bytes += chunk.length
    if (bytes > MAX_STDIN) throw AgentErrors.INPUT({ agent, reason: `standard input has more than ${MAX_STDIN} bytes` })
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}

async function runAgent(io: CommandIo): Promise<number> {
  const agent = io.args[0]!
  const screen = new Screen(io)
  let input: unknown
  try { input = await inputOf(io) } catch (error) { if (io.signal.aborted) return INTERRUPTED; throw error }
  const { job_id, text, status, error, job } = await (io.server ? runOnServer : runHere)(io, agent, input, screen)
  if (io.json && !io.signal.aborted) io.out(JSON.stringify(job ?? await readJob(io, job_id), null, 2))
  else if (!io.json) screen.close(text)
  if (status === 'completed') return 0
  if (status !== 'lost' || error) io.err(`job ${job_id} is ${status}${error ? `: ${error.message} (${error.code})${error.fix ? `\n  fix: ${error.fix}` : ''}` : ''}`)
  return io.signal.aborted ? INTERRUPTED : 1
}

function row({ name, version, state, summary, model, tools }: AgentInfo, width: number): string {
  const named = version === null ? name : `${name} ${version}`
  return `${named.padEnd(width)}  ${state.padEnd(7)}  ${summary}  [${model}${tools.length ? `; ${tools.join(', ')}` : ''}]`
}

const run: Command = {
  name: 'run',
  summary: 'Let an agent answer, here or by the running server',
  needs: 'runtime',
  serverFirst: true,
  arguments: [{ name: '<agent>', summary: 'which one; see `backplane agents list`' }, { name: '[input...]', summary: 'the request; `-` reads it from standard input' }],
  options: [{ flags: '--input-json <json>', summary: 'the input as data, for an agent that takes some; `-` reads it from standard input' }],
  examples: ['backplane run math "What is (2+3)*7, and 15% of 80?"', 'backplane run math - < question.txt'],
  run: runAgent,
}

const list: Command = {
  name: 'agents list',
  summary: 'The agents that can be run',
  needs: 'runtime',
  serverFirst: true,
  examples: ['backplane agents list', 'backplane agents list --json'],
  async run(io) {
    const agents = io.server ? (await read<{ items: AgentInfo[] }>(io, '/api/v1/agents')).items : await io.get(Agents).list(await operator(io))
    if (io.json) return io.out(`${JSON.stringify(agents, null, 2)}`)
    const width = Math.max(...agents.map(({ name, version }) => name.length + (version === null ? 0 : version.length + 1)), 0)
    for (const agent of agents) io.out(row(agent, width))
    if (!agents.length) io.err('There are no agents. Load agent-pack-core, or declare some under plugins.agents.config.agents.')
  },
}

const info: Command = {
  name: 'agents info',
  summary: 'One agent: its version, state, model and tools',
  needs: 'runtime',
  serverFirst: true,
  arguments: [{ name: '<name>', summary: 'which one' }],
  examples: ['backplane agents info math'],
  async run(io) {
    const name = io.args[0]!
    const agent = io.server ? await read<AgentInfo>(io, `/api/v1/agents/${encodeURIComponent(name)}`) : await io.get(Agents).get(await operator(io), name)
    if (io.json) return io.out(`${JSON.stringify(agent, null, 2)}`)
    const { name: named, summary, version, plugin, state, running, model, tools } = agent
    const lines = {
      name: named, summary, version: version ?? 'none', plugin, state: running ? `${state}, ${running} running` : state, model, tools: tools.join(', ') || 'none',
    }
    for (const [key, value] of Object.entries(lines)) io.out(`${key.padEnd(8)} ${value}`)
  },
}

export default [run, list, info]
