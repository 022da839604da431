#!/usr/bin/env node
// The CLI's entry. In a checkout it sees first that packages and dist/ are there; an installed package has both.
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const CONDITION = '--conditions=backplane-source'
const root = dirname(dirname(fileURLToPath(import.meta.url)))
const argv = process.argv.slice(2)

/** Runs the sources as they are, in a child process: a resolve condition can only be set at the start of one. */
async function runSource() {
  const { spawn } = await import('node:child_process')
  const child = spawn(process.execPath, [CONDITION, '--import', import.meta.resolve('tsx'), fileURLToPath(import.meta.url), ...argv], { stdio: 'inherit' })
  // A terminal sends Ctrl-C to both; handing it on would be the child's second, which ends it at once.
  const forward = signal => { if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal) }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, forward)
  child.once('error', error => { throw error })
  child.once('close', (code, signal) => {
    for (const each of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.off(each, forward)
    if (signal) process.kill(process.pid, signal)
    else process.exitCode = code ?? 1
  })
}

async function prepare() {
  const { bootstrap, reporting } = await import('./bootstrap.mjs')
  return reporting(async () => {
    await bootstrap(root)
    if (process.env.BACKPLANE_SOURCE !== '1') await (await import('./build.mjs')).build(root)
  })
}

if (process.execArgv.includes(CONDITION)) await (await import('../core/host/main.ts')).main(argv)
else if (!existsSync(join(root, 'core/index.ts'))) await (await import('../dist/core/host/main.js')).main(argv)
else if (await prepare()) {
  if (process.env.BACKPLANE_SOURCE === '1') await runSource()
  else await (await import('../dist/core/host/main.js')).main(argv)
}
