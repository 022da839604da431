import { interleave, median, ratio, runChild, table, times } from './lib.mjs'

const GATE = { perSecond: 5_000, p99: 10 }
const NAMES = {
  raw: ['better-sqlite3, batches of 100, synchronous = FULL'],
  plainjob: ['plainjob as it is (synchronous = NORMAL: not durable)'],
  'plainjob-full': ['plainjob, synchronous = FULL'],
  'plainjob-full-many': ['plainjob, synchronous = FULL, added 200 at a time'],
  'ours-10': ['backplane, 10 at once', 10],
  'ours-50': ['backplane, 50 at once', 50],
  'ours-200': ['backplane, 200 at once', 200],
  'ours-many': ['backplane, 50 at once, submitted 200 at a time', 50],
}

/** Jobs that do nothing, from submit until their end is on disk; and how long submit() takes at 100 a second. */
export async function queue({ rounds = 5, count = 10_000 } = {}) {
  const names = Object.keys(NAMES)
  const results = await interleave(names, rounds, name => runChild('queue-child.mjs', [/^ours-\d/.test(name) ? 'ours' : name, Math.max(200, count), NAMES[name][1] ?? 50]))
  const perSecond = Object.fromEntries([...results].map(([name, values]) => [name, values.map(each => each.perSecond)]))
  const seconds = Math.min(10, count / 1_000)
  const paced = await interleave([1, count], Math.min(3, rounds), waiting => runChild('queue-child.mjs', ['paced', waiting, 50, seconds]))
  const middle = (values, key) => median(values.map(each => each[key]))
  return {
    name: 'queue', rounds, count, gate: GATE,
    perSecond: Object.fromEntries(names.map(name => [name, Math.round(median(perSecond[name]))])),
    ofPlainjob: Object.fromEntries(names.map(name => [name, ratio(perSecond[name], perSecond['plainjob-full'])])),
    stallMs: Object.fromEntries(names.filter(name => name.startsWith('ours')).map(name => [name, middle(results.get(name), 'stallMs')])),
    submit: [...paced].map(([waiting, values]) =>
      ({ waiting: waiting > 1 ? waiting : 0, p50: middle(values, 'p50'), p99: middle(values, 'p99'), worst: middle(values, 'worst'), stallMs: middle(values, 'stallMs') })),
  }
}

export function queueText({ perSecond, ofPlainjob, stallMs, submit, gate }) {
  const rows = Object.keys(perSecond).map(name => [NAMES[name][0], perSecond[name], times(ofPlainjob[name]), stallMs[name]?.toFixed(0) ?? '–'])
  const paced = submit.map(each => [each.waiting || 'none', ...['p50', 'p99', 'worst', 'stallMs'].map(key => each[key].toFixed(1))])
  const met = (is, what) => `${what}: ${is ? 'met' : 'MISSED'}.`
  return `${table(['jobs that do nothing', 'jobs/s', 'of plainjob, FULL', 'longest stall, ms'], rows)}

How long \`submit()\` takes at 100 a second, ms:

${table(['jobs waiting at the start', 'p50', 'p99', 'worst', 'longest stall'], paced)}

${met(perSecond['ours-50'] >= gate.perSecond, `Gate: ${gate.perSecond} jobs/s with 50 at once`)} ${met(submit[0].p99 < gate.p99, `Gate: submit p99 below ${gate.p99} ms`)}`
}
