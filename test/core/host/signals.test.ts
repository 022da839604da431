import assert from 'node:assert/strict'
import { eventually } from '#core/testing'
import { workplace, type Run } from '../../support/cli.ts'

// Does what the file `do` says, each word once: inside its own scope (a timer of the plugin) or, with `outside`, in nobody's.
const PLUGIN = `import { readFileSync, rmSync } from 'node:fs'
import { definePlugin, RuntimeHooks } from 'backplane'
import { z } from 'zod'
let config
function act(word) {
  if (word === 'reject') void Promise.reject(new Error('a stray rejection'))
  if (word === 'throw') setTimeout(() => { throw new Error('a stray exception') })
  if (word === 'talk') console.log('{"msg":"talked"}')
}
function look(prefix) {
  let word
  try { word = readFileSync('do', 'utf8').trim() } catch { return }
  if (!word.startsWith(prefix) || (prefix === '' && word.startsWith('outside'))) return
  rmSync('do')
  act(word.replace('outside ', ''))
}
setInterval(() => look('outside '), 10).unref()
export default definePlugin({
  name: 'worker', config: z.strictObject({ workMs: z.int().default(0), linger: z.boolean().default(false) }),
  setup(ctx) {
    if (ctx.config.linger) setInterval(() => {}, 60_000)
    ctx.clock.every(10, () => look(''))
    ctx.hook(RuntimeHooks.faulted, ({ plugin, where }) => ctx.log.info('heard of a fault', { of: plugin, where }))
    return {
      async drain() { await new Promise(resolve => setTimeout(resolve, ctx.config.workMs)); ctx.log.info('finished the work') },
      stop() { ctx.log.info('closed') },
    }
  },
})`
const files = (settings = '', graceMs = 20_000) => ({
  'package.json': '{"type":"module"}', 'worker.js': PLUGIN,
  'other.js': 'import { definePlugin } from \'backplane\'\nexport default definePlugin({ name: \'other\', setup(ctx) { ctx.defer(() => ctx.log.info(\'other left\')) } })',
  'config/default.yaml': `runtime: { graceMs: ${graceMs} }\nplugins:\n  worker: { use: ../worker.js, config: { ${settings} } }\n  other: { use: ../other.js }\n`,
})
const said = (run: Run) => run.lines.map(line => line['msg'] as string)
const msg = (text: string) => (line: Record<string, any>) => line['msg'] === text

async function started(place: ReturnType<typeof workplace>): Promise<Run> {
  const run = place.start(['start', '--no-watch'])
  await run.line('the start', msg('started'))
  return run
}

