import assert from 'node:assert/strict'
import { z } from 'zod'
import { fieldProblems, type Schema } from '#core'

const told = async (schema: Schema, value: unknown) => fieldProblems(schema, (await schema['~standard'].validate(value)).issues ?? [], value).fields

describe('what does not fit', () => {
  it('is told in the words of the author of the schema, where he gave some, whatever they begin with', async () => {
    const span = z.object({ from: z.string(), name: z.string().regex(/^a/, 'Invalid name: begin with an a').optional() })
      .refine(({ from }) => from < 'm', { error: 'Invalid span: it begins too late', path: ['from'] })
    assert.deepEqual(await told(span, { from: 'z' }), [{ path: 'from', message: 'Invalid span: it begins too late' }])
    assert.deepEqual(await told(span, { from: 'a', name: 'b' }), [{ path: 'name', message: 'Invalid name: begin with an a' }])
    const other: Schema = { '~standard': { version: 1, vendor: 'another', validate: () => ({ issues: [{ message: 'Invalid coupon: it ran out', path: ['coupon'] }] }) } }
    assert.deepEqual(await told(other, { coupon: 'x' }), [{ path: 'coupon', message: 'Invalid coupon: it ran out' }])
  })

  it('is told in ours, where he gave none', async () => {
    const schema = z.object({ mail: z.email(), kind: z.enum(['first', 'second']), count: z.int().max(5) })
    assert.deepEqual(await told(schema, { mail: 'x', kind: 'secnd', count: 9 }), [
      { path: 'mail', message: 'must be a text (email)' },
      { path: 'kind', message: 'must be one of "first", "second". Did you mean "second"?' },
      { path: 'count', message: 'must be a whole number to 5' },
    ])
  })
})
