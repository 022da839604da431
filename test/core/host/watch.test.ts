import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { definePlugin, Secret } from '#core'
import { eventually } from '#core/testing'
import { changesBetween } from '../../../core/host/snapshot.ts'
import { FileWatch } from '../../../core/host/watch.ts'
import { workplace, type Run } from '../../support/cli.ts'

const PLUGIN = `import { definePlugin, defineService } from 'backplane'
import { z } from 'zod'
export const Base = defineService('base.base')
export default definePlugin({
  name: 'base', provides: [Base], config: z.strictObject({ word: z.string().default('none'), fixed: z.int().default(1), fail: z.boolean().default(false) }),
  setup(ctx) {
    if (ctx.config.fail) throw new Error('as told')
    ctx.log.info('set up', { config: ctx.config })
    ctx.provide(Base, {})
    let config = ctx.config
    return {
      stop() { ctx.log.info('stopped it') },
      reconfigure(next) {
        if (next.fixed !== config.fixed || next.fail) return false
        config = next
        ctx.log.info('reconfigured', { config })
        return true
      },
    }
  },
})`
const plain = (name: string, uses = '') => `import { definePlugin } from 'backplane'
import { Base } from './base.js'
export default definePlugin({ name: '${name}', uses: {${uses}}, setup(ctx) { ctx.log.info('set up'); return { stop() { ctx.log.info('stopped it') } } } })`
const ALL = 'plugins:\n  base: { use: ../base.js, config: { word: one } }\n  user: { use: ../user.js }\n  alone: { use: ../alone.js }\n'

describe('an edit of the config while the server runs', function () {
  this.timeout(30_000)
  let place: ReturnType<typeof workplace>
  let run: Run
  let from = 0
  const config = (text: string) => { from = run.lines.length; place.write('config/default.yaml', text) }
  const applied = () => run.line('the edit', line => String(line['msg']).startsWith('the edit is applied'), from)
  /** What plugins did since the edit, as `plugin: what`. */
  const done = () => run.lines.slice(from).flatMap(line => (line['plugin'] ? [`${line['plugin']}: ${line['msg']}`] : []))

  before(async () => {
    place = workplace({ 'package.json': '{"type":"module"}', 'base.js': PLUGIN, 'user.js': plain('user', 'base: Base'), 'alone.js': plain('alone'), 'extra.js': plain('extra'), 'config/default.yaml': ALL })
    run = place.start(['start'])
    await run.started()
  })
  after(async () => {
    run.process.kill('SIGTERM')
    assert.equal(await run.ended, 0, run.err)
    await place[Symbol.asyncDispose]()
  })

  it('re-configures in place what can be', async () => {
    config(ALL.replace('one', 'two'))
    assert.deepEqual((await applied())['in_place'], ['base'])
    assert.deepEqual(done(), ['base: reconfigured'])
  })

  it('restarts only what changed, and what stands on it', async () => {
    config(ALL.replace('one', 'two, fixed: 2'))
    assert.deepEqual((await applied())['restarted'], ['base', 'user'])
    assert.deepEqual(done(), ['user: stopped it', 'base: stopped it', 'base: set up', 'user: set up'])
  })

  it('refuses a bad edit with every problem at its line; the old tree goes on', async () => {
    config(ALL.replace('one', 'three, fxed: 1').replace('user.js', 'usr.js'))
    await run.line('the refusal', line => String(line['msg']).startsWith('the edit is refused'), from)
    const problems = await eventually('both problems', () => { const rows = run.lines.slice(from).filter(line => line['file']); return rows.length === 2 && rows })
    assert.deepEqual(problems.map(({ file, line, level }) => [file, line, level]), [['config/default.yaml', 2, 'error'], ['config/default.yaml', 3, 'error']])
    assert.ok(problems.every(({ fix }) => fix))
    assert.deepEqual(done(), [])
  })

  it('puts the old ones back when a changed plugin cannot start', async () => {
    config(ALL.replace('one', 'two, fixed: 2, fail: true'))
    const line = await run.line('the failure', each => String(each['msg']).startsWith('the edit could not be applied'), from)
    assert.match(line['msg'], /as told/)
    assert.deepEqual(done().filter(each => each.endsWith('set up')), ['base: set up', 'user: set up'])
  })

  it('is seen when an editor replaces the file', async () => {
    from = run.lines.length
    place.write('config/default.yaml~', ALL.replace('one', 'four, fixed: 2'))
    renameSync(join(place.folder, 'config/default.yaml~'), join(place.folder, 'config/default.yaml'))
    await applied()
    const line = run.lines.slice(from).find(each => each['msg'] === 'reconfigured')
    assert.equal(line?.['config'].word, 'four')
  })

  it('adds and removes plugins', async () => {
    config(`${ALL.replace('one', 'four, fixed: 2')}  extra: { use: ../extra.js }\n`)
    await applied()
    assert.deepEqual(done(), ['extra: set up'])
    config(ALL.replace('one', 'four, fixed: 2').replace(/ {2}alone.*\n/, ''))
    await applied()
    assert.deepEqual(done().sort(), ['alone: stopped it', 'extra: stopped it'])
  })

  it('is seen in a file that comes into being', async () => {
    from = run.lines.length
    place.write('config/development.yaml', 'plugins: { base: { config: { word: five } } }\n')
    await applied()
    assert.deepEqual(done(), ['base: reconfigured'])
  })

  it('sets the level of the log at once, and tells what takes a restart', async () => {
    from = run.lines.length
    place.write('config/development.yaml', 'log: { level: warn }\nruntime: { graceMs: 7000 }\nplugins: { base: { config: { word: five } } }\n')
    const line = await run.line('the warning', each => String(each['msg']).startsWith('runtime.graceMs'), from)
    assert.match(line['msg'], /7000 now, and was 30000: that takes a restart/)
    from = run.lines.length
    place.write('config/development.yaml', 'log: { level: info }\nplugins: { base: { config: { word: six } } }\n')
    await applied()
    assert.ok(!run.lines.slice(from).some(each => each['level'] === 'info' && each['msg'] === 'log.level is warn now'))
  })
})

