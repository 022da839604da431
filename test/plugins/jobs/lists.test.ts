import assert from 'node:assert/strict'
import type { TestRuntime } from '#core/testing'
import { Database } from '#contracts/database'
import { JobQueries, type Selection } from '../../../plugins/jobs/tables/queries.ts'
import { postgresOrSkip } from '../../support/services.ts'
import { runtime } from './kit.ts'

const JOBS = 20_000
/** Mostly agents that went well; `rare` is an agent of few, `crawl` a type of few, all of them old; `flaky` fails often. */
function row(n: number): Record<string, unknown> {
  const type = n % 50 === 0 && n < 1_000 ? 'crawl' : 'agent'
  const agent = type === 'crawl' ? null : n % 50 === 1 && n < 1_000 ? 'rare' : n % 4 === 0 ? 'flaky' : 'main'
  const status = agent === 'flaky' ? 'dead' : agent === 'main' && n < 10 ? 'waiting' : 'completed'
  return {
    id: String(n).padStart(26, '0'), type, agent, status, project_id: n % 50 ? 'default' : 'small', created_by: 'op', principal_id: 'op', input: '1', metadata: '{}',
    priority: 5, attempt: 1, max_attempts: 3, timeout_ms: 1, seq: 3, token: 1, created_at: n, run_at: n, handed_at: 1, depth: 0,
  }
}

async function filled(t: TestRuntime): Promise<{ planOf(filter: Partial<Selection>): Promise<string> }> {
  const database = t.get(Database)
  await database.transaction(async tx => { for (let at = 0; at < JOBS; at += 500) await database.knex(tx)('jobs').insert(Array.from({ length: 500 }, (_, each) => row(at + each))) })
  if (database.dialect === 'postgres') await database.knex().raw('ANALYZE jobs')
  return {
    async planOf(filter) {
      const { sql, bindings } = new JobQueries(database).page({ projects: 'all', limit: 20, ...filter }).toSQL().toNative()
      const explained: unknown = await database.knex().raw(`${database.dialect === 'postgres' ? 'EXPLAIN' : 'EXPLAIN QUERY PLAN'} ${sql.replace(/\$\d+/g, '?')}`, bindings as string[])
      return JSON.stringify((explained as { rows?: unknown }).rows ?? explained)
    },
  }
}

/** What is asked for, and the index that leads to it without reading all that is asked for by nobody. */
const PLANS: readonly (readonly [Partial<Selection>, RegExp])[] = [
  [{ type: 'crawl' }, /jobs_type_id_index/],
  [{ type: 'nobody' }, /jobs_type_id_index/],
  [{ type: 'crawl', projects: ['default'] }, /jobs_type_id_index/],
  [{ type: 'crawl', status: 'completed' }, /jobs_type_id_index/],
  [{ type: 'crawl', status: 'dead' }, /jobs_aside_types/],
  [{ agent: 'rare' }, /jobs_agents/],
  [{ agent: 'rare', status: 'completed' }, /jobs_agents/],
  [{ agent: 'main', status: 'waiting' }, /jobs_aside_agents/],
  [{ agent: 'main', status: 'dead' }, /jobs_aside_agents/],
  [{ agent: 'main', status: 'running' }, /jobs_status|jobs_leases/],
]

async function check(t: TestRuntime, plans: typeof PLANS): Promise<void> {
  const { planOf } = await filled(t)
  for (const [filter, index] of plans) {
    const plan = await planOf(filter)
    assert.match(plan, index, `${JSON.stringify(filter)}: ${plan}`)
    assert.doesNotMatch(plan, /TEMP B-TREE|Seq Scan/, `${JSON.stringify(filter)}: ${plan}`)
  }
  const of = async (filter: Partial<Selection>) => (await new JobQueries(t.get(Database)).list({ projects: 'all', limit: 100, ...filter })).rows
  const ids = async (filter: Partial<Selection>) => (await of(filter)).map(each => Number(each.id))
  assert.deepEqual(await ids({ type: 'crawl' }), Array.from({ length: 20 }, (_, at) => (19 - at) * 50))
  assert.deepEqual(await ids({ agent: 'main', status: 'waiting' }), [9, 7, 6, 5, 3, 2])
  assert.deepEqual([await ids({ agent: 'main', status: 'dead' }), await ids({ type: 'crawl', projects: ['default'] }), (await of({ agent: 'flaky', status: 'dead', projects: ['small'] })).length], [[], [], 100])
}

describe('a list of jobs', () => {
  it('of a type, or of an agent and a status, is found by an index, on SQLite', async () => {
    await using t = await runtime({ config: { concurrency: 0 } })
    await check(t, PLANS)
  })

  it('is so on PostgreSQL', async function () {
    const server = await postgresOrSkip(this)
    await using place = await server.newDatabase()
    await using t = await runtime({ config: { concurrency: 0 }, url: place.url })
    await check(t, PLANS)
  }).timeout(30_000)
})
