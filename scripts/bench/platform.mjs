// Everything that a job passes in the platform, with no HTTP before it: for the children that measure jobs.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export const CALLER = { id: 'operator', kind: 'operator', name: 'operator', project_id: 'default' }
export const REQUEST = { type: 'nothing', input: { hello: 'world' } }
export const CALLERS = 100
export const pause = ms => new Promise(resolve => setTimeout(resolve, ms))

/** Runs `use` with a folder of its own, which is gone afterwards, also if this is interrupted. */
export async function inFolder(use) {
  const folder = mkdtempSync(join(tmpdir(), 'backplane-bench-'))
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, () => process.exit(1))
  return await use(folder)
}

/** So many calls, by many callers each of whom makes one after another. */
export async function byCallers(total, call) {
  let left = total
  await Promise.all(Array.from({ length: CALLERS }, async () => { while (left-- > 0) await call() }))
}

export function shares(times) {
  times.sort((a, b) => a - b)
  const share = part => times[Math.min(times.length - 1, Math.floor(times.length * part))]
  return { p50: share(0.5), p99: share(0.99), worst: times.at(-1) }
}

/** With the queue of the database, or with BullMQ if `redis` is the address of one. `over` is called with the id of each job that ended. */
export async function platform({ file, url, redis, concurrency, over = () => {} }, run) {
  const from = name => import(`../../dist/${name}.js`)
  const plugin = async name => (await from(`plugins/${name}/index`)).default
  const [{ createTestRuntime, contribute }, { definePlugin }, { Database }, { Jobs, JobType, JobSettled }] =
    await Promise.all(['core/testing/index', 'core/index', 'plugins/database/contract', 'plugins/jobs/contract'].map(from))
  const [database, jobs, ...others] = await Promise.all(['database', 'jobs', 'events', 'cluster', 'access-open'].map(plugin))
  const queue = redis ? [{ plugin: await plugin('redis'), config: { url: redis } }, await plugin('queue-bullmq')] : [await plugin('queue-embedded')]
  const nothing = {
    type: 'nothing', summary: 'Does nothing', permission: 'jobs:submit', input: { '~standard': { version: 1, vendor: 'bench', validate: value => ({ value }) } },
    async run() { return { done: true } },
  }
  let [settled, wanted, reached] = [0, 0, () => {}]
  const counter = definePlugin({ name: 'bench-counter', setup(ctx) {
    ctx.hook(JobSettled, ({ job }) => {
      over(job.id)
      if (++settled === wanted) reached()
    })
  } })
  const t = await createTestRuntime({
    plugins: [
      { plugin: database, config: url ? { url } : { file } }, ...others, ...queue,
      { plugin: jobs, config: { concurrency } }, contribute(JobType, nothing), counter,
    ],
    log: { debug() {}, info() {}, warn: console.error, error: console.error, child() { return this } },
  })
  /** Resolves when so many more have ended. */
  const ended = many => new Promise(resolve => { wanted = settled + many; reached = resolve })
  const result = await run({ jobs: t.get(Jobs), database: t.get(Database), ended })
  const [{ completed }] = await t.get(Database).knex()('jobs').where({ status: 'completed' }).count({ completed: '*' })
  if (Number(completed) !== settled) throw new Error(`${settled} jobs were said to have ended, and ${completed} are completed`)
  await t[Symbol.asyncDispose]()
  return result
}
