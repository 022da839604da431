import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { blocksOf, matches, runPage, unmarked } from './support/guides.ts'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const guides = join(root, 'docs/guides')
const pages = [...['README.md', 'CONTRIBUTING.md'].filter(file => existsSync(join(root, file))),
  ...(existsSync(guides) ? readdirSync(guides).filter(file => file.endsWith('.md')).toSorted().map(file => `docs/guides/${file}`) : [])]

describe('guides', () => {
  for (const page of pages) {
    it(`${page} does what it says`, () => runPage(page, readFileSync(join(root, page), 'utf8'))).timeout(180_000)
  }

  it('link only to pages that are there', () => {
    const docs = readdirSync(join(root, 'docs'), { recursive: true, encoding: 'utf8' }).filter(file => file.endsWith('.md'))
    const all = [...pages, ...docs.map(file => `docs/${file}`)]
    const broken = [...new Set(all)].flatMap(page => {
      const text = readFileSync(join(root, page), 'utf8').replace(/^```[\s\S]*?^```/gm, '').replace(/`[^`\n]*`/g, '')
      return [...text.matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)].map(match => match[1]!)
        .filter(link => !/^[a-z]+:/.test(link) && !existsSync(join(root, dirname(page), link))).map(link => `${page}: ${link}`)
    })
    assert.deepEqual(broken, [])
  })
})

const fence = (info: string, ...lines: string[]) => `\`\`\`${info}\n${lines.join('\n')}\n\`\`\`\n`

describe('the test of guides', () => {
  it('runs code against the package as a reader has it, and compares what it prints', async () => {
    const plugin = ['import { definePlugin } from \'backplane\'', 'export default definePlugin({ name: \'tiny\', setup() {} })']
    const use = ['import tiny from \'./tiny.ts\'', 'console.log(tiny.name, 1 + 1)', 'console.log(Date.now())']
    const page = [fence('ts file=tiny.ts', ...plugin), fence('ts run', ...use), fence('text', 'tiny 2', '…'),
      fence('sh run', 'ls tiny.ts && echo "$PORT" | grep -c .'), fence('text', 'tiny.ts', '1')]
    await runPage('good.md', `# Tiny\n\n${page.join('\n')}`)
  }).timeout(60_000)

  it('checks a config with the CLI', async () => {
    await runPage('good.md', fence('yaml config', 'log:', '  level: debug'))
    await assert.rejects(runPage('bad.md', fence('yaml config', 'log:', '  level: loud')), /bad\.md:1: backplane config check ended with 2/)
  }).timeout(60_000)

  const refused: [title: string, page: string, match: RegExp][] = [
    ['a block without a language', fence('', 'x'), /line 1: `a block without a language` is not tested/],
    ['a block without a mark', fence('ts', 'const a = 1'), /line 1: `ts` needs a mark/],
    ['a mark that is not known', fence('sh walk', 'ls'), /does not know the mark `walk`/],
    ['a language that is not known', fence('cobol run', 'x'), /`cobol` is not tested/],
    ['a file outside', fence('ts file=../a.ts', 'x'), /leads out of/],
    ['a block that is not closed', '```ts run\nx', /line 1: this block is not closed/],
    ['code that does not compile', fence('ts file=a.ts', 'const a: number = \'x\'', 'void a'), /does not compile:[\s\S]*a\.ts\(1/],
    ['code that throws', fence('js run', 'throw new Error(\'no\')'), /bad\.md:1: ended with 1[\s\S]*no/],
    ['a command that fails', fence('sh run', 'false', 'echo on'), /bad\.md:1: ended with 1/],
    ['another output than shown', `${fence('sh run', 'echo a')}\n${fence('text', 'b')}`, /bad\.md:1: printed\na\n\nand not\nb/],
    ['broken JSON', fence('json', '{'), /bad\.md:1:/],
  ]
  for (const [title, page, match] of refused) it(`refuses ${title}`, () => assert.rejects(runPage('bad.md', page), match)).timeout(60_000)

  it('leaves alone what is only shown', () => assert.deepEqual(unmarked(blocksOf(fence('text', 'x') + fence('diagram', 'a -> b') + fence('mermaid', 'x'))), []))

  it('takes … for anything in a line, and alone for any lines', () => {
    assert.ok(matches('a … c\n…\nz', 'a b c\n1\n2\nz\n'))
    assert.ok(matches('…\nz', 'z'))
    assert.ok(!matches('a … c', 'a b\nc'))
    assert.ok(!matches('a.c', 'abc'))
    assert.ok(!matches('a', 'a\nb'))
  })
})
