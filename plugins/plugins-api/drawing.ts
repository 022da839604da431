import type { Host } from '#core'

export type Graph = Pick<ReturnType<Host['inspect']>, 'order' | 'edges'>
type Edge = Graph['edges'][number]

/** One line between two plugins, whatever number of services it stands for; `?` is a live use, `*` a settled point. */
function linesOf(edges: readonly Edge[]) {
  const found = new Map<string, Edge[]>()
  for (const edge of edges) found.set(`${edge.from} ${edge.to}`, [...(found.get(`${edge.from} ${edge.to}`) ?? []), edge])
  return [...found.values()].map(all => ({
    from: all[0]!.from, to: all[0]!.to, soft: all.every(({ kind }) => kind === 'live'),
    label: all.map(({ via, kind }) => via + (kind === 'live' ? '?' : kind === 'settled' ? '*' : '')).join(', '),
  }))
}

/** For Markdown; dotted lines are live uses. */
export function mermaid({ order, edges }: Graph): string {
  const text = (value: string) => `"${value.replaceAll('"', '#quot;')}"`
  const nodes = order.map((name, at) => `  p${at}[${text(name)}]`)
  return ['graph LR', ...nodes, ...linesOf(edges).map(({ from, to, soft, label }) =>
    `  p${order.indexOf(from)} ${soft ? '-.->' : '-->'}|${text(label)}| p${order.indexOf(to)}`), ''].join('\n')
}

/** For Graphviz; dotted lines are live uses. */
export function dot({ order, edges }: Graph): string {
  const text = (value: string) => `"${value.replaceAll(/["\\]/g, found => `\\${found}`)}"`
  return ['digraph plugins {', '  rankdir=LR', '  node [shape=box]', ...order.map(name => `  ${text(name)}`),
    ...linesOf(edges).map(({ from, to, soft, label }) => `  ${text(from)} -> ${text(to)} [label=${text(label)}${soft ? ', style=dotted' : ''}]`), '}', ''].join('\n')
}
