import assert from 'node:assert/strict'
import { join } from 'node:path'
import { eventually } from '#core/testing'
import type { Job } from '#contracts/jobs'
import { root, workplace, type Run } from '../support/cli.ts'
import { postgresOrSkip, redisOrSkip, type PostgresServer, RedisServer } from '../support/services.ts'

const says = (word: string) => (line: Record<string, any>) => line['msg'] === word
/** One without the role api listens for its health alone, and names no address when it has started. */
const urlOf = async (run: Run) => {
  await run.line('the start', says('started'))
  return (await run.line('the port', says('listening')))['url'] as string
}
const submit = async (url: string, input: string): Promise<Job> => {
  const answer = await fetch(`${url}/api/v1/jobs`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ agent: 'math', input }) })
  assert.equal(answer.status, 202, await answer.clone().text())
  return answer.json() as Promise<Job>
}
const done = (url: string, id: string) => eventually(`job ${id} to be completed`, async () => {
  const job = await (await fetch(`${url}/api/v1/jobs/${id}`)).json() as Job
  return job.status === 'completed' && job
}, 15_000)
const readiness = async (url: string) => {
  const answer = await fetch(`${url}/health/ready`)
  return { status: answer.status, text: await answer.text() }
}

describe('config/scaled.yaml', () => {
  let postgres: PostgresServer
  let redis: RedisServer
  before(async function () {
    postgres = await postgresOrSkip(this)
    redis = await redisOrSkip(this, () => RedisServer.start({}))
  })
  after(async () => redis?.stop())

  it('runs on one process what another took in, also while Redis is away, and stops in order without it', async function () {
    this.timeout(90_000)
    await using database = await postgres.newDatabase()
    await using place = workplace({})
    const env = { DATABASE_URL: database.url, REDIS_URL: redis.url, PORT: '0' }
    const start = (roles: string) => place.start(
      ['start', '--no-watch', '--roles', roles, '--config', join(root, 'config/scaled.yaml')], { ...env, DATA_DIR: join(place.folder, roles), BACKPLANE__log__format: 'json' })
    const api = start('api')
    const url = await urlOf(api)
    const worker = start('worker')
    const workerUrl = await urlOf(worker)
    assert.equal((await readiness(url)).status, 200)
    await done(url, (await submit(url, '2+40')).id)

    await redis.crash()
    await eventually('the worker to be not ready', async () => (await readiness(workerUrl)).status === 503)
    assert.match((await readiness(workerUrl)).text, /"redis\\" is unhealthy/)
    const { status, text } = await eventually('the outage to be told', async () => { const found = await readiness(url); return /redis/.test(found.text) && found })
    assert.equal(status, 200, 'behind a balancer nobody would reach who takes jobs in')
    assert.match(text, /"degraded":\[.*"check \\"redis\\" is unhealthy"/)
    const from = performance.now()
    const taken = await Promise.all(Array.from({ length: 20 }, (_, at) => submit(url, `${at}+1`)))
    assert.ok(performance.now() - from < 2_000)
    await redis.restart()
    const there = performance.now()
    await Promise.all(taken.map(({ id }) => done(url, id)))
    console.log(`      20 jobs that were submitted without Redis were done ${Math.round(performance.now() - there)} ms after it was back`)
    for (const each of [url, workerUrl]) await eventually('all to be well', async () => (await readiness(each)).text.includes('"degraded":[]'))

    await redis.crash()
    for (const run of [api, worker]) {
      run.process.kill('SIGTERM')
      assert.equal(await run.ended, 0, run.out + run.err)
      assert.ok(!run.out.includes(redis.password) && !run.err.includes(redis.password), 'the password was told')
    }
  })
})
