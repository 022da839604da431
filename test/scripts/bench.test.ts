import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { postgresOrSkip, redisOrSkip } from '../support/services.ts'

const RUN = new URL('../../scripts/bench/run.mjs', import.meta.url).pathname

async function bench(...args: string[]): Promise<Record<string, any>> {
  const { stdout } = await promisify(execFile)(process.execPath, [RUN, ...args, '--json'])
  const results = JSON.parse(stdout) as Record<string, any>[]
  assert.equal(results.length, 1)
  return results[0]!
}
const positive = (values: Record<string, number>, ...names: string[]) => {
  for (const name of names) assert.ok(values[name]! > 0, `${name} is ${values[name]}`)
}

// How fast anything is, no test says: the machine that runs tests has other things to do.
describe('the benchmarks', function () {
  // The peers are installed on the first run.
  this.timeout(180_000)

  it('measure hooks through a running runtime, against every peer', async () => {
    const { cases, rounds } = await bench('hooks', '--rounds', '2', '--batch-ms', '1', '--counts', '2')
    assert.equal(rounds, 2)
    assert.deepEqual(cases.map((each: any) => [each.kind, each.handlers]), [['sync', 2], ['async', 2]])
    for (const each of cases) {
      positive(each.ns, 'loop', 'hookable', 'tapable', 'emittery', 'backplane series', 'backplane notify')
      positive(each.bareNs, 'loop', 'hookable', 'tapable', 'emittery')
      positive(each.timesAsFast, 'loop', 'hookable', 'tapable', 'emittery')
      assert.equal(each.bareNs['backplane series'], undefined)
    }
  })

  it('boot the same chain with every peer', async () => {
    const { cases } = await bench('boot', '--rounds', '1', '--counts', '3')
    assert.equal(cases.length, 1)
    positive(cases[0].insideMs, 'backplane', 'avvio', 'fastify', 'cordis')
    positive(cases[0].timesAsFast, 'avvio', 'fastify', 'cordis')
  })

  it('start the host with plugins by path, and tell time and memory', async () => {
    const { node, backplane, timesNode, count } = await bench('start', '--rounds', '1', '--counts', '2')
    assert.equal(count, 2)
    positive(node, 'ms', 'rssMb')
    positive(backplane, 'ms', 'rssMb')
    assert.ok(timesNode > 0)
  })

  it('insert durable rows, beside the fastest loop there is', async () => {
    const { perSecond, ofRaw } = await bench('database', '--rounds', '1', '--counts', '400')
    positive(perSecond, 'raw', 'statement', 'transaction')
    positive(ofRaw, 'statement', 'transaction')
  })

  it('bring jobs through Redis and PostgreSQL, beside the libraries that do', async function () {
    await postgresOrSkip(this)
    await redisOrSkip(this)
    const { cases } = await bench('engines', '--rounds', '1', '--counts', '50', '--at-once', '10')
    assert.deepEqual(cases.map((each: any) => each.concurrency), [10])
    for (const { perSecond, p50, p99 } of cases) {
      for (const each of [perSecond, p50, p99]) positive(each, 'bullmq', 'ours-bullmq-sqlite', 'ours-bullmq-postgres', 'graphile', 'pgboss', 'ours-postgres')
    }
  })

  it('bring jobs from submit to their end, and tell how long a submit takes', async () => {
    const { perSecond, ofPlainjob, submit } = await bench('queue', '--rounds', '1', '--counts', '200')
    positive(perSecond, 'raw', 'plainjob', 'plainjob-full', 'ours-10', 'ours-50', 'ours-200', 'ours-many')
    positive(ofPlainjob, 'raw', 'ours-50')
    assert.deepEqual(submit.map((each: any) => each.waiting), [0, 200])
    for (const each of submit) positive(each, 'p50', 'p99', 'stallMs')
  })

  it('that do not exist are refused with those that do', async () => {
    await assert.rejects(bench('nothing'), (error: any) => error.code === 2 && /there are hooks, boot, /.test(error.stderr))
  })
})
