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

/** Seconds of files that take far longer than their text tells. A wrong one costs time and nothing else. */
const LONG = {
  'docs.test.ts': 75, 'system/chaos.test.ts': 40, 'scripts/bench.test.ts': 30, 'plugins/agent-pack-core/sandbox.test.ts': 28, 'plugins/schedules/processes.test.ts': 28,
  'plugins/jobs/walk.test.ts': 25, 'system/clock-skew.test.ts': 20, 'plugins/cluster/redis.test.ts': 20, 'plugins/queue-bullmq/queue-bullmq.test.ts': 20,
  'plugins/events/deployment.test.ts': 20, 'plugins/database/silence.test.ts': 18, 'system/absence.test.ts': 17, 'plugins/database/postgres.test.ts': 16,
  'system/hostile-input.test.ts': 15, 'plugins/jobs/dedupe.test.ts': 15, 'plugins/jobs/limits.test.ts': 15, 'core/swap-under-load.test.ts': 15, 'plugins/redis/redis.test.ts': 14,
  'plugins/queue-bullmq/jobs.test.ts': 14, 'plugins/queue-bullmq/failover.test.ts': 14, 'plugins/sse/processes.test.ts': 14, 'plugins/events/events.test.ts': 14,
  'plugins/agents/agents.test.ts': 13, 'system/waiting-run.test.ts': 13, 'plugins/database/absence.test.ts': 12, 'plugins/models/faults.test.ts': 11, 'plugins/cluster/cluster.test.ts': 10,
}

/** Roughly how long a file takes: those that begin processes take longer than others. */
function secondsOf(file) {
  const text = readFileSync(join(root, 'test', file), 'utf8')
  return LONG[file.replaceAll('\\', '/')] ?? text.length / 3_000 * (/support\/(child|cli|guides)\.ts|child_process|scripts\/chaos/.test(text) ? 3 : 1)
}

/** So many parts that take about as long as each other, the longest files first in each. */
function partsOf(count) {
  const files = readdirSync(join(root, 'test'), { recursive: true, encoding: 'utf8' }).filter(file => file.endsWith('.test.ts'))
  const parts = Array.from({ length: count }, () => ({ files: [], seconds: 0 }))
  for (const { file, seconds } of files.map(file => ({ file, seconds: secondsOf(file) })).sort((a, b) => b.seconds - a.seconds)) {
    const shortest = parts.reduce((least, each) => (each.seconds < least.seconds ? each : least))
    shortest.files.push(join('test', file))
    shortest.seconds += seconds
  }
  return parts.sort((a, b) => b.seconds - a.seconds).map(part => part.files)
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
