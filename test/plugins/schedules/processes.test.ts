import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Secret } from '#core'
import { eventually, type TestRuntime } from '#core/testing'
import { Jobs } from '#contracts/jobs'
import { Schedules } from '#contracts/schedules'
import database from '../../../plugins/database/index.ts'
import { startChild, type Child } from '../../support/child.ts'
import { postgresOrSkip, type PostgresServer } from '../../support/services.ts'
import { operator, runtime } from './kit.ts'

/** Where the processes of one test meet. */
interface Place extends AsyncDisposable { readonly url: string; readonly folder: string }
const folderOf = () => mkdtempSync(join(tmpdir(), 'backplane-place-'))
const file = new URL('schedule-child.ts', import.meta.url)

for (const dialect of ['sqlite', 'postgres'] as const) describe(`schedules of several processes, on ${dialect}`, function () {
  this.timeout(60_000)
  let server: PostgresServer
  before(async function () { if (dialect === 'postgres') server = await postgresOrSkip(this) })

  async function newPlace(): Promise<Place> {
    const folder = folderOf()
    const made = dialect === 'postgres' ? await server.newDatabase() : undefined
    return { url: made?.url ?? `sqlite:${join(folder, 'test.db')}`, folder, async [Symbol.asyncDispose]() { await made?.drop(); rmSync(folder, { recursive: true }) } }
  }
  /** One that looks, and fires nothing. */
  const looker = ({ url, folder }: Place) =>
    runtime({ host: { dataDir: folder, roles: ['api'] }, base: { plugin: database, config: { url: Secret.of('DATABASE_URL', url) } } })
  const children: Child[] = []
  const start = async (place: Place, ...more: string[]) => {
    const child = startChild(file, place.url, place.folder, ...more)
    children.push(child)
    await child.said('ready')
    return child
  }
  const killAll = async () => { await Promise.all(children.splice(0).map(child => child.kill())) }
  const seconds = async (t: TestRuntime) => {
    const { items } = await t.get(Jobs).list(operator, { limit: 100 })
    return items.map(job => Date.parse(String(job.metadata['scheduled_at'])) / 1_000).toSorted((a, b) => a - b)
  }

  it('each second fires once, also while the leader is killed', async () => {
    await using place = await newPlace()
    await using t = await looker(place)
    await using _ended = { [Symbol.asyncDispose]: killAll }
    await t.get(Schedules).put(operator, { name: 'ticks', cron: '* * * * * *', request: { type: 'note', input: 1 }, missed: 'all' })
    await start(place)
    await start(place)
    for (let kills = 0; kills < 2; kills++) {
      const before = new Map(children.map(child => [child, child.lines.length]))
      const leader = await eventually('a leader', () => children.find(child => child.lines.slice(before.get(child)).includes('fired')), 15_000)
      await leader.kill()
      children.splice(children.indexOf(leader), 1)
      if (kills === 0) await start(place)
    }
    const last = (await seconds(t)).at(-1)!
    await eventually('the next leader', async () => (await seconds(t)).at(-1)! > last + 2, 15_000)
    const fired = await seconds(t)
    assert.deepEqual(fired, Array.from({ length: fired.length }, (_, at) => fired[0]! + at))
    console.log(`      ${fired.length} seconds, each once, with 2 leaders killed`)
  })

  it('a leader that is killed with the job written and the next time not committed leaves neither, and another one fires once', async () => {
    await using place = await newPlace()
    await using t = await looker(place)
    await using _ended = { [Symbol.asyncDispose]: killAll }
    const half = await start(place, 'hang')
    const soon = new Date(Date.now() + 2_000)
    const cron = `${soon.getUTCSeconds()} ${soon.getUTCMinutes()} ${soon.getUTCHours()} * * *`
    await t.get(Schedules).put(operator, { name: 'daily', cron, request: { type: 'note', input: 1 } })
    await half.said('inside')
    await half.kill()
    assert.deepEqual([await seconds(t), (await t.get(Schedules).get(operator, { name: 'daily' })).last_at], [[], null])
    await Promise.all([start(place), start(place)])
    await eventually('the job', async () => (await t.get(Schedules).get(operator, { name: 'daily' })).last_job_id !== null, 15_000)
    assert.deepEqual(await seconds(t), [Math.floor(soon.getTime() / 1_000)])
  })
})
