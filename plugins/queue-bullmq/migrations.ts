import { randomUUID } from 'node:crypto'
import type { Migration } from '#contracts/database'

export const migrations: readonly Migration[] = [{
  name: '0001-deployment',
  async up(knex) {
    await knex.schema.createTable('queue_bullmq_deployment', t => { t.text('id').primary() })
    await knex('queue_bullmq_deployment').insert({ id: randomUUID() })
  },
}]
