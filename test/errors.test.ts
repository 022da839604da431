import assert from 'node:assert/strict'
import { BackplaneError } from '#core'
import { errorTables, holesOf, read } from '../scripts/docs/sources.ts'

describe('error tables', () => {
  it('give for every row an error with its code, its texts filled in and a fix', async () => {
    const tables = await errorTables()
    assert.ok(tables.length >= 15, `${tables.length} tables`)
    const codes = new Set<string>()
    for (const { owner, rows } of tables) {
      for (const make of rows) {
        const holes = holesOf(make.shape)
        const details = Object.fromEntries(holes.map(hole => [hole, `<${hole}>`]))
        const error = (make as (details: Record<string, unknown>) => BackplaneError)(details)
        const where = make.code
        assert.ok(!codes.has(where), `${where} is there twice`)
        codes.add(where)
        assert.match(where, /^[A-Z][A-Z0-9]*(_[A-Z0-9]+)+$/, where)
        assert.ok(where.startsWith(`${owner}_`), where)
        assert.ok(error instanceof BackplaneError && make.is(error), where)
        assert.equal(error.code, where)
        assert.ok(error.message.trim(), `${where}: no message`)
        assert.ok(error.fix.trim(), `${where}: no fix`)
        assert.notEqual(error.fix, error.message, `${where}: the fix says what went wrong again`)
        assert.doesNotMatch(error.message + error.fix, /\{\w+\}|undefined/, `${where}: a hole is left`)
        for (const hole of holes) assert.ok((error.message + error.fix).includes(`<${hole}>`), `${where}: {${hole}} is not filled in`)
        assert.ok(Number.isInteger(error.status) && error.status >= 400 && error.status <= 599, `${where}: status ${error.status}`)
        assert.match(error.fix, /[.!?:…)`}>]$/, `${where}: the fix is no sentence: ${error.fix}`)
        if (make.shape.retryable && make.shape.status !== undefined) assert.ok(make.shape.status >= 408, `${where}: ${make.shape.status} is final, but retryable`)
      }
    }
  })

  it('are listed in docs/reference/errors.md, all of them and nothing else', async () => {
    const listed = [...read('docs/reference/errors.md').matchAll(/^\| `([A-Z0-9_]+)` \|/gm)].map(match => match[1]!).toSorted()
    const made = (await errorTables()).flatMap(({ rows }) => rows.map(({ code }) => code)).toSorted()
    assert.deepEqual(listed, made, '`npm run docs` writes the page anew')
  })
})
