#!/usr/bin/env node
// `npm test`: packages, dist/, then mocha over all tests. What comes after `--` is mocha's; files named there replace all tests.
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { bootstrap, reporting } from './bootstrap.mjs'
import { build } from './build.mjs'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const args = process.argv.slice(2)

const ready = await reporting(async () => {
  await bootstrap(root)
  await build(root)
})
if (ready) {
  // On a machine that others use too, a test may be starved once; CI asks it again, a developer is told at once.
  const named = args.some(arg => !arg.startsWith('-') && (existsSync(join(root, arg)) || /[*]/.test(arg)))
  const mocha = [join(root, 'node_modules/mocha/bin/mocha.js'), ...(process.env.CI ? ['--forbid-only', '--retries', '2', '--timeout', '20000'] : []), ...args, ...(named ? [] : ['test/**/*.test.ts'])]
  const child = spawn(process.execPath, mocha, { cwd: root, stdio: 'inherit' })
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal))
  child.once('close', code => { process.exitCode = code ?? 1 })
} else console.log('0 passed, 1 failed')