describe('a running process', function () {
  this.timeout(30_000)

  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    it(`finishes its work at ${signal}, stops in order, and ends with 0`, async () => {
      await using place = workplace(files('workMs: 300'))
      const run = await started(place)
      run.process.kill(signal)
      assert.equal(await run.ended, 0, run.err)
      assert.deepEqual(said(run).slice(-5), ['stopping, within 20000 ms', 'finished the work', 'closed', 'other left', 'stopped'])
    })
  }

  it('is ended at once by a second SIGTERM, with 1', async () => {
    await using place = workplace(files('workMs: 60000'))
    const run = await started(place)
    run.process.kill('SIGTERM')
    await run.line('the stop', line => String(line['msg']).startsWith('stopping'))
    const from = performance.now()
    // What follows within the time of an echo is taken for the same signal.
    await new Promise(resolve => setTimeout(resolve, 150))
    run.process.kill('SIGTERM')
    assert.equal(await run.ended, 1)
    assert.ok(performance.now() - from < 2_000)
    assert.ok(!said(run).includes('closed'))
  })

  it('takes the same signal handed on twice, as by npm and a terminal, for one', async () => {
    await using place = workplace(files('workMs: 300'))
    const run = await started(place)
    run.process.kill('SIGTERM')
    run.process.kill('SIGINT')
    assert.equal(await run.ended, 0, run.err)
    assert.ok(said(run).includes('finished the work'))
  })

  it('ends within graceMs though a plugin hangs', async () => {
    await using place = workplace(files('workMs: 60000', 1_000))
    const run = await started(place)
    const from = performance.now()
    run.process.kill('SIGTERM')
    assert.equal(await run.ended, 0)
    assert.ok(performance.now() - from < 3_000, `${performance.now() - from} ms`)
  })

  it('stops in the middle of a start', async () => {
    await using place = workplace({
      'package.json': '{"type":"module"}', 'config/default.yaml': 'plugins: { slow: { use: ../slow.js } }\n',
      'slow.js': `import { definePlugin } from 'backplane'
        export default definePlugin({ name: 'slow', async setup(ctx) { ctx.log.info('begun'); ctx.defer(() => ctx.log.info('undone')); await new Promise(resolve => setTimeout(resolve, 300)) } })`,
    })
    const run = place.start(['start'])
    await run.line('the setup', msg('begun'))
    run.process.kill('SIGTERM')
    assert.equal(await run.ended, 0, run.err)
    assert.ok(said(run).includes('undone'))
    assert.ok(!said(run).includes('started'))
  })

  it('is stopped by a SIGTERM that comes while its plugins are read', async () => {
    const slow = 'console.log(\'{"msg":"is read"}\')\nawait new Promise(done => setTimeout(done, 500))\n'
    await using place = workplace({ ...files(), 'worker.js': slow + PLUGIN })
    const run = place.start(['start', '--no-watch'])
    await run.line('the reading', msg('is read'))
    run.process.kill('SIGTERM')
    assert.equal(await run.ended, 0, run.err)
    assert.ok(!said(run).includes('started'))
  })

  for (const [word, where] of [['reject', 'unhandled rejection'], ['throw', 'uncaught exception']] as const) {
    it(`goes on after an ${where} of a plugin, which is put down to it`, async () => {
      await using place = workplace(files())
      const run = await started(place)
      place.write('do', word)
      const line = await run.line('the fault', each => String(each['msg']).startsWith(where))
      assert.deepEqual([line['plugin'], line['level']], ['worker', 'error'])
      const heard = await run.line('the hook', msg('heard of a fault'))
      assert.deepEqual([heard['of'], heard['where']], ['worker', where])
      place.write('do', 'talk')
      await run.line('work that goes on', msg('talked'))
      run.process.kill('SIGTERM')
      assert.equal(await run.ended, 0)
    })
    it(`stops properly after an ${where} of nobody, and ends with 1`, async () => {
      await using place = workplace(files())
      const run = await started(place)
      place.write('do', `outside ${word}`)
      assert.equal(await run.ended, 1, run.err)
      const line = run.lines.find(each => String(each['msg']).startsWith(`${where} of no plugin`))
      assert.match(line?.['err'].stack, /a stray/)
      assert.deepEqual(said(run).slice(-3), ['closed', 'other left', 'stopped'])
    })
  }

  it('goes on when nobody reads its output any more', async () => {
    await using place = workplace(files())
    const run = await started(place)
    run.process.stdout!.destroy()
    for (let times = 0; times < 3; times++) {
      place.write('do', 'reject')
      await eventually('the fault to be seen', async () => !(await import('node:fs')).existsSync(`${place.folder}/do`))
    }
    run.process.kill('SIGTERM')
    assert.equal(await run.ended, 0, run.err)
  })

  it('keeps its code and says so when something goes astray after it stopped', async () => {
    for (const [word, throws] of [['throw', true], ['reject', false]] as const) {
      await using place = workplace({
        'package.json': '{"type":"module"}', 'config/default.yaml': 'plugins: { late: { use: ../late.js } }\n',
        'late.js': `import { definePlugin } from 'backplane'
          const go = () => { ${throws ? 'throw new Error(\'too late\')' : 'void Promise.reject(new Error(\'too late\'))'} }
          export default definePlugin({ name: 'late', setup(ctx) { ctx.defer(() => { setTimeout(go, 300) }) } })`,
      })
      const run = await started(place)
      run.process.kill('SIGTERM')
      assert.equal(await run.ended, 0, `${word}: ${run.err}`)
      const line = run.lines.find(each => String(each['msg']).endsWith('after the stop: too late'))
      assert.equal(line?.['level'], 'error', run.out)
    }
  })

  it('keeps the code of a command whose plugin goes astray after the end', async () => {
    await using place = workplace({
      'package.json': '{"type":"module"}', 'config/default.yaml': 'plugins: { late: { use: ../late.js } }\n',
      'late.js': `import { definePlugin } from 'backplane'
        export default definePlugin({ name: 'late', commands: () => import('./commands.js'), setup(ctx) { ctx.defer(() => { setTimeout(() => { throw new Error('too late') }, 300) }) } })`,
      'commands.js': 'export default [{ name: \'late say\', summary: \'says\', needs: \'runtime\', async run(io) { io.out(\'said\') } }]',
    })
    const { code, out, err } = await place.spawn('late', 'say')
    assert.deepEqual([code, out], [0, 'said\n'], err)
    assert.match(err, /after the end: Error: too late/)
  })

  it('ends though something keeps it alive, and says what', async () => {
    await using place = workplace(files('linger: true'))
    const run = await started(place)
    run.process.kill('SIGTERM')
    assert.equal(await run.ended, 0)
    assert.match(run.err, /does not end by itself; still open: .*Timeout/)
  })

  it('ends with 1 and the reason when a plugin cannot start', async () => {
    await using place = workplace({
      'package.json': '{"type":"module"}', 'config/default.yaml': 'plugins: { broken: { use: ../broken.js } }\n',
      'broken.js': 'import { definePlugin } from \'backplane\'\nexport default definePlugin({ name: \'broken\', setup() { throw new Error(\'no power\') } })',
    })
    const { code, err } = await place.spawn('start')
    assert.equal(code, 1)
    assert.match(err, /LIFECYCLE_FAILED: setup of plugin "broken" failed: no power\n {2}fix: /)
  })
})