describe('FileWatch', () => {
  it('polls where a folder is not there yet, tells each change once, and nothing after it was closed', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'watch-'))
    try {
      let changes = 0
      const file = join(folder, 'later/a.yaml')
      {
        await using files = new FileWatch(async () => { changes++ }, { settleMs: 10, pollMs: 20 })
        await files.watch([file])
        mkdirSync(join(folder, 'later'))
        writeFileSync(file, 'a')
        await eventually('the new file', () => changes > 0)
        const seen = changes
        writeFileSync(file, 'ab')
        await eventually('its change', () => changes > seen)
        rmSync(file)
        const before = changes
        await eventually('its end', () => changes > before)
      }
      const last = changes
      writeFileSync(file, 'abc')
      await new Promise(resolve => setTimeout(resolve, 60))
      assert.equal(changes, last)
    } finally { rmSync(folder, { recursive: true, force: true }) }
  })
})

describe('changesBetween', () => {
  const plugin = definePlugin({ name: 'p', setup() {} })
  const running = (config: unknown, optional = false) => new Map([['p', { name: 'p', plugin, config, optional }]])
  const names = async (...args: Parameters<typeof changesBetween>) => [...(await changesBetween(...args)).keys()]

  it('finds nothing where nothing differs, secrets included', async () => {
    const config = () => ({ key: new Secret(['a', { secret: 'x' }]), list: [1, { b: Secret.of('K', 'v') }] })
    assert.deepEqual(await names(running(config()), [{ name: 'p', plugin, config: config(), optional: false }]), [])
  })
  it('finds another secret, another value of one, another flag, another plugin', async () => {
    const same = { name: 'p', plugin, optional: false }
    assert.deepEqual(await names(running({ key: new Secret([{ secret: 'x' }]) }), [{ ...same, config: { key: new Secret([{ secret: 'y' }]) } }]), ['p'])
    assert.deepEqual(await names(running({ key: Secret.of('K', 'one') }), [{ ...same, config: { key: Secret.of('K', 'two') } }]), ['p'])
    assert.deepEqual(await names(running({}), [{ ...same, config: {}, optional: true }]), ['p'])
    assert.deepEqual(await names(running({}), [{ ...same, config: {}, plugin: definePlugin({ name: 'p', setup() {} }) }]), ['p'])
  })
  it('names what is added and what is gone', async () => {
    const found = await changesBetween(running({}), [{ name: 'q', plugin, config: {} }])
    assert.deepEqual([...found].map(([name, entry]) => [name, entry?.name]), [['p', undefined], ['q', 'q']])
  })
})
