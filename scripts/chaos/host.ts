import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { build } from '../build.mjs'

export const ROOT = resolve(import.meta.dirname, '../..')

/** A copy of what is built now, as it would be installed: no edit changes it in the middle of a show. Call `remove` when done. */
export async function snapshot(): Promise<{ readonly folder: string; remove(): void }> {
  await build(ROOT)
  const folder = mkdtempSync(join(tmpdir(), 'chaos-host-'))
  for (const each of ['package.json', 'config', 'dist']) cpSync(join(ROOT, each), join(folder, each), { recursive: true })
  mkdirSync(join(folder, 'scripts'))
  for (const each of ['backplane.mjs', 'create-plugin']) cpSync(join(ROOT, 'scripts', each), join(folder, 'scripts', each), { recursive: true })
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'))
  return { folder, remove: () => rmSync(folder, { recursive: true, force: true }) }
}
