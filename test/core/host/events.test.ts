import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import fc from 'fast-check'
import { serverAt } from '../../../core/cli/client.ts'
import { readEvents } from '../../../core/cli/events.ts'

const signal = new AbortController().signal
const pieces = (text: string, cuts: readonly number[]) => {
  const bytes = new TextEncoder().encode(text)
  const at = [0, ...cuts.map(cut => Math.floor(cut * bytes.length)).sort((a, b) => a - b), bytes.length]
  return new Response(new ReadableStream({ start(each) { at.slice(1).forEach((to, from) => each.enqueue(bytes.slice(at[from], to))); each.close() } }))
}
const all = async <T>(from: AsyncIterable<T>) => { const found: T[] = []; for await (const each of from) found.push(each); return found }

async function served(listener: RequestListener) {
  const server = createServer(listener).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    ...serverAt(`http://127.0.0.1:${(server.address() as AddressInfo).port}`),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise(done => server.close(done))
    },
  }
}

describe('events from a server, in the command line', () => {
  const STREAM = '\uFEFF: hello\nretry: 5\nid: 1\ndata: über\n\nid:2\r\nevent: end\r\ndata: two\r\ndata:lines 🙂\r\n\r\ndata\r\rdata: last\n\nid: 9\ndata: half'
  it('are the same however the bytes are cut, and half an event is none', async () => {
    await fc.assert(fc.asyncProperty(fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 12 }), async cuts => {
      const pauses: number[] = []
      assert.deepEqual(await all(readEvents(pieces(STREAM, cuts), ms => pauses.push(ms))), [
        { id: '1', event: 'message', data: 'über' }, { id: '2', event: 'end', data: 'two\nlines 🙂' }, { id: '2', event: 'message', data: '' }, { id: '2', event: 'message', data: 'last' },
      ])
      assert.deepEqual(pauses, [5])
    }))
  })

  it('go on from the last id when the connection breaks, and end at 204', async () => {
    const asked: unknown[] = []
    await using server = await served((request, response) => {
      const last = request.headers['last-event-id']
      asked.push(last)
      if (last === '3') { response.writeHead(204).end(); return }
      const next = Number(last ?? 0) + 1
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.write(`retry: 1\nid: ${next}\ndata: ${next}\n\nid: ${next + 1}\ndata: cut`, () => { if (next === 2) response.destroy(); else response.end() })
    })
    assert.deepEqual((await all(server.events('/x', { signal }))).map(each => each.data), ['1', '2', '3'])
    assert.deepEqual(asked, [undefined, '1', '2', '3'])
    assert.deepEqual((await all(server.events('/x', { signal, lastEventId: '2' }))).map(each => each.id), ['3'])
  })

  it('tell what the server says when it refuses', async () => {
    await using server = await served((_request, response) => { response.writeHead(404).end(JSON.stringify({ detail: 'there is no job', fix: 'Look.' })) })
    await assert.rejects(all(server.events('/x', { signal })), { code: 'HOST_SERVER_REFUSED', message: /there is no job/, fix: 'Look.' })
  })

  it('end with the signal, also while nothing comes', async () => {
    const stop = new AbortController()
    await using server = await served((_request, response) => { response.writeHead(200).write('data: 1\n\n') })
    for await (const { data } of server.events('/x', { signal: stop.signal })) { assert.equal(data, '1'); setImmediate(() => stop.abort()) }
  })

  it('of an answer that was asked for otherwise end with it', async () => {
    await using server = await served((_request, response) => { response.writeHead(200).end('data: 1\n\n') })
    assert.deepEqual((await all(server.events(await server.fetch('/', { method: 'POST' }), { signal }))).map(each => each.data), ['1'])
  })
})
