import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { Case, Outcome } from './fault-matrix/child.ts'
import { COUNT, FAULTS, nameOf, type Fault } from './fault-matrix/plugins.ts'

const CHILD = fileURLToPath(new URL('fault-matrix/child.ts', import.meta.url))

/** The twenty plugins in turn, every fault on seven of them; boot faults as optional and as required ones. */
const cases: Case[] = []
FAULTS.forEach((fault, row) => {
  for (let k = 0; k < (fault.boot ? 3 : 7); k++) {
    const guilty = [[(row * 3 + k * 3) % COUNT, fault]] as const
    if (fault.boot) for (const optional of [true, false]) cases.push({ id: cases.length, guilty, optional })
    else cases.push({ id: cases.length, guilty, optional: false })
  }
})
const three: Case = { id: cases.length, optional: false, guilty: [[1, byKind('load', 'throws')], [6, byKind('config', 'bad-config')], [9, byKind('graph', 'lacks-dependency')]] }
function byKind(phase: string, kind: string): Fault { return FAULTS.find(each => each.phase === phase && each.kind === kind)! }

describe(`fault matrix: 20 plugins through the loader, ${cases.length} cases`, function () {
  this.timeout(180_000)
  const outcomes = new Map<number, Outcome>()
  let exit: { code: number | null; err: string }

  before('all cases run in two processes that must survive them', async () => {
    const all = [...cases, three]
    const runs = [all.filter((_, i) => i % 2 === 0), all.filter((_, i) => i % 2 === 1)].map(part => new Promise<{ code: number | null; err: string }>(resolve => {
      const child = spawn(process.execPath, ['--import', 'tsx', '--conditions=backplane-source', CHILD, JSON.stringify(part)], { stdio: ['ignore', 'pipe', 'pipe'] })
      let [out, err] = ['', '']
      child.stdout.on('data', (chunk: Buffer) => { out += chunk.toString() })
      child.stderr.on('data', (chunk: Buffer) => { err += chunk.toString() })
      child.once('close', code => {
        for (const line of out.split('\n').filter(Boolean)) { const outcome = JSON.parse(line) as Outcome; outcomes.set(outcome.id, outcome) }
        resolve({ code, err })
      })
    }))
    const ended = await Promise.all(runs)
    exit = { code: ended.find(each => each.code !== 0)?.code ?? 0, err: ended.map(each => each.err).join('') }
  })

  it('no fault ended the process', () => { assert.deepEqual(exit, { code: 0, err: '' }) })

  it('a boot that fails tells every problem at once', () => {
    assert.deepEqual(outcomes.get(three.id)!.refused!.map(each => each.plugin).sort(), [nameOf(1), nameOf(6), nameOf(9)])
  })

  for (const fault of FAULTS) {
    const mine = cases.filter(each => each.guilty[0]![1] === fault)
    const name = `${fault.phase}: ${fault.kind}`
    if (fault.boot) {
      it(`${name}: an optional plugin is left out with those that stand on it, named with phase and error; the others answer`, () => {
        for (const { id, guilty: [[i]] } of mine.filter(each => each.optional)) {
          const { leftOut, wrong, unattributed } = outcomes.get(id)!
          const dependents = i % 4 === 2 ? [nameOf(i + 1)] : []
          assert.deepEqual(Object.keys(leftOut ?? {}).sort(), [nameOf(i), ...dependents].sort())
          assert.equal(leftOut![nameOf(i)]!.phase, fault.phase, nameOf(i))
          assert.ok(leftOut![nameOf(i)]!.code)
          assert.deepEqual([wrong, unattributed], [[], []])
        }
      })
      it(`${name}: a required plugin stops the boot, and is named`, () => {
        for (const { id, guilty: [[i]] } of mine.filter(each => !each.optional)) {
          // Of a module that did not load nobody knows what it would have provided.
          const consequence = fault.phase === 'load' && i % 4 === 2 ? [nameOf(i + 1)] : []
          assert.deepEqual(outcomes.get(id)!.refused!.map(each => each.plugin), [nameOf(i), ...consequence])
        }
      })
    } else {
      it(`${name}: is put down to its plugin, and reaches nobody else's answers`, () => {
        for (const { id, guilty: [[i]] } of mine) {
          const { leftOut, wrong, unattributed, faults, reported, stopMs, refused } = outcomes.get(id)!
          assert.deepEqual([refused, leftOut, wrong, unattributed], [undefined, {}, [], []], nameOf(i))
          assert.ok(Object.keys(faults!).every(each => each === nameOf(i)), JSON.stringify(faults))
          if (fault.phase === 'hook' && fault.kind !== 'rejects-later' && fault.kind !== 'throws-later') assert.deepEqual(reported, [`${fault.kind === 'hangs' ? 'HOOK_TIMEOUT' : 'HOOK_FAILED'} ${nameOf(i)}`])
          else if (fault.phase !== 'stop' || fault.kind === 'rejects-later') assert.ok(faults![nameOf(i)]! > 0, `${name} of ${nameOf(i)} was not counted`)
          assert.ok(stopMs! < 2_500, `stop took ${stopMs} ms`)
        }
      })
    }
  }
})
