import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { eventually } from '#core/testing'
import { Database } from '#contracts/database'
import { Jobs } from '#contracts/jobs'
import { startChild, type Child } from '../../support/child.ts'
import { jobType, operator, runtime } from './kit.ts'

const trace = (dir: string) => { try { return readFileSync(join(dir, 'trace.txt'), 'utf8').trim().split('\n') } catch { return [] } }
/** A process that submits and looks, and runs nothing. */
const front = (dir: string) => runtime({ host: { dataDir: dir }, config: { concurrency: 0 }, types: [jobType('traced', async () => assert.fail('not here'))] })

describe('jobs across processes', function () {
  this.timeout(60_000)
  let dir: string
  const children: Child[] = []
  const start = (name: string, ...more: string[]) => { const child = startChild(new URL('worker-child.ts', import.meta.url), dir, name, ...more); children.push(child); return child }
  beforeEach(() => { dir = mkdtempSync(join(tmpdir(), 'backplane-jobs-')) })
  afterEach(async () => {
    await Promise.all(children.splice(0).map(child => child.kill()))
    rmSync(dir, { recursive: true })
  })

  it('completes a job whose process was killed in the middle, without doing its finished steps again', async () => {
    await using t = await front(dir)
    const job = await t.get(Jobs).submit(operator, { type: 'traced', input: { ms: 60_000 } })
    const slow = start('slow')
    await eventually('the second step', () => trace(dir).includes(`second ${job.id}`), 20_000)
    await slow.kill()
    assert.notEqual((await t.get(Jobs).get(operator, job.id)).status, 'completed')
    const quick = start('quick')
    await quick.said('ready')
    const done = await eventually('the end', async () => { const now = await t.get(Jobs).get(operator, job.id); return now.status === 'completed' && now })
    assert.equal(done.result, 3)
    assert.equal(done.attempt, 2)
    const count = (what: string) => trace(dir).filter(line => line.startsWith(`${what} ${job.id}`)).length
    assert.deepEqual(['run', 'first', 'second', 'last'].map(count), [2, 1, 2, 1])
    await quick.kill()
  })

  it('ends a job that kills its process every time', async () => {
    await using t = await front(dir)
    const job = await t.get(Jobs).submit(operator, { type: 'traced', input: { ms: 60_000 }, max_attempts: 2 })
    for (let attempt = 1; attempt <= 2; attempt++) {
      const slow = start('slow')
      await eventually('the attempt', () => trace(dir).filter(line => line.startsWith(`run ${job.id}`)).length === attempt, 20_000)
      await eventually('its second step', () => trace(dir).filter(line => line.startsWith(`second ${job.id}`)).length === attempt)
      await slow.kill()
    }
    // The front runs nothing, but takes back all the same.
    const dead = await eventually('the end', async () => { const now = await t.get(Jobs).get(operator, job.id); return now.status === 'dead' && now })
    assert.equal(dead.error!.code, 'JOBS_INTERRUPTED')
    assert.equal(dead.attempt, 2)
  })

  it('never runs a job twice with two workers on one file', async () => {
    // Nobody dies, so no lease may end while others have the machine.
    const two = [start('one', '60000'), start('two', '60000')]
    await Promise.all(two.map(child => child.said('ready')))
    await using t = await front(dir)
    const jobs = await Promise.all(Array.from({ length: 200 }, () => t.get(Jobs).submit(operator, { type: 'traced', input: { ms: 0 } })))
    await eventually('all to end', async () => (await t.get(Database).knex()('jobs').where('status', 'completed').count({ n: '*' }))[0]!['n'] === 200, 30_000)
    const runs = trace(dir).filter(line => line.startsWith('run '))
    assert.equal(runs.length, 200)
    assert.equal(new Set(runs.map(line => line.split(' ')[1])).size, jobs.length)
    assert.deepEqual(new Set(runs.map(line => line.split(' ')[2])), new Set(['one', 'two']))
    for (const child of two) child.process.kill('SIGTERM')
    await Promise.all(two.map(child => child.ended))
    assert.deepEqual(two.map(child => child.process.exitCode), [0, 0])
  })
})
