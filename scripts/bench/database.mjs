import { interleave, median, ratio, runChild, table, times } from './lib.mjs'

const GATE = 0.4
const NAMES = { raw: 'better-sqlite3, batches of 100, synchronous = FULL', statement: 'Database: statements, 100 callers at once', transaction: 'Database: transactions of one insert, 100 callers at once' }

/** What group commit costs beside the fastest loop there is: each of our inserts is awaited by its own caller, and answered after the COMMIT. */
export async function database({ rounds = 7, count = 100_000 } = {}) {
  const results = await interleave(Object.keys(NAMES), rounds, name => runChild('database-child.mjs', [name, Math.max(400, count)]))
  const perSecond = Object.fromEntries([...results].map(([name, values]) => [name, values.map(each => each.perSecond)]))
  return {
    name: 'database', rounds, count, gate: GATE,
    perSecond: Object.fromEntries(Object.entries(perSecond).map(([name, values]) => [name, Math.round(median(values))])),
    ofRaw: Object.fromEntries(Object.entries(perSecond).map(([name, values]) => [name, ratio(values, perSecond.raw)])),
  }
}

export function databaseText({ perSecond, ofRaw, gate }) {
  const rows = Object.entries(NAMES).map(([name, title]) => [title, perSecond[name], times(ofRaw[name])])
  return `${table(['one row each, durable', 'inserts/s', 'of the batch loop'], rows)}\n\nGate: statements at least ${gate} of the batch loop: ${ofRaw.statement >= gate ? 'met' : 'MISSED'}.`
}
