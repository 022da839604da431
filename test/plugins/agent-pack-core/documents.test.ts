import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import fc from 'fast-check'
import { SystemClock, type Clock } from '#core'
import { createTestRuntime, eventually, FakeClock, recordLog } from '#core/testing'
import { Agent, Tool, type ToolContext } from '#contracts/agents'
import { DocumentFiles, type DocumentOptions } from '../../../plugins/agent-pack-core/document-files.ts'
import { DocumentIndex } from '../../../plugins/agent-pack-core/document-index.ts'
import { passagesOf } from '../../../plugins/agent-pack-core/passages.ts'
import pack from '../../../plugins/agent-pack-core/index.ts'
import { TermLists } from '../../../plugins/agent-pack-core/term-lists.ts'
import { workplace } from '../../support/cli.ts'

const GUIDE = `# Harbour guide

Boats berth at the northern quay.

## Fees

The berth fee is paid to the
harbour master before noon.

\`\`\`sh
# not a heading
pay --berth 7
\`\`\`

## Storms

In a storm the gates are closed, and boats are moved to the inner basin.
`
const ctx: ToolContext = {
  caller: { id: 'ann', kind: 'user', name: 'Ann', project_id: 'p' }, project_id: 'p', agent: 'query', job_id: 'j', signal: new AbortController().signal, log: recordLog(),
}

describe('the words of passages', () => {
  it('are known as long as a passage holds them, whatever comes and goes', () => {
    const terms = fc.uniqueArray(fc.constantFrom<string>('boat', 'quay', 'fee', 'storm', 'gate', '__proto__'), { maxLength: 5 })
    const step = fc.oneof(terms.map(held => ({ held })), fc.nat(9).map(nth => ({ nth })))
    fc.assert(fc.property(fc.array(step, { maxLength: 30 }), terms, (steps, asked) => {
      const lists = new TermLists()
      const passages = new Map<number, string[]>()
      steps.forEach((each, id) => {
        if ('held' in each) { lists.add(id, new Set(each.held)); passages.set(id, each.held); return }
        const gone = [...passages.keys()][each.nth]
        if (gone !== undefined) { lists.remove(gone); passages.delete(gone) }
      })
      const all = [...passages.values()]
      for (const term of asked) assert.equal(lists.count(term), all.filter(held => held.includes(term)).length)
      assert.equal(lists.holdsMost(new Set(asked)), all.some(held => held.filter(term => asked.includes(term)).length > asked.length / 2))
    }))
  })
  it('are looked through in less than 20 ms, of as many documents as 14 MB', () => {
    const lists = new TermLists()
    const words = Array.from({ length: 4_000 }, (_, nth) => `word${nth}`)
    for (let id = 0; id < 20_000; id++) lists.add(id, new Set(Array.from({ length: 100 }, (_, nth) => words[(id * 31 + nth * 37) % 4_000]!)))
    const asked = new Set([...words.slice(0, 100), ...Array.from({ length: 200 }, (_, nth) => `unknown${nth}`)])
    const times = Array.from({ length: 5 }, () => {
      const from = process.cpuUsage()
      assert.equal(lists.holdsMost(asked), false)
      const { user, system } = process.cpuUsage(from)
      return (user + system) / 1_000
    })
    assert.ok(Math.min(...times) < 20, times.join(' '))
  })
})

