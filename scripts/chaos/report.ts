import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT } from './host.ts'
import type { Result } from './show.ts'

export const PAGE = 'docs/reliability.md'

/** A table that reads well as text and as Markdown. */
function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const width = head.map((title, at) => Math.max(title.length, ...rows.map(row => row[at]!.length)))
  const line = (cells: readonly string[]) => `| ${cells.map((cell, at) => cell.padEnd(width[at]!)).join(' | ')} |`
  return [line(head), `|${width.map(each => '-'.repeat(each + 2)).join('|')}|`, ...rows.map(line)].join('\n')
}

const numbersOf = ({ numbers }: Result) => Object.entries(numbers).map(([name, value]) => `${name} ${value}`).join('; ')
const kept = ({ violations }: Result) => (violations.length ? `${violations.length} broken` : 'kept')

export const text = (results: readonly Result[]): string => table(['show', 'engine', 'promises', 'seconds', 'numbers'],
  results.map(each => [`${each.show}`, each.engine, kept(each), `${each.seconds}`, numbersOf(each)]))

type Played = Pick<Result, 'show' | 'engine' | 'seed' | 'scale'>
const commandOf = ({ show, engine, seed, scale }: Played) =>
  `npm run chaos -- --all --show ${show} --engine ${engine} --seed ${seed}${scale === 1 ? '' : ` --scale ${scale}`}`

/** The page has it already, with every promise kept. */
export const isWritten = (played: Played): boolean => readFileSync(join(ROOT, PAGE), 'utf8').split('\n')
  .some(line => line.startsWith(`- **${played.engine}**: kept.`) && line.includes(`\`${commandOf(played)}\``))

/** What a page shows of one show on one engine, with its command and every broken promise. */
function entry(result: Result, machine: string): string {
  const { engine, seconds, violations } = result
  const broken = violations.map(violation => `\n  - Broken: ${violation.split('\n')[0]!.slice(0, 300)}`)
  return `- **${engine}**: ${kept(result)}. ${numbersOf(result)}. ${seconds} s; \`${commandOf(result)}\`, ${machine}.${broken.join('')}`
}

/** Puts these results into the page; those of other shows and engines stay. */
export function write(results: readonly Result[], machine: string): void {
  const file = join(ROOT, PAGE)
  let page = readFileSync(file, 'utf8')
  for (const result of results) {
    const [open, close] = ['begin', 'end'].map(mark => `<!-- chaos:${result.show}:${mark} -->`) as [string, string]
    const [from, to] = [page.indexOf(open), page.indexOf(close)]
    if (from < 0 || to < from) throw new Error(`${PAGE} has no ${open} … ${close}; put both lines where the numbers of show ${result.show} belong`)
    const entries = page.slice(from + open.length, to).split(/\n(?=- \*\*)/).map(each => each.trim()).filter(Boolean)
    const others = entries.filter(each => !each.startsWith(`- **${result.engine}**`))
    page = `${page.slice(0, from + open.length)}\n\n${[...others, entry(result, machine)].toSorted().join('\n')}\n\n${page.slice(to)}`
  }
  writeFileSync(file, page)
}
