import assert from 'node:assert/strict'
import { BackplaneError, defineHook, definePlugin, defineService, live, type Live } from '#core'
import { createTestRuntime, settle } from '#core/testing'

interface Pass { seen: string[] }
interface Counter { count(): Promise<number> }
const Counter = defineService<Counter>('load.counter')
const Other = defineService<Counter>('load.other')
const Told = defineHook.notify<number>('load.told')
const BeforeOther = defineHook.series<Pass>('load.before-other')
const BeforeIt = defineHook.series<Pass>('load.before-it')

const SECONDS = process.env['BACKPLANE_CHAOS'] ? 20 : 5
const PER_SECOND = 1_000

describe('a swap under load', () => {
  it(`fails no call of another plugin and lets none past an absent guard: ${PER_SECOND} hook and service calls a second for ${SECONDS} s over 20 swaps, 3 of them bad`, async function () {
    this.timeout(60_000)
    let alive = 0
    const provider = (name: string, ref: typeof Counter, bad?: 'setup' | 'start') => definePlugin({
      name, provides: [ref], guards: name === 'swapped' ? [BeforeIt] : [BeforeOther],
      async setup(ctx) {
        let up = true
        let count = 0
        if (bad === 'setup') throw new Error('bad in setup')
        await settle()
        ctx.provide(ref, { count: async () => { if (!up) throw new Error(`${name} was called after it was released`); await settle(); return ++count } })
        ctx.hook(Told, async () => { await settle() })
        ctx.hook(name === 'swapped' ? BeforeIt : BeforeOther, async pass => { if (!up) throw new Error('the guard was called after it was released'); await settle(); pass.seen.push(name) })
        alive++
        ctx.defer(() => { alive--; up = false })
        return { start() { if (bad === 'start') throw new Error('bad in start') } }
      },
    })
    let held!: { counter: Live<Counter>; other: Counter }
    const caller = definePlugin({ name: 'caller', uses: { counter: live(Counter), other: Other }, setup(_ctx, deps) { held = deps } })
    const dependent = definePlugin({ name: 'dependent', uses: { counter: Counter }, setup: () => ({}) })
    await using t = await createTestRuntime({ plugins: [provider('swapped', Counter), provider('steady', Other), caller, dependent] })

    const tally = { others: 0, othersFailed: 0, unguarded: 0, guarded: 0, own: 0, ownFailed: 0, errors: new Set<string>() }
    const count = async (work: () => Promise<void>, failed: 'othersFailed' | 'ownFailed') => {
      try { await work() } catch (error) {
        tally[failed]++
        tally.errors.add(`${failed}: ${(error as BackplaneError).code ?? ''} ${(error as Error).message}`)
      }
    }
    const one = (i: number) => [
      count(async () => { tally.others++; const report = await t.call(Told, i); assert.equal((report as { failures: unknown[] }).failures.length, 0) }, 'othersFailed'),
      count(async () => { tally.others++; await held.other.count() }, 'othersFailed'),
      count(async () => { tally.others++; const pass = { seen: [] }; await t.call(BeforeOther, pass); assert.deepEqual(pass.seen, ['steady']) }, 'othersFailed'),
      count(async () => { tally.own++; await held.counter.current?.count() }, 'ownFailed'),
      count(async () => { tally.own++; const pass: Pass = { seen: [] }; await t.call(BeforeIt, pass); if (pass.seen.includes('swapped')) tally.guarded++; else tally.unguarded++ }, 'ownFailed'),
    ]
    const pending = new Set<Promise<unknown>>()
    const from = performance.now()
    let made = 0
    const pump = setInterval(() => {
      for (const due = Math.min(performance.now() - from, SECONDS * 1_000) * (PER_SECOND / 1_000); made < due; made++) {
        for (const work of one(made)) { pending.add(work); void work.finally(() => pending.delete(work)) }
      }
    }, 1)
    let refused = 0
    for (let i = 1; i <= 20; i++) {
      const next = i * (SECONDS / 21) * 1_000
      while (performance.now() - from < next) await new Promise(resolve => setTimeout(resolve, 5))
      const bad = i === 5 ? 'setup' : i === 11 || i === 17 ? 'start' : undefined
      await t.runtime.swap('swapped', provider('swapped', Counter, bad)).catch(() => refused++)
    }
    while (performance.now() - from < SECONDS * 1_000) await new Promise(resolve => setTimeout(resolve, 5))
    clearInterval(pump)
    await Promise.all(pending)

    assert.deepEqual([...tally.errors], [])
    assert.deepEqual({ failed: tally.othersFailed, unguarded: tally.unguarded, own: tally.ownFailed, refused, alive }, { failed: 0, unguarded: 0, own: 0, refused: 3, alive: 2 })
    assert.ok(tally.others >= SECONDS * PER_SECOND * 3 * 0.99, `${tally.others} calls`)
    assert.deepEqual(t.runtime.inspect().plugins.map(each => each.state), ['running', 'running', 'running', 'running'])
  })
})