describe('passages', () => {
  it('are cut by headings and know their lines', () => {
    assert.deepEqual(passagesOf(GUIDE, true), [
      { from: 3, to: 3, heading: 'Harbour guide', text: 'Boats berth at the northern quay.' },
      { from: 7, to: 13, heading: 'Harbour guide › Fees', text: 'The berth fee is paid to the\nharbour master before noon.\n\n```sh\n# not a heading\npay --berth 7\n```' },
      { from: 17, to: 17, heading: 'Harbour guide › Storms', text: 'In a storm the gates are closed, and boats are moved to the inner basin.' },
    ])
    assert.equal(passagesOf('# a\ntext', false)[0]!.text, '# a\ntext')
    assert.deepEqual(passagesOf('\n\n  \n', true), [])
  })
  it('of any text hold its words in order, are bounded, and are where they say', () => {
    const line = fc.oneof(fc.constantFrom('', '# one', '### three', '## two', '```', '~~~~', '````js'), fc.string({ maxLength: 80 }), fc.string({ minLength: 3_000, maxLength: 5_000 }))
    fc.assert(fc.property(fc.array(line.map(each => each.replace(/[\r\n]/g, ' ')), { maxLength: 60 }), fc.boolean(), (lines, markdown) => {
      const passages = passagesOf(lines.join('\n'), markdown)
      let last = 1
      for (const { from, to, text } of passages) {
        assert.ok(from >= last && to >= from && to <= lines.length)
        assert.ok(text.length <= 4_200 && text.trim())
        assert.ok(lines[from - 1]!.includes(text.split('\n')[0]!.slice(0, 2_000)))
        last = to
      }
      if (!markdown) assert.equal(passages.map(each => each.text).join('').replace(/\s/g, ''), lines.join('').replace(/\s/g, ''))
    }))
  })
})

