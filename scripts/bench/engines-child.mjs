// Jobs that do nothing on one engine, in one process. Prints jobs a second with 100 callers, and how long one takes from submit to its end
// at 100 a second.
import { Redis } from 'ioredis'
import pg from 'pg'
import { CALLER, REQUEST, byCallers, inFolder, pause, platform, shares } from './platform.mjs'

const [contender, postgres, redis] = process.argv.slice(2, 5)
const [count, concurrency, seconds] = process.argv.slice(5).map(Number)
/** Of each side; what a process of ours has by default. */
const CONNECTIONS = 10

/** Ids that were submitted and have not ended; what ends before its submit() has answered counts too. */
class Watch {
  #times = new Map()
  #early = new Map()
  #left = 0
  #over = () => {}
  latencies = []

  expect(total) {
    this.#left = total
    this.latencies = []
    return new Promise(resolve => { this.#over = resolve })
  }
  begun(id, at) {
    const end = this.#early.get(id)
    if (end === undefined) this.#times.set(id, at)
    else this.#end(id, at, end)
  }
  ended(id) {
    const at = this.#times.get(id)
    if (at === undefined) this.#early.set(id, performance.now())
    else this.#end(id, at, performance.now())
  }
  #end(id, at, end) {
    this.#times.delete(id)
    this.#early.delete(id)
    this.latencies.push(end - at)
    if (--this.#left === 0) this.#over()
  }
}
const watch = new Watch()

/** `submit` resolves to the id of a new job. */
async function measured(submit) {
  const one = async () => {
    const at = performance.now()
    watch.begun(await submit(), at)
  }
  const once = async total => {
    const over = watch.expect(total)
    await byCallers(total, one)
    await over
  }
  await once(Math.ceil(count / 4))
  const [from, cpu] = [performance.now(), process.cpuUsage()]
  await once(count)
  const ms = performance.now() - from
  const { user, system } = process.cpuUsage(cpu)
  const calls = Math.max(1, Math.ceil(seconds * 100))
  const over = watch.expect(calls)
  const begun = performance.now()
  const waiting = []
  for (let each = 0; each < calls; each++) {
    while (performance.now() < begun + each * 10) await pause(1)
    waiting.push(one())
  }
  await Promise.all(waiting)
  await over
  return { perSecond: count / ms * 1_000, cpuUs: (user + system) / count, ...shares(watch.latencies) }
}

const ours = options => inFolder(folder => platform(
  { ...options, file: `${folder}/bench.db`, concurrency, over: id => watch.ended(id) },
  ({ jobs }) => measured(async () => (await jobs.submit(CALLER, REQUEST)).id)))

async function bullmq(appendfsync) {
  const { Queue, Worker } = await import('bullmq')
  const connect = () => new Redis(redis, { maxRetriesPerRequest: null })
  const connections = [connect(), connect()]
  await connections[0].config('SET', 'appendfsync', appendfsync)
  const queue = new Queue('bench', { connection: connections[0] })
  const worker = new Worker('bench', async () => ({ done: true }), { connection: connections[1], concurrency })
  worker.on('completed', job => watch.ended(job.id))
  await worker.waitUntilReady()
  const result = await measured(async () => (await queue.add('nothing', REQUEST.input)).id)
  await worker.close()
  await connections[0].config('SET', 'appendfsync', 'everysec')
  await queue.close()
  for (const each of connections) each.disconnect()
  return result
}

async function graphile() {
  const { Logger, run } = await import('graphile-worker')
  const pool = new pg.Pool({ connectionString: postgres, max: CONNECTIONS })
  pool.on('error', () => {})
  const runner = await run({
    pgPool: pool, concurrency, noHandleSignals: true, logger: new Logger(() => () => {}), taskList: { async nothing() {} },
  })
  runner.events.on('job:complete', ({ job }) => watch.ended(job.id))
  const result = await measured(async () => (await runner.addJob('nothing', REQUEST.input)).id)
  await runner.stop()
  await pool.end()
  return result
}

/** Its work() looks twice a second at most, so it takes and ends its batches by fetch() and complete(), as often as it can. */
async function pgboss() {
  const { default: Boss } = await import('pg-boss')
  const boss = new Boss({ connectionString: postgres, max: CONNECTIONS })
  boss.on('error', console.error)
  await boss.start()
  await boss.createQueue('bench')
  let stopped = false
  const working = (async () => {
    while (!stopped) {
      const ids = (await boss.fetch('bench', { batchSize: concurrency })).map(job => job.id)
      if (!ids.length) await pause(2)
      else await boss.complete('bench', ids)
      for (const id of ids) watch.ended(id)
    }
  })()
  const result = await measured(() => boss.send('bench', REQUEST.input))
  stopped = true
  await working
  await boss.stop({ graceful: false })
  return result
}

const CONTENDERS = {
  graphile, pgboss, bullmq: () => bullmq('everysec'), 'bullmq-always': () => bullmq('always'),
  'ours-bullmq-sqlite': () => ours({ redis }), 'ours-bullmq-postgres': () => ours({ redis, url: postgres }), 'ours-postgres': () => ours({ url: postgres }),
}
console.log(JSON.stringify(await CONTENDERS[contender]()))
