import type { Migration } from '#contracts/database'

export const migrations: readonly Migration[] = [{
  name: '0001-cluster',
  async up(knex) {
    await knex.schema.createTable('cluster_instances', t => {
      t.text('id').primary()
      t.text('roles').notNullable()
      t.text('version').notNullable()
      t.text('hostname').notNullable()
      t.integer('pid').notNullable()
      t.bigInteger('started_at').notNullable()
      t.bigInteger('seen_at').notNullable()
    })
    // A row stays for ever: its token must not begin anew.
    await knex.schema.createTable('cluster_leases', t => {
      t.text('name').primary()
      t.bigInteger('token').notNullable()
      t.text('holder')
      t.bigInteger('expires_at').notNullable()
    })
    // Only SQLite needs it; PostgreSQL has NOTIFY.
    await knex.schema.createTable('cluster_messages', t => {
      t.increments('id')
      t.text('sender').notNullable()
      t.text('channel').notNullable()
      t.text('message').notNullable()
      t.bigInteger('at').notNullable()
    })
  },
}]
