import assert from 'node:assert/strict'
import { workplace } from '../../support/cli.ts'

const ASKER = `import { defineHook, definePlugin, defineService } from 'backplane'
export const MaySpend = defineHook.series('asker.may-spend', { timeout: 700 })
export const Asker = defineService('asker.asker')
export default definePlugin({
  name: 'asker', provides: [Asker], commands: () => import('./commands.js'),
  setup(ctx) {
    const ask = async () => { try { await ctx.call(MaySpend, {}); return 'open' } catch (error) { return error.code } }
    ctx.provide(Asker, { ask })
    return { async start() { ctx.log.info('asked', { answer: await ask() }) } }
  },
})`
const COMMANDS = 'import { Asker } from \'./asker.js\'\nexport default [{ name: \'ask now\', summary: \'asks\', needs: \'runtime\', async run(io) { io.out(await io.get(Asker).ask()) } }]'
const GUARD = `import { definePlugin } from 'backplane'
import { MaySpend } from './asker.js'
export default definePlugin({ name: 'budget', guards: [MaySpend], setup(ctx) { ctx.hook(MaySpend, () => {}) } })`
const BROKEN = 'import \'./nothing-there.js\'\n'
const files = (guard: string) => ({
  'package.json': '{"type":"module"}', 'asker.js': ASKER, 'commands.js': COMMANDS, 'guard.js': guard,
  'config/default.yaml': 'plugins:\n  asker: { use: ../asker.js }\n  budget: { use: ../guard.js, optional: true }\n',
})

/** Starts and stops a server; resolves to what the hook answered and what was warned of. */
async function served(place: ReturnType<typeof workplace>): Promise<{ answer: unknown; warnings: string[] }> {
  const run = place.start(['start', '--no-watch'])
  const asked = await run.line('the answer', line => line['msg'] === 'asked')
  await run.started()
  run.process.kill('SIGTERM')
  assert.equal(await run.ended, 0, run.err)
  return { answer: asked['answer'], warnings: run.lines.filter(line => line['level'] === 'warn').map(line => String(line['msg'])) }
}
const about = (warnings: readonly string[]) => warnings.filter(each => each.includes('"budget" could not be loaded')).join()

describe('an optional guard that can no longer be loaded', function () {
  this.timeout(60_000)

  it('keeps its hooks closed if it ran here once, start after start, and for commands too', async () => {
    await using place = workplace(files(GUARD))
    assert.deepEqual(await served(place), { answer: 'open', warnings: [] })
    place.write('guard.js', BROKEN)
    for (let time = 0; time < 2; time++) {
      const { answer, warnings } = await served(place)
      assert.equal(answer, 'PLUGIN_UNAVAILABLE')
      assert.match(about(warnings), /closed: asker\.may-spend/)
    }
    const { out, err } = await place.spawn('ask', 'now')
    assert.equal(out, 'PLUGIN_UNAVAILABLE\n', err)
    place.write('guard.js', GUARD)
    assert.equal((await served(place)).answer, 'open')
  })

  it('is warned of if nobody knows what it guards', async () => {
    await using place = workplace(files(BROKEN))
    for (let time = 0; time < 2; time++) {
      const { answer, warnings } = await served(place)
      assert.equal(answer, 'open')
      assert.match(about(warnings), /nobody knows what it guards/)
    }
  })
})
