import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { eventually } from '#core/testing'
import type { Job } from '#contracts/jobs'
import { workplace, type Run } from '../support/cli.ts'

const message = (text: string) => (line: Record<string, any>) => line['msg'] === text
const listening = async (run: Run) => (await run.line('the port', message('listening')))['url'] as string
const submit = async (url: string): Promise<Job> => {
  const answer = await fetch(`${url}/api/v1/jobs`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ agent: 'math', input: '2+40' }) })
  assert.equal(answer.status, 202, await answer.clone().text())
  return answer.json() as Promise<Job>
}
const jobOf = async (url: string, id: string) => (await fetch(`${url}/api/v1/jobs/${id}`)).json() as Promise<Job>

describe('roles', function () {
  this.timeout(60_000)

  it('one process takes jobs in, another runs them, on one machine and one data folder', async () => {
    await using place = workplace({})
    const env = { PORT: '0', BACKPLANE__log__format: 'json' }
    const api = place.start(['start', '--no-watch', '--roles', 'api'], env)
    const url = await listening(api)
    assert.deepEqual((await api.line('the start', message('started')))['roles'], ['api'])
    const waiting = await submit(url)

    // The port of the other one, as two processes with one config have it.
    const worker = place.start(['start', '--no-watch'], { ...env, PORT: new URL(url).port, BACKPLANE_ROLES: 'worker, scheduler' })
    const own = await listening(worker)
    assert.notEqual(own, url)
    await worker.started()
    await eventually('the job to be done', async () => (await jobOf(url, waiting.id)).status === 'completed', 15_000)
    assert.equal(worker.lines.filter(message('job completed')).length, 1)
    assert.equal(api.lines.filter(message('job completed')).length, 0)

    assert.equal((await fetch(`${own}/health/ready`)).status, 200)
    const refused = await fetch(`${own}/api/v1/jobs`)
    const problem = await refused.json() as { code: string; detail: string }
    assert.deepEqual([refused.status, problem.code], [503, 'HTTP_ROLE'])
    assert.match(problem.detail, /has the roles worker, scheduler/)
    assert.equal((await fetch(`${own}/sse/jobs/${waiting.id}`)).status, 503)
    assert.equal((await fetch(`${own}/nowhere`)).status, 404)
    assert.equal(JSON.parse(readFileSync(join(place.folder, 'data/server.json'), 'utf8')).url, url)

    worker.process.kill('SIGTERM')
    assert.equal(await worker.ended, 0, worker.err)
    const later = await submit(url)
    const held = await jobOf(url, later.id) as Job & { held_up: { reason: string; message: string } }
    assert.deepEqual([held.status, held.held_up.reason, held.held_up.message], ['queued', 'no_worker', 'no process that runs jobs is alive'])
    assert.equal((await fetch(`${url}/health/ready`)).status, 200, 'it takes jobs in all the same')
    assert.equal(JSON.parse(readFileSync(join(place.folder, 'data/server.json'), 'utf8')).url, url)
    api.process.kill('SIGTERM')
    assert.equal(await api.ended, 0, api.err)
  })

  it('the command line finds the one that lives, of two that serve from one data folder', async () => {
    await using place = workplace({})
    const env = { PORT: '0', BACKPLANE__log__format: 'json' }
    const begin = async () => {
      const run = place.start(['start', '--no-watch'], env)
      await run.started()
      return { run, url: await listening(run), async stop() { run.process.kill('SIGTERM'); assert.equal(await run.ended, 0, run.err) } }
    }
    const files = () => readdirSync(join(place.folder, 'data')).filter(name => name.startsWith('server')).sort()
    const asked = async () => (await place.run('jobs', 'list', '--json')).code
    const first = await begin()
    const second = await begin()
    assert.deepEqual([files().length, JSON.parse(readFileSync(join(place.folder, 'data/server.json'), 'utf8')).url], [2, first.url])
    assert.equal((await second.run.line('the start', message('started')))['url'], second.url)
    assert.equal(await asked(), 0)
    await first.stop()
    assert.deepEqual([files().length, files().includes('server.json')], [1, false])
    assert.equal(await asked(), 0)
    // Its place is free again, and what a killed one left is removed.
    second.run.process.kill('SIGKILL')
    await second.run.ended
    const third = await begin()
    assert.deepEqual(files(), ['server.json'])
    await third.stop()
    assert.deepEqual(files(), [])
    assert.notEqual(await asked(), 0)
  })

  it('a port that is taken ends a process that was to serve requests', async () => {
    const other = createServer().listen(0, '127.0.0.1')
    await new Promise(resolve => other.once('listening', resolve))
    try {
      await using place = workplace({})
      const run = place.start(['start', '--no-watch', '--roles', 'api,worker'], { PORT: String((other.address() as AddressInfo).port) })
      assert.equal(await run.ended, 1, run.out + run.err)
      assert.match(run.err, /the port is taken/)
    } finally { other.close() }
  })

  it('only roles that there are', async () => {
    await using place = workplace({ 'roles.yaml': 'runtime:\n  roles: [api, wrker]\n' })
    const file = await place.run('config', 'check', '--config', 'roles.yaml')
    assert.deepEqual([file.code, /roles\.yaml:2:\d+ {2}runtime\.roles {2}there is no role "wrker"\. Did you mean "worker"\?/.test(file.err)], [2, true], file.err)
    const option = await place.spawn('start', '--roles', 'wrker')
    assert.deepEqual([option.code, /^option --roles {2}runtime\.roles {2}there is no role "wrker"\. Did you mean "worker"\?/m.test(option.err)], [2, true], option.err)
    await using empty = workplace({ 'roles.yaml': 'runtime:\n  roles: []\n' })
    assert.equal((await empty.run('config', 'check', '--config', 'roles.yaml')).code, 2)
  })
})
