import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join, resolve } from 'node:path'
import { host } from '../host/loader.ts'
import { HostErrors, type World } from '../host/world.ts'

function mochaFrom(...folders: readonly string[]): string | undefined {
  for (const folder of folders) {
    try { return join(dirname(createRequire(join(folder, 'package.json')).resolve('mocha/package.json')), 'bin/mocha.js') } catch { /* Not here. */ }
  }
  return undefined
}

/** Runs the mocha tests of a plugin's folder as the host would load it, so that `backplane` and `backplane/testing` resolve. Returns the exit code. */
export async function testPlugin(given: string, world: World): Promise<number> {
  const folder = resolve(world.cwd, given)
  const info = await stat(folder).catch(() => undefined)
  if (!info?.isDirectory()) throw HostErrors.TEST_FOLDER({ folder, reason: info ? 'is no folder' : 'does not exist' })
  const files = (await readdir(folder, { recursive: true })).filter(file => /\.test\.[cm]?[jt]s$/.test(file) && !/(^|[\\/])node_modules[\\/]/.test(file)).sort()
  if (!files.length) throw HostErrors.TEST_FOLDER({ folder, reason: 'has no tests' })
  const mocha = mochaFrom(host.root, folder)
  if (!mocha) throw HostErrors.NO_MOCHA({ folder })
  const preload = new URL(`preload.${host.source ? 'ts' : 'js'}`, import.meta.url).href
  const source = host.source ? ['--conditions=backplane-source'] : []
  // Modules that are required would go past the hook that answers `backplane`; mocha's own need tsx then.
  const hooks = ['--no-experimental-require-module', '--import', createRequire(import.meta.url).resolve('tsx'), '--import', preload]
  const own = ['.mocharc.json', '.mocharc.cjs', '.mocharc.js', '.mocharc.yaml', '.mocharc.yml'].some(name => existsSync(join(folder, name)))
  const args = [...source, ...hooks, mocha, ...(own ? [] : ['--no-config']), '--no-package', ...files]
  const child = spawn(world.node, args, { cwd: folder, stdio: 'inherit', env: world.env as NodeJS.ProcessEnv, signal: world.signal })
  return new Promise((done, failed) => {
    child.once('error', error => (world.signal.aborted ? done(1) : failed(error)))
    child.once('close', code => done(code === 0 ? 0 : 1))
  })
}
