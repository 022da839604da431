import { execFile } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { promisify } from 'node:util'

const root = resolve(import.meta.dirname, '../..')

/** A built copy of the host in a temporary folder, as it would be installed. Call `remove` when done. */
export async function buildHost(): Promise<{ folder: string; remove(): void }> {
  const folder = mkdtempSync(join(tmpdir(), 'host-'))
  const tsc = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin/tsc')
  const args = [tsc, '-p', join(root, 'tsconfig.build.json'), '--outDir', join(folder, 'dist'), '--incremental', 'false', '--tsBuildInfoFile', 'null']
  // A type error elsewhere is not what is tested here: what was emitted is used.
  await promisify(execFile)(process.execPath, args, { cwd: root }).catch(error => { if (!existsSync(join(folder, 'dist/core/index.js'))) throw error })
  cpSync(join(root, 'package.json'), join(folder, 'package.json'))
  cpSync(join(root, 'config'), join(folder, 'config'), { recursive: true })
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'))
  return { folder, remove: () => rmSync(folder, { recursive: true, force: true }) }
}
