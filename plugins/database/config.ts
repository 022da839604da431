import { z } from 'zod'
import { Secret } from '#core'

export const config = z.strictObject({
  file: z.string().min(1).default('backplane.db').describe('The SQLite file; a relative path is below the data folder.'),
  url: z.union([z.instanceof(Secret).meta({ type: 'string' }), z.string()]).optional()
    .describe('Address of the database, `sqlite:<path>`; wins over `file`. Leave it out for SQLite in the data folder.'),
})
export type DatabaseConfig = z.output<typeof config>
