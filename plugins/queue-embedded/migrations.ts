import type { Migration } from '#contracts/database'

export const migrations: readonly Migration[] = [{
  name: '0001-queue-entries',
  async up(knex) {
    await knex.schema.createTable('queue_entries', t => {
      t.bigIncrements('position')
      t.text('id').notNullable().unique()
      t.integer('priority').notNullable()
      t.index(['priority', 'position'])
    })
  },
}, {
  name: '0002-queue-order',
  async up(knex) {
    // In the very order of a delivery, or each one sorts the whole queue.
    await knex.schema.alterTable('queue_entries', t => t.dropIndex(['priority', 'position']))
    await knex.raw('CREATE INDEX queue_entries_order ON queue_entries (priority DESC, position)')
  },
}]
