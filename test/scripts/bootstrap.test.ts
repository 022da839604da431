import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { withLock } from '../../scripts/bootstrap.mjs'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))

function node(args: readonly string[], env: NodeJS.ProcessEnv = process.env): Promise<{ code: number | null; output: string }> {
  return new Promise((done, fail) => {
    const child = spawn(process.execPath, args, { env, stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => { output += chunk })
    child.once('error', fail)
    child.once('close', code => done({ code, output }))
  })
}

describe('bootstrap', () => {
  let folder: string
  beforeEach(() => { folder = mkdtempSync(join(tmpdir(), 'bootstrap-')) })
  afterEach(() => rmSync(folder, { recursive: true, force: true }))

  /** A checkout without packages, in which `npm` is the given shell script. */
  function checkout(npm: string | undefined): { script: string; env: NodeJS.ProcessEnv } {
    for (const file of ['package.json', 'package-lock.json']) copyFileSync(join(root, file), join(folder, file))
    for (const each of ['scripts', 'bin']) mkdirSync(join(folder, each))
    copyFileSync(join(root, 'scripts/bootstrap.mjs'), join(folder, 'scripts/bootstrap.mjs'))
    if (npm !== undefined) {
      writeFileSync(join(folder, 'bin/npm'), `#!/bin/sh\n${npm}\n`)
      chmodSync(join(folder, 'bin/npm'), 0o755)
    }
    return { script: join(folder, 'scripts/bootstrap.mjs'), env: { PATH: npm === undefined ? join(folder, 'bin') : `${join(folder, 'bin')}:/usr/bin:/bin`, HOME: folder } }
  }

  it('asks nobody when all is there', async () => {
    const { code, output } = await node([join(root, 'scripts/bootstrap.mjs')], { PATH: '' })
    assert.deepEqual({ code, output }, { code: 0, output: '' })
  })

  it('says what to do where there is no npm', async () => {
    const { script, env } = checkout(undefined)
    const { code, output } = await node([script], env)
    assert.equal(code, 1)
    assert.match(output, /^BOOTSTRAP_NPM_MISSING: npm was not found on PATH\n {2}fix: Install npm/m)
    assert.ok(!existsSync(join(folder, '.bootstrap.lock')), 'the lock is gone')
  })

  it('shows what npm said, and the fix, when its registry is out of reach', async () => {
    const { script, env } = checkout('echo "npm error code ENOTFOUND" >&2; exit 1')
    const { code, output } = await node([script], env)
    assert.equal(code, 1)
    assert.match(output, /installing packages \(npm ci\): failed[\s\S]*npm error code ENOTFOUND[\s\S]*BOOTSTRAP_OFFLINE: [\s\S]*fix: Check the network/)
  })

  it('tries again after a failure', async () => {
    const { script, env } = checkout('echo called >> "$HOME/calls"; echo "npm error code E500" >&2; exit 1')
    for (let turn = 0; turn < 2; turn++) assert.match((await node([script], env)).output, /BOOTSTRAP_NPM_FAILED: npm ci ended with 1/)
    assert.equal(readFileSync(join(folder, 'calls'), 'utf8'), 'called\ncalled\n')
  })

  it('lets one process at a time work under a lock', async () => {
    const lock = join(folder, 'lock')
    const work = `
      import { withLock } from ${JSON.stringify(join(root, 'scripts/bootstrap.mjs'))}
      import { appendFileSync } from 'node:fs'
      import { setTimeout } from 'node:timers/promises'
      await withLock(${JSON.stringify(lock)}, 'waiting', async () => {
        appendFileSync(${JSON.stringify(join(folder, 'log'))}, '(')
        await setTimeout(20)
        appendFileSync(${JSON.stringify(join(folder, 'log'))}, ')')
      })`
    const codes = await Promise.all(Array.from({ length: 5 }, () => node(['--input-type=module', '-e', work])))
    assert.deepEqual(codes.map(({ code }) => code), [0, 0, 0, 0, 0])
    assert.equal(readFileSync(join(folder, 'log'), 'utf8'), '()()()()()')
    assert.deepEqual(readdirSync(folder), ['log'])
  })

  const stale: [title: string, owner: string | undefined, age: number][] = [
    ['a dead process', `${hostname()} 2147483646 0 0`, 0],
    ['a process that died before it wrote its name', undefined, 10_000],
    ['a process on another machine that has not been heard of', 'elsewhere 1 0 0', 60_000],
  ]
  for (const [title, owner, age] of stale) {
    it(`takes over the lock of ${title}`, async () => {
      const lock = join(folder, 'lock')
      mkdirSync(lock)
      if (owner !== undefined) writeFileSync(join(lock, 'owner'), owner)
      const then = new Date(Date.now() - age)
      utimesSync(lock, then, then)
      assert.equal(await withLock(lock, 'waiting', () => 'done'), 'done')
      assert.deepEqual(readdirSync(folder), [])
    })
  }
})
