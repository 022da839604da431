import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { eventually } from '#core/testing'
import { readEvents } from '../../core/cli/events.ts'
import { root, workplace, type Run } from '../support/cli.ts'
import { blocksOf } from '../support/guides.ts'
import { linesOfCode } from '../support/imports.ts'
import { startModelServer, type ModelServer } from '../support/model-server.ts'

/** The plugin that the guide shows, as it stands there. */
const SOURCE = blocksOf(readFileSync(join(root, 'docs/guides/agents.md'), 'utf8')).find(block => block.file === 'postage/index.ts')!.text
const WORDS = Array.from({ length: 60 }, (_, at) => `word${at} `)

const config = (price: number, base_url: string) => `
log: { format: json }
plugins:
  ./postage: { config: { per_100g: ${price} } }
  models: { config: { providers: { local: { type: openai-compatible, base_url: '${base_url}' } } } }
  agents: { config: { agents: { teller: { summary: Tells stories, model: local/m } } } }
`

describe('a plugin of a third party', function () {
  this.timeout(60_000)
  let server: ModelServer
  let place: ReturnType<typeof workplace>
  let run: Run
  let url = ''
  const env = { PORT: '0', DATA_DIR: 'data' }
  const backplane = async (...args: string[]) => { const it = place.start(args, env); return { code: await it.ended, out: it.out, err: it.err } }
  const get = async (path: string): Promise<Record<string, any>> => {
    const answered = await fetch(url + path)
    return { status: answered.status, ...await answered.json() as Record<string, any> }
  }

  before(async () => {
    server = await startModelServer({ text: WORDS, between: 50 })
    place = workplace({ 'package.json': '{"type":"module"}', 'postage/index.ts': SOURCE, 'post.yaml': config(1.1, server.base('openai')) })
    run = place.start(['start', '--config', 'post.yaml'], env)
    await run.started()
    url = (JSON.parse(readFileSync(join(place.folder, 'data/server.json'), 'utf8')) as { url: string }).url
  })
  after(async () => {
    run.process.kill('SIGTERM')
    const code = await run.ended
    await place[Symbol.asyncDispose]()
    await server[Symbol.asyncDispose]()
    assert.equal(code, 0, run.err)
  })

  it('has an agent, a tool, a route and a health check in under 60 lines', () => {
    assert.ok(SOURCE.split('\n').length < 60 && linesOfCode(SOURCE) > 30, `${SOURCE.split('\n').length} lines`)
    for (const each of ['Agent, define', 'Tool, define', 'HttpRoute, define', 'HealthCheck, {']) assert.ok(SOURCE.includes(`ctx.contribute(${each}`), each)
  })

  it('is there with all of them, by its path in a config file', async () => {
    assert.deepEqual(await get('/api/v1/postage?grams=120'), { status: 200, grams: 120, price: '2.20 CHF' })
    assert.equal((await get('/api/v1/postage?grams=heavy'))['code'], 'HTTP_INVALID')
    assert.deepEqual((await get('/health/detailed'))['checks'].postage.details, { price: '1.10 CHF' })
    assert.equal((await get('/api/v1/agents/clerk'))['version'], '1.0')
    const asked = await backplane('run', 'clerk', 'What does a letter of 250 g cost?')
    assert.deepEqual([asked.code, asked.err], [0, '→ postage {"grams":250}\n'])
    assert.match(asked.out, /^A letter of 250 g costs 3\.30 CHF\.\n/)
  })

  it('gets new settings from an edit of the file, while a streamed run of another agent goes on unharmed', async () => {
    const calls = server.calls.length
    const answered = await fetch(`${url}/api/v1/agents/teller/run`, {
      method: 'POST', headers: { 'content-type': 'application/json', accept: 'text/event-stream' }, body: '{"input":"Tell me a story."}',
    })
    const frames: Record<string, any>[] = []
    const reading = (async () => { for await (const { data } of readEvents(answered)) frames.push(JSON.parse(data) as Record<string, any>) })()
    await eventually('some words', () => frames.length > 5)
    const from = run.lines.length
    place.write('post.yaml', config(2, server.base('openai')))
    const applied = await run.line('the edit', line => String(line['msg']).startsWith('the edit is applied'), from)
    const said = frames.length
    assert.equal(applied['restarted'].length, 1, JSON.stringify(applied))
    assert.ok(said < WORDS.length, 'the edit came while the story was told')
    assert.equal((await get('/api/v1/postage?grams=120'))['price'], '4.00 CHF')
    assert.match((await backplane('run', 'clerk', 'What does a letter of 250 g cost?')).out, /costs 6\.00 CHF/)
    await reading
    const last = frames.at(-1)!
    assert.deepEqual([last['type'], last['text'], server.calls.length - calls, server.aborted.length], ['done', WORDS.join(''), 1, 0])
    assert.equal(frames.flatMap(each => each['content'] ?? []).join(''), WORDS.join(''))
    const job = await get(`/api/v1/jobs/${last['job_id']}`)
    assert.deepEqual([job['status'], job['attempt']], ['completed', 1])
    let again = ''
    for await (const { data } of readEvents(await fetch(`${url}/sse/jobs/${last['job_id']}`))) again += (JSON.parse(data) as { content?: string }).content ?? ''
    assert.equal(again, WORDS.join(''))
  })

  it('run: Ctrl-C at the terminal ends the run, and the provider\'s call within a second, with 130', async () => {
    const it = place.start(['run', 'teller', 'Tell me a story.'], env)
    await eventually('some words', () => it.out.includes('word1'), 10_000)
    const call = server.calls.at(-1)!
    const from = performance.now()
    it.process.kill('SIGINT')
    assert.equal(await it.ended, 130)
    await eventually('the end of the call', () => call.aborted_at !== undefined)
    assert.ok(call.aborted_at! - from < 1_000, `${call.aborted_at! - from} ms`)
    const [, id] = /^job (\S+) is cancelled$/m.exec(it.err)!
    assert.equal((await eventually('the job', async () => { const job = await get(`/api/v1/jobs/${id}`); return job['finished_at'] && job }))['status'], 'cancelled')
  })

  it('run: reads standard input for `-`', async () => {
    const child = spawn('sh', ['-c', 'printf "What does a letter of 90 g cost?" | "$@"', 'sh', process.execPath, ...run.process.spawnargs.slice(1, -3), 'run', 'clerk', '-'], { cwd: place.folder, env: { ...process.env, ...env } })
    let out = ''
    child.stdout.on('data', chunk => { out += chunk })
    await new Promise(done => child.once('close', done))
    assert.match(out, /A letter of 90 g costs 2\.00 CHF/)
  })
})
