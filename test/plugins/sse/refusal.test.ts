import assert from 'node:assert/strict'
import { eventually } from '#core/testing'
import { AccessErrors } from '#contracts/access'
import { DatabaseErrors } from '#contracts/database'
import { readEvents } from '../../../core/cli/events.ts'
import { operator } from '../jobs/kit.ts'
import { gate, openStreams, served, submit, talk, type Access } from './kit.ts'

type Check = NonNullable<NonNullable<Access>['check']>

/** Somebody who may read all, until something is taken from him. */
async function watched() {
  const door = gate()
  const state: { refuses?: Error; project?: string; asked: number } = { asked: 0 }
  const check: Check = async (_caller, _permission, resource) => { if (state.project !== undefined && resource?.project_id === state.project) throw state.refuses }
  const restore = async (id: string, project_id: string) => {
    state.asked++
    if (state.project === undefined && state.refuses) throw state.refuses
    return { ...operator, id, project_id }
  }
  const t = await served({ types: [talk(door.closed)], access: { check, restore }, config: { recheckMs: 100 } })
  const id = await submit(t)
  const read = async (path: string) => {
    const found: { event: string; data: any; id: string }[] = []
    const response = await fetch(t.url + path)
    assert.equal(response.status, 200)
    const ended = (async () => { for await (const { event, data, id: at } of readEvents(response)) found.push({ event, data: JSON.parse(data), id: at }) })()
    return { found, ended }
  }
  return { t, id, state, read, async [Symbol.asyncDispose]() { door.open(); await t[Symbol.asyncDispose]() } }
}
const forbidden = () => AccessErrors.FORBIDDEN({ permission: 'jobs:read', reason: 'the role was taken away' })

describe('an open stream of events', () => {
  for (const [what, pathOf] of [['a job', (id: string) => `/sse/jobs/${id}`], ['a project', () => '/sse/projects/default']] as const) {
    it(`of ${what} ends with a word when its reader may see it no more, and he is refused when he comes back`, async () => {
      await using it = await watched()
      const path = pathOf(it.id)
      const { found, ended } = await it.read(path)
      await eventually('some checks', () => it.state.asked > 2)
      Object.assign(it.state, { project: 'default', refuses: forbidden() })
      await ended
      const { event, data } = found.at(-1)!
      assert.deepEqual([event, data.type, data.error.code], ['refused', 'refused', 'ACCESS_FORBIDDEN'])
      assert.match(data.error.message, /the role was taken away/)
      assert.equal((await fetch(it.t.url + path)).status, 403)
      await eventually('it to be closed', () => openStreams(it.t) === 0)
    })
  }

  it('ends when the key is revoked, in the middle of a job, and its last id is where it stood', async () => {
    await using it = await watched()
    const { found, ended } = await it.read(`/sse/jobs/${it.id}`)
    await eventually('some words', () => found.some(each => each.data.type === 'token'))
    it.state.refuses = AccessErrors.UNAUTHENTICATED({ reason: 'the key was revoked' })
    await ended
    assert.deepEqual([found.at(-1)!.event, found.at(-1)!.id, found.at(-1)!.data.error.code], ['refused', found.at(-2)!.data.cursor, 'ACCESS_UNAUTHENTICATED'])
  })

  it('goes on while nobody can say whether its reader may', async () => {
    await using it = await watched()
    const { ended } = await it.read(`/sse/jobs/${it.id}`)
    it.state.refuses = DatabaseErrors.UNAVAILABLE({ reason: 'away' })
    const from = it.state.asked
    await eventually('some checks', () => it.state.asked > from + 3)
    assert.equal(await Promise.race([ended.then(() => 'ended'), 'open']), 'open')
    assert.equal(openStreams(it.t), 1)
    Object.assign(it.state, { refuses: forbidden() })
    await ended
  })
})
