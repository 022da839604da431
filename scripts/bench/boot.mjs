import { interleave, median, ratio, runChild, table, times } from './lib.mjs'

const CONTENDERS = ['backplane', 'avvio', 'fastify', 'cordis']
const GATED_FROM = 200

/** A chain of plugins, each in a fresh process, imports included. */
export async function boot({ rounds = 9, counts = [10, 50, 200, 1000] } = {}) {
  const names = ['bare', ...counts.flatMap(count => CONTENDERS.map(contender => `${contender} ${count}`))]
  await runChild('boot-child.mjs', ['backplane', 10])
  const results = await interleave(names, rounds, name => runChild('boot-child.mjs', name.split(' ')))
  const bare = results.get('bare').map(each => each.ready)
  const cases = counts.map(count => {
    const of = (contender, field) => results.get(`${contender} ${count}`).map((each, round) => (field === 'ready' ? each.ready - bare[round] : each[field]))
    const per = field => Object.fromEntries(CONTENDERS.map(contender => [contender, median(of(contender, field))]))
    const against = field => Object.fromEntries(CONTENDERS.slice(1).map(contender => [contender, ratio(of(contender, field), of('backplane', field))]))
    return { count, overBareMs: per('ready'), insideMs: per('inside'), rssMb: per('rssMb'), timesAsFast: against('inside'), timesAsFastOverBare: against('ready') }
  })
  const inside = count => cases.find(each => each.count === count)?.insideMs.backplane
  const growth = inside(1000) / inside(200)
  const gated = cases.filter(each => each.count >= GATED_FROM)
  return { name: 'boot', rounds, bareMs: median(bare), cases, growth, passed: gated.every(each => each.timesAsFast.avvio >= 1) && !(growth > 6) }
}

const verdict = ({ count, timesAsFast }) => (count < GATED_FROM ? '–' : `1x ${timesAsFast.avvio >= 1 ? 'met' : 'MISSED'}`)

export function bootText({ cases, growth }) {
  const ms = value => value.toFixed(1)
  return [
    'From the first line of the program to ready, imports included. Times as fast as … (more is better):',
    table(['plugins', ...CONTENDERS.slice(1), 'gate, avvio'],
      cases.map(each => [each.count, ...CONTENDERS.slice(1).map(name => times(each.timesAsFast[name])), verdict(each)])),
    'Milliseconds from the first line of the program to ready | from process start to ready, less what an empty program takes:',
    table(['plugins', ...CONTENDERS], cases.map(each => [each.count, ...CONTENDERS.map(name => `${ms(each.insideMs[name])} \\| ${ms(each.overBareMs[name])}`)])),
    'Resident memory when ready, MB:',
    table(['plugins', ...CONTENDERS], cases.map(each => [each.count, ...CONTENDERS.map(name => each.rssMb[name].toFixed(0))])),
    ...(Number.isFinite(growth) ? [`Growth: 1,000 plugins take ${growth.toFixed(1)} times as long as 200 (gate: at most 6).`] : []),
  ].join('\n\n')
}
