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
}]
