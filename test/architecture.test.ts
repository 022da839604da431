import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { walk } from '../scripts/bootstrap.mjs'
import { refsOf, size, violations } from './support/architecture.ts'
import { importsOf, linesOfCode } from './support/imports.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const skip = (name: string) => name === 'node_modules' || name === 'templates' || name === 'fixtures' || name === 'dist'

function read(): Map<string, string> {
  const files = ['core', 'plugins', 'test', 'scripts'].flatMap(folder => walk(`${root}${folder}`, skip)) as string[]
  return new Map(files.filter(file => /\.(ts|mjs)$|^.*\/README\.md$/.test(file)).map(file => [file.slice(root.length), readFileSync(file, 'utf8')]))
}

const code = (sources: ReadonlyMap<string, string>) => new Map([...sources].filter(([file]) => /\.(ts|mjs)$/.test(file)))

describe('architecture', () => {
  const sources = read()

  it('everybody imports only what the table allows, contracts have no cycle, ids are unique, folders are complete', () => {
    const readmes = new Map([...sources].filter(([file]) => file.endsWith('README.md')))
    const found = violations(new Map([...code(sources), ...[...readmes].map(([file]) => [file, ''] as const)])).filter(each => !/README\.md: no rule/.test(each))
    assert.deepEqual(found, [])
  })

  it('finds the refs it compares', () => {
    const ids = refsOf(sources).map(({ id }) => id)
    for (const id of ['database.database@1', 'http.route@1', 'core.secret-resolve@1', 'models.before-call@1']) assert.ok(ids.includes(id), id)
  })

  // Why these: docs/decisions/0003-size-of-the-core.md.
  for (const [what, files, ceiling] of [['wiring', /^core\/[^/]+\.ts$/, 1_550], ['schema', /^core\/schema\//, 180], ['config', /^core\/config\//, 660], ['host', /^core\/host\//, 1_300], ['CLI', /^core\/cli\//, 650]] as const) {
    it(`the core's ${what} is below ${ceiling} lines of code (neither blank nor comment)`, () => {
      const { code: lines, raw } = size(sources, files)
      console.log(`      ${what}: ${lines} lines of code, ${raw} raw`)
      assert.ok(lines < ceiling, `${lines} lines of code`)
    })
  }
})

describe('the architecture checker', () => {
  const broken = (file: string, text: string, more: Record<string, string> = {}) =>
    violations(new Map([[file, text], ...Object.entries(more)])).join('\n')
  const refused: [title: string, file: string, text: string, match: RegExp][] = [
    ['a package in the core', 'core/graph.ts', 'import x from \'lodash\'', /core\/graph\.ts:1: imports 'lodash'/],
    ['awilix elsewhere in the core', 'core/hooks.ts', 'import type { AwilixContainer } from \'awilix\'', /imports 'awilix'/],
    ['awilix as a value in plugin.ts', 'core/plugin.ts', 'import { createContainer } from \'awilix\'', /imports 'awilix'/],
    ['a value of @standard-schema/spec', 'core/plugin.ts', 'import { x } from \'@standard-schema/spec\'', /imports '@standard-schema/],
    ['the host in the wiring', 'core/runtime.ts', 'import { load } from \'./host/loader.ts\'', /imports '\.\/host\/loader/],
    ['zod in the wiring', 'core/runtime.ts', 'import { z } from \'zod\'', /imports 'zod'/],
    ['tsx at once', 'core/host/loader.ts', 'import { register } from \'tsx/esm/api\'', /imports 'tsx/],
    ['a value of knex in a contract', 'plugins/a/contract.ts', 'import { knex } from \'knex\'', /imports 'knex'/],
    ['own files in a contract', 'plugins/a/contract.ts', 'import type { A } from \'./a.ts\'', /imports '\.\/a\.ts'/],
    ['another plugin\'s inside', 'plugins/a/a.ts', 'import { b } from \'../b/b.ts\'', /imports '\.\.\/b\/b\.ts'/],
    ['the core by path', 'plugins/a/a.ts', 'import { b } from \'../../core/index.ts\'', /imports '\.\.\/\.\.\/core/],
    ['the test kit in a plugin', 'plugins/a/a.ts', 'import { fake } from \'#core/testing\'', /imports '#core\/testing'/],
    ['the package by its own name', 'plugins/a/a.ts', 'import { x } from \'backplane\'', /imports 'backplane'/],
    ['an import over several lines', 'plugins/a/a.ts', 'import {\n  b,\n  c,\n} from \'../b/b.ts\'\n', /a\.ts:4: imports/],
    ['export … from', 'plugins/a/a.ts', 'export * from \'../b/b.ts\'', /imports/],
    ['export type … from', 'plugins/a/a.ts', 'export type { B } from \'../b/b.ts\'', /imports/],
    ['import()', 'plugins/a/a.ts', 'const b = await import(\'../b/b.ts\')', /imports/],
    ['a bare import', 'plugins/a/a.ts', 'import \'../b/b.ts\'', /imports/],
    ['a type query', 'plugins/a/a.ts', 'type B = typeof import(\'../b/b.ts\')', /imports/],
    ['another plugin\'s inside in a test', 'test/plugins/a/a.test.ts', 'import { b } from \'../../../plugins/b/b.ts\'', /imports/],
    ['node:fs in a conformance suite', 'plugins/a/conformance.ts', 'import \'node:fs\'', /imports 'node:fs'/],
    ['process.env', 'plugins/a/a.ts', 'const home = process.env.HOME', /a\.ts:1: reads process\.env/],
    ['process.on', 'core/runtime.ts', 'process\n  .on(\'exit\', () => {})', /reads process\.on/],
    ['process as a module', 'plugins/a/a.ts', 'import process from \'node:process\'', /imports process/],
    ['node:process', 'plugins/a/a.ts', 'import { pid, env } from \'node:process\'', /imports process/],
    ['a contract of 151 lines', 'plugins/a/contract.ts', 'const a = 1\n'.repeat(151), /151 lines/],
    ['wiring of 80 lines', 'plugins/a/index.ts', 'const a = 1\n'.repeat(80), /80 lines/],
    ['a plugin without a README', 'plugins/a/index.ts', 'export default 1', /no README/],
    ['config without config.ts', 'plugins/a/index.ts', 'export default definePlugin({ config, name })', /no config\.ts/],
    ['a default export elsewhere', 'plugins/a/a.ts', 'export default 1', /default export/],
    ['a file that no rule covers', 'lib/a.ts', '', /no rule/],
  ]
  for (const [title, file, text, match] of refused) it(`refuses ${title}`, () => assert.match(broken(file, text), match))

  it('refuses contracts that import each other', () => {
    const found = broken('plugins/a/contract.ts', 'import type { B } from \'#contracts/b\'', { 'plugins/b/contract.ts': 'import { A } from \'#contracts/a\'' })
    assert.match(found, /a -> b -> a/)
  })

  it('refuses an id that is taken, and allows a second major', () => {
    const define = (version: string) => `export const A = defineService<Map<string, (a: number) => void>>('a.a'${version})`
    assert.match(broken('plugins/a/contract.ts', define(''), { 'plugins/b/contract.ts': define('') }), /a\.a@1 is taken/)
    assert.equal(broken('plugins/a/contract.ts', define(''), { 'plugins/b/contract.ts': define(', { version: 2 }') }), '')
  })

  const allowed: [title: string, file: string, text: string][] = [
    ['types of knex in a contract', 'plugins/a/contract.ts', 'import type { Knex } from \'knex\''],
    ['awilix in services.ts', 'core/services.ts', 'import type * as Awilix from \'awilix\''],
    ['tsx lazily in the host', 'core/host/loader.ts', 'const { register } = await import(\'tsx/esm/api\')'],
    ['names in comments and texts', 'plugins/a/a.ts', '// import x from \'../b/b.ts\'\nconst text = `import x from \'../b/b.ts\'; process.env`'],
    ['measuring the process', 'plugins/a/a.ts', 'const used = process.memoryUsage().rss + process.hrtime()[0]!'],
    ['the number of the process', 'plugins/a/a.ts', 'import { pid, memoryUsage } from \'node:process\''],
    ['a property named process', 'plugins/a/a.ts', 'const x = this.process.env'],
    ['packages in a plugin', 'plugins/a/a.ts', 'import Koa from \'koa\''],
    ['the inside of the plugin under test', 'test/plugins/a/a.test.ts', 'import { a } from \'../../../plugins/a/a.ts\''],
  ]
  for (const [title, file, text] of allowed) it(`allows ${title}`, () => assert.equal(broken(file, text), ''))

  it('reads the kinds of import apart', () => {
    const text = 'import type { A } from \'a\'\nimport { type B } from \'b\'\nimport type from \'c\'\nconst d = import(\'d\')\nconst e = Array.from(\'e\')'
    const found = importsOf(text).map(({ name, typeOnly, lazy, line }) => [name, typeOnly, lazy, line])
    assert.deepEqual(found, [['a', true, false, 1], ['b', false, false, 2], ['c', false, false, 3], ['d', false, true, 4]])
  })

  it('counts lines of code, not comments and blanks', () => {
    assert.equal(linesOfCode('// a\n\n/**\n * b\n */\nconst a = `\n// in a text\n` // c\n'), 3)
  })
})
