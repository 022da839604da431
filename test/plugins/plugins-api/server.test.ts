import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { eventually } from '#core/testing'
import { workplace } from '../../support/cli.ts'

const config = ['plugins:', '  http: { config: { port: 0 } }', ...['access-open', 'database', 'jobs', 'queue-embedded', 'models', 'agents', 'agent-pack-core', 'health',
  'plugins-api'].map(name => `  ${name}: {}`), ''].join('\n')

describe('plugins-api in a real server', function () {
  this.timeout(30_000)

  it('reloads the database with all that stands on it while jobs run: every job ends', async () => {
    await using place = workplace({ 'config/default.yaml': config })
    const server = place.start(['start', '--no-watch'])
    const url = await server.started()
    const submitted: string[] = []
    let stop = false
    const submitting = (async () => {
      while (!stop) {
        const answer = await fetch(`${url}/api/v1/jobs`, { method: 'POST', headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ agent: 'math', input: 'What is (2+3)*7?' }) })
        const body = await answer.json() as { id: string }
        if (answer.status === 202) submitted.push(body.id)
        else assert.ok(answer.status === 503 && answer.headers.get('retry-after'), `${answer.status} ${JSON.stringify(body)}`)
        await new Promise(resolve => setTimeout(resolve, 10))
      }
    })()
    for (let round = 0; round < 3; round++) {
      const before = submitted.length
      const answer = await fetch(`${url}/api/v1/plugins/database/reload`, { method: 'POST' })
      const { restarted } = await answer.json() as { restarted: string[] }
      assert.equal(answer.status, 200)
      for (const name of ['database', 'jobs', 'queue-embedded']) assert.ok(restarted.includes(name), name)
      assert.ok(!restarted.includes('http') && !restarted.includes('plugins-api'))
      await eventually('more jobs', () => submitted.length > before + 3)
    }
    stop = true
    await submitting
    const statusOf = async (id: string) => ((await (await fetch(`${url}/api/v1/jobs/${id}`)).json()) as { status: string }).status
    await eventually('the end of every job', async () => (await Promise.all(submitted.map(statusOf))).every(status => status === 'completed'), 15_000)
  })

  it('is told what to do from the command line, and shows there what runs', async () => {
    await using place = workplace({ 'config/default.yaml': config })
    const cold = await place.run('plugins', 'list', '--json')
    assert.ok((JSON.parse(cold.out) as object[]).every(row => !('state' in row)))
    const silent = await place.run('plugins', 'reload', 'agents')
    assert.deepEqual([silent.code, /HOST_SERVER_UNKNOWN/.test(silent.err)], [1, true])

    await place.start(['start', '--no-watch']).started()
    const off = await place.run('plugins', 'disable', 'agent-pack-core')
    assert.deepEqual([off.code, off.out], [0, 'agent-pack-core is disabled until it is enabled or the config is edited\n'])
    assert.match((await place.run('plugins', 'list')).out, /^http, running {2}[^]*^agent-pack-core, disabled {2}/m)
    assert.equal((await place.run('plugins', 'enable', 'agent-pack-core')).out, 'agent-pack-core is enabled\n')
    assert.match((await place.run('plugins', 'reload', 'agents')).out, /^agents was restarted; with it: agent-pack-core|^agents was restarted\n/)
    const refused = await place.run('plugins', 'disable', 'http')
    assert.equal(refused.code, 1)
    assert.match(refused.err, /PLUGINS_NEEDED: can't disable "http"[^]*fix: Set `plugins.http: false`/)
    assert.equal((JSON.parse((await place.run('plugins', 'reload', 'nobody', '--json')).out) as { code: string }).code, 'PLUGIN_UNKNOWN')
    assert.ok(readFileSync(join(place.folder, 'config/default.yaml'), 'utf8') === config, 'the config is the user\'s')
  })
})
