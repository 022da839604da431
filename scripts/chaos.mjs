#!/usr/bin/env node
// `npm run chaos`: the tests that kill processes, as often as it takes to believe them. What comes after `--` replaces these tests.
// `npm run chaos -- --all`: the shows of docs/reliability.md, on the real product. What comes after it, scripts/chaos/run.ts takes.
import { spawn } from 'node:child_process'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { bootstrap, reporting } from './bootstrap.mjs'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const args = process.argv.slice(2)
const tests = args.length ? args : ['test/**/{kill,crash,contention,postgres,route-swap,swap-under-load,sigterm,walk}.test.ts']
const command = args.includes('--all')
  ? ['--conditions=backplane-source', '--import', 'tsx', 'scripts/chaos/run.ts', ...args]
  : ['scripts/test.mjs', ...tests]

if (await reporting(() => bootstrap(root))) {
  const child = spawn(process.execPath, command, { cwd: root, stdio: 'inherit', env: { ...process.env, BACKPLANE_CHAOS: '1' } })
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal))
  child.once('close', code => { process.exitCode = code ?? 1 })
} else process.exitCode = 1
