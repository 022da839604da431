import assert from 'node:assert/strict'
import pg from 'pg'
import { eventually } from '#core/testing'
import { config } from '../../../plugins/cluster/config.ts'
import { startChild, type Child } from '../../support/child.ts'
import { postgresOrSkip, type PostgresServer } from '../../support/services.ts'

const PROCESSES = 5
/** From the loss of a leader to the first act of the next. */
const FAILOVER_MS = 10_000

describe('leases of five processes on PostgreSQL', () => {
  it('are over in time by default too', () => {
    const { leaseMs, retryMs } = config.parse({})
    assert.ok(leaseMs + 2 * retryMs < FAILOVER_MS)
  })

  let server: PostgresServer
  before(async function () { server = await postgresOrSkip(this) })

  it('one acts at any moment, and another one within 10 s after the leader was killed, or paused and resumed', async function () {
    this.timeout(60_000)
    await using place = await server.newDatabase()
    const client = new pg.Client({ connectionString: place.url })
    await client.connect()
    const children: Child[] = []
    try {
      await client.query('CREATE TABLE sink (token bigint NOT NULL); INSERT INTO sink VALUES (0)')
      await client.query('CREATE TABLE acts (id bigserial PRIMARY KEY, token bigint NOT NULL, pid integer NOT NULL, at bigint NOT NULL)')
      for (let at = 0; at < PROCESSES; at++) children.push(startChild(new URL('leader-child.ts', import.meta.url), place.url))
      await Promise.all(children.map(child => child.said('ready')))
      const lastAct = async () => (await client.query('SELECT token::int AS token, pid FROM acts ORDER BY id DESC LIMIT 1')).rows[0] as { token: number; pid: number } | undefined
      const leaderAfter = async (token: number) => {
        const from = performance.now()
        const act = await eventually(`a leader after ${token}`, async () => { const act = await lastAct(); return act !== undefined && act.token > token && act }, FAILOVER_MS)
        return { ...act, ms: performance.now() - from, child: children.find(child => child.process.pid === act.pid)! }
      }

      const first = await leaderAfter(0)
      await first.child.kill()
      const second = await leaderAfter(first.token)
      second.child.process.kill('SIGSTOP')
      const third = await leaderAfter(second.token)
      const resumedAt = second.child.lines.length
      second.child.process.kill('SIGCONT')
      await eventually('the resumed one to see that it lost', () => second.child.lines.slice(resumedAt).includes(`ended ${second.token}`))
      console.log(`      fail-over: ${Math.round(second.ms)} ms after a kill, ${Math.round(third.ms)} ms after a pause; refused: ${second.child.lines.filter(line => line.startsWith('refused')).length}`)
      assert.ok(third.child.lines.includes(`leads ${third.token}`))

      // Gone in order, a leader keeps nobody waiting.
      third.child.process.kill('SIGTERM')
      const fourth = await leaderAfter(third.token)
      assert.ok(fourth.ms < 3_000, `${fourth.ms} ms after an orderly stop`)

      const { rows } = await client.query('SELECT token::int AS token, pid FROM acts ORDER BY id')
      const acts = rows as { token: number; pid: number }[]
      const holders = new Map<number, number>()
      for (const [at, act] of acts.entries()) {
        assert.ok(at === 0 || act.token >= acts[at - 1]!.token, `token ${act.token} acted after ${acts[at - 1]?.token}`)
        assert.equal(holders.get(act.token) ?? act.pid, act.pid, `two held token ${act.token}`)
        holders.set(act.token, act.pid)
      }
      assert.equal(holders.size, 4)
      // The resumed one wrote nothing after the pause: what it tried was refused. It may lead again, under another token.
      assert.ok(!second.child.lines.slice(resumedAt + 1).includes(`acted ${second.token}`), second.child.lines.slice(resumedAt).join())
    } finally {
      await Promise.all(children.map(child => child.kill()))
      await client.end()
    }
  })
})
