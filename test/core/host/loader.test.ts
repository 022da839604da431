import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import * as fc from 'fast-check'
import { satisfies } from '../../../core/host/range.ts'
import { loadDeployment } from '../../../core/host/loader.ts'
import { snapshot } from '../../../scripts/chaos/host.ts'

const root = resolve(import.meta.dirname, '../../..')
const folders: string[] = []

function folder(files: Readonly<Record<string, string>>): string {
  const cwd = mkdtempSync(join(tmpdir(), 'loader-'))
  folders.push(cwd)
  write(cwd, files)
  return cwd
}
function write(cwd: string, files: Readonly<Record<string, string>>): void {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(cwd, name)), { recursive: true })
    writeFileSync(join(cwd, name), text)
  }
}
const clean = () => { for (const each of folders.splice(0)) rmSync(each, { recursive: true, force: true }) }

/** What an author writes: `ts` with types, else as a compiler leaves it. */
const provider = (ts: boolean) => `
import { definePlugin, Secret${ts ? ', type Plugin' : ''} } from 'backplane'
import { Leases } from 'backplane/contracts/cluster'
import { createTestRuntime } from 'backplane/testing'
import { answer } from './inner.${ts ? 'ts' : 'js'}'
globalThis.seen = [...(globalThis.seen ?? []), ['provider', Leases, Secret, definePlugin]]
const plugin${ts ? ': Plugin' : ''} = definePlugin({
  name: 'provider', provides: [Leases],
  setup(ctx) { ctx.provide(Leases, { answer: answer + (typeof createTestRuntime === 'function' ? 1 : 0) }${ts ? ' as any' : ''}) },
})
export default plugin
`
const consumer = (ts: boolean) => `
import { definePlugin, Secret } from 'backplane'
import { Leases } from 'backplane/contracts/cluster'
globalThis.seen = [...(globalThis.seen ?? []), ['consumer', Leases, Secret, definePlugin]]
export default definePlugin({
  name: 'consumer', uses: { leases: Leases },
  setup(ctx, { leases }${ts ? ': any' : ''}) { globalThis.got = leases.answer },
})
`
const POISON = 'throw new Error("a second copy of backplane was loaded")\n'
const ownCopy = {
  'node_modules/backplane/package.json': JSON.stringify({ name: 'backplane', version: '0.0.1', type: 'module', exports: { '.': './index.js', './contracts/*': './index.js', './testing': './index.js' } }),
  'node_modules/backplane/index.js': POISON,
}

function author(kind: 'path' | 'package', ts: boolean): string {
  const extension = ts ? 'ts' : 'js'
  const plugin = (name: string, text: string) => {
    const files = {
      [`index.${extension}`]: text,
      [`inner.${extension}`]: `export const answer${ts ? ': number' : ''} = 41\n`,
      ...(kind === 'package' && { 'package.json': JSON.stringify({ name: `acme-${name}`, version: '1.2.3', type: 'module', exports: { '.': { types: './x.d.ts', default: `./index.${extension}` } }, peerDependencies: { backplane: '>=0.1 <2' } }), ...ownCopy }),
    }
    return Object.fromEntries(Object.entries(files).map(([file, each]) => [kind === 'package' ? `node_modules/acme-${name}/${file}` : `plugins/${name}/${file}`, each]))
  }
  return folder({
    ...plugin('provider', provider(ts)), ...plugin('consumer', consumer(ts)),
    // The path plugins have no package.json at all, and a foreign copy of backplane above them.
    ...(kind === 'path' && ownCopy),
    'config/default.yaml': kind === 'package' ? 'plugins:\n  acme-consumer: {}\n  acme-provider: {}\n' : 'plugins:\n  consumer: { use: ../plugins/consumer }\n  provider: { use: ../plugins/provider/index.EXT }\n'.replace('EXT', extension),
  })
}