describe('the search in documents', function () {
  this.timeout(30_000)
  let folder: string
  const write = (name: string, text: string | Buffer) => { mkdirSync(dirname(join(folder, name)), { recursive: true }); writeFileSync(join(folder, name), text) }
  const make = (options: Partial<DocumentOptions> = {}, clock: Clock = new SystemClock()) => {
    const log = recordLog()
    const files = new DocumentFiles({ paths: [join(folder, 'docs')], extensions: ['.md', '.txt'], max_files: 100, max_file_bytes: 10_000, max_bytes: 100_000, ...options }, log)
    const left = () => log.lines.filter(line => line.message === 'a document was left out').map(line => `${String(line.fields['file'])}: ${String(line.fields['reason'])}`)
    return Object.assign(new DocumentIndex(files, clock, log), { left })
  }
  beforeEach(() => { folder = mkdtempSync(join(tmpdir(), 'documents-')); write('docs/guide.md', GUIDE) })
  afterEach(() => rmSync(folder, { recursive: true, force: true }))

  it('finds the passages that hold the words, best first, with file and lines', async () => {
    await using index = make()
    write('docs/deep/gates.txt', 'Nothing to see.\n')
    const [best] = await index.search('What happens to boats in storms?', 3)
    assert.deepEqual([best!.file, best!.from, best!.heading], ['docs/guide.md', 17, 'Harbour guide › Storms'])
    assert.equal((await index.search('Who is paid the fees?', 3))[0]!.from, 7)
    assert.deepEqual(await index.search('zeppelin', 3), [])
  })
  it('recognizes questions that the documents have the words of, and no arithmetic', async () => {
    await using index = make()
    assert.equal(index.recognizes('Where do the boats berth?'), true)
    assert.equal(index.recognizes('What is (2+3)*7, and 15% of 80?'), false)
    await index.refresh()
    for (const text of ['Where do the boats berth?', 'berthing fee', 'What about STORMS?', 'Is the harbour stormed?']) assert.equal(index.recognizes(text), true, text)
    for (const text of ['What is (2+3)*7, and 15% of 80?', '5 km to miles', 'Who are you?', 'What day is it in 30 days?', 'How do I grow tomatoes near boats in winter?', '', '?']) assert.equal(index.recognizes(text), false, text)
  })
  it('sees what changes on disk with the next question', async () => {
    await using index = make()
    assert.equal((await index.search('lighthouse', 3)).length, 0)
    write('docs/new.md', '# New\nThe lighthouse keeper.')
    assert.equal((await index.search('lighthouse', 3))[0]!.file, 'docs/new.md')
    write('docs/new.md', '# New\n\nThe old beacon keeper.')
    assert.equal((await index.search('lighthouse', 3)).length, 0)
    assert.equal((await index.search('beacon', 3))[0]!.from, 3)
    renameSync(join(folder, 'docs/new.md'), join(folder, 'docs/newer.md'))
    assert.equal((await index.search('beacon', 3))[0]!.file, 'docs/newer.md')
    unlinkSync(join(folder, 'docs/newer.md'))
    assert.equal((await index.search('beacon', 3)).length, 0)
    assert.deepEqual(index.size, { files: 1, passages: 3 })
  })
  it('answers many questions during a change, each with what was there when it was asked', async () => {
    await using index = make()
    const early = index.search('boats', 3)
    write('docs/late.md', 'A submarine.')
    const late = await Promise.all(Array.from({ length: 20 }, () => index.search('submarine', 3)))
    assert.ok(late.every(found => found.length === 1))
    assert.ok((await early).length > 0)
  })
  it('never leaves the folders that are named, whatever links say', async () => {
    write('secret.md', 'The password is swordfish.')
    write('other/secret.txt', 'The swordfish again.')
    symlinkSync('../secret.md', join(folder, 'docs/link.md'))
    symlinkSync(join(folder, 'other'), join(folder, 'docs/linked'))
    symlinkSync('.', join(folder, 'docs/round'))
    symlinkSync('guide.md', join(folder, 'docs/within.md'))
    await using index = make()
    assert.deepEqual(await index.search('swordfish password', 3), [])
    assert.deepEqual(index.left().sort(), ['docs/link.md: it leads out of the folders that the settings name', 'docs/linked: it leads out of the folders that the settings name'])
    assert.equal(index.size.files, 1)
    // A file that becomes a link between two looks.
    unlinkSync(join(folder, 'docs/guide.md'))
    symlinkSync(join(folder, 'secret.md'), join(folder, 'docs/guide.md'))
    assert.deepEqual(await index.search('swordfish', 3), [])
  })
  it('reads no file that was swapped for a link after it was listed', async () => {
    write('secret.md', 'swordfish')
    const files = new DocumentFiles({ paths: [join(folder, 'docs')], extensions: ['.md'], max_files: 9, max_file_bytes: 9_999, max_bytes: 99_999 }, recordLog())
    const [file] = await files.list(ctx.signal)
    unlinkSync(join(folder, 'docs/guide.md'))
    symlinkSync(join(folder, 'secret.md'), join(folder, 'docs/guide.md'))
    assert.equal(await files.read(file!), undefined)
    write('docs/sub/secret.md', 'public')
    const [within] = (await files.list(ctx.signal)).filter(({ name }) => name === 'docs/sub/secret.md')
    assert.equal(await files.read(within!), 'public')
    renameSync(join(folder, 'docs/sub'), join(folder, 'docs/before'))
    symlinkSync('..', join(folder, 'docs/sub'))
    assert.equal(await files.read(within!), undefined)
  })
  it('leaves out what is no text, too large or not readable, with one warning each', async () => {
    write('docs/binary.md', Buffer.from([65, 0, 66]))
    write('docs/latin.txt', Buffer.from([0xe9, 0x20, 0x41]))
    write('docs/large.md', 'x '.repeat(6_000))
    write('docs/code.js', 'berth()')
    write('docs/.hidden/a.md', 'berth')
    write('docs/node_modules/a.md', 'berth')
    symlinkSync('nowhere', join(folder, 'docs/gone.md'))
    execFileSync('mkfifo', [join(folder, 'docs/pipe.md')])
    write('docs/locked.md', 'berth')
    chmodSync(join(folder, 'docs/locked.md'), 0)
    await using index = make({ paths: [join(folder, 'docs'), join(folder, 'missing')] })
    await index.search('berth', 3)
    await index.search('berth', 3)
    const root = process.getuid?.() === 0
    assert.deepEqual(index.left().map(line => line.replace(/: ENOENT.*|: EACCES.*/, ': not there or not readable').replace(/.*missing/, 'missing')).sort(), [
      'docs/binary.md: it is no text', 'docs/gone.md: not there or not readable', 'docs/large.md: it has more than 10000 bytes', 'docs/latin.txt: it is no text in UTF-8',
      ...(root ? [] : ['docs/locked.md: not there or not readable']), 'missing: not there or not readable',
    ])
    assert.ok((await index.search('berth', 10)).every(({ file }) => file === 'docs/guide.md' || (root && file === 'docs/locked.md')))
  })
  it('bounds a big folder, and lets the event loop go on', async () => {
    for (let i = 0; i < 300; i++) write(`docs/many/${i}.md`, `# File ${i}\n\n${'anchor chain rope sail mast '.repeat(40)}\n`)
    await using index = make({ max_bytes: 10_000_000 })
    let [longest, last] = [0, performance.now()]
    const timer = setInterval(() => { longest = Math.max(longest, performance.now() - last); last = performance.now() }, 1)
    await index.search('anchor', 3)
    clearInterval(timer)
    assert.equal(index.size.files, 100)
    assert.ok(longest < 250, `${longest} ms`)
    assert.ok(index.left().includes('documents: there are more than 100 files; the rest was left out'))
    await using small = make({ max_files: 1_000, max_bytes: 20_000 })
    await small.refresh()
    assert.ok(small.size.files < 25)
  })
  it('follows the files by itself, for questions that it is to recognize', async () => {
    const clock = new FakeClock()
    await using index = make({}, clock)
    await index.start()
    assert.equal(index.size.files, 1)
    write('docs/new.md', 'The lighthouse keeper.')
    assert.ok(!index.recognizes('lighthouse'))
    await clock.advance(5_000)
    await eventually('it has read the new one', () => index.recognizes('lighthouse'), 8_000)
  })

  it('is the tool of the agent query, quotes, and leaves nothing behind', async () => {
    await using t = await createTestRuntime({ plugins: [{ plugin: pack, config: { documents: { paths: [join(folder, 'docs')] } } }] })
    assert.ok(t.runtime.collect(Agent).find(({ name }) => name === 'query')!.tools!.includes('search_documents'))
    const tool = t.runtime.collect(Tool).find(({ name }) => name === 'search_documents')!
    assert.equal(await tool.run({ query: 'Where do boats berth?', limit: 1 }, ctx), 'docs/guide.md:3 (Harbour guide)\n> Boats berth at the northern quay.')
    assert.equal(await tool.run({ query: 'zeppelin', limit: 1 }, ctx), 'No passage holds the words of "zeppelin" (documents searched: 1).')
  })
  it('says how to name documents when none are', async () => {
    await using t = await createTestRuntime({ plugins: [pack] })
    const tool = t.runtime.collect(Tool).find(({ name }) => name === 'search_documents')!
    assert.throws(() => tool.recognize!('Where do boats berth?'), { code: 'DOCUMENTS_NONE', expose: true })
    assert.match(String(await tool.run({ query: 'boats', limit: 1 }, ctx)), /no documents are configured\. Name files or folders in plugins\.agent-pack-core\.config\.documents\.paths/)
  })
  it('answers on the command line', async () => {
    await using place = workplace({
      'docs/guide.md': GUIDE,
      'config/default.yaml': `
plugins:
  access-open: {}
  database: {}
  cluster: {}
  events: {}
  jobs: {}
  queue-embedded: {}
  models: {}
  agents: {}
  agent-pack-core: { config: { documents: { paths: [docs] } } }
`,
    })
    const { code, out, err } = await place.spawn('run', 'query', 'Where do the boats berth, and what is 6*7?')
    assert.equal(code, 0, err)
    assert.match(out, /docs\/guide\.md:3 \(Harbour guide\)\n> Boats berth at the northern quay\./)
    assert.match(out, /6\*7 = 42/)
  })
})
