#!/usr/bin/env node
// `npm run chaos`: the tests that kill processes, as often as it takes to believe them. What comes after `--` replaces these tests.
import { spawn } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const args = process.argv.slice(2)
const script = join(dirname(fileURLToPath(import.meta.url)), 'test.mjs')
const tests = args.length ? args : ['test/**/{kill,crash,contention,postgres,route-swap,sigterm,walk}.test.ts']
const child = spawn(process.execPath, [script, ...tests], { stdio: 'inherit', env: { ...process.env, BACKPLANE_CHAOS: '1' } })
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal))
child.once('close', code => { process.exitCode = code ?? 1 })
