import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const root = dirname(dirname(here))

/** The compiler's complaints about the files that a tsconfig names. */
function compile(project: string): string[] {
  const { stdout } = spawnSync(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', project, '--pretty', 'false'], { cwd: root, encoding: 'utf8' })
  return stdout.split('\n').filter(line => /\.types\.ts\(\d+/.test(line))
}

describe('types of the core', () => {
  it('accept what is right, and refuse every line marked @ts-expect-error', () => {
    assert.deepEqual(compile(join(here, 'tsconfig.json')), [])
  }).timeout(300_000)

  it('are really checked: without its marks, the file has an error for each', () => {
    // Inside the repository, so that #core is found from there.
    const folder = mkdtempSync(join(here, '.tmp-'))
    try {
      const text = readFileSync(join(here, 'core.types.ts'), 'utf8')
      const marks = text.split('\n').flatMap((line, index) => (line.includes('// @ts-expect-error') ? [index + 2] : []))
      writeFileSync(join(folder, 'core.types.ts'), text.replaceAll('@ts-expect-error', 'expected:'))
      writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ extends: '../../../tsconfig.json', include: ['*.ts'] }))
      const lines = new Set(compile(folder).map(line => Number(/\((\d+),/.exec(line)?.[1])))
      assert.deepEqual([...lines].toSorted((a, b) => a - b), marks)
    } finally { rmSync(folder, { recursive: true, force: true }) }
  }).timeout(300_000)
})
