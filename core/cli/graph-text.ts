import type { Edge } from '../graph.ts'

export interface GraphData { readonly order: readonly string[]; readonly edges: readonly Edge[] }

const SIGN: Readonly<Record<Edge['kind'], string>> = { hard: '', live: '?', settled: '*', secret: ' (secrets)' }
/** One line between two plugins, whatever number of services it stands for. */
function pairs(edges: readonly Edge[]): { from: string; to: string; label: string; soft: boolean }[] {
  const found = new Map<string, Edge[]>()
  for (const edge of edges) found.set(`${edge.from}\0${edge.to}`, [...(found.get(`${edge.from}\0${edge.to}`) ?? []), edge])
  return [...found.values()].map(all => ({
    from: all[0]!.from, to: all[0]!.to, label: all.map(({ via, kind }) => via + SIGN[kind]).join(', '), soft: all.every(({ kind }) => kind === 'live'),
  }))
}

/** A tree for each plugin that no other waits for, with what it stands on below. `?` is a live use, `*` a settled point. */
export function toText({ order, edges }: GraphData): string {
  const all = pairs(edges)
  const shown = new Set<string>()
  const lines: string[] = []
  const below = (name: string, indent: string): void => {
    const uses = all.filter(each => each.from === name)
    uses.forEach(({ to, label, soft }, at) => {
      const last = at === uses.length - 1
      const again = !soft && shown.has(to) && all.some(each => each.from === to)
      lines.push(`${indent}${last ? '└─ ' : '├─ '}${to}  ${label}${again ? '  …' : ''}`)
      if (soft || again) return
      shown.add(to)
      below(to, indent + (last ? '   ' : '│  '))
    })
  }
  const needed = new Set(all.flatMap(({ to, soft }) => (soft ? [] : [to])))
  for (const name of order) if (!needed.has(name)) { lines.push(name); shown.add(name); below(name, '') }
  return lines.join('\n')
}

/** A `graph` block for Markdown; dotted lines are live uses. */
export function toMermaid({ order, edges }: GraphData): string {
  const id = (name: string) => `p${order.indexOf(name)}`
  const quote = (text: string) => `"${text.replaceAll('"', '#quot;')}"`
  return ['graph LR', ...order.map(name => `  ${id(name)}[${quote(name)}]`),
    ...pairs(edges).map(({ from, to, label, soft }) => `  ${id(from)} ${soft ? '-.->' : '-->'}|${quote(label)}| ${id(to)}`)].join('\n')
}

/** For Graphviz; dotted lines are live uses. */
export function toDot({ order, edges }: GraphData): string {
  const quote = (text: string) => `"${text.replace(/["\\]/g, found => `\\${found}`)}"`
  return ['digraph plugins {', '  rankdir=LR', '  node [shape=box]', ...order.map(name => `  ${quote(name)}`),
    ...pairs(edges).map(({ from, to, label, soft }) => `  ${quote(from)} -> ${quote(to)} [label=${quote(label)}${soft ? ', style=dotted' : ''}]`), '}'].join('\n')
}
