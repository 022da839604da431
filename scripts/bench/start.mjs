import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ROOT, interleave, median, ratio, table, times } from './lib.mjs'

const LIMIT_MS = 60_000

/** A deployment of small plugins, each a folder of its own that the config file names by path. The last one says when all is ready. */
function deployment(count) {
  const folder = mkdtempSync(join(tmpdir(), 'backplane-bench-'))
  mkdirSync(join(folder, 'config'))
  const lines = ['plugins:']
  for (let at = 0; at < count; at++) {
    const place = join(folder, `plugin-${at}`)
    mkdirSync(place)
    writeFileSync(join(place, 'package.json'), `${JSON.stringify({ name: `plugin-${at}`, version: '1.0.0', type: 'module', main: 'index.js' })}\n`)
    writeFileSync(join(place, 'index.js'), `import { definePlugin, definePoint, RuntimeHooks } from 'backplane'
const Part = definePoint('bench.part')
export default definePlugin({
  name: 'plugin-${at}',
  contributes: [Part],
  setup(ctx) {
    ctx.contribute(Part, { name: '${at}' })
    ${at === count - 1 ? `ctx.hook(RuntimeHooks.ready, () => {
      process.stdout.write('\\nBENCH ready\\n')
      setTimeout(() => process.stdout.write('\\nBENCH ' + process.memoryUsage.rss() + '\\n'), 500)
    })` : ''}
  },
})
`)
    lines.push(`  plugin-${at}: { use: ./plugin-${at} }`)
  }
  writeFileSync(join(folder, 'backplane.yaml'), `${lines.join('\n')}\n`)
  // An own default.yaml: the features that come with the product are left out, as here only loading is measured.
  writeFileSync(join(folder, 'config/default.yaml'), 'runtime: { dataDir: data }\n')
  return folder
}

/** Milliseconds from spawn to the first line that says so, and the memory it tells of, if it does. */
function untilReady(args, options, told) {
  return new Promise((resolve, reject) => {
    const from = performance.now()
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options })
    const timer = setTimeout(() => child.kill('SIGKILL'), LIMIT_MS)
    let [out, err, ready, rss] = ['', '', 0, 0]
    child.stdout.on('data', data => {
      out += data
      if (!ready && out.includes('BENCH ready')) ready = performance.now() - from
      rss = Number(/BENCH (\d+)\n/.exec(out)?.[1] ?? 0)
      if (ready && rss) child.kill('SIGTERM')
    })
    child.stderr.on('data', data => { err += data })
    child.on('error', reject)
    child.on('close', code => {
      clearTimeout(timer)
      if (ready && (rss || !told)) resolve({ ms: ready, rssMb: rss / 1e6 })
      else reject(new Error(`node ${args.join(' ')} was not ready (exit code ${code}):\n${err}${out}`))
    })
  })
}

const contenders = folder => ({
  node: () => untilReady(['-e', 'process.stdout.write("BENCH ready\\n" + "BENCH " + process.memoryUsage.rss() + "\\n")'], {}, true),
  // What the installed command does; the checkout's own entry first looks whether it has to compile.
  backplane: () => untilReady(['--input-type=module', '-e', `await (await import(${JSON.stringify(join(ROOT, 'dist/core/host/main.js'))})).main(['start', '--config', 'backplane.yaml'])`], { cwd: folder }, true),
})

/** Process start to ready of the host, with small plugins by path, against a node that does nothing. */
export async function start({ rounds = 11, count = 50 } = {}) {
  const folder = deployment(count)
  try {
    const runs = contenders(folder)
    await runs.backplane()
    const results = await interleave(['node', 'backplane'], rounds, name => runs[name]())
    const of = (name, field) => results.get(name).map(each => each[field])
    const result = Object.fromEntries(['node', 'backplane'].map(name => [name, { ms: median(of(name, 'ms')), rssMb: median(of(name, 'rssMb')) }]))
    const timesNode = ratio(of('backplane', 'ms'), of('node', 'ms'))
    return { name: 'start', rounds, count, ...result, timesNode, passed: timesNode <= 1.4 }
  } finally { rmSync(folder, { recursive: true, force: true }) }
}

export const startText = ({ count, node, backplane, timesNode }) => [
  table(['', 'ms to ready', 'MB at rest'], [['node that does nothing', node.ms.toFixed(0), node.rssMb.toFixed(0)], [`backplane start, ${count} plugins by path`, backplane.ms.toFixed(0), backplane.rssMb.toFixed(0)]]),
  `Start to ready takes ${times(timesNode)} of what bare node takes (aim: at most 1.4x).`,
].join('\n\n')
