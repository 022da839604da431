import assert from 'node:assert/strict'
import { contribute, createTestRuntime, eventually, fake, FakeClock, type TestRuntime } from '#core/testing'
import { Database } from '#contracts/database'
import { Jobs, JobType } from '#contracts/jobs'
import { JobQueue } from '#contracts/queue'
import database from '../../../plugins/database/index.ts'
import jobs from '../../../plugins/jobs/index.ts'
import type { JobRow } from '../../../plugins/jobs/tables/record.ts'
import { JobStore } from '../../../plugins/jobs/tables/store.ts'
import { gate, jobType, openAccess, operator, runtime } from './kit.ts'

describe('jobs through a queue that is not in the database', () => {
  /** A store with such a queue; `meanwhile` comes after the queue did what it was asked for, and before that is noted. */
  async function outbox(t: TestRuntime, meanwhile: (store: JobStore, id: string) => Promise<unknown>) {
    const [database, asked, clock] = [t.get(Database), [] as string[], new FakeClock()]
    const queue = {
      can: { transactional: false, distributed: true },
      async enqueue([entry]: readonly { id: string }[]) { asked.push(`add ${entry!.id}`); await meanwhile(store, entry!.id) },
      async remove([id]: readonly string[]) { asked.push(`remove ${id}`); await meanwhile(store, id!) },
    } as unknown as JobQueue
    const store: JobStore = new JobStore({ database, queue, clock, events: () => undefined })
    const { id } = await t.get(Jobs).submit(operator, { type: 'work', input: 1 })
    await database.knex()('jobs').where({ id }).update({ handed_at: 0 })
    const row = async (): Promise<JobRow> => (await store.read(id))!
    return { store, id, database, asked, clock, row, change: (changes: object) => database.knex()('jobs').where({ id }).update(changes) }
  }
  const still = () => runtime({ types: [jobType('work', async () => null)], config: { concurrency: 0, sweep_ms: 3_600_000 } })

  it('what was delivered and given back before its hand-over was noted is the sweep\'s at once', async () => {
    await using t = await still()
    const it = await outbox(t, (store, id) => it.database.transaction(tx => store.setAside(id, tx)))
    for (const given of [-1, -2, -3]) {
      await it.store.handOverAgain(it.clock.now(), ['work'], 10)
      assert.equal((await it.row()).handed_at, given)
    }
  })

  it('what was delivered and kept back by a limit before its letting go was noted stays kept back', async () => {
    await using t = await still()
    const it = await outbox(t, (store, id) => it.database.transaction(tx => store.held.keepBack([id], 'project:default', tx)))
    await it.change({ held: 1, held_by: 'project:default' })
    await it.database.transaction(tx => it.store.held.letGo([it.id], tx))
    await it.clock.advance(1)
    assert.deepEqual([(await it.row()).held, it.asked], [1, [`add ${it.id}`]])
  })

  it('what two let go, and one of them noted, stays kept back if it was so again before the other notes it', async () => {
    await using t = await still()
    let [turn, done] = [0, false]
    const it = await outbox(t, async (store, id) => {
      if (++turn > 1) return
      await it.database.transaction(tx => store.held.letGo([id], tx))
      await eventually('its note', async () => (await it.row()).held === 0)
      await it.database.transaction(tx => store.held.keepBack([id], 'project:default', tx))
      done = true
    })
    await it.database.transaction(tx => it.store.held.keepBack([it.id], 'project:default', tx))
    await it.clock.advance(1)
    await it.database.transaction(tx => it.store.held.letGo([it.id], tx))
    await eventually('the end of both', () => done)
    for (let round = 0; round < 3; round++) await it.database.transaction(async () => {})
    assert.equal((await it.row()).held, 1)
  })

  it('what ran and was queued again before its first hand-over was noted is not taken for handed over', async () => {
    await using t = await still()
    const it = await outbox(t, async () => {})
    const fresh = await it.row()
    await it.database.transaction(tx => it.store.handOver([fresh], tx, true))
    await it.change({ seq: 4 })
    await it.clock.advance(200)
    assert.equal((await it.row()).handed_at, 0)
    await it.change({ seq: 1 })
    await it.store.handOverAgain(it.clock.now(), ['work'], 10)
    assert.equal((await it.row()).handed_at, it.clock.now())
  })

  it('what was cancelled, and queued again before the queue removed it, is given to it once more', async () => {
    await using t = await still()
    const it = await outbox(t, async () => {})
    await it.store.removeNow([it.id])
    await it.change({ status: 'cancelled' })
    await it.store.removeNow([it.id])
    assert.deepEqual(it.asked, [`remove ${it.id}`, `add ${it.id}`, `remove ${it.id}`])
  })

  it('what left the line, and was let go before the queue removed it, is not taken for handed over', async () => {
    await using t = await still()
    // The queue answers when it was added, after it has removed it.
    let letGo: () => Promise<unknown> = async () => {}
    let added = () => {}
    const it = await outbox(t, async () => letGo())
    letGo = () => {
      letGo = () => new Promise<void>(resolve => { added = resolve })
      return it.database.transaction(tx => it.store.held.letGo([it.id], tx))
    }
    await it.database.transaction(tx => it.store.held.keepAway([it.id], 'project:default', tx))
    await eventually('it to be given back', async () => (await it.row()).handed_at < -1)
    added()
    await it.store.handOverAgain(0, ['work'], 1)
    const { held, handed_at } = await it.row()
    assert.deepEqual([held, handed_at < 0, it.asked], [1, true, [`remove ${it.id}`, `add ${it.id}`]])
  })

  it('what left the line, and was let go before the queue removed it, is given to it once more, if that was noted', async () => {
    await using t = await still()
    let letGo: () => Promise<unknown> = async () => {}
    const it = await outbox(t, async () => letGo())
    letGo = async () => {
      letGo = async () => {}
      await it.database.transaction(tx => it.store.held.letGo([it.id], tx))
      await eventually('it to be noted', async () => (await it.row()).held === 0)
    }
    await it.database.transaction(tx => it.store.held.keepAway([it.id], 'project:default', tx))
    await eventually('it to be there', () => it.asked.length === 3)
    assert.deepEqual(it.asked, [`remove ${it.id}`, `add ${it.id}`, `add ${it.id}`])
  })

  it('what the queue lost is given to it at once, and once more if it loses it while it is given', async () => {
    let [lose, enqueued, door] = [() => {}, 0, Promise.resolve()]
    const engine = fake(JobQueue, {
      can: { transactional: false, distributed: true },
      onLoss(listener) { lose = listener; return () => {} },
      async enqueue() { enqueued++; await door },
      async consume() { return { empty: true, want() {}, take: async () => [], async [Symbol.asyncDispose]() {} } },
      async remove() {},
      async depth() { return 0 },
    })
    await using t = await createTestRuntime({
      plugins: [database, { plugin: jobs, config: { sweep_ms: 20 } }, contribute(JobType, jobType('work', async () => null))], services: [openAccess(), engine],
    })
    await t.get(Jobs).submit(operator, { type: 'work', input: 1 })
    const noted = async () => Number((await t.get(Database).knex()('jobs').first())!.handed_at) > 0
    await eventually('it to be noted', noted)
    assert.equal(enqueued, 1)
    const { open, closed } = gate()
    door = closed
    await new Promise(resolve => setTimeout(resolve, 5)) // By then it was handed over before the sweep began.
    lose()
    await eventually('it to be given again', () => enqueued === 2)
    await new Promise(resolve => setTimeout(resolve, 5))
    lose()
    open()
    await eventually('it to be given once more', () => enqueued === 3)
  })
})
