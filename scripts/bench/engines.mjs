import { interleave, median, ratio, runChild, table, times } from './lib.mjs'
import { withServers } from './servers.mjs'

const CONCURRENCIES = [10, 50]
const NAMES = {
  bullmq: 'raw BullMQ: Queue.add and Worker',
  'bullmq-always': 'raw BullMQ, appendfsync always',
  'ours-bullmq-sqlite': 'backplane, BullMQ and SQLite',
  'ours-bullmq-postgres': 'backplane, BullMQ and PostgreSQL',
  graphile: 'graphile-worker',
  pgboss: 'pg-boss, fetch() and complete()',
  'ours-postgres': 'backplane, PostgreSQL alone',
}
/** Of these, in jobs a second, at least so much. */
const GATES = [
  { of: 'ours-bullmq-sqlite', to: 'bullmq', least: 0.6 },
  { of: 'ours-postgres', to: 'graphile', least: 1 },
  { of: 'ours-postgres', to: 'pgboss', least: 1 },
]

/** Jobs that do nothing, on servers of their own: an empty database of each for every run. */
export const engines = ({ rounds = 5, count = 4_000, atOnce = CONCURRENCIES } = {}) => withServers(async (postgres, redis) => {
  const one = async (name, concurrency) => {
    const [database, store] = [await postgres.newDatabase(), await redis.newDatabase()]
    try {
      return await runChild('engines-child.mjs', [name, database.url, store.url, count, concurrency, Math.min(5, count / 800)])
    } finally { for (const each of [database, store]) await each[Symbol.asyncDispose]() }
  }
  const cases = []
  for (const concurrency of atOnce) {
    const results = await interleave(Object.keys(NAMES), rounds, name => one(name, concurrency))
    const all = (name, key) => results.get(name).map(each => each[key])
    const middles = key => Object.fromEntries(Object.keys(NAMES).map(name => [name, median(all(name, key))]))
    const of = to => Object.fromEntries(Object.keys(NAMES).map(name => [name, ratio(all(name, 'perSecond'), all(to, 'perSecond'))]))
    cases.push({
      concurrency, perSecond: middles('perSecond'), cpuUs: middles('cpuUs'), p50: middles('p50'), p99: middles('p99'),
      of: { bullmq: of('bullmq'), graphile: of('graphile'), pgboss: of('pgboss') },
    })
  }
  return { name: 'engines', rounds, count, gates: GATES, cases }
})

export function enginesText({ cases }) {
  const text = cases.map(({ concurrency, perSecond, cpuUs, p50, p99, of }) => {
    const rows = Object.keys(NAMES).map(name => [
      NAMES[name], Math.round(perSecond[name]), times(of.bullmq[name]), times(of.graphile[name]), times(of.pgboss[name]),
      Math.round(cpuUs[name]), p50[name].toFixed(1), p99[name].toFixed(1)])
    return `With ${concurrency} at once:\n\n${table(
      ['jobs that do nothing', 'jobs/s', 'of BullMQ', 'of graphile-worker', 'of pg-boss', 'µs of CPU each', 'p50, ms', 'p99, ms'], rows)}`
  })
  const met = GATES.flatMap(({ of, to, least }) => cases.map(each =>
    `${NAMES[of]}, at least ${least} of ${NAMES[to]} with ${each.concurrency} at once: ${each.of[to][of] >= least ? 'met' : 'MISSED'} (${times(each.of[to][of])}).`))
  return `${text.join('\n\n')}\n\n${met.map(each => `- Gate: ${each}`).join('\n')}`
}
