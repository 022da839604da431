import assert from 'node:assert/strict'
import fc from 'fast-check'
import { numbered } from '../../../plugins/database/placeholders.ts'

describe('parameters of a statement', () => {
  const cases: Record<string, string> = {
    'SELECT ?, ?': 'SELECT $1, $2',
    'SELECT \'?\', ?': 'SELECT \'?\', $1',
    'SELECT \'it\'\'s ?\', ?': 'SELECT \'it\'\'s ?\', $1',
    'SELECT "a?b" FROM t WHERE x=?': 'SELECT "a?b" FROM t WHERE x=$1',
    'SELECT 1 -- ?\n, ?': 'SELECT 1 -- ?\n, $1',
    'SELECT /* ? /* ? */ ? */ ?': 'SELECT /* ? /* ? */ ? */ $1',
    'SELECT $$ ? $$, $a$ ? $$ $a$, ?': 'SELECT $$ ? $$, $a$ ? $$ $a$, $1',
    'SELECT E\'\\\' ?\', ?': 'SELECT E\'\\\' ?\', $1',
    'SELECT name\'?\', \'\\\', ?': 'SELECT name\'?\', \'\\\', $1',
    'SELECT a$b$?': 'SELECT a$b$$1',
    'SELECT \'open ?': 'SELECT \'open ?',
    '?': '$1',
    '': '',
  }
  for (const [sql, expected] of Object.entries(cases)) it(`${JSON.stringify(sql)} becomes ${JSON.stringify(expected)}`, () => assert.equal(numbered(sql), expected))

  it('are numbered from one, and nothing else changes', () => {
    const literal = fc.constantFrom('\'a ? b\'', '\'it\'\'s ?\'', '"col?"', '-- why?\n', '/* ? */', '/* a /* ? */ ? */', '$$ ? $$', '$x$ ? \' $x$')
    const piece = fc.oneof(literal, fc.constant('?'), fc.constantFrom(' SELECT ', ' a = ', ', ', ' (', ') ', ' 1 '))
    fc.assert(fc.property(fc.array(piece, { maxLength: 30 }), pieces => {
      let count = 0
      const spaced = pieces.map(each => ` ${each} `)
      assert.equal(numbered(spaced.join('')), spaced.map((each, at) => (pieces[at] === '?' ? ` $${++count} ` : each)).join(''))
    }))
  })

  it('never hang or throw, whatever the statement', () => {
    fc.assert(fc.property(fc.string({ unit: fc.constantFrom('?', '\'', '"', '$', '-', '/', '*', '\\', 'e', 'E', '\n', 'a', '1') }), sql => {
      const made = numbered(sql)
      assert.equal(made.replace(/\$\d+/g, '').length <= sql.length, true)
    }))
  })
})
