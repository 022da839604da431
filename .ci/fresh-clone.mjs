// Clones HEAD, starts it as a stranger would, lets an agent answer, and stops it. The last line is `N passed, N failed`.
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

/** With an empty cache, packages are fetched and better-sqlite3 is compiled in this time. */
const READY_MS = 20 * 60_000
const JOB_MS = 60_000
const STOP_MS = 40_000

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const folder = mkdtempSync(join(tmpdir(), 'backplane-clone-'))
const clone = join(folder, 'clone')
let passed = 0
let failed = 0
let output = ''
let server

/** Each needs the one before: after a failure the rest is not tried. */
async function step(title, work) {
  if (failed) return undefined
  try {
    const result = await work()
    passed++
    console.log(`  ✔ ${title}`)
    return result
  } catch (error) {
    failed++
    console.log(`  ✘ ${title}: ${error.message}`)
    return undefined
  }
}

function freePort() {
  return new Promise((resolve, reject) => {
    const listener = createServer().once('error', reject).listen(0, '127.0.0.1', () => {
      const { port } = listener.address()
      listener.close(() => resolve(port))
    })
  })
}

async function until(ms, what, ask) {
  for (const end = Date.now() + ms; Date.now() < end; await sleep(200)) {
    const found = await ask()
    if (found !== undefined) return found
  }
  throw new Error(`${what} took longer than ${ms / 1000} s`)
}

try {
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  await step('HEAD can be cloned', () => execFileSync('git', ['clone', '--quiet', root, clone], { stdio: ['ignore', 'inherit', 'inherit'] }))
  await step('npm start makes it ready', async () => {
    const ours = Object.entries(process.env).filter(([key]) => !/^(BACKPLANE|npm_|NODE_ENV$)/.test(key))
    const env = { ...Object.fromEntries(ours), PORT: String(port), DATA_DIR: join(folder, 'data') }
    // npm is ended like a person or an init would: by a signal to it alone.
    server = spawn('npm', ['start'], { cwd: clone, env, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
    server.closed = new Promise(resolve => server.once('close', (code, signal) => resolve(code ?? signal)))
    for (const stream of [server.stdout, server.stderr]) stream.on('data', chunk => { output += chunk; process.stdout.write(chunk) })
    await until(READY_MS, 'starting', async () => {
      if (server.exitCode !== null || server.signalCode !== null) throw new Error(`npm start ended with ${server.exitCode ?? server.signalCode}`)
      const answer = await fetch(`${url}/health/ready`).catch(() => undefined)
      await answer?.body?.cancel()
      return answer?.ok ? true : undefined
    })
  })
  const id = await step('a job is accepted', async () => {
    const body = JSON.stringify({ agent: 'math', input: 'What is (2+3)*7, and 15% of 80?' })
    const answer = await fetch(`${url}/api/v1/jobs`, { method: 'POST', headers: { 'content-type': 'application/json' }, body })
    const text = await answer.text()
    if (answer.status !== 202) throw new Error(`${answer.status} ${text}`)
    return JSON.parse(text).id
  })
  await step('it is completed with 35 and 12', async () => {
    const job = await until(JOB_MS, 'the job', async () => {
      const found = await (await fetch(`${url}/api/v1/jobs/${id}`)).json()
      return ['completed', 'failed', 'dead', 'cancelled'].includes(found.status) ? found : undefined
    })
    const text = JSON.stringify(job.result)
    if (job.status !== 'completed' || !/\b35\b/.test(text) || !/\b12\b/.test(text)) throw new Error(JSON.stringify(job))
  })
  await step('SIGTERM ends it with exit code 0', async () => {
    server.kill('SIGTERM')
    const code = await Promise.race([server.closed, sleep(STOP_MS, 'nothing', { ref: false })])
    if (code !== 0) throw new Error(`ended with ${code}`)
  })
} catch (error) {
  failed++
  console.log(error)
} finally {
  if (server && server.exitCode === null && server.signalCode === null) {
    process.kill(-server.pid, 'SIGKILL')
    await server.closed
  }
  rmSync(folder, { recursive: true, force: true })
}
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed ? 1 : 0
