import type { Clock, Host, Logger } from '#core'
import type { DatabaseAdmin, DatabaseChannels } from '#contracts/database'
import { addressOf } from './address.ts'
import type { DatabaseConfig } from './config.ts'
import type { PostgresDatabase } from './postgres.ts'
import type { SqliteDatabase } from './sqlite.ts'

export interface Opened { readonly database: SqliteDatabase | PostgresDatabase; readonly admin: DatabaseAdmin; readonly channels: DatabaseChannels }

/** Opens what the config names, and loads the driver of that dialect only. */
export async function openDatabase(config: DatabaseConfig, host: Pick<Host, 'dataDir' | 'command' | 'inspect'>, clock: Clock, log: Logger): Promise<Opened> {
  const server = host.command === undefined
  const migrateMode = host.command === 'migrate' ? 'auto' : config.migrate
  const address = await addressOf(config, host.dataDir)
  if (address.dialect === 'sqlite') {
    const [{ SqliteDatabase }, { SqliteAdmin }] = await Promise.all([import('./sqlite.ts'), import('./sqlite-admin.ts')])
    const database = await SqliteDatabase.open(address.file, log, { ...config.sqlite, migrateMode, server })
    return { database, admin: new SqliteAdmin(database), channels: { listen: async () => undefined } }
  }
  const [{ PostgresDatabase }, { PostgresAdmin }, { PostgresListener }] =
    await Promise.all([import('./postgres.ts'), import('./postgres-admin.ts'), import('./postgres-listener.ts')])
  // One that runs already refuses a database that can't be reached, and goes on with the one that it has.
  const watching = server ? { clock, waits: host.inspect().state === 'starting' } : {}
  const database = await PostgresDatabase.open({ ...config.postgres, address: () => address.read(), migrateMode, ...watching }, log)
  const listening = { address: () => address.read(), connectionName: database.connectionName, waits: server }
  const channels: DatabaseChannels = { listen: (channel, heard) => PostgresListener.open(listening, channel, heard, log) }
  return { database, admin: new PostgresAdmin(database, () => address.read()), channels }
}
