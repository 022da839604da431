import { reasonOf } from '#core'
import { DatabaseErrors, type Migration } from '#contracts/database'
import type { CommonDatabase } from './transaction.ts'

/** `check` refuses instead of changing anything. */
export type MigrateMode = 'auto' | 'check'
export interface Migrated { readonly owner: string; readonly name: string }

/** Every plugin has its own history, so that one can leave and come back without the others. */
const historyOf = (owner: string) => `${owner.replaceAll('-', '_')}_migrations`

/** In order of name. Throws what is wrong with them in any database. */
export function checked(owner: string, migrations: readonly Migration[]): readonly Migration[] {
  if (!/^[a-z][a-z0-9-]*$/.test(owner)) throw new TypeError(`"${owner}" is not the name of a plugin`)
  if (new Set(migrations.map(each => each.name)).size < migrations.length) throw new TypeError(`two migrations of "${owner}" have one name`)
  return [...migrations].sort((a, b) => (a.name < b.name ? -1 : 1))
}

/** Runs what is missing, in order of name and all in one transaction; resolves to what ran. */
export async function migrate(database: CommonDatabase, owner: string, migrations: readonly Migration[], mode: MigrateMode): Promise<Migrated[]> {
  const sorted = checked(owner, migrations)
  const table = historyOf(owner)
  const known = new Set(sorted.map(each => each.name))
  const missing = (rows: readonly { name: string }[]) => {
    const strangers = rows.map(row => row.name).filter(name => !known.has(name)).sort()
    const todo = sorted.filter(each => !rows.some(row => row.name === each.name))
    const last = sorted.at(-1)?.name ?? ''
    // A newer release leaves the schema usable for this one; a history that parted from ours does not.
    const found = todo.length ? strangers[0] : strangers.find(name => name < last)
    if (found !== undefined) throw DatabaseErrors.MIGRATION_CHANGED({ owner, found })
    if (strangers.length) database.log.warn(`plugin "${owner}" was migrated by a newer release`, { owner, newer: strangers })
    return todo
  }
  const reading = database.knex()
  // Most starts have nothing to do, and need no lock to see it.
  const pending = missing(await reading.schema.hasTable(table) ? await reading(table).select('name') : [])
  if (!pending.length) return []
  if (mode === 'check') throw DatabaseErrors.MIGRATIONS_PENDING({ owner, names: pending.map(each => each.name).join(', ') })
  return database.transaction(async tx => {
    await database.lockMigrations(owner, tx)
    const knex = database.knex(tx)
    if (!await knex.schema.hasTable(table)) {
      await knex.schema.createTable(table, t => { t.text('name').primary(); t.bigInteger('applied_at').notNullable() })
    }
    const todo = missing(await knex(table).select('name'))
    for (const { name, up } of todo) {
      try { await up(knex, database.dialect) } catch (cause) {
        throw DatabaseErrors.MIGRATION_FAILED({ owner, name, reason: reasonOf(cause) }, { cause })
      }
      await knex(table).insert({ name, applied_at: Date.now() })
    }
    return todo.map(({ name }) => ({ owner, name }))
  })
}