const RUN = `
const [base, extension, cwd] = process.argv.slice(2)
const { loadDeployment, explain } = await import(base + 'core/host/loader.' + extension)
const core = await import(base + 'core/index.' + extension)
const { Leases } = await import(base + 'plugins/cluster/contract.' + extension)
const found = await loadDeployment({ cwd, env: {} })
const problems = explain(found, found.problems)
const silent = { debug() {}, info() {}, warn() {}, error() {}, child() { return silent } }
const order = []
if (!problems.length) {
  const runtime = await core.createRuntime({ plugins: found.entries, log: silent }).start()
  order.push(...runtime.inspect().order)
  await runtime.stop()
}
const same = (globalThis.seen ?? []).map(([name, ref, secret, define]) => [name, ref === Leases, secret === core.Secret, define === core.definePlugin])
console.log(JSON.stringify({ problems, order, same, got: globalThis.got, files: [...found.manifest.values()].map(each => each.file) }))
`

describe('a plugin outside the repository', function () {
  this.timeout(30_000)
  let built: Awaited<ReturnType<typeof snapshot>>
  let script: string
  before(async () => {
    built = await snapshot()
    script = join(folder({ 'run.mjs': RUN }), 'run.mjs')
  })
  after(() => { built.remove(); clean() })

  for (const kind of ['path', 'package'] as const) for (const ts of [true, false]) for (const source of [true, false]) {
    const what = `${kind === 'path' ? 'as a path' : 'as a package with its own copy of backplane'}, ${ts ? 'in TypeScript' : 'compiled'}, under a host ${source ? 'of sources' : 'from dist'}`
    it(`${what}, meets the host's own refs`, async () => {
      const base = pathToFileURL(source ? root : join(built.folder, 'dist')).href + '/'
      const flags = source ? ['--import', pathToFileURL(join(root, 'node_modules/tsx/dist/loader.mjs')).href, '--conditions', 'backplane-source'] : []
      const { stdout } = await promisify(execFile)(process.execPath, [...flags, script, base, source ? 'ts' : 'js', author(kind, ts)])
      const { files, ...result } = JSON.parse(stdout)
      assert.deepEqual(result, {
        problems: [], order: [`${kind === 'package' ? 'acme-' : ''}provider`, `${kind === 'package' ? 'acme-' : ''}consumer`], got: 42,
        same: [['consumer', true, true, true], ['provider', true, true, true]],
      })
      assert.equal(files.every((file: string) => file.endsWith(ts ? 'index.ts' : 'index.js')), true)
    })
  }

  for (const [what, manifest] of [['no package.json', undefined], ['one that says nothing of modules', '{}'], ['one that says commonjs', '{"type":"commonjs"}']] as const) {
    for (const source of [true, false]) it(`of several TypeScript files, with ${what}, under a host ${source ? 'of sources' : 'from dist'}, loads as ES modules`, async () => {
      const base = pathToFileURL(source ? root : join(built.folder, 'dist')).href + '/'
      const flags = source ? ['--import', pathToFileURL(join(root, 'node_modules/tsx/dist/loader.mjs')).href, '--conditions', 'backplane-source'] : []
      const cwd = folder({ ...severalFiles, ...(manifest !== undefined && { 'package.json': manifest }) })
      const { stdout } = await promisify(execFile)(process.execPath, [...flags, script, base, source ? 'ts' : 'js', cwd])
      const { problems, order, got } = JSON.parse(stdout) as { problems: unknown[]; order: string[]; got: number }
      assert.deepEqual({ problems, order, got }, { problems: [], order: ['provider', 'guard'], got: 8 })
    })
  }
})

const CLOCKWORK = `import { defineService } from 'backplane'
export interface Clockwork { next(): number }
export const Clockwork = defineService<Clockwork>('clockwork.clockwork')
`
const severalFiles = {
  'src/clockwork.ts': CLOCKWORK,
  'src/again.ts': "export { Clockwork } from './clockwork.ts'\n",
  'src/provider.ts': `import { definePlugin } from 'backplane'
import { Clockwork } from './clockwork.ts'
export default definePlugin({ name: 'clockwork', provides: [Clockwork], setup(ctx) { ctx.provide(Clockwork, { next: () => 7 }) } })
`,
  'src/guard.ts': `import { definePlugin } from 'backplane'
import { Clockwork } from './again.ts'
import old from './old.cjs'
export default definePlugin({ name: 'guard', uses: { clockwork: Clockwork }, setup(_ctx, { clockwork }) { (globalThis as any).got = clockwork.next() + old.one } })
`,
  'src/old.cjs': 'module.exports = { one: 1 }\n',
  'config/default.yaml': 'plugins:\n  guard: { use: ../src/guard.ts }\n  provider: { use: ../src/provider.ts }\n',
}

