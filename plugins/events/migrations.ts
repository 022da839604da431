import type { Knex } from 'knex'
import type { Migration } from '#contracts/database'

/** Marks the advisory locks of the log among all others. */
const LOCK = 0x62706c6e
/** The key of such a lock has 31 bits. */
const ROUND = 2 ** 31

const LAST = 'coalesce(pg_sequence_last_value(\'events_position_seq\'), 0)'

/**
 * A transaction takes a position long before it commits, so a reader that sees 6 may get 5 later: it would lose it. Hence each transaction notes,
 * as a shared advisory lock and before it takes its first position, which one was the last by then: all of its own are above. The lock leaves with
 * the transaction, once its rows can be seen. Below the least of these notes the log is complete.
 */
async function markAppending(knex: Knex): Promise<void> {
  // The setting dies with the transaction, or with the savepoint that is rolled back: exactly when the lock does.
  await knex.raw(`CREATE FUNCTION events_next() RETURNS bigint LANGUAGE plpgsql AS $$
    BEGIN
      IF current_setting('backplane.appending', true) IS DISTINCT FROM 'yes' THEN
        PERFORM pg_advisory_xact_lock_shared(${LOCK}, CAST(${LAST} % ${ROUND} AS integer));
        PERFORM set_config('backplane.appending', 'yes', true);
      END IF;
      RETURN nextval('events_position_seq');
    END $$`)
  // The last position first and the locks after it: a transaction that is not among these takes its positions above. In one
  // statement the order would be open.
  await knex.raw(`CREATE FUNCTION events_horizon(OUT last bigint, OUT safe bigint) LANGUAGE plpgsql AS $$
    BEGIN
      last := ${LAST};
      SELECT least(last, min(last + (CAST(objid AS bigint) - last % ${ROUND} + ${ROUND * 1.5}) % ${ROUND} - ${ROUND / 2})) INTO safe
      FROM pg_locks WHERE locktype = 'advisory' AND classid = ${LOCK} AND objsubid = 2
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database());
    END $$`)
}

export const migrations: readonly Migration[] = [{
  name: '0001-events',
  async up(knex, dialect) {
    await knex.schema.createTable('events', t => {
      t.bigIncrements('position')
      t.text('type').notNullable()
      t.text('project_id').notNullable()
      t.text('created_by').notNullable()
      t.text('job_id')
      t.bigInteger('seq')
      t.text('topics').notNullable()
      t.text('data').notNullable()
      t.bigInteger('at').notNullable()
    })
    // The cursor of a job's topic is `seq`, of any other the position. Clustered by its key: one write for each topic.
    await knex.raw(`CREATE TABLE event_topics (topic text NOT NULL, cursor bigint NOT NULL, position bigint NOT NULL, PRIMARY KEY (topic, cursor))
      ${dialect === 'sqlite' ? 'WITHOUT ROWID' : ''}`)
    await knex.schema.createTable('event_window', t => { t.bigInteger('removed').notNullable() })
    await knex('event_window').insert({ removed: 0 })
    await knex.schema.createTable('event_consumers', t => {
      t.text('name').primary()
      t.bigInteger('position').notNullable()
      t.bigInteger('token').notNullable()
      t.bigInteger('updated_at').notNullable()
    })
    if (dialect === 'postgres') await markAppending(knex)
  },
}]
