import { chmodSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { stopServices } from './services.ts'

/** How long the process may live on after the last test before it is said to hang. */
const GRACE_MS = 10_000

// Every temporary folder of the run, those of child processes included, is made in here; so a forgotten one is seen.
const home = mkdtempSync(join(tmpdir(), 'backplane-test-'))
chmodSync(home, 0o755)
process.env.TMPDIR = home
process.once('exit', () => rmSync(home, { recursive: true, force: true }))

/** Made by tsx, Node and the servers of the tests for themselves, and good for the whole run; or by SQLite, for a moment in which it was killed. */
const ours = (name: string) => /^(tsx-|node-compile-cache|node-jiti|v8-compile-cache|backplane-postgres-|backplane-redis-|etilqs_)/.test(name)
const left = () => readdirSync(home).filter(name => !ours(name))
const listeners = () => new Map(process.eventNames().map(event => [event, process.listenerCount(event)]))

interface Suite { file?: string; suites: Suite[]; beforeAll(title: string, run: () => void): void; afterAll(title: string, run: () => void): void }

function guard(suites: readonly Suite[]): void {
  let before = listeners()
  suites[0]!.beforeAll('remembers what is there', () => { before = listeners() })
  suites.at(-1)!.afterAll('leaves nothing behind', () => {
    const more = [...listeners()].filter(([event, count]) => count > (before.get(event) ?? 0)).map(([event]) => `process.on('${String(event)}')`)
    const folders = left().map(name => join(home, name))
    for (const folder of folders) rmSync(folder, { recursive: true, force: true })
    if (more.length || folders.length) throw new Error(`left behind: ${[...more, ...folders].join(', ')}`)
  })
}

/** A machine that others use, too, may be this much slower; what is promised of time says each test itself. */
const PATIENCE = process.env['CI'] ? 3 : 1

export const mochaHooks = {
  beforeEach(this: { currentTest: { timeout(ms?: number): number } }): void {
    const { currentTest } = this
    currentTest.timeout(currentTest.timeout() * PATIENCE)
  },

  /** Every test file must remove its listeners on `process` and its temporary folders. */
  beforeAll(this: { test: { parent: Suite } }): void {
    const byFile = new Map<string, Suite[]>()
    for (const suite of this.test.parent.suites) if (suite.file) byFile.set(suite.file, [...(byFile.get(suite.file) ?? []), suite])
    for (const suites of byFile.values()) guard(suites)
  },
}

export async function mochaGlobalTeardown(): Promise<void> {
  await stopServices()
  setTimeout(() => {
    console.error(`the tests are over, but the process does not end; still open: ${process.getActiveResourcesInfo().join(', ')}`)
    process.exit(1)
  }, GRACE_MS).unref()
}