describe('the loader', () => {
  after(clean)
  const plain = (name: string, more = '') => `import { definePlugin } from 'backplane'\n${more}\nexport default definePlugin({ name: '${name}', summary: String(typeof text === 'undefined' ? '' : text), setup() {} })\n`

  it('reads a plugin again when told to, with the files beside it, and says once that the old code stays', async () => {
    const cwd = folder({ 'config/default.yaml': 'plugins:\n  mine: { use: ./mine.mjs }\n', 'config/mine.mjs': plain('mine', "import { text } from './text.mjs'"), 'config/text.mjs': "export const text = 'one'\n" })
    const read = async (...reload: string[]) => {
      const { entries, problems, warnings } = await loadDeployment({ cwd, env: {}, reload: new Set(reload) })
      assert.deepEqual(problems, [])
      return { plugin: entries[0]!.plugin, warnings }
    }
    const first = await read()
    assert.equal(first.plugin.summary, 'one')
    write(cwd, { 'config/text.mjs': "export const text = 'two'\n" })
    assert.equal((await read()).plugin, first.plugin, 'unless it is told to, the same definition comes back')
    const again = await read('mine')
    assert.equal(again.plugin.summary, 'two')
    assert.match(again.warnings.join(), /never evicts/)
    assert.equal((await read()).plugin, again.plugin, 'the last reading stays')
    assert.deepEqual((await read('mine')).warnings, [])
  })

  it('reads a file that was broken again by itself', async () => {
    const cwd = folder({ 'config/default.yaml': 'plugins:\n  mine: { use: ./mine.mjs }\n', 'config/mine.mjs': 'export default {' })
    assert.equal((await loadDeployment({ cwd, env: {} })).problems[0]?.code, 'LOADER_SYNTAX')
    write(cwd, { 'config/mine.mjs': plain('mine') })
    assert.deepEqual((await loadDeployment({ cwd, env: {} })).problems, [])
  })

  it('finds a package from the folder of the config file, then from the working directory', async () => {
    const cwd = folder({
      'deploy/own.yaml': 'plugins:\n  near: {}\n  "@acme/far": { optional: false }\n  sub: { use: near/second }\n',
      'deploy/node_modules/near/package.json': JSON.stringify({ name: 'near', type: 'module', version: '3.0.0', exports: { '.': './a.js', './second': { import: './b.js' } } }),
      'deploy/node_modules/near/a.js': plain('near'), 'deploy/node_modules/near/b.js': plain('second'),
      'node_modules/@acme/far/package.json': JSON.stringify({ name: '@acme/far', main: './main.js', type: 'module' }), 'node_modules/@acme/far/main.js': plain('far'),
      'config/default.yaml': '{}',
    })
    const { entries, problems, manifest } = await loadDeployment({ cwd, env: {}, configFile: 'deploy/own.yaml' })
    assert.deepEqual(problems.map(({ message }) => message), [])
    assert.deepEqual(entries.map(({ name, plugin }) => [name, plugin.name]), [['near', 'near'], ['@acme/far', 'far'], ['sub', 'second']])
    assert.equal(manifest.get('near')?.version, '3.0.0')
  })

  it('takes a relative path from the file that names it, whichever layer that is', async () => {
    const cwd = folder({
      'config/default.yaml': 'plugins:\n  one: { use: ./p.mjs }\n', 'elsewhere/own.yaml': 'plugins:\n  two: { use: ./p.mjs }\n  one: { config: {} }\n',
      'config/p.mjs': plain('in-config'), 'elsewhere/p.mjs': plain('elsewhere'),
    })
    const { entries } = await loadDeployment({ cwd, env: {}, configFile: 'elsewhere/own.yaml' })
    assert.deepEqual(entries.map(({ name, plugin }) => [name, plugin.name]), [['one', 'in-config'], ['two', 'elsewhere']])
  })

  it('names the plugins that would provide what is missing, loaded or not', async () => {
    const cwd = folder({ 'config/default.yaml': 'plugins:\n  queue-embedded: {}\n' })
    const found = await loadDeployment({ cwd, env: {} })
    const wanted = Object.values(found.entries[0]!.plugin.uses).flatMap(use => (use.is === 'service' ? use.id : []))
    assert.ok(wanted.length)
    for (const service of wanted) assert.ok(found.offers(service).length, service)
    assert.deepEqual(found.offers('nobody.has-this'), [])
  })

  it('leaves out what is set to false, and what a later layer removes', async () => {
    const cwd = folder({
      'config/default.yaml': 'plugins:\n  one: { use: ./p.mjs }\n  two: { use: ./p.mjs }\n  three: { use: ./gone.mjs }\n', 'config/production.yaml': 'plugins:\n  one: false\n  three:\n', 'config/p.mjs': plain('p'),
    })
    const { entries, disabled, problems } = await loadDeployment({ cwd, env: { NODE_ENV: 'production' } })
    assert.deepEqual([entries.map(({ name }) => name), disabled, problems], [['two'], ['one'], []])
  })

  it('describes the whole file for editors, with references allowed wherever a value is', async () => {
    const cwd = folder({ 'config/default.yaml': 'plugins:\n  health: {}\n' })
    const schema = (await loadDeployment({ cwd, env: {} })).schema() as any
    assert.deepEqual(Object.keys(schema.properties), ['runtime', 'log', 'plugins'])
    const settings = schema.properties.plugins.properties.health.anyOf.find((each: any) => each.type === 'object').properties.config
    assert.equal(settings.additionalProperties, false)
    assert.match(JSON.stringify(settings), /"pattern":"\\\\\$\\\\\{"/)
  })
})

