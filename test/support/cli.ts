import { spawn, type ChildProcess } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { eventually } from '#core/testing'
import { run as runHere } from '../../core/cli/cli.ts'

export const root = resolve(import.meta.dirname, '../..')
const tsx = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href

export interface Run {
  readonly process: ChildProcess
  readonly out: string
  readonly err: string
  /** Of standard output, those that are JSON. */
  readonly lines: readonly Record<string, any>[]
  /** Resolves to the exit code, or the signal. */
  readonly ended: Promise<number | string>
  /** Waits until it has started; resolves to its address. */
  started(): Promise<string>
  /** Waits for a log line that fits. */
  line(what: string, fits: (line: Record<string, any>) => boolean, from?: number): Promise<Record<string, any>>
}

/** A folder to run the real `backplane` in. `host`: a built copy instead of the sources. */
export function workplace(files: Readonly<Record<string, string>>, host = root) {
  const folder = mkdtempSync(join(tmpdir(), 'cli-'))
  const running = new Set<ChildProcess>()
  const write = (name: string, text: string) => {
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    writeFileSync(join(folder, name), text)
  }
  for (const [name, text] of Object.entries(files)) write(name, text)
  const start = (args: readonly string[], env: Readonly<Record<string, string>> = {}): Run => {
    const flags = host === root && !process.env['BACKPLANE_TEST_BUILT'] ? ['--conditions=backplane-source', '--import', tsx] : []
    const { PATH, HOME, TMPDIR } = process.env
    const child = spawn(process.execPath, [...flags, join(host, 'scripts/backplane.mjs'), ...args],
      { cwd: folder, env: { PATH, HOME, TMPDIR, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
    running.add(child)
    let [out, err] = ['', '']
    child.stdout.on('data', chunk => { out += String(chunk) })
    child.stderr.on('data', chunk => { err += String(chunk) })
    const ended = new Promise<number | string>((done, failed) => {
      child.once('error', failed)
      child.once('close', (code, signal) => { running.delete(child); done(code ?? signal!) })
    })
    return {
      process: child, ended,
      get out() { return out },
      get err() { return err },
      get lines() { return out.split('\n').flatMap(text => { try { return [JSON.parse(text) as Record<string, any>] } catch { return [] } }) },
      async started() { return (await this.line('the start', line => line['msg'] === 'started'))['url'] as string },
      async line(what, fits, from = 0) {
        try {
          const found = await eventually(what, () => this.lines.slice(from).find(fits) ?? (child.exitCode !== null && 'ended'), 30_000)
          if (found === 'ended') throw new Error(`it ended with ${child.exitCode} before ${what}`)
          return found
        } catch (error) { throw new Error(`${(error as Error).message}; it said:\n${out}${err}`, { cause: error }) }
      },
    }
  }
  return {
    folder, write, start,
    /** Begins a process of its own and waits for its end. */
    async spawn(...args: string[]) {
      const it = start(args)
      return { code: await it.ended, out: it.out, err: it.err }
    },
    /** The same command line in this process, which takes a tenth of the time; what plugins print by themselves is not in `out` and `err`. */
    async run(...args: string[]) {
      const { PATH, HOME, TMPDIR } = process.env
      let [out, err] = ['', '']
      const code = await runHere(args, {
        cwd: folder, env: { PATH, HOME, TMPDIR }, pid: process.pid, node: process.execPath, tty: false, signal: new AbortController().signal,
        alive: pid => { try { return process.kill(pid, 0) } catch { return false } },
        async *stdin() {}, out: text => { out += text }, err: text => { err += text }, onStray() {},
      })
      return { code, out, err }
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([...running].map(child => new Promise(done => { child.once('close', done); child.kill('SIGKILL') })))
      rmSync(folder, { recursive: true, force: true })
    },
  }
}
