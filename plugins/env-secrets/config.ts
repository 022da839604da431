import { z } from 'zod'

export const config = z.strictObject({
  prefix: z.string().regex(/^[A-Za-z0-9_]*$/).default('').describe('Only variables that begin so are secrets; the name follows after it. Empty: every variable is one.'),
})
