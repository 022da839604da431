import { spawn, type ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { eventually } from '#core/testing'

/** Loading alone takes long when others use the machine, too. */
const SAID_MS = 60_000

export interface Child {
  readonly process: ChildProcess
  /** What it printed so far. */
  readonly lines: string[]
  readonly errors: () => string
  readonly ended: Promise<void>
  /** Resolves when it has printed this line; rejects with its errors if it ends before. */
  said(line: string): Promise<void>
  /** Writes a line to its standard input. */
  tell(line: string): void
  /** With SIGKILL; resolves when it is gone. */
  kill(): Promise<void>
}

/** Runs a TypeScript file of the tests in a process of its own, and keeps what it prints. */
export function startChild(file: URL, ...args: string[]): Child {
  const child = spawn(process.execPath, ['--import=tsx', '--conditions=backplane-source', fileURLToPath(file), ...args], { stdio: ['pipe', 'pipe', 'pipe'] })
  const lines: string[] = []
  let errors = ''
  child.stderr.on('data', chunk => { errors += String(chunk) })
  createInterface({ input: child.stdout }).on('line', line => lines.push(line))
  const ended = new Promise<void>(resolve => child.on('close', () => resolve()))
  child.stdin.on('error', () => {})
  const tell = (line: string) => void child.stdin.write(`${line}\n`)
  const said = async (line: string) => {
    await eventually(`"${line}"`, () => {
      if (!lines.includes(line) && child.exitCode !== null) throw new Error(`it ended with ${child.exitCode} before "${line}": ${errors}`)
      return lines.includes(line)
    }, SAID_MS)
  }
  return { process: child, lines, said, errors: () => errors, ended, tell, async kill() { child.kill('SIGKILL'); await ended } }
}
