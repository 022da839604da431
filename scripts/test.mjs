#!/usr/bin/env node
// `npm test`: packages, dist/, then mocha over all tests. What comes after `--` is mocha's; files named there replace all tests.
import { spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
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
/** Runs mocha over these files; resolves to what it counted, and to what it printed unless that was shown. */
function run(files, shown) {
  // On a machine that others use too, a test may be starved once: CI asks it again, and says so at the end. A developer is told at once.
  const strict = process.env.CI ? ['--forbid-only', '--retries', '1'] : []
  const mocha = [join(root, 'node_modules/mocha/bin/mocha.js'), ...strict, ...options, ...files]
  // What was just built starts in half the time of the sources.
  const env = { ...process.env, BACKPLANE_TEST_BUILT: '1' }
  const child = spawn(process.execPath, mocha, { cwd: root, env, stdio: shown ? 'inherit' : ['ignore', 'pipe', 'pipe'] })
  running.add(child)
  let out = ''
  for (const stream of shown ? [] : [child.stdout, child.stderr]) stream.on('data', data => { out += data })
  return new Promise(resolve => child.once('close', code => {
    running.delete(child)
    const [, passed = 0, failed = 1, skipped = 0] = /^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?\s*$/m.exec(out) ?? []
    resolve({ code: code ?? 1, out, passed: Number(passed), failed: Number(failed), skipped: Number(skipped) })
  }))
}

/** Roughly how long a file takes: those that begin processes take far longer than their text tells. */
function weightOf(file) {
  const text = readFileSync(join(root, file), 'utf8')
  return text.length * (/support\/(child|cli|guides)\.ts|child_process|scripts\/chaos/.test(text) ? 6 : 1)
}

/** So many parts that take about as long as each other, the longest files first in each. */
function partsOf(count) {
  const files = readdirSync(join(root, 'test'), { recursive: true, encoding: 'utf8' }).filter(file => file.endsWith('.test.ts')).map(file => join('test', file))
  const parts = Array.from({ length: count }, () => ({ files: [], weight: 0 }))
  for (const { file, weight } of files.map(file => ({ file, weight: weightOf(file) })).sort((a, b) => b.weight - a.weight)) {
    const lightest = parts.reduce((least, each) => (each.weight < least.weight ? each : least))
    lightest.files.push(file)
    lightest.weight += weight
  }
  return parts.map(part => part.files)
}

/** All tests, in one part at once more than there are cores, and at most three: most of the time they wait for processes and servers. */
async function runAll() {
  const lanes = availableParallelism() === 1 ? 1 : 3
  const count = lanes === 1 ? 1 : 9
  const parts = partsOf(count)
  const results = []
  let next = 0
  const lane = async () => {
    while (next < count && !stopped) {
      const at = next++
      const result = await run(parts[at], false)
      results.push(result)
      console.log(`${result.out.trimEnd()}\n\n(part ${results.length} of ${count})`)
    }
  }
  await Promise.all(Array.from({ length: lanes }, lane))
  for (const { out, code } of results) if (code !== 0) console.log(out.slice(Math.max(0, out.search(/^\s+\d+ failing$/m))))
  const again = results.flatMap(({ out }) => out.match(/^SECOND TRY: .*$/gm) ?? [])
  if (again.length) console.log(`\n${again.join('\n')}\n`)
  const sum = field => results.reduce((all, each) => all + each[field], 0)
  const failed = sum('failed') + results.filter(each => each.code !== 0 && each.failed === 0).length + (stopped ? 1 : 0)
  console.log(`${sum('passed')} passed, ${failed} failed${sum('skipped') ? `, ${sum('skipped')} skipped` : ''}`)
  return failed ? 1 : 0
}

const named = args.some(arg => !arg.startsWith('-') && (existsSync(join(root, arg)) || /[*]/.test(arg)))
const options = named ? [] : args
const running = new Set()
let stopped = false
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => { stopped = true; for (const child of running) child.kill(signal) })
if (!ready) console.log('0 passed, 1 failed')
else process.exitCode = named ? (await run(args, true)).code : await runAll()
