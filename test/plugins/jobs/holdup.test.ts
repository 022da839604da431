import assert from 'node:assert/strict'
import { eventually, FakeClock } from '#core/testing'
import { Health } from '#contracts/health'
import type { Instance } from '#contracts/cluster'
import type { Role } from '#core'
import health from '../../../plugins/health/index.ts'
import commands from '../../../plugins/jobs/commands.ts'
import { Holdups } from '../../../plugins/jobs/watch/holdup.ts'
import type { JobDetail } from '../../../plugins/jobs/tables/record.ts'
import { serverAt } from '../../../core/cli/client.ts'
import { served, submit } from '../sse/kit.ts'
import { jobType } from './kit.ts'

const instance = (...roles: Role[]): Instance => ({ id: 'i', roles, version: '1', hostname: 'h', pid: 1, started_at: 0, seen_at: 0 })
const queued = { status: 'queued', handed_at: 5, run_at: 0 } as const

describe('what holds up a job', () => {
  function holdups(list: () => Promise<readonly Instance[]>, { works = false, transactional = true } = {}) {
    const clock = new FakeClock(1_000_000)
    let asked = 0
    const instances = { list: () => { asked++; return list() } }
    return { clock, asked: () => asked, it: new Holdups({ instances: () => instances, clock, worksHere: () => works, transactional }) }
  }

  it('is that nobody runs jobs, and for how long that has been so', async () => {
    let alive = [instance('api')]
    const { it: known, clock } = holdups(async () => alive)
    assert.equal((await known.of(queued))!.message, 'no process that runs jobs is alive')
    await clock.advance(34_000)
    const { reason, message, fix } = (await known.of(queued))!
    assert.deepEqual([reason, message], ['no_worker', 'no process that runs jobs is alive; none has been seen for 34 s'])
    assert.match(fix, /backplane start --roles worker/)
    assert.equal(await known.of({ ...queued, status: 'running' }), null)
    alive = [instance('api'), instance('worker')]
    await clock.advance(2_000)
    assert.equal(await known.of(queued), null)
    alive = [instance('api')]
    await clock.advance(2_000)
    assert.equal((await known.of(queued))!.message, 'no process that runs jobs is alive')
  })

  it('is asked for once in two seconds, however many want to know, and never where jobs are run', async () => {
    const { it: known, clock, asked } = holdups(async () => [instance('api')])
    await Promise.all(Array.from({ length: 1_000 }, () => known.of(queued)))
    assert.equal(asked(), 1)
    await clock.advance(2_000)
    await known.of(queued)
    assert.equal(asked(), 2)
    const working = holdups(async () => [], { works: true })
    assert.deepEqual([await working.it.of(queued), working.asked()], [null, 0])
  })

  it('is not known where nobody can tell', async () => {
    for (const list of [async () => [], () => Promise.reject(new Error('away'))]) assert.equal(await holdups(list).it.of(queued), null)
  })

  it('is a limit, or a queue that does not take it', async () => {
    const { it: known, clock } = holdups(async () => [instance('worker')], { transactional: false })
    assert.deepEqual([await known.of(queued), (await known.of({ ...queued, held: 1, held_by: 'agent:math' }))?.message], [null, 'a limit keeps it back: agent:math'])
    for (const handed_at of [0, -1]) assert.equal((await known.of({ ...queued, handed_at }))?.reason, 'not_handed_over')
    assert.equal(await known.of({ ...queued, handed_at: 0, run_at: clock.now() - 1_000 }), null, 'it may be on its way')
  })

  it('stands in the job, in health and in jobs show, and jobs watch says it once', async () => {
    await using t = await served({ types: [jobType('quick', async () => 1)], host: { roles: ['api'] }, plugins: [health] })
    const id = await submit(t, { type: 'quick' })
    const { held_up } = await (await fetch(`${t.url}/api/v1/jobs/${id}`)).json() as JobDetail
    assert.equal(held_up?.reason, 'no_worker')
    const { checks } = await t.get(Health).report()
    assert.deepEqual([checks['queue']?.status, checks['queue']?.message?.replace(/;.*/, '')], ['degraded', '1 job waits, and no process that runs jobs is alive'])
    const printed = { out: '', err: '' }
    const stop = new AbortController()
    const io = { args: [id], options: {}, json: false, tty: false, signal: stop.signal, stdin: async function* () {}, get: () => assert.fail(), server: serverAt(t.url),
      out: (text: string) => { printed.out += `${text}\n` }, write: (text: string) => { printed.out += text }, err: (text: string) => { printed.err += `${text}\n` } }
    await commands.find(each => each.name === 'jobs show')!.run(io)
    assert.match(printed.out, /held up: no process that runs jobs is alive.*\n {2}fix: Start one/)
    const watching = commands.find(each => each.name === 'jobs watch')!.run(io)
    await eventually('the reason', () => /held up: no process/.test(printed.err), 5_000)
    stop.abort()
    assert.equal(await watching, 130)
    assert.equal(printed.err.match(/held up/g)?.length, 1)
  })
})
