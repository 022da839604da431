import { spawn, spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const HERE = fileURLToPath(new URL('.', import.meta.url))
export const ROOT = fileURLToPath(new URL('../..', import.meta.url))
export const PEERS = [
  'ai', 'avvio', 'bullmq', 'cordis', 'emittery', 'fastify', 'graphile-worker', 'hookable', 'ioredis', 'openai', 'pg-boss', 'plainjob', 'tapable',
]

/** Middle value; the mean of the two middle ones if their number is even. */
export function median(values) {
  const sorted = [...values].sort((a, b) => a - b)
  const at = sorted.length >> 1
  return sorted.length % 2 ? sorted[at] : (sorted[at - 1] + sorted[at]) / 2
}

/** The median of a[i] / b[i]: what shook the machine in one round shook both. */
export const ratio = (a, b) => median(a.map((value, at) => value / b[at]))

/** Every contender once a round, each round beginning with another one, so that no place in the line is better. */
export async function interleave(names, rounds, measure) {
  const results = new Map(names.map(name => [name, []]))
  for (let round = 0; round < rounds; round++) {
    for (let at = 0; at < names.length; at++) {
      const name = names[(at + round) % names.length]
      results.get(name).push(await measure(name))
    }
  }
  return results
}

/** Runs a program to its end and gives its output and the milliseconds from spawn to exit. */
export function run(command, args, options = {}) {
  return new Promise((resolve, reject) => {
    const from = performance.now()
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options })
    let [out, err] = ['', '']
    child.stdout.on('data', data => { out += data })
    child.stderr.on('data', data => { err += data })
    let ms = 0
    child.on('error', reject)
    child.on('exit', () => { ms = performance.now() - from })
    child.on('close', code => (code === 0 ? resolve({ out, ms }) : reject(new Error(`${command} ${args.join(' ')} ended with ${code}:\n${err || out}`))))
  })
}

/** Runs one of the children beside this file; what it prints last is its answer, as JSON. */
export async function runChild(file, args = [], options) {
  const { out, ms } = await run(process.execPath, ['--no-warnings', join(HERE, file), ...args.map(String)], options)
  return { ...JSON.parse(out.trim().split('\n').at(-1)), ms }
}

export const peersInstalled = () => PEERS.every(peer => existsSync(join(HERE, 'node_modules', peer, 'package.json')))

export function installPeers() {
  if (peersInstalled()) return
  console.error('bench: installing the peers into scripts/bench/node_modules …')
  const { status } = spawnSync('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], { cwd: HERE, stdio: ['ignore', 2, 2] })
  if (status !== 0) throw new Error('the peers could not be installed; run `npm ci` in scripts/bench and read its answer')
}

/** Which releases were measured. */
export const peerVersions = () => Object.entries(JSON.parse(readFileSync(join(HERE, 'package.json'), 'utf8')).dependencies).map(each => each.join(' ')).join(', ')

/** A table that reads well as text and as Markdown. */
export function table(head, rows) {
  const width = head.map((title, at) => Math.max(title.length, ...rows.map(row => String(row[at]).length)))
  const line = cells => `| ${cells.map((cell, at) => (at ? String(cell).padStart(width[at]) : String(cell).padEnd(width[at]))).join(' | ')} |`
  return [line(head), `|${width.map((each, at) => (at ? `${'-'.repeat(each + 1)}:` : '-'.repeat(each + 2))).join('|')}|`, ...rows.map(line)].join('\n')
}

export const times = value => (Number.isFinite(value) ? `${value >= 10 ? value.toFixed(0) : value.toFixed(2)}x` : '–')
