import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { kinds } from '../../../core/cli/create-plugin.ts'
import { snapshot } from '../../../scripts/chaos/host.ts'
import { root, workplace } from '../../support/cli.ts'

type Place = ReturnType<typeof workplace>

/** Makes a plugin of each of these kinds, and runs the tests of all. */
async function make(place: Place, kinds: readonly string[], run: Place['run'] | Place['spawn']): Promise<void> {
  for (const kind of kinds) {
    const { code, out, err } = await run('create-plugin', `my-${kind}`, '--kind', kind, '--out', `plugins/my-${kind}`)
    assert.equal(code, 0, err)
    for (const file of ['README.md', 'index.test.ts', 'index.ts', 'package.json', 'tsconfig.json']) assert.ok(out.includes(`plugins/my-${kind}/${file}`), `${file} in ${out}`)
  }
  const { code, out, err } = await place.spawn('plugins', 'test', 'plugins')
  assert.equal(code, 0, out + err)
  for (const kind of kinds) assert.match(out, new RegExp(`^ +my-${kind}$`, 'm'))
  assert.ok(Number(/(\d+) passing/.exec(out)?.[1]) >= 2 * kinds.length, out)
}

describe('create-plugin', function () {
  // Compilers and test runners are begun here: they end by themselves, however busy the machine is.
  this.timeout(300_000)
  let place: Place
  before(() => { place = workplace({}) })
  after(() => place[Symbol.asyncDispose]())

  it('knows the kinds', async () => {
    assert.deepEqual(await kinds(), ['agent', 'health-check', 'hook', 'job-type', 'model-provider', 'route', 'service', 'tool'])
  })

  it('makes a plugin of each kind whose tests pass at once', async () => make(place, await kinds(), place.run))

  it('fills every place in the templates, and the types are right', async () => {
    const folder = join(place.folder, 'plugins')
    for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
      if (/\.\w+$/.test(name)) assert.doesNotMatch(readFileSync(join(folder, name), 'utf8'), /\{\{\w+\}\}/, name)
    }
    rmSync(join(place.folder, 'node_modules'), { force: true })
    symlinkSync(join(root, 'node_modules'), join(place.folder, 'node_modules'))
    const config = JSON.parse(readFileSync(join(folder, 'my-tool/tsconfig.json'), 'utf8')) as { compilerOptions: object }
    const at = (file: string) => [join(root, file)]
    const paths = { backplane: at('core/index.ts'), 'backplane/testing': at('core/testing/index.ts'), 'backplane/contracts/*': at('plugins/*/contract.ts') }
    const compilerOptions = { ...config.compilerOptions, paths, customConditions: ['backplane-source'] }
    writeFileSync(join(place.folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['plugins/**/*.ts'] }))
    const tsc = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin/tsc')
    const said = await promisify(execFile)(process.execPath, [tsc, '-p', place.folder]).then(() => '', (error: { stdout: string }) => error.stdout)
    const ours = said.split('\n').filter(line => /(^|\/)plugins\/my-/.test(line))
    assert.deepEqual(ours, [])
  })

  it('makes plugins that the config check takes', async () => {
    place.write('config/default.yaml', `plugins:\n${(await kinds()).filter(kind => kind !== 'model-provider').map(kind => `  my-${kind}: { use: ../plugins/my-${kind} }\n`).join('')}`)
    const { code, err } = await place.run('config', 'check')
    assert.equal(code, 0, err)
  })

  it('refuses a folder with something in it, and writes nothing', async () => {
    place.write('busy/mine.txt', 'mine')
    const { code, err } = await place.run('create-plugin', 'busy')
    assert.equal(code, 1)
    assert.match(err, /HOST_FOLDER_IN_USE[^]*fix: /)
    assert.deepEqual(readdirSync(join(place.folder, 'busy')), ['mine.txt'])
  })

  it('refuses bad names, names of first-party plugins and unknown kinds', async () => {
    const runs = [['create-plugin', 'My_Plugin'], ['create-plugin', '../out'], ['create-plugin', 'http'], ['create-plugin', 'fine', '--kind', 'rout']]
    const answers = await Promise.all(runs.map(args => place.run(...args)))
    assert.deepEqual(answers.map(({ code }) => code), [1, 1, 1, 1])
    assert.deepEqual(answers.map(({ err }) => /HOST_\w+/.exec(err)?.[0]), ['HOST_PLUGIN_NAME', 'HOST_PLUGIN_NAME', 'HOST_PLUGIN_NAME', 'HOST_KIND'])
    assert.match(answers[3]!.err, /Did you mean "route"/)
  })

  it('plugins test ends with 1 when a test fails, and says when there is none', async () => {
    place.write('failing/package.json', '{"type":"module"}')
    place.write('failing/a.test.js', 'import { definePlugin } from \'backplane\'\nit(\'fails\', () => { throw new Error(typeof definePlugin) })\n')
    place.write('empty/package.json', '{}')
    const [failing, empty] = await Promise.all([place.spawn('plugins', 'test', 'failing'), place.spawn('plugins', 'test', 'empty')])
    assert.equal(failing.code, 1)
    assert.match(failing.out, /Error: function/)
    assert.equal(empty.code, 1)
    assert.match(empty.err, /HOST_TEST_FOLDER: .* has no tests/)
  })

  it('does the same from the built package', async () => {
    const host = await snapshot()
    try {
      await using other = workplace({}, host.folder)
      await make(other, ['tool', 'route'], other.spawn)
    } finally { host.remove() }
  })
})
