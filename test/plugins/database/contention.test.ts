import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Sqlite from 'better-sqlite3'
import { eventually } from '#core/testing'
import { startChild } from '../../support/child.ts'

const PROCESSES = 4
const MOST_MS = 50
interface Told { readonly acknowledged: number; readonly failures: number; readonly first?: string; readonly p99: number; readonly longest: number }

/** All write to one file for a time; resolves to what each has to tell. */
async function contend(): Promise<Told[]> {
  const dir = mkdtempSync(join(tmpdir(), 'backplane-four-'))
  const file = join(dir, 'four.db')
  const children = Array.from({ length: PROCESSES }, () => startChild(new URL('contender-child.ts', import.meta.url), file, '1500'))
  try {
    for (const child of children) {
      const ended = () => child.process.exitCode !== null && assert.fail(child.errors())
      await eventually('all to be ready', () => child.lines.includes('ready') || ended(), 30_000)
    }
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

describe('database on SQLite, written by four processes at once', () => {
  it('loses no update, lets no SQLITE_BUSY out, and stops no event loop for more than 50 ms', async function () {
    this.timeout(120_000)
    const stalls: number[] = []
    // A busy machine and its disk stop processes for longer than we do; what we do ourselves shows each time.
    for (let round = 0; round < 6 && !stalls.some(stall => stall <= MOST_MS); round++) {
      const told = await contend()
      for (const { failures, first } of told) assert.equal(failures, 0, first)
      for (const { acknowledged } of told) assert.ok(acknowledged > 20, `a process was starved: ${acknowledged} of ${told.map(each => each.acknowledged)}`)
      stalls.push(Math.max(...told.map(({ longest }) => longest)))
    }
    assert.ok(stalls.some(stall => stall <= MOST_MS), `the longest stalls were ${stalls.map(Math.round).join(', ')} ms`)
  })
})
