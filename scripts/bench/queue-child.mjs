// Jobs that do nothing, from submit until their end is on disk, in one process. Prints jobs a second, or how long submit() takes.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import Sqlite from 'better-sqlite3'
import { CALLER, REQUEST, byCallers, pause, platform, shares } from './platform.mjs'

const [contender, url] = [process.argv[2], process.argv[6]]
const [count, concurrency = 50, seconds = 10] = process.argv.slice(3, 6).map(Number)
const BATCH = 200
const file = join(mkdtempSync(join(tmpdir(), 'backplane-bench-')), 'bench.db')

const ours = run => platform({ file, url, concurrency }, run)

/** One after another, by many callers at once; or many in one call. */
async function submit({ jobs }, total) {
  if (contender.endsWith('many')) {
    for (let left = total; left > 0; left -= BATCH) await jobs.submitMany(CALLER, Array.from({ length: Math.min(BATCH, left) }, () => REQUEST))
    return
  }
  await byCallers(total, () => jobs.submit(CALLER, REQUEST))
}

/** Jobs a second, and how long the event loop stood still at worst. */
const through = () => ours(async at => {
  const once = async total => { const over = at.ended(total); await submit(at, total); await over }
  await once(Math.ceil(count / 4))
  const delay = monitorEventLoopDelay({ resolution: 1 })
  delay.enable()
  const [from, cpu] = [performance.now(), process.cpuUsage()]
  await once(count)
  const ms = performance.now() - from
  const { user, system } = process.cpuUsage(cpu)
  delay.disable()
  return { perSecond: count / ms * 1_000, cpuUs: (user + system) / count, stallMs: delay.max / 1e6 }
})

/** submit() 100 times a second; `count` jobs wait in the queue when it begins, so that it is being drained meanwhile. */
const paced = () => ours(async at => {
  await Promise.all([at.ended(200), submit(at, 200)])
  const delay = monitorEventLoopDelay({ resolution: 1 })
  const times = []
  const calls = Math.ceil(seconds * 100)
  const over = at.ended(count + calls)
  const filled = submit(at, count)
  delay.enable()
  const waiting = []
  const from = performance.now()
  for (let each = 0; each < calls; each++) {
    while (performance.now() < from + each * 10) await pause(1)
    const begun = performance.now()
    waiting.push(at.jobs.submit(CALLER, REQUEST).then(() => times.push(performance.now() - begun)))
  }
  await Promise.all([...waiting, filled])
  await over
  delay.disable()
  return { ...shares(times), stallMs: delay.max / 1e6 }
})

/** `synchronous`: 1 is what plainjob sets, and may lose what it acknowledged; 2 is what we do. */
async function plainjob(synchronous) {
  const { better, defineQueue, defineWorker } = await import('plainjob')
  const db = new Sqlite(file)
  const log = { error: console.error, warn() {}, info() {}, debug() {} }
  const queue = defineQueue({ connection: better(db), logger: log })
  db.pragma(`synchronous = ${synchronous}`)
  const once = async total => {
    const some = left => Array.from({ length: Math.min(BATCH, left) }, () => REQUEST.input)
    if (contender.endsWith('many')) for (let left = total; left > 0; left -= BATCH) queue.addMany('nothing', some(left))
    else for (let each = 0; each < total; each++) queue.add('nothing', REQUEST.input)
    let left = total
    let over
    const ended = new Promise(resolve => { over = resolve })
    const worker = defineWorker('nothing', async () => {}, { queue, logger: log, onCompleted: () => { if (--left === 0) over() } })
    const running = worker.start()
    await ended
    await Promise.all([worker.stop(), running])
  }
  await once(Math.ceil(count / 4))
  const from = performance.now()
  await once(count)
  const ms = performance.now() - from
  queue.close()
  return { perSecond: count / ms * 1_000 }
}

/** The least that a queue on SQLite can do: put in, take out and end, each in batches of 100. */
function raw() {
  const db = new Sqlite(file)
  db.pragma('journal_mode = WAL')
  db.pragma('synchronous = FULL')
  db.exec('create table jobs (id integer primary key, type text, input text, status text, result text, at integer); create index jobs_status on jobs (status, id)')
  const add = db.prepare(`insert into jobs (type, input, status, at) values ('nothing', ?, 'queued', ?)`)
  const claim = db.prepare(`update jobs set status = 'running' where id in (select id from jobs where status = 'queued' order by id limit 100) returning id, input`)
  const end = db.prepare(`update jobs set status = 'completed', result = ? where id = ? and status = 'running'`)
  const once = total => {
    for (let at = 0; at < total; at += 100) {
      db.transaction(() => { for (let each = 0; each < 100; each++) add.run(JSON.stringify(REQUEST.input), Date.now()) })()
      const claimed = claim.all()
      db.transaction(() => { for (const { id, input } of claimed) end.run(JSON.stringify({ done: JSON.parse(input) }), id) })()
    }
  }
  once(count / 4)
  const from = performance.now()
  once(count)
  const ms = performance.now() - from
  db.close()
  return { perSecond: count / ms * 1_000 }
}

const CONTENDERS = { ours: through, 'ours-many': through, paced, plainjob: () => plainjob(1), 'plainjob-full': () => plainjob(2), 'plainjob-full-many': () => plainjob(2), raw }
try { console.log(JSON.stringify(await CONTENDERS[contender]())) } finally { rmSync(join(file, '..'), { recursive: true, force: true }) }
