import { PointErrors } from './errors.ts'
import type { Contribution, PointRef } from './refs.ts'

type Listener = (all: readonly Contribution<any>[], away: readonly Contribution<any>[]) => void
interface List { all: readonly Contribution<any>[]; away: readonly Contribution<any>[]; readonly watchers: Set<Listener> }

/** Lists that can forget. They are replaced, never edited: who reads one keeps what he read. */
export class Points {
  #lists = new Map<string, List>()

  list(ref: PointRef<any>): List {
    let list = this.#lists.get(ref.slot)
    if (!list) this.#lists.set(ref.slot, (list = { all: [], away: [], watchers: new Set() }))
    return list
  }

  add<T>(ref: PointRef<T>, plugin: string, value: T): () => void {
    const list = this.list(ref)
    const key = ref.key?.(value)
    const clash = key === undefined ? undefined : list.all.find(other => ref.key!(other.value) === key)
    if (clash) throw PointErrors.DUPLICATE({ point: ref.id, key, first: clash.plugin, second: plugin })
    const entry: Contribution<T> = { plugin, value }
    this.#change(list, [...list.all, entry])
    return () => this.#change(list, list.all.filter(other => other !== entry))
  }

  watch(ref: PointRef<any>, listener: Listener): () => void {
    const list = this.list(ref)
    list.watchers.add(listener)
    listener(list.all, list.away)
    return () => void list.watchers.delete(listener)
  }

  /** While these plugins are swapped, what they contributed is away and not gone: a route then answers 503, not 404. */
  suspend(plugins: ReadonlySet<string>): () => void {
    const lists = [...this.#lists.values()].filter(list => list.all.some(each => plugins.has(each.plugin)))
    for (const list of lists) this.#change(list, list.all, [...list.away, ...list.all.filter(each => plugins.has(each.plugin))])
    return () => {
      for (const list of lists) this.#change(list, list.all, list.away.filter(each => !plugins.has(each.plugin)))
    }
  }

  #change(list: List, all: List['all'], away = list.away): void {
    list.all = all
    list.away = away
    for (const listener of [...list.watchers]) listener(all, away)
  }

  get contributions(): { point: string; plugin: string }[] {
    return [...this.#lists].flatMap(([point, list]) => list.all.map(({ plugin }) => ({ point, plugin })))
  }
}
