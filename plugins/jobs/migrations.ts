import type { Dialect, Migration } from '#contracts/database'

/** The code of a job's error. */
export const CODE_OF: Readonly<Record<Dialect, string>> = { sqlite: "error ->> 'code'", postgres: "(error::json) ->> 'code'" }

/**
 * Off the straight way from queued over running to completed. As a query must say it, so that its index is taken; and not IN, for which SQLite makes
 * a table with each statement that writes a job.
 */
export const ASIDE = "status <> 'completed' AND status <> 'queued' AND status <> 'running'"

/** Neither running nor done; of the straight way only the beginning. */
export const IDLE = "status <> 'completed' AND status <> 'running'"

export const migrations: readonly Migration[] = [{
  name: '0001-jobs',
  async up(knex) {
    await knex.schema.createTable('jobs', t => {
      t.text('id').primary()
      t.text('type').notNullable()
      t.text('agent')
      t.text('project_id').notNullable()
      t.text('created_by').notNullable()
      t.text('principal_id').notNullable()
      t.text('traceparent')
      t.text('status').notNullable()
      t.text('input').notNullable()
      t.text('result')
      t.text('error')
      t.integer('priority').notNullable()
      t.integer('attempt').notNullable()
      t.integer('max_attempts').notNullable()
      t.bigInteger('timeout_ms').notNullable()
      t.integer('seq').notNullable()
      t.text('idempotency_key')
      t.text('substance')
      t.text('metadata').notNullable()
      t.text('lease_owner')
      t.bigInteger('lease_until')
      t.integer('token').notNullable()
      t.bigInteger('created_at').notNullable()
      t.bigInteger('run_at').notNullable()
      t.bigInteger('started_at')
      t.bigInteger('finished_at')
      t.bigInteger('handed_at').notNullable()
      t.unique(['project_id', 'created_by', 'idempotency_key'])
      t.index(['status', 'run_at'])
      t.index(['status', 'lease_until'])
      t.index(['project_id', 'id'])
    })
    await knex.schema.createTable('job_attempts', t => {
      t.text('job_id').notNullable().references('jobs.id').onDelete('CASCADE')
      t.integer('token').notNullable()
      t.integer('attempt').notNullable()
      t.text('worker').notNullable()
      t.bigInteger('started_at').notNullable()
      t.bigInteger('finished_at')
      t.text('outcome')
      t.text('error')
      t.primary(['job_id', 'token'])
    })
    await knex.schema.createTable('job_steps', t => {
      t.text('job_id').notNullable().references('jobs.id').onDelete('CASCADE')
      t.text('name').notNullable()
      t.text('result')
      t.integer('attempt').notNullable()
      t.bigInteger('started_at').notNullable()
      t.bigInteger('finished_at').notNullable()
      t.primary(['job_id', 'name'])
    })
  },
}, {
  name: '0002-backoff-and-lists',
  async up(knex, dialect) {
    await knex.schema.alterTable('jobs', t => {
      t.text('backoff')
      t.dropIndex(['status', 'lease_until'])
      // A list is read from the newest on: sorting a long one would hold up the event loop.
      t.index(['status', 'id'])
      t.index(['agent', 'id'])
    })
    // Only of these: no other job has a lease.
    await knex.raw("CREATE INDEX jobs_leases ON jobs (lease_until) WHERE status = 'running'")
    await knex.raw(`CREATE INDEX jobs_codes ON jobs ((${CODE_OF[dialect]}), id) WHERE error IS NOT NULL`)
  },
}, {
  name: '0003-waiting',
  async up(knex) {
    await knex.schema.alterTable('jobs', t => {
      t.text('parent_id')
      t.integer('depth').notNullable().defaultTo(0)
      // Both count only while the job is waiting.
      t.bigInteger('wake_at')
      t.integer('for_children').notNullable().defaultTo(0)
      t.integer('has_children').notNullable().defaultTo(0)
    })
    await knex.raw('CREATE INDEX jobs_children ON jobs (parent_id, id) WHERE parent_id IS NOT NULL')
    await knex.raw('CREATE INDEX jobs_open_children ON jobs (parent_id, id) WHERE parent_id IS NOT NULL AND finished_at IS NULL')
    await knex.raw("CREATE INDEX jobs_waiting ON jobs (wake_at) WHERE status = 'waiting'")
    await knex.raw("CREATE INDEX jobs_waiting_parents ON jobs (id) WHERE status = 'waiting' AND for_children = 1")
    await knex.raw("CREATE INDEX jobs_cancelled_parents ON jobs (id) WHERE status = 'cancelled' AND has_children = 1")
    await knex.schema.createTable('job_questions', t => {
      t.text('job_id').notNullable().references('jobs.id').onDelete('CASCADE')
      t.text('name').notNullable()
      t.text('project_id').notNullable()
      t.text('created_by').notNullable()
      t.text('addressee')
      t.text('question').notNullable()
      t.text('options')
      t.text('schema')
      t.bigInteger('asked_at').notNullable()
      t.bigInteger('expires_at')
      t.text('state').notNullable()
      t.text('answer')
      t.text('answered_by')
      t.bigInteger('answered_at')
      t.primary(['job_id', 'name'])
    })
    await knex.raw("CREATE INDEX job_questions_open ON job_questions (job_id, name) WHERE state = 'open'")
  },
}, {
  name: '0004-sweeps',
  async up(knex) {
    // What each sweep asks, every second. The status comes first, though it is always the same: SQLite would else take (status, id) and read
    // every job that is queued, waiting or was ever cancelled, 140 ms of 100,000.
    for (const [name, columns, where] of [
      ['jobs_handed', 'type, handed_at', "status = 'queued'"],
      ['jobs_leases', 'status, lease_until', "status = 'running'"],
      ['jobs_waiting', 'status, wake_at', "status = 'waiting'"],
      ['jobs_waiting_parents', 'status, for_children', "status = 'waiting' AND for_children = 1"],
      ['jobs_cancelled_parents', 'status, has_children', "status = 'cancelled' AND has_children = 1"],
    ]) {
      await knex.raw(`DROP INDEX IF EXISTS ${name}`)
      await knex.raw(`CREATE INDEX ${name} ON jobs (${columns}) WHERE ${where}`)
    }
  },
}, {
  name: '0005-dedupe',
  async up(knex) {
    // Of an unfinished job: it is emptied when the job ends.
    await knex.schema.alterTable('jobs', t => t.text('dedupe_key'))
    await knex.raw('CREATE UNIQUE INDEX jobs_dedupe ON jobs (project_id, dedupe_key) WHERE dedupe_key IS NOT NULL')
  },
}, {
  name: '0006-limits',
  async up(knex) {
    await knex.schema.alterTable('jobs', t => {
      // Of a queued job that a limit kept from beginning: which one, and 1 until it is given to the queue again.
      t.text('held_by')
      t.integer('held').notNullable().defaultTo(0)
    })
    await knex.raw("CREATE INDEX jobs_held ON jobs (held_by, held, priority, run_at) WHERE held_by IS NOT NULL AND status = 'queued'")
    await knex.schema.createTable('job_limits', t => {
      t.text('scope').primary()
      t.bigInteger('minute').notNullable()
      t.bigInteger('started').notNullable()
    })
  },
}, {
  name: '0007-large-results',
  async up(knex) {
    await knex.schema.alterTable('jobs', t => t.bigInteger('result_bytes'))
    await knex.schema.createTable('job_results', t => {
      t.text('job_id').primary().references('jobs.id').onDelete('CASCADE')
      t.text('result').notNullable()
    })
  },
}, {
  name: '0008-throttle',
  async up(knex) { await knex.schema.alterTable('jobs', t => t.bigInteger('dedupe_until')) },
}, {
  name: '0009-lists',
  async up(knex, dialect) {
    await knex.schema.alterTable('jobs', t => t.index(['type', 'id']))
    // The few of an agent, or a type, that went aside, without looking at all that went well; and a job that does writes nothing here.
    for (const column of ['agent', 'type']) await knex.raw(`CREATE INDEX jobs_aside_${column}s ON jobs (${column}, status, id) WHERE ${ASIDE}`)
    // By each column alone it would think that any agent has its share of what is dead, and look for that among the newest.
    if (dialect === 'postgres') await knex.raw('CREATE STATISTICS jobs_kinds (mcv) ON type, agent, status FROM jobs')
  },
}, {
  name: '0010-handed',
  async up(knex) {
    // Without those that a limit keeps back: a sweep would read all of them every second to find the others.
    await knex.raw('DROP INDEX IF EXISTS jobs_handed')
    await knex.raw("CREATE INDEX jobs_handed ON jobs (type, handed_at) WHERE status = 'queued' AND held = 0")
  },
}, {
  name: '0011-kept-back',
  async up(knex) { await knex.raw("CREATE INDEX jobs_kept_back ON jobs (status, held, held_by) WHERE status = 'queued' AND held = 1") },
}, {
  name: '0012-replaced-keys',
  async up(knex) {
    // The idempotency keys of requests that got a job by its dedupe key, or that another one has replaced.
    await knex.schema.createTable('job_keys', t => {
      for (const column of ['project_id', 'created_by', 'idempotency_key']) t.text(column).notNullable()
      t.text('substance').notNullable()
      t.text('job_id').notNullable().index().references('jobs.id').onDelete('CASCADE')
      t.primary(['project_id', 'created_by', 'idempotency_key'])
    })
  },
}, {
  name: '0013-fewer-entries',
  async up(knex) {
    // Each change of a job's status writes into every index that it is in: those that say nothing of most jobs are for the others alone.
    await knex.schema.alterTable('jobs', t => {
      t.dropUnique(['project_id', 'created_by', 'idempotency_key'])
      t.dropIndex(['agent', 'id'])
      t.dropIndex(['status', 'run_at'])
    })
    await knex.raw('CREATE UNIQUE INDEX jobs_keys ON jobs (project_id, created_by, idempotency_key) WHERE idempotency_key IS NOT NULL')
    // Anew behind it: PostgreSQL looks at the oldest first, and with both keys taken a request waits for whoever is about to change the first.
    await knex.raw('DROP INDEX jobs_dedupe')
    await knex.raw('CREATE UNIQUE INDEX jobs_dedupe ON jobs (project_id, dedupe_key) WHERE dedupe_key IS NOT NULL')
    await knex.raw('CREATE INDEX jobs_agents ON jobs (agent, id) WHERE agent IS NOT NULL')
    await knex.raw(`CREATE INDEX jobs_idle ON jobs (status, run_at) WHERE ${IDLE}`)
  },
}]
