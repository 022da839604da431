import { median, ratio, runChild, table, times } from './lib.mjs'

const PEERS = ['loop', 'tapable SyncHook', 'tapable', 'hookable', 'emittery']
const GATES = { sync: { 1: 10, 5: 5, 20: 2.5 }, async: { 1: 1.5, 5: 1.5, 20: 1.5 } }

/** Calls through a running runtime against other buses. Each kind and number of handlers has a process of its own, and so has its bare twin. */
export async function hooks({ rounds = 9, batchMs = 30, counts = [1, 5, 20] } = {}) {
  const cases = []
  for (const kind of ['sync', 'async']) for (const handlers of counts) {
    const scoped = (await runChild('hooks-child.mjs', ['scoped', kind, handlers, rounds, batchMs])).nsPerCall
    const bare = (await runChild('hooks-child.mjs', ['bare', kind, handlers, rounds, batchMs])).nsPerCall
    const medians = of => Object.fromEntries(Object.entries(of).map(([name, values]) => [name, median(values)]))
    const ours = scoped['backplane series']
    cases.push({
      kind, handlers, ns: medians(scoped), bareNs: medians(bare), gate: GATES[kind][handlers],
      timesAsFast: Object.fromEntries(PEERS.filter(name => name in scoped).map(name => [name, ratio(scoped[name], ours)])),
      notifyTimesAsFast: ratio(scoped.hookable, scoped['backplane notify']),
      bareTimesAsFast: Object.fromEntries(Object.keys(bare).map(name => [name, median(bare[name]) / median(ours)])),
    })
  }
  return { name: 'hooks', rounds, cases, passed: cases.every(each => !each.gate || each.timesAsFast.hookable >= each.gate) }
}

const verdict = ({ gate, timesAsFast }) => (gate ? `${gate}x ${timesAsFast.hookable >= gate ? 'met' : 'MISSED'}` : '–')

export function hooksText({ cases }) {
  const ns = value => (value === undefined ? '–' : value.toFixed(0))
  const rows = pick => cases.map(each => [`${each.kind}, ${each.handlers}`, ...pick(each)])
  return [
    'Times as fast as … (our `series`, called through a plugin\'s context; more is better, below 1 the other is faster):',
    table(['handlers', ...PEERS, 'gate, hookable', 'our notify : hookable'],
      rows(each => [...PEERS.map(peer => times(each.timesAsFast[peer])), verdict(each), times(each.notifyTimesAsFast)])),
    'Nanoseconds a call in that run, with AsyncLocalStorage in use by the process:',
    table(['handlers', 'backplane series', 'backplane notify', ...PEERS], rows(each => ['backplane series', 'backplane notify', ...PEERS].map(name => ns(each.ns[name])))),
    'The same, bare: a process in which nobody uses AsyncLocalStorage:',
    table(['handlers', ...PEERS], rows(each => PEERS.map(name => ns(each.bareNs[name])))),
  ].join('\n\n')
}
