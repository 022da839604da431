import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Sqlite from 'better-sqlite3'
import { eventually } from '#core/testing'
import { startChild, type Child } from '../../support/child.ts'

/** `npm run chaos` sets it: how often is often enough to be believed. */
const ROUNDS = process.env['BACKPLANE_CHAOS'] ? 100 : 10
/** Loading takes a process ten times as long as it then lives: these are loaded ahead. */
const AHEAD = 3
const WRITERS = 2

describe('database on SQLite, killed', () => {
  it(`has every acknowledged row, and nothing half, after each of ${ROUNDS} kill -9 at any moment`, async function () {
    this.timeout(ROUNDS * 12_000)
    const dir = mkdtempSync(join(tmpdir(), 'backplane-kill-'))
    const file = join(dir, 'kill.db')
    const acknowledged: string[] = []
    const waiting: Child[] = []
    let next = 0
    const load = () => { waiting.push(startChild(new URL('writer-child.ts', import.meta.url), file, String(next++), '8', 'wait')) }
    try {
      for (let at = 0; at < AHEAD + WRITERS - 1; at++) load()
      // The killed one is followed by another while its neighbour, which it may have stopped in the middle, goes on.
      const writing: Child[] = []
      for (let round = 0; round < ROUNDS; round++) {
        while (writing.length < WRITERS) {
          const child = waiting.shift()!
          await child.said('loaded')
          child.tell('go')
          writing.push(child)
          if (next < ROUNDS + WRITERS) load()
        }
        const victim = writing.shift()!
        // Sometimes before it has opened the file, mostly in the middle of writing.
        if (round % 5) await eventually('it to write', () => victim.lines.length > 3 || (victim.process.exitCode !== null && assert.fail(victim.errors())), 30_000)
        await new Promise(resolve => setTimeout(resolve, Math.random() * 60))
        await victim.kill()
        acknowledged.push(...victim.lines.filter(line => /^\d+-\d+$/.test(line)))
        const db = new Sqlite(file)
        try {
          db.pragma('busy_timeout = 5000')
          assert.equal(db.pragma('integrity_check', { simple: true }), 'ok')
          const tables = db.prepare('SELECT count(*) FROM sqlite_master WHERE name LIKE ?').pluck().get('%_half')
          if (tables === 0 && acknowledged.length === 0) continue
          // One transaction for both, for the neighbour still writes.
          const idsOf = (table: string) => new Set(db.prepare(`SELECT id FROM ${table}`).pluck().all())
          const [left, right] = db.transaction(() => [idsOf('left_half'), idsOf('right_half')])()
          assert.deepEqual(left, right)
          assert.deepEqual(acknowledged.filter(id => !left!.has(id)), [])
        } finally { db.close() }
      }
      await Promise.all(writing.map(child => child.kill()))
      assert.ok(acknowledged.length > ROUNDS * 10, `${acknowledged.length} rows`)
    } finally {
      await Promise.all(waiting.map(child => child.kill()))
      rmSync(dir, { recursive: true })
    }
  })
})
