import assert from 'node:assert/strict'
import { join } from 'node:path'
import { eventually } from '#core/testing'
import type { Job } from '#contracts/jobs'
import { root, workplace, type Run } from '../support/cli.ts'
import { postgresOrSkip, PostgresServer, redisOrSkip, type RedisServer } from '../support/services.ts'

/** The second one on a machine that is busy: a stop gives each plugin little time to close. */
const EXPECTED = ['DATABASE_UNAVAILABLE', 'LIFECYCLE_TIMEOUT']
const isStarted = (line: Record<string, any>) => line['msg'] === 'started'
const hasStarted = (run: Run) => eventually('the start', () => {
  assert.equal(run.process.exitCode, null, run.out + run.err)
  return run.lines.find(isStarted)
}, 30_000)
const ready = async (url: string) => {
  const answer = await fetch(`${url}/health/ready`)
  return { status: answer.status, text: await answer.text() }
}
const submit = (url: string, input: string) =>
  fetch(`${url}/api/v1/jobs`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ agent: 'math', input }) })
const completed = (url: string, id: string) => eventually(`job ${id} to be completed`, async () => {
  const answer = await fetch(`${url}/api/v1/jobs/${id}`)
  return answer.ok && (await answer.json() as Job).status === 'completed'
}, 20_000)

const every = 'BACKPLANE__plugins__schedules__config__schedules__every'
const SCHEDULE = { [`${every}__cron`]: '* * * * * *', [`${every}__agent`]: 'math', [`${every}__input`]: '1+1' }

describe('backplane start while PostgreSQL is away', function () {
  this.timeout(120_000)
  let postgres: PostgresServer
  let redis: RedisServer
  before(async function () {
    redis = await redisOrSkip(this)
    postgres = await postgresOrSkip(this, () => PostgresServer.start())
  })
  after(() => postgres?.stop())

  /** Until it is ended, or the test is over. */
  const outage = async () => {
    let away = true
    await postgres.crash()
    const end = async () => { if (away) { away = false; await postgres.restart() } }
    return { end, [Symbol.asyncDispose]: end }
  }

  const engines: Record<string, (place: ReturnType<typeof workplace>) => Promise<{ readonly args: readonly string[]; readonly env: Record<string, string> } & AsyncDisposable>> = {
    'queue-embedded': async place => {
      place.write('embedded.yaml', 'plugins: { database: { config: { url: "${env:DATABASE_URL}" } } }')
      return { args: ['--config', 'embedded.yaml'], env: {}, async [Symbol.asyncDispose]() {} }
    },
    'queue-bullmq': async () => {
      const own = await redis.newDatabase()
      return { args: ['--config', join(root, 'config/scaled.yaml')], env: { REDIS_URL: own.url }, [Symbol.asyncDispose]: () => own[Symbol.asyncDispose]() }
    },
  }

  for (const [engine, prepare] of Object.entries(engines)) {
    it(`lives, says so, and begins by itself in every role when it is there, with no tables yet (${engine})`, async () => {
      await using database = await postgres.newDatabase()
      await using place = workplace({})
      await using prepared = await prepare(place)
      await using away = await outage()
      const start = (roles: string) => place.start(['start', '--no-watch', '--roles', roles, ...prepared.args], {
        DATABASE_URL: database.url, PORT: '0', DATA_DIR: join(place.folder, roles), BACKPLANE__log__format: 'json', ...SCHEDULE, ...prepared.env,
      })
      const all: Run[] = []
      try {
        for (const role of ['api', 'worker', 'scheduler']) {
          all.push(start(role))
          await hasStarted(all.at(-1)!)
        }
        const url = (await hasStarted(all[0]!))['url'] as string
        const { status, text } = await ready(url)
        assert.equal(status, 503)
        assert.match(text, /database/)
        const from = performance.now()
        const refused = await submit(url, '2+40')
        assert.equal(refused.status, 503, await refused.clone().text())
        assert.ok(refused.headers.get('retry-after'))
        assert.ok(performance.now() - from < 2_000, `${performance.now() - from} ms`)

        await away.end()
        const there = performance.now()
        await eventually('readiness', async () => (await ready(url)).status === 200, 10_000)
        console.log(`      ready ${Math.round(performance.now() - there)} ms after PostgreSQL was there`)
        const taken = await submit(url, '2+40')
        assert.equal(taken.status, 202, await taken.clone().text())
        await completed(url, (await taken.json() as Job).id)
        await eventually('a job of the schedule', async () =>
          Number((await postgres.query('SELECT count(*) AS n FROM jobs WHERE metadata LIKE \'%scheduled_at%\'', database.name))[0].n) > 0, 15_000)
        await eventually('three instances', async () => Number((await postgres.query('SELECT count(*) AS n FROM cluster_instances', database.name))[0].n) === 3, 10_000)
      } finally { for (const run of all) run.process.kill('SIGTERM') }
      for (const run of all) {
        assert.equal(await run.ended, 0, run.out + run.err)
        assert.ok(!(run.out + run.err).includes(postgres.password), 'the password was told')
        assert.equal(run.lines.filter(line => /PostgreSQL is there/.test(line['msg'])).length, 1)
        const codes = run.lines.filter(line => line['level'] === 'error').map(line => line['code'] ?? line['err']?.code)
        assert.deepEqual(codes.filter(code => !EXPECTED.includes(code)), [], run.out)
      }
    })
  }

  it('ends with 0 at once when it is told to stop meanwhile', async () => {
    await using place = workplace({})
    await using _away = await outage()
    const run = place.start(['start', '--no-watch'], { DATABASE_URL: postgres.url, PORT: '0', BACKPLANE__log__format: 'json' })
    await hasStarted(run)
    const from = performance.now()
    run.process.kill('SIGTERM')
    assert.equal(await run.ended, 0, run.out + run.err)
    assert.ok(performance.now() - from < 5_000, `${performance.now() - from} ms`)
  })

  it('says at a terminal, after all else, where it looks and what to do', async () => {
    await using place = workplace({})
    await using _away = await outage()
    const run = place.start(['start', '--no-watch'], { DATABASE_URL: postgres.url, PORT: '0', BACKPLANE__log__format: 'pretty' })
    await eventually('the reminder', () => /Submit a job[^]*waits for PostgreSQL/.test(run.out + run.err) || run.process.exitCode !== null, 20_000)
    const last = run.out.trimEnd().split('\n').slice(-2).join('\n')
    assert.match(last, new RegExp(`waits for PostgreSQL at 127.0.0.1:${postgres.port}/postgres: .*ECONNREFUSED`), run.out + run.err)
    assert.match(last, /fix: Start PostgreSQL there, or correct DATABASE_URL/)
    run.process.kill('SIGTERM')
    assert.equal(await run.ended, 0)
  })
})
