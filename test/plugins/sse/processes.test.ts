import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestRuntime } from '#core/testing'
import { HttpServer } from '#contracts/http'
import { Jobs } from '#contracts/jobs'
import { readEvents } from '../../../core/cli/events.ts'
import cluster from '../../../plugins/cluster/index.ts'
import events from '../../../plugins/events/index.ts'
import http from '../../../plugins/http/index.ts'
import sse from '../../../plugins/sse/index.ts'
import { startChild, type Child } from '../../support/child.ts'
import { postgresOrSkip } from '../../support/services.ts'
import { jobType, openAccess, operator, runtime } from '../jobs/kit.ts'

/** A process that serves, and runs nothing. */
const front = (dataDir: string, url: string) => runtime({
  ...(url && { url }), host: { dataDir }, config: { concurrency: 0, sweep_ms: 100 }, types: [jobType('talk', async () => assert.fail('not here'))],
  services: [openAccess({ identify: async () => operator, admitBind: async () => {} })],
  plugins: [cluster, events, { plugin: http, config: { port: 0 } }, sse],
})
const textOf = (updates: readonly any[]) => updates.map(each => each.content ?? '').join('')
const others = (updates: readonly any[]) => updates.filter(each => each.type !== 'token').map(each => each.type)
const words = (count: number) => Array.from({ length: count }, (_, at) => `word${at} `).join('')

/** Reads until the final update, over as many connections as that takes. */
async function follow(t: TestRuntime, id: string, perConnection: number, seen: (all: readonly any[]) => unknown = () => {}) {
  const whole: any[] = []
  while (!whole.at(-1)?.final) {
    const stop = new AbortController()
    let left = perConnection
    const response = await fetch(`${t.get(HttpServer).url}/sse/jobs/${id}`, { signal: stop.signal, headers: whole.length ? { 'last-event-id': whole.at(-1).cursor } : {} })
    for await (const { data } of readEvents(response)) {
      whole.push(JSON.parse(data))
      await seen(whole)
      if (--left === 0) break
    }
    stop.abort()
  }
  return whole
}

for (const dialect of ['sqlite', 'postgres'] as const) {
  describe(`server-sent events of a job in another process, on ${dialect}`, function () {
    this.timeout(60_000)
    let folder: string
    let url = ''
    let dispose: () => PromiseLike<void> = async () => {}
    const children: Child[] = []
    const start = async () => {
      const child = startChild(new URL('worker-child.ts', import.meta.url), folder, url)
      children.push(child)
      await child.said('ready')
      return child
    }
    beforeEach(async function () {
      folder = mkdtempSync(join(tmpdir(), 'backplane-sse-'))
      if (dialect === 'sqlite') return
      const place = await (await postgresOrSkip(this)).newDatabase()
      url = place.url
      dispose = () => place[Symbol.asyncDispose]()
    })
    const killAll = async () => { await Promise.all(children.splice(0).map(child => child.kill())) }
    afterEach(async () => {
      await killAll()
      rmSync(folder, { recursive: true })
      await dispose()
    })

    it('are whole, also when the connection is cut again and again', async () => {
      await using t = await front(folder, url)
      const { id } = await t.get(Jobs).submit(operator, { type: 'talk', input: { words: 100, ms: 5 } })
      await start()
      const whole = await follow(t, id, 2)
      assert.equal(textOf(whole), words(100))
      assert.deepEqual(others(whole), ['created', 'started', 'tool_start', 'completed'])
      await killAll()
    })

    it('are whole over a worker that is killed while it speaks: what was said, then the next attempt', async () => {
      await using t = await front(folder, url)
      const { id } = await t.get(Jobs).submit(operator, { type: 'talk', input: { words: 40, ms: 20 } })
      const first = await start()
      let killed = false
      const whole = await follow(t, id, 5, async all => {
        if (killed || !textOf(all).includes('word22')) return
        killed = true
        await first.kill()
        await start()
      })
      assert.ok(killed)
      const again = whole.findLastIndex(each => each.type === 'started')
      const [before, after] = [whole.slice(0, again), whole.slice(again)]
      assert.ok(words(40).startsWith(textOf(before)) && textOf(before).includes('word22'))
      assert.deepEqual(others(before), ['created', 'started', 'tool_start', 'interrupted'])
      assert.deepEqual([textOf(after), others(after), after[0].attempt], [words(40), ['started', 'tool_start', 'completed'], 2])
      assert.deepEqual(await follow(t, id, 1_000), await follow(t, id, 1))
      await killAll()
    })
  })
}
