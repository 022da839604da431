import { addAbortSignal } from 'node:stream'
import { scope } from '../scope.ts'
import { maskSecrets } from '../secret.ts'
import type { Stray, World } from './world.ts'

/** After that, what keeps the process alive though all is over is named and left. Milliseconds. */
const LINGER_MS = 1_000

/** A shell, npm and a terminal may each hand on the same signal: what comes this soon after the first is no second one. Milliseconds. */
const ECHO_MS = 100

/** The `backplane` command, and the only place that touches the process: exit code 0, 1 for a failure while running, 2 for a mistake in config or use. */
export async function main(argv: readonly string[]): Promise<void> {
  const stop = new AbortController()
  let listener: ((stray: Stray) => void) | undefined
  let first = 0
  let over = false
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => {
    if (stop.signal.aborted && performance.now() - first > ECHO_MS) process.exit(1)
    if (stop.signal.aborted) return
    first = performance.now()
    stop.abort(new DOMException(`the process got ${name}`, 'AbortError'))
  })
  // A reader that went away, as of `| head`, is no failure of ours.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', (error: NodeJS.ErrnoException) => { if (error.code !== 'EPIPE') throw error })
  const stray = (where: Stray['where']) => (error: unknown) => {
    if (listener) { listener({ error, where, plugin: scope.current?.plugin }); return }
    process.stderr.write(maskSecrets(`${where}${over ? ' after the end' : ''}: ${error instanceof Error ? error.stack : String(error)}\n`))
    // What is left over after a clean stop changes nothing of what was done.
    if (!over) process.exit(1)
  }
  process.on('unhandledRejection', stray('unhandled rejection'))
  process.on('uncaughtException', stray('uncaught exception'))

  const world: World = {
    cwd: process.cwd(), env: process.env, pid: process.pid, node: process.execPath, tty: process.stdout.isTTY === true, signal: stop.signal,
    alive: pid => { try { return process.kill(pid, 0) } catch (error) { return (error as NodeJS.ErrnoException).code === 'EPERM' } },
    stdin: () => addAbortSignal(stop.signal, process.stdin),
    out: text => void process.stdout.write(text),
    err: text => void process.stderr.write(text),
    onStray: next => { listener = next },
  }
  const { run } = await import('../cli/cli.ts')
  process.exitCode = await run(argv, world)
  over = true
  setTimeout(() => {
    process.stderr.write(`the process does not end by itself; still open: ${process.getActiveResourcesInfo().filter(each => each !== 'TTYWrap').join(', ')}\n`)
    process.exit()
  }, LINGER_MS).unref()
}
