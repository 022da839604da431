import assert from 'node:assert/strict'
import { Agent, get } from 'node:http'
import { eventually } from '#core/testing'
import { workplace } from '../support/cli.ts'

const pause = (ms: number) => new Promise(resolve => setTimeout(resolve, ms))
const files = {
  'config/default.yaml': 'runtime: { graceMs: 20000 }\nplugins:\n  http: { config: { port: 0 } }\n  access-open: {}\n  health: {}\n  work: { use: ../work }\n',
  'work/package.json': '{ "name": "work", "version": "1.0.0", "type": "module", "main": "index.js" }\n',
  'work/index.js': `import { definePlugin } from 'backplane'
import { HttpRoute } from 'backplane/contracts/http'
const route = (path, ms) => ({ method: 'GET', path, summary: path, permission: 'work:do',
  handler: async () => { await new Promise(resolve => setTimeout(resolve, ms)); return { body: { path } } } })
export default definePlugin({ name: 'work', contributes: [HttpRoute], setup(ctx) {
  for (const each of [route('/quick', 2), route('/slow', 2000), route('/endless', 60000)]) ctx.contribute(HttpRoute, each)
} })
`,
}

describe('SIGTERM under load', function () {
  this.timeout(40_000)

  it('readiness is 503 within a second, what is under way finishes, new requests hear 503 with Retry-After, and the process ends with 0', async () => {
    await using place = workplace(files)
    const server = place.start(['start', '--no-watch'])
    const url = await server.started()
    const agent = new Agent({ keepAlive: true, maxSockets: 200 })
    const ask = (path: string) => new Promise<{ status: number; retry: boolean; at: number }>((resolve, reject) => {
      get(`${url}${path}`, { agent }, answer => {
        answer.resume().on('end', () => resolve({ status: answer.statusCode!, retry: answer.headers['retry-after'] !== undefined, at: performance.now() }))
          .on('error', reject)
      }).on('error', reject)
    })
    assert.equal((await ask('/health/ready')).status, 200)
    const slow = Array.from({ length: 20 }, () => ask('/slow'))
    const quick: ReturnType<typeof ask>[] = []
    const load = setInterval(() => { for (let n = 0; n < 5; n++) quick.push(ask('/quick')) }, 10)
    await pause(500)
    const from = performance.now()
    server.process.kill('SIGTERM')
    await eventually('readiness to be 503', async () => (await ask('/health/ready')).status === 503, 1_000)
    assert.ok(performance.now() - from < 1_000)
    await pause(500)
    // As a load balancer does, once it has seen that.
    clearInterval(load)
    const answers = await Promise.all(quick)
    const before = answers.filter(each => each.status === 200).length
    assert.ok(before > 50 && answers.length > before, `${before} of ${answers.length} were answered with 200`)
    assert.ok(answers.every(each => each.status === 200 || (each.status === 503 && each.retry)), 'nothing but 200, and 503 with Retry-After')
    assert.deepEqual((await Promise.all(slow)).map(each => each.status), slow.map(() => 200))
    assert.equal(await server.ended, 0)
    assert.ok(performance.now() - from < 10_000, 'it waits for nobody who is not there')
    agent.destroy()
  })

  it('is followed, for who hears late of readiness, by a time in which requests are served and connections closed', async () => {
    await using place = workplace({ ...files, 'config/default.yaml': files['config/default.yaml'].replace('port: 0', 'port: 0, drainDelayMs: 2000') })
    const server = place.start(['start', '--no-watch'])
    const url = await server.started()
    const agent = new Agent({ keepAlive: true, maxSockets: 5 })
    const ask = (path: string) => new Promise<{ status: number; closes: boolean }>((resolve, reject) => {
      get(`${url}${path}`, { agent }, answer => {
        answer.resume().on('end', () => resolve({ status: answer.statusCode!, closes: answer.headers.connection === 'close' })).on('error', reject)
      }).on('error', reject)
    })
    assert.deepEqual(await ask('/quick'), { status: 200, closes: false })
    server.process.kill('SIGTERM')
    const from = performance.now()
    await eventually('readiness to be 503', async () => (await ask('/health/ready')).status === 503, 1_000)
    // As kube-proxy does, which goes on for a while.
    let served = 0
    while (performance.now() - from < 1_000) {
      assert.deepEqual(await ask('/quick'), { status: 200, closes: true })
      served++
    }
    assert.ok(served > 5)
    const last = await eventually('it to serve no more', async () => { const answer = await ask('/quick').catch(() => 'gone'); return answer !== 'gone' && (answer as { status: number }).status === 200 ? false : answer }, 5_000)
    assert.ok(last === 'gone' || (last as { status: number }).status === 503)
    assert.equal(await server.ended, 0)
    assert.ok(performance.now() - from > 1_900)
    agent.destroy()
  })

  it('a second one ends the process at once', async () => {
    await using place = workplace(files)
    const server = place.start(['start', '--no-watch'])
    const url = await server.started()
    const endless = fetch(`${url}/endless`).then(answer => answer.status, () => 'cut')
    await eventually('it to be under way', async () => {
      const { checks } = await (await fetch(`${url}/health/detailed`)).json() as { checks: Record<string, { details: Record<string, number> }> }
      return checks['http']!.details['requests']! > 0
    })
    server.process.kill('SIGTERM')
    await server.line('the first one', line => String(line['msg']).startsWith('stopping'))
    await pause(300)
    assert.equal(server.process.exitCode, null, 'it waits for what is under way')
    const from = performance.now()
    server.process.kill('SIGTERM')
    assert.notEqual(await server.ended, 0)
    assert.ok(performance.now() - from < 1_000)
    assert.equal(await endless, 'cut')
  })
})
