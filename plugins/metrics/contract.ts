import { definePoint } from '#core'

export type Labels = Readonly<Record<string, string>>
export interface InstrumentOptions<L extends string = string> {
  /** Prometheus's rules: snake case, base unit, counters end in `_total`. Without the prefix. */
  readonly name: string
  readonly help: string
  readonly labels?: readonly L[]
  /** Sets of label values kept apart; what comes after them is counted under `other`. 1,000. */
  readonly limit?: number
  /** Upper bounds of a histogram, in its unit. */
  readonly buckets?: readonly number[]
}
/** One line of the exposition: for a histogram, `counts` per bucket (not cumulated, the last is +Inf). */
export interface Sample { readonly labels: Labels; readonly value: number; readonly counts?: readonly number[] }

interface InstrumentBase {
  readonly name: string
  readonly help: string
  readonly labels: readonly string[]
  readonly buckets: readonly number[]
  samples(): Sample[]
}
type Of<L extends string> = [L] extends [never] ? [] : [labels: Readonly<Record<L, string>>]
export interface Counter<L extends string = string> extends InstrumentBase { readonly kind: 'counter'; inc(...labels: Of<L>): void; add(by: number, ...labels: Of<L>): void }
export interface Gauge<L extends string = string> extends InstrumentBase { readonly kind: 'gauge'; set(value: number, ...labels: Of<L>): void; add(by: number, ...labels: Of<L>): void }
export interface Histogram<L extends string = string> extends InstrumentBase {
  readonly kind: 'histogram'
  observe(value: number, ...labels: Of<L>): void
  /** Seconds; call what it returns when the work is done. */
  startTimer(...labels: Of<L>): () => void
}
export type Instrument = Counter<any> | Gauge<any> | Histogram<any>

/** Whoever renders metrics reads this point; recording works with nobody listening. */
export const Metric = definePoint<Instrument>('metrics.metric', { key: metric => metric.name })

interface Series { readonly labels: Labels; value: number; readonly counts: number[] }

/** The series of one instrument, found by their label values; bounded. */
class SeriesTable {
  readonly #byKey = new Map<string, Series>()
  constructor(readonly names: readonly string[], readonly limit: number, readonly buckets: number) {}
  at(labels: Labels | undefined): Series {
    let key = ''
    for (const name of this.names) key += `${labels![name]}\u0000`
    const found = this.#byKey.get(key)
    if (found) return found
    if (this.#byKey.size >= this.limit && labels && Object.values(labels).some(value => value !== 'other')) {
      return this.at(Object.fromEntries(this.names.map(name => [name, 'other'])))
    }
    const series = { labels: { ...labels }, value: 0, counts: new Array<number>(this.buckets).fill(0) }
    this.#byKey.set(key, series)
    return series
  }
  samples(): Sample[] { return [...this.#byKey.values()].map(({ labels, value, counts }) => (counts.length ? { labels, value, counts: [...counts] } : { labels, value })) }
}

const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]

function base<K extends string, L extends string>(kind: K, { name, help, labels = [], limit = 1_000, buckets = [] }: InstrumentOptions<L>) {
  const table = new SeriesTable(labels, limit, buckets.length ? buckets.length + 1 : 0)
  return { table, instrument: { kind, name, help, labels, buckets, samples: () => table.samples() } }
}

/** Counts events. Never goes down. */
export function counter<const L extends string = never>(options: InstrumentOptions<L>): Counter<L> {
  const { table, instrument } = base('counter', options)
  return { ...instrument, inc: labels => { table.at(labels).value++ }, add: (by, labels) => { table.at(labels).value += by } } as Counter<L>
}
/** A value that goes up and down. */
export function gauge<const L extends string = never>(options: InstrumentOptions<L>): Gauge<L> {
  const { table, instrument } = base('gauge', options)
  return { ...instrument, set: (value, labels) => { table.at(labels).value = value }, add: (by, labels) => { table.at(labels).value += by } } as Gauge<L>
}
/** How values are spread. Times are in seconds. */
export function histogram<const L extends string = never>(options: InstrumentOptions<L>): Histogram<L> {
  const { table, instrument } = base('histogram', { ...options, buckets: options.buckets ?? SECONDS })
  const observe = (value: number, labels?: Labels) => {
    const series = table.at(labels)
    let at = 0
    while (at < instrument.buckets.length && value > instrument.buckets[at]!) at++
    series.counts[at]!++
    series.value += value
  }
  return { ...instrument, observe, startTimer: labels => { const from = performance.now(); return () => observe((performance.now() - from) / 1000, labels) } } as Histogram<L>
}
