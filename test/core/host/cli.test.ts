import assert from 'node:assert/strict'
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { workplace } from '../../support/cli.ts'

const STORE = `import { definePlugin, defineService } from 'backplane'
export const Store = defineService('store.store')
export default definePlugin({
  name: 'store', summary: 'Keeps things', provides: [Store], hosts: ['example.org'], secrets: ['store-*'],
  setup(ctx) { console.error('SETUP RAN'); ctx.provide(Store, { get: async key => 'value of ' + key }) },
})`
const SHOP = `import { Secret, definePlugin, defineService, definePoint, live } from 'backplane'
import { z } from 'zod'
import { Store } from './store.js'
const Till = defineService('till.till')
export const Shelf = definePoint('shop.shelf')
export default definePlugin({
  name: 'shop', summary: 'Sells things',
  config: z.strictObject({
    size: z.int().min(1).default(3).describe('How many customers fit.'), kind: z.enum(['small', 'large']).default('small'),
    key: z.instanceof(Secret).meta({ type: 'string' }).optional(), door: z.strictObject({ open: z.boolean().default(true) }).prefault({}),
  }),
  uses: { store: Store, till: live(Till) }, commands: () => import('./shop-commands.js'),
  setup(ctx, { store }) {
    ctx.collect(Shelf).watch(all => { globalThis.shelf = all.map(each => each.value) })
    return { start() { console.error('STARTED') }, reconfigure: () => true }
  },
})`
const COMMANDS = `import { Store } from './store.js'
export default [
  { name: 'shop sell', summary: 'Sells', needs: 'runtime', arguments: [{ name: '<what>', summary: 'what' }], options: [{ flags: '--count <n>', summary: 'how many', default: '1' }],
    examples: ['backplane shop sell apples'],
    async run(io) { io.out(io.json ? JSON.stringify({ sold: io.args[0] }) : await io.get(Store).get(io.args[0]) + ' x' + io.options.count + ' ' + globalThis.shelf) } },
  { name: 'shop fail', summary: 'Fails', needs: 'nothing', async run() { throw new Error('no luck') } },
  { name: 'shop visit', summary: 'Asks the server', needs: 'server', async run(io) { io.out(io.server.url) } },
  { name: 'shop ask', summary: 'Asks the server, or sells itself', needs: 'runtime', serverFirst: true, async run(io) { io.out(await io.get(Store).get('figs')) } },
  { name: 'plugins praise', summary: 'Joins a group of the host', needs: 'config', async run(io) { io.out('well done'); return 3 } },
]`
const SHELF = `import { definePlugin } from 'backplane'
import { Shelf } from './shop.js'
export default definePlugin({ name: 'shelf', contributes: [Shelf], setup(ctx) { ctx.contribute(Shelf, 'apples') } })`
const OTHER = 'import { definePlugin } from \'backplane\'\nexport default definePlugin({ name: \'other\', setup() { console.error(\'OTHER\') } })'
const CONFIG = `runtime:
  dataDir: kept
plugins:
  store:
    use: ../store.js
  shop:
    use: ../shop.js
    config:
      size: 5
      key: \${env:SHOP_KEY:-none-at-all}
  shelf: { use: ../shelf.js }
  other: { use: ../other.js }
  away: false
`
const files = { 'store.js': STORE, 'shop.js': SHOP, 'shop-commands.js': COMMANDS, 'shelf.js': SHELF, 'other.js': OTHER, 'package.json': '{"type":"module"}', 'config/default.yaml': CONFIG }

