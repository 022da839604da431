#!/usr/bin/env node
// Compiles the sources to dist/, if one of them changed since it was done last.
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { BootstrapError, isMain, reporting, run, walk, withLock } from './bootstrap.mjs'

const FOLDERS = ['core', 'plugins']

/** One string for the state of all sources: names, times and sizes, so that a deleted or an older file counts too. */
function fingerprint(root) {
  const files = [...FOLDERS.flatMap(folder => walk(join(root, folder), name => name === 'node_modules').filter(file => file.endsWith('.ts'))),
    ...['package.json', 'tsconfig.json', 'tsconfig.build.json'].map(file => join(root, file))]
  const hash = createHash('sha256')
  for (const file of files) {
    const { mtimeMs, size } = statSync(file)
    hash.update(`${relative(root, file)} ${mtimeMs} ${size}\n`)
  }
  return hash.digest('hex')
}

/** Removes what was compiled from a source that is gone. */
function prune(root) {
  for (const folder of FOLDERS) {
    const dist = join(root, 'dist', folder)
    if (!existsSync(dist)) continue
    for (const file of walk(dist)) {
      const source = join(root, relative(join(root, 'dist'), file)).replace(/\.(d\.ts|js)$/, '.ts')
      if (source.endsWith('.ts') && !existsSync(source)) rmSync(file)
    }
  }
}

/** Brings dist/ up to date; a few milliseconds if it is. */
export async function build(root) {
  const stamp = join(root, 'dist/.built')
  const fresh = () => existsSync(stamp) && readFileSync(stamp, 'utf8') === fingerprint(root)
  if (fresh()) return
  await withLock(join(root, 'node_modules/.backplane-build.lock'), 'another start is compiling here; waiting for it', async () => {
    if (fresh()) return
    // Taken before: what is saved while the compiler runs is compiled next time.
    const state = fingerprint(root)
    mkdirSync(join(root, 'dist'), { recursive: true })
    rmSync(stamp, { force: true })
    prune(root)
    // A dist folder whose files were removed by hand would stay empty if the compiler went by what it remembers.
    if (!existsSync(join(root, 'dist/core/index.js'))) rmSync(join(root, 'dist/.tsbuildinfo'), { force: true })
    const tsc = join(root, 'node_modules/typescript/bin/tsc')
    const { code, output } = await run(process.execPath, [tsc, '-p', 'tsconfig.build.json', '--pretty', String(Boolean(process.stderr.isTTY))], root)
    if (code !== 0) throw new BootstrapError('BUILD_FAILED', 'the sources do not compile', 'Correct what the compiler says above; `npm run types` checks the tests too.', output)
    writeFileSync(stamp, state)
  })
}

if (isMain(import.meta.url)) await reporting(() => build(dirname(dirname(fileURLToPath(import.meta.url)))))
