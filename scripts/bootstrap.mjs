#!/usr/bin/env node
// Makes a checkout ready to run: packages as package-lock.json says, and better-sqlite3's native file. Needs nothing but Node and npm.
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  accessSync, constants, copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, renameSync, rmSync, statSync,
  utimesSync, writeFileSync,
} from 'node:fs'
import { homedir, hostname } from 'node:os'
import { basename, delimiter, dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

const NATIVE = 'node_modules/better-sqlite3/build/Release/better_sqlite3.node'
const STAMP = 'node_modules/.backplane-stamp'
const HEARTBEAT_MS = 2_000
const STALE_MS = 30_000

/** A failure with what to do about it. Printed as `CODE: message` and `fix: …`. */
export class BootstrapError extends Error {
  constructor(code, message, fix, output = '') {
    super(message)
    this.code = code
    this.fix = fix
    this.output = output
  }
  report() { return `${this.output ? `${this.output.trimEnd()}\n\n` : ''}${this.code}: ${this.message}\n  fix: ${this.fix}\n` }
}

/** Says on standard error what goes on and for how long: in place on a terminal, else a line every 15 s. */
export function progress(title, stream = process.stderr) {
  const from = Date.now()
  const seconds = () => `${Math.round((Date.now() - from) / 1000)} s`
  stream.write(stream.isTTY ? `${title} …` : `${title} …\n`)
  const timer = setInterval(() => stream.write(stream.isTTY ? `\r\x1b[K${title} … ${seconds()}` : `${title} … ${seconds()}\n`), stream.isTTY ? 1_000 : 15_000)
  return {
    end(word) {
      clearInterval(timer)
      stream.write(stream.isTTY ? `\r\x1b[K${title}: ${word}, ${seconds()}\n` : `${title}: ${word}, ${seconds()}\n`)
    },
  }
}

function read(file) {
  try { return readFileSync(file, 'utf8') } catch (error) { if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return undefined; throw error }
}

/**
 * Runs `work` while no other process does so under the same lock folder. The folder of a holder that is dead is taken over:
 * its process is gone, or it has not touched the folder for half a minute.
 */
export async function withLock(folder, waiting, work) {
  const owner = join(folder, 'owner')
  const me = `${hostname()} ${process.pid} ${Date.now()} ${Math.random()}`
  for (let told = false; ; await sleep(100)) {
    try {
      mkdirSync(folder)
      writeFileSync(owner, me)
      break
    } catch (error) {
      // ENOENT: somebody took the new folder for a stale one before its owner was written.
      if (error.code === 'ENOENT' && existsSync(dirname(folder))) continue
      if (error.code !== 'EEXIST') throw error
    }
    if (stale(folder, owner)) {
      // Renaming is atomic: of several that wait, one takes the dead holder's folder away.
      const away = `${folder}.${process.pid}.${Date.now()}`
      const seen = read(owner)
      try { renameSync(folder, away) } catch { continue }
      if (read(join(away, 'owner')) === seen) rmSync(away, { recursive: true, force: true })
      else try { renameSync(away, folder) } catch { rmSync(away, { recursive: true, force: true }) }
      continue
    }
    if (!told) process.stderr.write(`${waiting}\n`)
    told = true
  }
  const beat = setInterval(() => { try { utimesSync(folder, new Date(), new Date()) } catch { /* taken over */ } }, HEARTBEAT_MS)
  try { return await work() } finally {
    clearInterval(beat)
    if (read(owner) === me) rmSync(folder, { recursive: true, force: true })
  }
}

function stale(folder, owner) {
  try {
    const [host, pid] = (read(owner) ?? '').split(' ')
    const age = Date.now() - statSync(folder).mtimeMs
    if (age > STALE_MS) return true
    if (!pid) return age > HEARTBEAT_MS * 2
    if (host !== hostname()) return false
    try { process.kill(Number(pid), 0); return false } catch (error) { return error.code === 'ESRCH' }
  } catch { return false }
}

/** Does what npm installed last equal what the lock file asks for? */
function installed(root, lock) {
  const text = read(join(root, 'node_modules/.package-lock.json'))
  if (text === undefined) return false
  const have = JSON.parse(text).packages
  return Object.entries(JSON.parse(lock).packages).every(([path, wanted]) =>
    path === '' || wanted.optional || wanted.devOptional && !have[path] || have[path]?.version === wanted.version)
}

function onPath(name, env) {
  return (env.PATH ?? '').split(delimiter).some(folder => {
    try { accessSync(join(folder, name), constants.X_OK); return true } catch { return false }
  })
}

/** Runs a program quietly; resolves to its exit code and what it printed. */
export function run(file, args, cwd) {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'], env: process.env })
    let output = ''
    const keep = chunk => { output = (output + chunk).slice(-20_000) }
    child.stdout.on('data', keep)
    child.stderr.on('data', keep)
    child.once('error', reject)
    child.once('close', (code, signal) => resolve({ code: code ?? signal, output }))
  })
}

async function npm(root, title, args) {
  const cli = process.env.npm_execpath
  const own = cli !== undefined && basename(cli) === 'npm-cli.js' && existsSync(cli)
  if (!own && !onPath('npm', process.env)) {
    throw new BootstrapError('BOOTSTRAP_NPM_MISSING', 'npm was not found on PATH', 'Install npm (it comes with Node.js 20.19 or later), then start again.')
  }
  const line = progress(title)
  const { code, output } = await (own ? run(process.execPath, [cli, ...args], root) : run('npm', args, root))
  line.end(code === 0 ? 'done' : 'failed')
  return { code, output }
}