describe('the backplane command', function () {
  this.timeout(60_000)
  let place: ReturnType<typeof workplace>
  before(() => { place = workplace(files) })
  after(() => place[Symbol.asyncDispose]())

  describe('help', () => {
    it('lists the commands of the host and of the plugins, with what each does', async () => {
      const { code, out, err } = await place.run('--help')
      assert.equal(code, 0, err)
      for (const text of ['start', 'create-plugin', 'check, print, schema, plan', 'list, graph, info, test, praise', 'sell, fail, visit', 'Example']) assert.ok(out.includes(text), text)
    })
    it('gives every command an example', async () => {
      const names = ['start', 'config check', 'config print', 'config schema', 'config plan', 'plugins list', 'plugins graph', 'plugins info', 'plugins test', 'create-plugin', 'shop sell']
      for (let at = 0; at < names.length; at += 3) {
        await Promise.all(names.slice(at, at + 3).map(async name => {
          const { code, out } = await place.run(...name.split(' '), '--help')
          assert.equal(code, 0)
          assert.ok(out.includes(`$ backplane ${name}`) || out.includes(`backplane ${name}`), name)
          assert.match(out, /Examples?:/, name)
        }))
      }
    })
  })

  it('names the nearest of an unknown command, and ends with 2', async () => {
    const [one, two] = await Promise.all([place.run('strat'), place.run('config', 'chekc')])
    assert.equal(one.code, 2)
    assert.match(one.err, /unknown command "strat".*Did you mean "start"/)
    assert.equal(two.code, 2)
    assert.match(two.err, /unknown command "config chekc".*"config check"/)
  })
  it('refuses an unknown option and a missing argument with 2', async () => {
    const [one, two] = await Promise.all([place.run('config', 'check', '--jsn'), place.run('plugins', 'info')])
    assert.equal(one.code, 2)
    assert.match(one.err, /--jsn.*Did you mean --json/s)
    assert.equal(two.code, 2)
    assert.match(two.err, /missing required argument 'name'/)
  })

  describe('config', () => {
    it('check: good, and no setup ran', async () => {
      const { code, out, err } = await place.spawn('config', 'check')
      assert.equal(code, 0, err)
      assert.match(out, /no problems; 4 plugins/)
      assert.doesNotMatch(err, /SETUP RAN/)
    })
    it('check: every problem at once, each with file, line, expected, got and fix, and 2', async () => {
      place.write('bad.yaml', 'runtime:\n  graceMs: soon\nplugins:\n  shop:\n    config:\n      sise: 3\n      size: many\n  stroe: {}\n')
      const { code, err } = await place.run('config', 'check', '--config', 'bad.yaml')
      assert.equal(code, 2)
      for (const line of [2, 6, 7, 8]) assert.match(err, new RegExp(`bad\\.yaml:${line}:\\d+ {2}`), `line ${line} in:\n${err}`)
      for (const text of ['expected: ', 'got: ', 'fix: ', 'Did you mean "size"', '4 problems']) assert.ok(err.includes(text), `${text} in:\n${err}`)
    })
    it('check: a missing dependency names who needs it, and a start says the same', async () => {
      place.write('lonely.yaml', 'plugins:\n  store: false\n')
      const [checked, started] = await Promise.all([place.run('config', 'check', '-c', 'lonely.yaml'), place.spawn('start', '-c', 'lonely.yaml')])
      assert.deepEqual([checked.code, started.code], [2, 2])
      assert.match(checked.err, /default\.yaml:6:\d+ {2}plugins\.shop {2}plugin "shop" needs service "store\.store"/)
      assert.equal(started.err, checked.err)
    })
    it('check --json: rows for programs', async () => {
      const { code, out } = await place.run('config', 'check', '--config', 'bad.yaml', '--json')
      assert.equal(code, 2)
      const { ok, problems } = JSON.parse(out) as { ok: boolean; problems: { file: string; line: number; fix: string }[] }
      assert.equal(ok, false)
      assert.deepEqual(problems.map(({ file, line }) => `${file}:${line}`), ['bad.yaml:2', 'bad.yaml:6', 'bad.yaml:7', 'bad.yaml:8'])
    })
    it('print: every setting with where it comes from, secrets masked', async () => {
      const it = place.start(['config', 'print'], { SHOP_KEY: 'very-secret-key' })
      assert.equal(await it.ended, 0, it.err)
      assert.match(it.out, /plugins\.shop\.config\.size: 5 +# config\/default\.yaml:9/)
      assert.match(it.out, /plugins\.shop\.config\.door\.open: true +# default/)
      assert.match(it.out, /plugins\.shop\.config\.key: "\[secret SHOP_KEY\]"/)
      assert.doesNotMatch(it.out, /very-secret/)
    })
    it('print: plain texts that sound secret, and passwords in addresses, are hidden', async () => {
      await using other = workplace({
        'open.js': 'import { definePlugin } from \'backplane\'\nimport { z } from \'zod\'\nexport default definePlugin({ name: \'open\', config: z.looseObject({}), setup() {} })', 'package.json': '{"type":"module"}',
        'config/default.yaml': 'plugins:\n  open:\n    use: ../open.js\n    config: { api_key: plain-1, keys: [plain-2], url: "postgres://ann:plain-3@db:5432/x", size: 4 }\n',
      })
      const { code, out } = await other.run('config', 'print')
      assert.equal(code, 0)
      assert.doesNotMatch(out, /plain-/)
      for (const line of ['config.api_key: "[hidden]"', 'config.keys.0: "[hidden]"', 'config.url: "postgres://ann:[hidden]@db:5432/x"', 'config.size: 4']) assert.ok(out.includes(line), `${line}\n${out}`)
      const running = other.start(['start', '--no-watch'])
      await running.started()
      running.process.kill('SIGTERM')
      assert.equal(await running.ended, 0)
      const kept = readFileSync(join(other.folder, 'data/config.snapshot.json'), 'utf8')
      assert.match(kept, /postgres:\/\/ann:\[hidden\]@db/)
      assert.doesNotMatch(kept, /plain-/)
    })
    it('schema: of the whole file', async () => {
      const { code, out } = await place.run('config', 'schema')
      assert.equal(code, 0)
      const schema = JSON.parse(out) as { properties: Record<string, any> }
      assert.deepEqual(Object.keys(schema.properties), ['runtime', 'log', 'plugins'])
      assert.match(JSON.stringify(schema.properties['plugins'].properties.shop), /How many customers fit\./)
    })
  })

  describe('start', () => {
    it('refuses a data directory that cannot be made, with the fix and 2, and does not hang', async () => {
      for (const folder of ['/proc/nope', '/proc/nope/deeper', '/dev/null']) {
        const it = place.start(['start'], { DATA_DIR: folder })
        const late = setTimeout(() => it.process.kill('SIGKILL'), 10_000)
        assert.equal(await it.ended, 2, it.err)
        clearTimeout(late)
        assert.match(it.err, /HOST_DATA_DIR: the data directory \/[\s\S]+fix: Make it writable/)
      }
    })
    it('warns if there is nothing to run', async () => {
      await using other = workplace({ 'config/default.yaml': 'plugins:\n  away: false\n' })
      const it = other.start(['start', '--no-watch'])
      const line = await it.line('the warning', ({ level }) => level === 'warn')
      assert.match(line['msg'], /no plugin is configured \(turned off: away\), so nothing runs: name some under "plugins:" in config\/default\.yaml/)
      await it.started()
      it.process.kill('SIGTERM')
      assert.equal(await it.ended, 0)
    })
  })

  describe('config plan', () => {
    it('needs a server that has recorded its configuration', async () => {
      const { code, err } = await place.run('config', 'plan')
      assert.equal(code, 1)
      assert.match(err, /HOST_NO_SNAPSHOT[^]*fix: Start one/)
    })
    it('names what would be added, removed, re-configured and restarted, with dependents; and runs no setup', async () => {
      const server = place.start(['start', '--no-watch'], { SHOP_KEY: 'very-secret-key' })
      await server.started()
      server.process.kill('SIGTERM')
      assert.equal(await server.ended, 0)
      const recorded = readFileSync(join(place.folder, 'kept/config.snapshot.json'), 'utf8')
      assert.equal(statSync(join(place.folder, 'kept/config.snapshot.json')).mode & 0o777, 0o600)
      assert.equal(statSync(join(place.folder, 'kept')).mode & 0o777, 0o700)
      assert.match(recorded, /\[secret SHOP_KEY\]/)
      assert.doesNotMatch(recorded, /very-secret/)

      assert.match((await place.run('config', 'plan')).out, /nothing would change/)
      place.write('next.yaml', 'log: { level: debug }\nruntime: { graceMs: 5000 }\nplugins:\n  shop: { config: { size: 6 } }\n  other: null\n  second: { use: ./other.js }\n')
      const text = await place.spawn('config', 'plan', '-c', 'next.yaml')
      assert.equal(text.code, 0, text.err)
      const rows = ['+ second: added', '- other: removed', '~ shop: re-configured', '~ log.level: info -> debug', '! runtime.graceMs: 30000 -> 5000; takes a restart']
      for (const row of rows) assert.ok(text.out.includes(row), `${row} in:\n${text.out}`)
      assert.doesNotMatch(text.err, /SETUP RAN|OTHER/)

      place.write('own.yaml', 'log: { level: warn }\nplugins:\n  shop: { config: { size: 7 } }\n')
      place.write('quiet.yaml', 'log: { format: json }\n')
      const other = place.start(['start', '--no-watch', '--config', 'own.yaml', '--roles', 'api'], { SHOP_KEY: 'very-secret-key', LOG_LEVEL: 'info' })
      await other.started()
      other.process.kill('SIGTERM')
      assert.equal(await other.ended, 0)
      const same = await place.run('config', 'plan')
      assert.deepEqual([same.code, same.out.trim()], [0, 'nothing would change'], same.err)
      assert.match(same.err, /with its --config own\.yaml[^]*judged with the variables of that process; this shell has others for LOG_LEVEL,/)
      assert.doesNotMatch(readFileSync(join(place.folder, 'kept/config.snapshot.json'), 'utf8'), /very-secret/)
      assert.match((await place.run('config', 'plan', '-c', 'quiet.yaml')).out, /~ shop: re-configured/)

      place.write('store2.js', STORE)
      place.write('swap.yaml', 'plugins:\n  store: { use: ./store2.js }\n')
      const { out } = await place.run('config', 'plan', '-c', 'swap.yaml', '--json')
      const { restarted, dependents, reconfigured } = JSON.parse(out) as Record<string, string[]>
      assert.deepEqual({ restarted, dependents, reconfigured }, { restarted: ['store'], dependents: ['shop'], reconfigured: [] })
    })
  })

  describe('plugins', () => {
    it('list: what they do, provide and use', async () => {
      const [text, json] = await Promise.all([place.run('plugins', 'list'), place.run('plugins', 'list', '--json')])
      assert.match(text.out, /shop {2}Sells things\n {4}uses {6}store\.store, till\.till\?/)
      assert.match(text.out, /turned off: away/)
      const rows = JSON.parse(json.out) as { name: string; provides: string[]; live: string[] }[]
      assert.deepEqual(rows.map(row => row.name), ['store', 'shop', 'shelf', 'other'])
      assert.deepEqual(rows[1]!.live, ['till.till'])
    })
    it('graph: as text, JSON, Mermaid and DOT', async () => {
      const [text, json] = await Promise.all([place.run('plugins', 'graph'), place.run('plugins', 'graph', '--json')])
      assert.equal(text.out, 'shop\n└─ store  store.store\nshelf\nother\n')
      const { order, edges } = JSON.parse(json.out) as { order: string[]; edges: unknown[] }
      assert.deepEqual(order, ['store', 'shop', 'shelf', 'other'])
      assert.deepEqual(edges, [{ from: 'shop', to: 'store', via: 'store.store', kind: 'hard' }])
      const [mermaid, dot] = await Promise.all([place.run('plugins', 'graph', '--mermaid'), place.run('plugins', 'graph', '--dot')])
      assert.match(mermaid.out, /^graph LR\n {2}p0\["store"\]\n[^]* {2}p1 -->\|"store\.store"\| p0\n$/)
      assert.match(dot.out, /^digraph plugins \{[^]*"shop" -> "store" \[label="store\.store"\]\n\}\n$/)
    })
    it('info: settings with type, default and description, and commands', async () => {
      const [text, json] = await Promise.all([place.run('plugins', 'info', 'shop'), place.run('plugins', 'info', 'store', '--json')])
      assert.match(text.out, /size {2}integer, 3\n {6}How many customers fit\./)
      assert.match(text.out, /kind {2}"small" \| "large", "small"/)
      assert.match(text.out, /door\.open {2}boolean, true/)
      assert.match(text.out, /shop sell +Sells/)
      const { hosts, secrets, provides } = JSON.parse(json.out) as Record<string, string[]>
      assert.deepEqual({ hosts, secrets, provides }, { hosts: ['example.org'], secrets: ['store-*'], provides: ['store.store'] })
    })
    it('info: of an unknown one names the known', async () => {
      const { code, err } = await place.run('plugins', 'info', 'shp')
      assert.equal(code, 1)
      assert.match(err, /PLUGIN_UNKNOWN[^]*fix: Did you mean "shop"\?\n$/)
    })
  })

  describe('commands of plugins', () => {
    it('get a runtime of what their plugin needs and what contributes to it; nothing is started', async () => {
      const { code, out, err } = await place.spawn('shop', 'sell', 'pears', '--count', '2')
      assert.equal(code, 0, err)
      assert.equal(out, 'value of pears x2 apples\n')
      assert.match(err, /SETUP RAN/)
      assert.doesNotMatch(err, /OTHER|STARTED/)
    })
    it('print data with --json, and end with the code that they return', async () => {
      const [json, praise] = await Promise.all([place.run('shop', 'sell', 'pears', '--json'), place.spawn('plugins', 'praise')])
      assert.deepEqual(JSON.parse(json.out), { sold: 'pears' })
      assert.deepEqual([praise.code, praise.out], [3, 'well done\n'])
    })
    it('end with 1 when they fail, and with 2 when the config is bad', async () => {
      const [failed, bad] = await Promise.all([place.spawn('shop', 'fail'), place.spawn('shop', 'sell', 'x', '-c', 'bad.yaml')])
      assert.equal(failed.code, 1)
      assert.match(failed.err, /no luck/)
      assert.equal(bad.code, 2)
      assert.match(bad.err, /bad\.yaml:6/)
    })
    it('say where they work when they could ask a server and there is none', async () => {
      const { code, out, err } = await place.run('shop', 'ask', '--json')
      assert.deepEqual([code, out.includes('figs')], [0, true])
      assert.match(err, /^no server found; running here, data in \/.*\n/)
    })
    it('say what to do when no server answers', async () => {
      const [none, silent] = await Promise.all([place.run('shop', 'visit'), place.run('shop', 'visit', '--url', 'http://127.0.0.1:9')])
      assert.deepEqual([none.code, silent.code], [1, 1])
      assert.match(none.err, /HOST_SERVER_UNKNOWN[^]*fix: Start one/)
      assert.match(silent.err, /HOST_SERVER_SILENT[^]*127\.0\.0\.1:9/)
    })
  })
})
