import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { eventually } from '#core/testing'
import { Jobs, type Job } from '#contracts/jobs'
import { run } from '../../../core/cli/cli.ts'
import { served } from '../sse/kit.ts'
import { jobType, operator } from './kit.ts'

const input = z.strictObject({ n: z.int(), note: z.string().optional() })
const types = [
  jobType('double', async ({ input: { n } }) => ({ twice: n * 2 }), { input }), jobType('echo', async ({ input: said }) => said),
  jobType('agent', async ({ input: { agent, input: said } }) => `${agent}: ${said}`),
  jobType('bad', async () => { throw Object.assign(new Error('no'), { retryable: false }) }), jobType('slow', () => new Promise(() => {})),
]

describe('jobs submit', () => {
  let t: Awaited<ReturnType<typeof served>>
  let folder: string
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'submit-'))
    t = await served({ types })
  })
  after(async () => {
    await t[Symbol.asyncDispose]()
    rmSync(folder, { recursive: true, force: true })
  })

  /** The whole command line, as it is typed. */
  async function cli(args: string, { stdin = '', signal = new AbortController().signal, tty = false } = {}) {
    const printed = { out: '', err: '' }
    const words = [...args.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain!)
    const code = await run(['jobs', 'submit', ...words, '--url', t.url], {
      cwd: folder, env: {}, pid: 1, node: '', tty, alive: () => true, signal, stdin: async function* () { yield Buffer.from(stdin) }, onStray() {},
      out: text => { printed.out += text }, err: text => { printed.err += text },
    })
    return { code, ...printed }
  }
  const file = (name: string, content: string) => { writeFileSync(join(folder, name), content); return join(folder, name) }
  const jobs = async () => (await t.get(Jobs).list(operator, { limit: 100 })).items.length

  it('takes words as a text, data from the command line, a file or standard input', async () => {
    const first = await cli("echo 'hello world'")
    assert.equal(first.code, 0, first.err)
    assert.match(first.out, /^[\da-z]{26} {2}(queued|running|completed) +echo +0?/)
    assert.match(first.err, /to follow it: backplane jobs watch [\da-z]{26}/)
    for (const [args, stdin, wanted] of [
      ['echo hello world', '', 'hello world'], ['echo -', 'from outside\n', 'from outside'], ["double --input '{\"n\":4}'", '', { n: 4 }], ['echo --input null', '', null],
      [`double --input @${file('n.json', '{"n":5}\n')}`, '', { n: 5 }], ['double --input -', '{"n":6}', { n: 6 }], ['--agent math 1+1', '', { agent: 'math', input: '1+1' }],
    ] as const) {
      const { code, out, err } = await cli(`${args} --json`, { stdin })
      assert.deepEqual([code, (JSON.parse(out) as Job).input], [0, wanted], err)
    }
  })

  it('hands every option on', async () => {
    const at = new Date(Date.now() + 86_400_000).toISOString()
    const job = JSON.parse((await cli(`echo hi --priority 8 --delay 1.5h --max-attempts 5 --timeout 30s --metadata '{"a":1}' --idempotency-key k1 --dedupe d1 --dedupe-ttl 1d --json`)).out) as Job
    assert.deepEqual([job.priority, job.max_attempts, job.metadata, job.status], [8, 5, { a: 1 }, 'delayed'])
    assert.equal(Date.parse(job.run_at) - Date.parse(job.created_at), 5_400_000)
    assert.equal((JSON.parse((await cli('echo other --delay 2h --dedupe d1 --json')).out) as Job).id, job.id)
    const moment = JSON.parse((await cli(`echo hi --at ${at} --dedupe d2 --json`)).out) as Job
    const replaced = JSON.parse((await cli(`echo new --at ${at} --dedupe d2 --replace --json`)).out) as Job
    assert.deepEqual([Date.parse(moment.run_at), replaced.id, replaced.input], [Date.parse(at), moment.id, 'new'])
  })

  it('waits for the end, shows what it says, and exits by it', async () => {
    const good = await cli("double --input '{\"n\":4}' --wait")
    assert.deepEqual([good.code, JSON.parse(good.out)], [0, { twice: 8 }])
    assert.match(good.err, /^job [\da-z]{26}\ncreated\n(.*\n)*completed\n$/)
    const whole = await cli("double --input '{\"n\":4}' --wait --json")
    assert.deepEqual([whole.code, (JSON.parse(whole.out) as Job).status, (JSON.parse(whole.out) as Job).result], [0, 'completed', { twice: 8 }])
    const bad = await cli('bad x --wait')
    assert.deepEqual([bad.code, /dead: JOBS_FAILED/.test(bad.err)], [1, true])
    const left = new AbortController()
    const slow = cli('slow x --wait', { signal: left.signal })
    await eventually('it to run', async () => (await t.get(Jobs).list(operator, { type: 'slow', status: 'running' })).items.length === 1)
    left.abort()
    const gone = await slow
    assert.deepEqual([gone.code, /the job goes on; to end it: backplane jobs cancel/.test(gone.err)], [130, true])
    const [running] = (await t.get(Jobs).list(operator, { type: 'slow', status: 'running' })).items
    const again = cli('slow x --idempotency-key s --wait')
    const both = await eventually('the second', async () => { const { items } = await t.get(Jobs).list(operator, { type: 'slow', status: 'running' }); return items.length === 2 && items })
    for (const { id } of both) await t.get(Jobs).cancel(operator, id)
    assert.ok(running)
    assert.equal((await again).code, 3)
  })

  it('takes the jobs of a file, all or none, and the same file again with a key', async () => {
    const path = file('jobs.ndjson', '{"type":"double","input":{"n":1}}\n\n{"input":"hi"}\n{"agent":"math","input":"1+1","priority":9}\n')
    const made = await cli(`echo --file ${path} --priority 2 --idempotency-key nightly --json`)
    assert.equal(made.code, 0, made.err)
    const { items } = JSON.parse(made.out) as { items: Job[] }
    assert.deepEqual(items.map(each => [each.type, each.priority]), [['double', 2], ['echo', 2], ['agent', 9]])
    const again = JSON.parse((await cli(`echo --file ${path} --priority 2 --idempotency-key nightly --wait --json`)).out) as { items: Job[] }
    assert.deepEqual(again.items.map(each => [each.id, each.status]), items.map(each => [each.id, 'completed']))
    const mixed = await cli('--file - --wait', { stdin: '{"type":"echo","input":1}\n{"type":"bad","input":1}\n' })
    assert.deepEqual([mixed.code, mixed.out.trim().split('\n').map(line => /completed|dead .*JOBS_FAILED/.test(line))], [1, [true, true]])
  })

  it('names every line of a file that is wrong, and submits none', async () => {
    const before = await jobs()
    const broken = await cli('echo --file -', { stdin: '{"input":1}\nnot json\n[1]\n' })
    assert.deepEqual([broken.code, broken.out], [2, ''])
    assert.match(broken.err, /standard input is not one job in JSON on each line:\n {4}line 2: .*\n {4}line 3: it is no map.*\n {2}fix: /)
    const shape = await cli('--file -', { stdin: '{"type":"double","input":{"n":1},"priorty":1}\n\n{"type":"double","input":{"n":1},"priority":10}\n{"type":"double"}\n' })
    assert.equal(shape.code, 1)
    for (const told of ['line 1, priorty: is not a known field. Did you mean "priority"?', 'line 3, priority: must be a whole number from 0 to 9', 'line 4, input: is missing']) assert.ok(shape.err.includes(told), shape.err)
    const meant = await cli('--file -', { stdin: '{"type":"double","input":{"n":"1"}}\n\n{"type":"dubble","input":1}\n' })
    assert.equal(meant.code, 1)
    for (const told of ['line 1, input.n: must be a whole number, not a text', 'line 3: nothing here runs jobs of type "dubble"']) assert.ok(meant.err.includes(told), meant.err)
    assert.equal(await jobs(), before)
  })

  const misuse: readonly [args: string, code: number, told: RegExp, stdin?: string][] = [
    ['', 2, /nothing says what is to run\n {2}fix: .*--agent/], ['echo', 2, /there is no input\n {2}fix: .*--input/], ['echo hi --input 1', 2, /an input twice/],
    ["double --input '{n:1}'", 2, /--input was given is not JSON[^]*fix: Quote it for the shell/], ['double --input @none.json', 2, /none\.json can't be read: .*no such file/i],
    ['echo hi --priority high', 2, /--priority takes a whole number, not "high"/], ['echo hi --delay 10', 2, /--delay takes a time with its unit, not "10"\n {2}fix: .*10m/],
    ['echo hi --priority 12', 1, /--priority: must be a whole number from 0 to 9/], ['echo hi --at tomorrow', 1, /--at: not a moment such as/],
    ['echo hi --delay 1s --at 2030-01-01T00:00:00Z', 1, /--at: give either/], ['echo hi --replace', 2, /go with --dedupe/], ['echo hi --file x', 2, /each line has its own input/],
    ["double --input '{\"n\":\"x\"}'", 1, /JOBS_INPUT_INVALID: .*\n? *--input\.n: must be a whole number, not a text/], ['echo --file none.ndjson', 2, /can't be read/], ['echo --file -', 2, /holds no job/],
    ['echo hi --prioity 3', 2, /unknown option '--prioity'[^]*Did you mean --priority/],
  ]
  for (const [args, code, told] of misuse) {
    it(`says what is wrong with: jobs submit ${args}`, async () => {
      const before = await jobs()
      const said = await cli(args)
      assert.deepEqual([said.code, said.out, await jobs()], [code, '', before], said.err)
      assert.match(said.err, told)
    })
  }
})
