// npm run chaos -- --all [--show 1,3] [--engine embedded-sqlite] [--seed N] [--scale 0.1] [--json] [--write] [--resume] [--host FOLDER]
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { snapshot } from './host.ts'
import { living } from './instance.ts'
import { isWritten, text, write } from './report.ts'
import { ENGINES, type Result } from './show.ts'
import { isOn, perform, SHOWS } from './shows.ts'

function refuse(why: string): never {
  console.error(`chaos: ${why}`)
  process.exit(2)
}

/** What was named of what there is; all of it if nothing was. */
function chosen<T>(what: string, named: string | undefined, all: readonly T[], nameOf: (each: T) => string): readonly T[] {
  const names = named?.split(',').map(each => each.trim())
  for (const name of names ?? []) if (!all.some(each => nameOf(each) === name)) refuse(`there is no ${what} "${name}"; there are ${all.map(nameOf).join(', ')}`)
  return all.filter(each => names?.includes(nameOf(each)) ?? true)
}

const { values } = parseArgs({ options: {
  all: { type: 'boolean' }, show: { type: 'string' }, engine: { type: 'string' }, seed: { type: 'string' }, scale: { type: 'string' },
  json: { type: 'boolean' }, write: { type: 'boolean' }, resume: { type: 'boolean' }, host: { type: 'string' },
} })
const shows = chosen('show', values.show, SHOWS, each => String(each.number))
const engines = chosen('engine', values.engine, ENGINES, each => each.name)
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31))
const scale = Number(values.scale ?? 1)
if (!Number.isInteger(seed) || seed < 0) refuse('--seed takes a whole number')
if (!(scale > 0 && scale <= 10)) refuse('--scale takes a number above 0, as in --scale 0.1')
if (values.resume && !values.seed) refuse('--resume takes a --seed, that of the run which was interrupted')

// All that it makes is in here, so that a run which is interrupted leaves nothing. PostgreSQL is another user. Servers that outlive us
// know this name, and remove it.
const home = mkdtempSync(join(tmpdir(), 'backplane-test-chaos-'))
chmodSync(home, 0o755)
process.env['TMPDIR'] = home
process.once('exit', () => { for (const each of living) each.kill('SIGKILL'); rmSync(home, { recursive: true, force: true, maxRetries: 3 }) })

// `--host`: another version that is built already.
const host = values.host ? { folder: resolve(values.host) } : await snapshot()
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))
const machine = `${cpus().length} cores of ${cpus()[0]?.model.trim() ?? process.arch}, Node ${process.versions.node}`
const results: Result[] = []
for (const engine of engines) for (const show of shows.filter(each => isOn(each, engine))) {
  if (values.resume && isWritten({ show: show.number, engine: engine.name, seed, scale })) continue
  const say = (line: string) => console.error(`  show ${show.number} ${engine.name}: ${line}`)
  console.error(`chaos: show ${show.number}, ${show.title}, on ${engine.name}, seed ${seed}, scale ${scale}`)
  const result = await perform(show, { engine, host: host.folder, seed, scale, say })
  results.push(result)
  console.error(text([result]))
  if (values.write) write([result], machine)
}
const broken = results.filter(each => each.violations.length > 0)
if (values.json) console.log(JSON.stringify({ machine, results }))
else {
  console.log(`\n${machine}, seed ${seed}, scale ${scale}\n\n${text(results)}`)
  for (const { show, engine, violations } of broken) for (const each of violations) console.log(`\nshow ${show} on ${engine}: ${each}`)
  console.log(`\n${results.length - broken.length} of ${results.length} shows kept every promise`)
}
process.exitCode = broken.length ? 1 : 0
