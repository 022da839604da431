import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { eventually } from '#core/testing'
import type { Schedule } from '#contracts/schedules'
import { HttpRoute } from '#contracts/http'
import { workplace } from '../../support/cli.ts'
import { runtime } from './kit.ts'

describe('the routes and commands of schedules', function () {
  this.timeout(90_000)

  it('have permissions of their own', async () => {
    await using t = await runtime()
    const routes = t.runtime.collect(HttpRoute).filter(each => each.path.startsWith('/api/v1/schedules'))
    assert.deepEqual(routes.map(({ method, path, permission }) => `${method} ${path.slice('/api/v1'.length)} ${permission}`), [
      'GET /schedules schedules:read', 'GET /schedules/:name schedules:read', 'PUT /schedules/:name schedules:write', 'DELETE /schedules/:name schedules:write',
      'POST /schedules/:name/pause schedules:write', 'POST /schedules/:name/resume schedules:write', 'POST /schedules/:name/run schedules:write',
    ])
  })

  it('make, show, change and remove schedules of a running server', async () => {
    await using place = workplace({
      'weekly.json': JSON.stringify({ cron: '0 9 * * mon', time_zone: 'Europe/Berlin', agent: 'math', input: '1+1', overlap: 'skip' }),
      'declared.yaml': 'plugins:\n  schedules:\n    config:\n      schedules:\n        fixed: { cron: "0 3 * * *", agent: math, input: "2+2" }\n',
      'wrong.yaml': 'plugins:\n  schedules:\n    config:\n      schedules:\n        fixed: { cron: "0 99 * * *", agent: math, input: "2+2" }\n',
    })
    const wrong = await place.run('config', 'check', '--config', 'wrong.yaml')
    assert.deepEqual([wrong.code, /wrong\.yaml:5:\d+ {2}plugins\.schedules\.config\.schedules\.fixed\.cron {2}not a cron expression: .*hour/.test(wrong.err)], [2, true], wrong.err)

    const server = place.start(['start', '--no-watch', '--config', 'declared.yaml'], { PORT: '0', BACKPLANE__log__format: 'json' })
    const url = await server.started()
    assert.ok(existsSync(join(place.folder, 'data/server.json')))
    const run = async (...args: string[]) => { const { code, out, err } = await place.run('schedules', ...args, '--url', url); return { code, out: out.trim(), err: err.trim() } }

    const made = await place.spawn('schedules', 'put', 'weekly', '--file', 'weekly.json', '--json', '--url', url)
    assert.equal(made.code, 0, made.err)
    const schedule = JSON.parse(made.out) as Schedule
    assert.deepEqual([schedule.cron, schedule.overlap, schedule.created_by], ['0 9 * * mon', 'skip', 'operator'])
    assert.deepEqual(schedule.request, { type: 'agent', agent: 'math', input: { agent: 'math', input: '1+1' } })
    assert.match((await run('list')).out, /^fixed .*0 3 \* \* \* .*\nweekly .*Europe\/Berlin .*math .*T0[78]:00:00\.000Z$/)
    assert.match((await run('pause', 'weekly')).out, /paused$/)
    assert.match((await run('resume', 'weekly')).out, /Z$/)
    const job = await run('run', 'weekly')
    await eventually('its job', async () => ((await (await fetch(`${url}/api/v1/jobs/${job.out}`)).json()) as { status: string }).status === 'completed', 15_000)
    assert.match((await run('show', 'weekly')).out, /input: .*1\+1[^]*overlap: skip/)

    const refused = await run('put', 'other', '--cron', '0 99 * * *', '--agent', 'math', '--input', 'x')
    assert.deepEqual([refused.code, /body\.cron: not a cron expression/.test(refused.err)], [1, true], refused.err)
    const unknown = await run('put', 'other', '--cron', '0 9 * * *', '--agent', 'nobody', '--input', 'x')
    assert.deepEqual([unknown.code, /nobody/.test(unknown.err)], [1, true], unknown.err)
    assert.equal((await run('put', 'other')).code, 2)
    assert.match((await run('remove', 'fixed')).err, /declared in the config/)
    assert.equal((await run('remove', 'weekly')).code, 0)
    const gone = await run('show', 'weekly')
    assert.deepEqual([gone.code, /there is no schedule "weekly"/.test(gone.err)], [1, true])

    server.process.kill('SIGTERM')
    assert.equal(await server.ended, 0, server.err)
  })
})
