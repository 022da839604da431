import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import Sqlite from 'better-sqlite3'
import { startChild } from '../../support/child.ts'

const PROCESSES = 4
const MOST_MS = 50
const QUIET_MS = 25
interface Told { readonly acknowledged: number; readonly failures: number; readonly first?: string; readonly p99: number; readonly longest: number }

/** All write to one file for a time; resolves to what each has to tell. */
async function contend(): Promise<Told[]> {
  const dir = mkdtempSync(join(tmpdir(), 'backplane-four-'))
  const file = join(dir, 'four.db')
  const children = Array.from({ length: PROCESSES }, () => startChild(new URL('contender-child.ts', import.meta.url), file, '1500'))
  try {
    await Promise.all(children.map(child => child.said('ready')))
    for (const child of children) child.tell('go')
    await Promise.all(children.map(child => child.ended))
    const told = children.map(child => JSON.parse(child.lines.at(-1)!) as Told)
    const db = new Sqlite(file, { readonly: true })
    try {
      const total = db.prepare('SELECT n FROM counters').pluck().get()
      assert.equal(total, told.reduce((sum, { acknowledged }) => sum + acknowledged, 0), 'every acknowledged update, and no other, was counted')
    } finally { db.close() }
    return told
  } finally {
    await Promise.all(children.map(child => child.kill()))
    rmSync(dir, { recursive: true })
  }
}

/** How long a process that does nothing is kept waiting by this machine meanwhile, for its turn or for the disk, in milliseconds. */
async function noiseDuring(work: () => Promise<void>): Promise<number> {
  const dir = mkdtempSync(join(tmpdir(), 'backplane-noise-'))
  const file = await open(join(dir, 'noise'), 'w')
  const delay = monitorEventLoopDelay({ resolution: 1 })
  let longest = 0
  let going = true
  const disk = (async () => {
    while (going) {
      const from = performance.now()
      await file.write('noise')
      await file.datasync()
      longest = Math.max(longest, performance.now() - from)
      await new Promise(resolve => setTimeout(resolve, 10))
    }
  })()
  delay.enable()
  try { await work() } finally {
    delay.disable()
    going = false
    await disk
    await file.close()
    rmSync(dir, { recursive: true })
  }
  return Math.max(longest, delay.max / 1e6)
}

describe('database on SQLite, written by four processes at once', () => {
  it('loses no update, lets no SQLITE_BUSY out, and stops no event loop for more than 50 ms', async function () {
    this.timeout(120_000)
    const rounds: { stall: number; noise: number }[] = []
    // Where others use the machine, everybody is stopped for longer than we stop anybody; more than that is our doing again.
    const good = () => rounds.some(({ stall }) => stall <= MOST_MS)
    for (let round = 0; round < 4 && !good(); round++) {
      let told!: Told[]
      const noise = await noiseDuring(async () => { told = await contend() })
      for (const { failures, first } of told) assert.equal(failures, 0, first)
      const most = Math.max(...told.map(each => each.acknowledged))
      for (const { acknowledged } of told) assert.ok(acknowledged > most / 10, `a process was starved: ${acknowledged} of ${told.map(each => each.acknowledged)}`)
      rounds.push({ stall: Math.max(...told.map(({ longest }) => longest)), noise })
    }
    const shown = rounds.map(({ stall, noise }) => `${Math.round(stall)} ms, with ${Math.round(noise)} ms of noise`).join('; ')
    const excused = rounds.some(({ stall, noise }) => noise > QUIET_MS && stall <= MOST_MS + 3 * noise)
    if (excused && !good()) console.log(`      skipped: the machine is too busy to measure stalls of ${MOST_MS} ms: ${shown}`)
    assert.ok(good() || excused, `the longest stalls were ${shown}`)
  })
})
