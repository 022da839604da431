#!/usr/bin/env node
// npm run bench -- [hooks] [boot] [start] [database] [http] [queue] [engines] [agent]
//   [--json] [--write] [--rounds N] [--counts 1,5] [--batch-ms N] [--at-once 10,50]
import { readFileSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { build } from '../build.mjs'
import { agent, agentText } from './agent.mjs'
import { boot, bootText } from './boot.mjs'
import { database, databaseText } from './database.mjs'
import { engines, enginesText } from './engines.mjs'
import { hooks, hooksText } from './hooks.mjs'
import { http, httpText } from './http.mjs'
import { ROOT, installPeers, peerVersions } from './lib.mjs'
import { queue, queueText } from './queue.mjs'
import { start, startText } from './start.mjs'

const BENCHES = {
  hooks: { run: hooks, text: hooksText, title: 'Hooks', peers: true },
  boot: { run: boot, text: bootText, title: 'Boot of a chain of plugins', peers: true },
  database: { run: database, text: databaseText, title: 'Durable inserts on SQLite', peers: false },
  http: { run: http, text: httpText, title: 'A JSON route through everything', peers: true },
  queue: { run: queue, text: queueText, title: 'Jobs that do nothing, from submit to completed', peers: true },
  engines: { run: engines, text: enginesText, title: 'Jobs that do nothing on Redis and PostgreSQL', peers: true },
  agent: { run: agent, text: agentText, title: 'A run of an agent', peers: true },
  start: { run: start, text: startText, title: 'Process start to ready', peers: false },
}

const page = join(ROOT, 'docs/benchmarks.md')
const [OPEN, CLOSE] = ['<!-- bench:begin -->', '<!-- bench:end -->']

/** Puts these results into the page; those that were not measured this time stay. */
function write(results) {
  let text = readFileSync(page, 'utf8')
  for (const { name, command, machine, peers, body } of results) {
    const [open, close] = [OPEN, CLOSE].map(mark => mark.replace('bench:', `bench:${name}:`))
    const [from, to] = [text.indexOf(open), text.indexOf(close)]
    if (from < 0 || to < from) throw new Error(`docs/benchmarks.md has no ${open} … ${close}; put both lines where the tables of ${name} belong`)
    text = `${text.slice(0, from + open.length)}\n\n\`${command}\`, ${machine}${peers ? `; ${peers}` : ''}.\n\n${body}\n\n${text.slice(to)}`
  }
  writeFileSync(page, text)
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { json: { type: 'boolean' }, write: { type: 'boolean' }, rounds: { type: 'string' }, counts: { type: 'string' }, 'batch-ms': { type: 'string' }, 'at-once': { type: 'string' } },
})
const chosen = positionals.length ? positionals : Object.keys(BENCHES)
for (const name of chosen) if (!(name in BENCHES)) {
  console.error(`bench: there is no "${name}"; there are ${Object.keys(BENCHES).join(', ')}`)
  process.exit(2)
}
const counts = values.counts?.split(',').map(Number)
const options = {
  ...(values.rounds && { rounds: Number(values.rounds) }), ...(values['batch-ms'] && { batchMs: Number(values['batch-ms']) }),
  ...(counts && { counts, count: counts.at(-1) }), ...(values['at-once'] && { atOnce: values['at-once'].split(',').map(Number) }),
}
if (Object.values(options).flat().some(value => !(value > 0))) {
  console.error('bench: --rounds, --counts, --batch-ms and --at-once take numbers above 0, as in --counts 1,5')
  process.exit(2)
}

await build(ROOT)
if (chosen.some(name => BENCHES[name].peers)) installPeers()
const machine = `${cpus().length} cores of ${cpus()[0]?.model.trim() ?? process.arch}, Node ${process.versions.node}`
const results = []
for (const name of chosen) {
  const { run, text, title, peers } = BENCHES[name]
  console.error(`bench: ${name} …`)
  const result = await run(options)
  const body = text(result)
  results.push({ ...result, body, machine, command: `npm run bench -- ${name}`, peers: peers ? peerVersions() : '' })
  if (!values.json) console.log(`${title} (${machine}, medians of ${result.rounds} rounds)\n\n${body}\n`)
}
if (values.json) console.log(JSON.stringify(results.map(({ body, ...result }) => result)))
if (values.write) write(results)
