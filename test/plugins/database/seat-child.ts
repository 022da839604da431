/** Takes a place at a SQLite file, as a server does, and says how that went. `file`. */
import { SqliteDatabase } from '../../../plugins/database/sqlite.ts'

const nothing = () => {}
const log = { debug: nothing, info: nothing, warn: nothing, error: nothing, child: () => log }
try {
  await SqliteDatabase.open(process.argv[2]!, log, { server: true })
  process.stdout.write('seated\n')
  setInterval(() => {}, 1_000)
} catch (error) { process.stdout.write(`${(error as { code?: string }).code}\n`) }