describe('a range of versions', () => {
  const cases: [range: string, inside: string[], outside: string[]][] = [
    ['^1.2.3', ['1.2.3', '1.9.0'], ['1.2.2', '2.0.0']], ['^0.1.2', ['0.1.2', '0.1.9'], ['0.2.0', '0.1.1']], ['^0.0.3', ['0.0.3'], ['0.0.4']], ['^0.1', ['0.1.0', '0.1.9'], ['0.2.0']], ['^0', ['0.0.1', '0.9.0'], ['1.0.0']],
    ['~1.2.3', ['1.2.9'], ['1.3.0']], ['~1', ['1.9.0'], ['2.0.0']], ['1.x', ['1.0.0', '1.9.9'], ['2.0.0']], ['*', ['0.0.1', '9.9.9'], []], ['', ['1.0.0'], []],
    ['>=1.2 <2', ['1.2.0', '1.9.9'], ['1.1.9', '2.0.0']], ['> 1.2', ['1.3.0'], ['1.2.9']], ['<=1.2', ['1.2.9'], ['1.3.0']], ['1.2.3 - 1.4', ['1.2.3', '1.4.9'], ['1.5.0']], ['^1 || ^3', ['1.5.0', '3.0.0'], ['2.0.0']], ['=1.2.3', ['1.2.3'], ['1.2.4']],
  ]
  for (const [range, inside, outside] of cases) it(`"${range}" has ${inside.join(', ')}${outside.length ? ` and not ${outside.join(', ')}` : ''}`, () => {
    for (const version of inside) assert.equal(satisfies(version, range), true, version)
    for (const version of outside) assert.equal(satisfies(version, range), false, version)
  })

  it('is not guessed from anything else', () => { for (const text of ['workspace:*', 'file:../x', 'latest', 'github:a/b', 'https://x/y.tgz']) assert.equal(satisfies('1.0.0', text), undefined) })

  it('with a caret has its own version, and never the next major one', () => fc.assert(fc.property(fc.nat(50), fc.nat(50), fc.nat(50), (major, minor, patch) => {
    const version = `${major}.${minor}.${patch}`
    assert.equal(satisfies(version, `^${version}`), true)
    assert.equal(satisfies(`${major + 1}.0.0`, `^${version}`), false)
  })))
})
