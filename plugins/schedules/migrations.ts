import type { Migration } from '#contracts/database'

export const migrations: readonly Migration[] = [{
  name: '0001-schedules',
  async up(knex) {
    await knex.schema.createTable('schedules', t => {
      t.text('id').primary()
      t.text('name').notNullable()
      t.text('project_id').notNullable()
      t.text('created_by').notNullable()
      t.text('principal_id').notNullable()
      t.integer('declared').notNullable()
      t.text('cron').notNullable()
      t.text('time_zone').notNullable()
      t.text('request').notNullable()
      t.text('missed').notNullable()
      t.text('overlap').notNullable()
      t.integer('enabled').notNullable()
      t.bigInteger('starts_at')
      t.bigInteger('ends_at')
      t.bigInteger('next_at')
      t.bigInteger('look_at')
      t.bigInteger('last_at')
      t.text('last_job_id')
      t.text('last_error')
      t.bigInteger('token').notNullable()
      t.integer('version').notNullable()
      t.bigInteger('created_at').notNullable()
      t.bigInteger('updated_at').notNullable()
      t.unique(['project_id', 'name'])
      t.index(['look_at'])
    })
  },
}]