async function install(root) {
  const { code, output } = await npm(root, 'installing packages (npm ci)', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'])
  if (code === 0) return
  if (/ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|ENOTCACHED/.test(output)) {
    throw new BootstrapError('BOOTSTRAP_OFFLINE', 'npm could not reach its registry', 'Check the network and the proxy settings (`npm config get registry`), then start again.', output)
  }
  if (/EACCES|EPERM|EROFS/.test(output)) {
    throw new BootstrapError('BOOTSTRAP_NOT_WRITABLE', `npm may not write in ${root}`, 'Make the folder and the npm cache writable for this user, then start again.', output)
  }
  throw new BootstrapError('BOOTSTRAP_NPM_FAILED', `npm ci ended with ${code}`, 'See what npm says above; `git checkout package.json package-lock.json` undoes local changes of the two.', output)
}

/** Can this Node load it? In a process of its own, since a wrong file may end the process. */
const loads = async root => (await run(process.execPath, ['-e', 'new (require("better-sqlite3"))(":memory:").close()'], root)).code === 0

async function provideNative(root) {
  const file = join(root, NATIVE)
  const folder = join(root, 'node_modules/better-sqlite3')
  const { version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'backplane')
  const kept = join(cache, `better-sqlite3-${version}-${process.versions.modules}-${process.platform}-${process.arch}.node`)
  const place = (from, to) => {
    mkdirSync(dirname(to), { recursive: true })
    const draft = `${to}.${process.pid}`
    copyFileSync(from, draft)
    renameSync(draft, to)
  }
  const keep = () => {
    try { if (!existsSync(kept)) place(file, kept) } catch (error) {
      process.stderr.write(`could not keep better-sqlite3's native file in ${cache}: ${error.message}\n`)
    }
  }
  if (existsSync(file) && await loads(root)) return keep()
  if (existsSync(kept)) {
    place(kept, file)
    if (await loads(root)) return
    rmSync(kept, { force: true })
    rmSync(file, { force: true })
  }
  const title = 'better-sqlite3: fetching its native file, else compiling it (about two minutes)'
  const { code, output } = await npm(root, title, ['rebuild', 'better-sqlite3', '--ignore-scripts=false'])
  if (code === 0 && await loads(root)) return keep()
  const noCompiler = /not found: make|find Python|Could not find any Python|(g\+\+|gcc|cc|c\+\+|make): (not found|command not|No such)|spawn (make|gcc|g\+\+) ENOENT/i
  if (noCompiler.test(output) || !['make', 'g++', 'python3'].every(name => onPath(name, process.env))) {
    throw new BootstrapError('BOOTSTRAP_COMPILER_MISSING', 'better-sqlite3 has no prebuilt file here and could not be compiled',
      'Install a C++ compiler, make and Python 3 (Debian, Ubuntu: `apt-get install build-essential python3`), then start again.', output)
  }
  throw new BootstrapError('BOOTSTRAP_NATIVE_FAILED', code === 0 ? 'better-sqlite3 was built but does not load' : `npm rebuild better-sqlite3 ended with ${code}`,
    'See the output above; `npm rebuild better-sqlite3 --foreground-scripts` shows all of it.', output)
}

/** Makes the checkout at `root` ready to run. Does nothing, and asks nobody, if it is. */
export async function bootstrap(root) {
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major < 20 || (major === 20 && minor < 19)) {
    throw new BootstrapError('BOOTSTRAP_NODE_TOO_OLD', `Node.js ${process.versions.node} is too old`, 'Install Node.js 20.19 or later.')
  }
  const lock = read(join(root, 'package-lock.json'))
  if (lock === undefined) throw new BootstrapError('BOOTSTRAP_NO_LOCK', `there is no package-lock.json in ${root}`, 'Restore it: `git checkout package-lock.json`.')
  const stamp = `${createHash('sha256').update(lock).digest('hex')} ${process.versions.modules}-${process.platform}-${process.arch}\n`
  const ready = () => read(join(root, STAMP)) === stamp && existsSync(join(root, NATIVE))
  if (ready()) return
  try {
    await withLock(join(root, '.bootstrap.lock'), 'another start is installing packages here; waiting for it', async () => {
      if (ready()) return
      if (!installed(root, lock)) await install(root)
      await provideNative(root)
      writeFileSync(join(root, STAMP), stamp)
    })
  } catch (error) {
    if (error.code !== 'EACCES' && error.code !== 'EROFS') throw error
    throw new BootstrapError('BOOTSTRAP_NOT_WRITABLE', `${root} is not writable: ${error.message}`, 'Make the folder writable for this user, or run `npm ci` as its owner.')
  }
}

/** Is this a checkout (sources beside it) and not an installed package? */
export const isCheckout = root => existsSync(join(root, 'core/index.ts'))

/** Every file below `folder`, in order of name, without what `skip` refuses. */
export function walk(folder, skip = () => false) {
  return readdirSync(folder, { withFileTypes: true })
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap(entry => (skip(entry.name) ? [] : entry.isDirectory() ? walk(join(folder, entry.name), skip) : [join(folder, entry.name)]))
}

/** Was this module started, and not imported? */
export const isMain = url => process.argv[1] !== undefined && fileURLToPath(url) === realpathSync(process.argv[1])

/** Runs `work`; a failure with a fix is printed with it, and the exit code is 1. */
export async function reporting(work) {
  try { await work(); return true } catch (error) {
    if (!(error instanceof BootstrapError)) throw error
    process.stderr.write(error.report())
    process.exitCode = 1
    return false
  }
}

if (isMain(import.meta.url)) await reporting(() => bootstrap(dirname(dirname(fileURLToPath(import.meta.url)))))
