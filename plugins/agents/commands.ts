import { BackplaneError, type Command, type CommandIo } from '#core'
import { Access, type Caller } from '#contracts/access'
import { Agents, type AgentAnswer, type AgentInfo } from '#contracts/agents'
import type { Problem } from '#contracts/http'
import { Jobs, type Job, type JobProgress } from '#contracts/jobs'

const FINAL = new Set<Job['status']>(['completed', 'dead', 'cancelled'])
const POLL = { first: 20, most: 250 }

/** Who works at this machine: what `access` makes of its operator. */
const operator = (io: CommandIo): Promise<Caller> => io.get(Access).restore('operator', 'default')

/** The answer's JSON; a problem answer becomes the error that it tells of. */
async function ask<T>(io: CommandIo, path: string, init?: RequestInit): Promise<T> {
  const answer = await io.server!.fetch(path, { ...init, signal: io.signal })
  const body: unknown = await answer.json().catch(() => undefined)
  if (answer.ok) return body as T
  const { code, title, detail, fix } = (body ?? {}) as Partial<Problem>
  const message = detail ?? title ?? `${path} answered ${answer.status}`
  throw new BackplaneError(code ?? 'HTTP_FAILED', { message, fix: fix ?? 'See the server\'s log.', status: answer.status })
}

const pause = (ms: number, signal: AbortSignal) => new Promise<void>((resolve, reject) => {
  const aborted = () => { clearTimeout(timer); reject(signal.reason as Error) }
  const timer = setTimeout(() => { signal.removeEventListener('abort', aborted); resolve() }, ms)
  signal.addEventListener('abort', aborted, { once: true })
})

async function runOnServer(io: CommandIo, agent: string, input: string): Promise<Job> {
  let job = await ask<Job>(io, '/api/v1/jobs', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ agent, input }) })
  for (let ms = POLL.first; !FINAL.has(job.status); ms = Math.min(ms * 1.5, POLL.most)) {
    try {
      await pause(ms, io.signal)
      job = await ask<Job>(io, `/api/v1/jobs/${encodeURIComponent(job.id)}`)
    } catch (error) {
      if (io.signal.aborted) io.err(`job ${job.id} goes on; look at it with: backplane jobs show ${job.id}`)
      throw error
    }
  }
  return job
}

/** Shows a run as it goes: its text on standard output, its tools beside it. */
function follow(io: CommandIo): { onProgress(progress: JobProgress): void; readonly said: string } {
  let said = ''
  return {
    get said() { return said },
    onProgress(progress) {
      if (progress.type === 'token' && !io.json) {
        said += progress.content
        io.write(progress.content)
      } else if (progress.type === 'tool_start') io.err(`→ ${progress.tool} ${JSON.stringify(progress.input)}`)
      else if (progress.type === 'tool_end' && progress.error) io.err(`✗ ${progress.tool}: ${progress.error.message}`)
    },
  }
}

async function runAgent(io: CommandIo): Promise<number> {
  const [agent, ...words] = io.args
  const input = words.join(' ')
  const live = follow(io)
  // Without a server no worker would take up a second attempt.
  const request = { type: 'agent', agent, input: { agent, input }, max_attempts: 1 }
  const runHere = async () => io.get(Jobs).run(await operator(io), request, { signal: io.signal, onProgress: live.onProgress })
  const job = io.server ? await runOnServer(io, agent!, input) : await runHere()
  if (io.json) io.out(JSON.stringify(job, null, 2))
  else if (job.status === 'completed') {
    const { text } = job.result as AgentAnswer
    // What was streamed may be more (text before a tool call) or less (an answer that was stored already).
    io.out(live.said.endsWith(text) ? '' : text)
  } else if (live.said) io.out('')
  if (job.status === 'completed') return 0
  io.err(`job ${job.id} is ${job.status}${job.error ? `: ${job.error.message} (${job.error.code})` : ''}`)
  return 1
}

const row = ({ name, summary, model, tools }: AgentInfo, width: number) => `${name.padEnd(width)}  ${summary}  [${model}${tools.length ? `; ${tools.join(', ')}` : ''}]`

const run: Command = {
  name: 'run',
  summary: 'Let an agent answer, here or by the running server',
  needs: 'runtime',
  serverFirst: true,
  arguments: [{ name: '<agent>', summary: 'which one; see `backplane agents list`' }, { name: '<input...>', summary: 'the request' }],
  examples: ['backplane run math "What is (2+3)*7, and 15% of 80?"'],
  run: runAgent,
}

const list: Command = {
  name: 'agents list',
  summary: 'The agents that can be run',
  needs: 'runtime',
  serverFirst: true,
  examples: ['backplane agents list', 'backplane agents list --json'],
  async run(io) {
    const agents = io.server ? (await ask<{ items: AgentInfo[] }>(io, '/api/v1/agents')).items : await io.get(Agents).list(await operator(io))
    if (io.json) return io.out(`${JSON.stringify(agents, null, 2)}`)
    const width = Math.max(...agents.map(agent => agent.name.length), 0)
    for (const agent of agents) io.out(row(agent, width))
    if (!agents.length) io.err('There are no agents. Load agent-pack-core, or declare some under plugins.agents.config.agents.')
  },
}

const info: Command = {
  name: 'agents info',
  summary: 'One agent: its model and its tools',
  needs: 'runtime',
  serverFirst: true,
  arguments: [{ name: '<name>', summary: 'which one' }],
  examples: ['backplane agents info math'],
  async run(io) {
    const name = io.args[0]!
    const agent = io.server ? await ask<AgentInfo>(io, `/api/v1/agents/${encodeURIComponent(name)}`) : await io.get(Agents).get(await operator(io), name)
    if (io.json) return io.out(`${JSON.stringify(agent, null, 2)}`)
    const lines = { name: agent.name, summary: agent.summary, plugin: agent.plugin, model: agent.model, tools: agent.tools.join(', ') || 'none' }
    for (const [key, value] of Object.entries(lines)) io.out(`${key.padEnd(8)} ${value}`)
  },
}

export default [run, list, info]
