import assert from 'node:assert/strict'
import fc from 'fast-check'
import { format, tokenize } from '../../scripts/format.mjs'

const told = (text: string, path = 'a.ts') => format(path, text).problems.map(({ line, what }) => `${line}: ${what}`)
const mended = (text: string, path = 'a.ts') => format(path, text).fixed

describe('the layout check', () => {
  const cases: [title: string, text: string, what: RegExp, fixed: string | undefined][] = [
    ['CR LF', 'a\r\nb\r\n', /CR LF/, 'a\nb\n'],
    ['no newline at the end', 'a', /newline/, 'a\n'],
    ['two newlines at the end', 'a\n\n', /newline/, 'a\n'],
    ['blanks at the end of a line', 'a  \nb\n', /1: blanks/, 'a\nb\n'],
    ['a tab', '\ta\n', /1: a tab/, '  a\n'],
    ['a semicolon', 'a()\nconst b = \'x\';\n', /2: a semicolon/, 'a()\nconst b = \'x\'\n'],
    ['a semicolon before a comment', 'a(); // why\n', /1: a semicolon/, 'a() // why\n'],
    ['double quotes', 'a("x")\n', /1: double quotes/, 'a(\'x\')\n'],
    ['double quotes inside a template', 'a(`${b("x")}`)\n', /1: double quotes/, 'a(`${b(\'x\')}`)\n'],
    ['a long line', `${'a + '.repeat(40)}a\n`, /161 columns/, undefined],
  ]
  for (const [title, text, what, fixed] of cases) {
    it(`tells ${title}`, () => {
      assert.match(told(text).join('\n'), what)
      if (fixed === undefined) return
      assert.equal(mended(text), fixed)
      assert.deepEqual(told(fixed), [])
    })
  }

  const fine: [title: string, text: string][] = [
    ['semicolons within a line', 'for (;;) break\ninterface A { a: string; /** why */ b: string }\n'],
    ['a semicolon that the next line needs', 'const a = b;\n[1].map(c)\n'],
    ['what stands in comments and texts', '// a;\nconst a = `x;\n"y";\n`\nconst b = /";/.test(c)\n'],
    ['double quotes around single ones', 'a("it\'s")\n'],
    ['a long text in quotes', `a('${'x'.repeat(170)}')\n`],
    ['an empty file', ''],
  ]
  for (const [title, text] of fine) it(`leaves ${title}`, () => assert.deepEqual(told(text), []))

  it('mends in one go, whatever the text is', () => {
    fc.assert(fc.property(fc.string({ unit: fc.constantFrom(...'ab;\'"`${}/*\\\n\t\r ()[]=') }), text => {
      const once = mended(text)
      assert.equal(mended(once), once)
    }))
  })

  it('cuts any text into parts that make it up again', () => {
    fc.assert(fc.property(fc.string({ unit: fc.constantFrom(...'ab;\'"`${}/*\\\n ') }), text => {
      assert.equal(tokenize(text).map(({ from, to }) => text.slice(from, to)).join(''), text)
    }))
  })
})
