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

/** What a page shows of one show: each engine with its command, and every broken promise. */
function section(results: readonly Result[], machine: string): string {
  const commandOf = ({ show, engine, seed, scale }: Result) =>
    `npm run chaos -- --all --show ${show} --engine ${engine} --seed ${seed}${scale === 1 ? '' : ` --scale ${scale}`}`
  const broken = results.flatMap(each => each.violations.map(violation => `- ${each.engine}: ${violation.split('\n')[0]}`))
  return [
    table(['engine', 'promises', 'seconds', 'numbers'], results.map(each => [each.engine, kept(each), `${each.seconds}`, numbersOf(each)])),
    ...(broken.length ? [`Broken:\n\n${broken.join('\n')}`] : []),
    ['Measured with', ...results.map(each => `\`${commandOf(each)}\``)].join('\n- ').replace('Measured with\n', `Measured on ${machine} with\n\n`),
  ].join('\n\n')
}

/** Puts these results into the page; those of other shows stay. */
export function write(results: readonly Result[], machine: string): void {
  const file = join(ROOT, PAGE)
  let page = readFileSync(file, 'utf8')
  for (const show of new Set(results.map(each => each.show))) {
    const [open, close] = ['begin', 'end'].map(mark => `<!-- chaos:${show}:${mark} -->`) as [string, string]
    const [from, to] = [page.indexOf(open), page.indexOf(close)]
    if (from < 0 || to < from) throw new Error(`${PAGE} has no ${open} … ${close}; put both lines where the numbers of show ${show} belong`)
    page = `${page.slice(0, from + open.length)}\n\n${section(results.filter(each => each.show === show), machine)}\n\n${page.slice(to)}`
  }
  writeFileSync(file, page)
}
