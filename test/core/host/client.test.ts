import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, pluginStates } from '../../../core/cli/client.ts'
import { HostErrors } from '../../../core/host/world.ts'

const OURS = JSON.stringify({ status: 'healthy', uptime_s: 3 })
const [yes, no] = [() => true, () => false]

/** A web server that answers every request alike, and a data folder whose server.json names it. */
async function served(status: number, body: string, pid: unknown = 4_711) {
  const server = createServer((_request, response) => { response.writeHead(status, { connection: 'close' }).end(body) }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const dataDir = mkdtempSync(join(tmpdir(), 'backplane-client-'))
  writeFileSync(join(dataDir, 'server.json'), JSON.stringify({ url, pid, instanceId: 'x' }))
  return {
    url, dataDir,
    async [Symbol.asyncDispose]() {
      rmSync(dataDir, { recursive: true })
      server.closeAllConnections()
      await new Promise(done => server.close(done))
    },
  }
}

describe('the command line, when it looks for a server', () => {
  it('takes the one that server.json names, or that it is given', async () => {
    await using it = await served(200, OURS)
    assert.equal((await connect(it.dataDir, undefined, 'only', yes)).url, it.url)
    assert.equal((await connect('nowhere', `${it.url}/`, 'only', no)).url, it.url)
  })

  it('takes one whose plugin health is disabled or away', async () => {
    await using it = await served(404, '{"type":"urn:backplane:error:HTTP_NOT_FOUND","status":404}')
    assert.equal((await connect(it.dataDir, undefined, 'only', yes)).url, it.url)
  })

  for (const [what, status, body] of [
    ['has no such page', 404, 'not here'], ['answers with a page', 200, '<html>'], ['answers with other data', 200, '{"ok":true}'], ['answers with null', 200, 'null'],
    ['fails', 500, OURS],
  ] as const) {
    it(`takes no web server for a Backplane that ${what}`, async () => {
      await using it = await served(status, body)
      const foreign = { code: HostErrors.SERVER_FOREIGN.code }
      await assert.rejects(connect(it.dataDir, undefined, 'only', yes), foreign)
      await assert.rejects(connect(it.dataDir, it.url, 'only', yes), foreign)
      assert.equal(await pluginStates(it.dataDir, { signal: new AbortController().signal, alive: yes }), undefined)
    })
  }

  it('takes no server for the one of server.json when the process that wrote it is gone', async () => {
    await using dead = await served(200, OURS)
    await assert.rejects(connect(dead.dataDir, undefined, 'only', no), { code: HostErrors.SERVER_SILENT.code })
    for (const pid of [0, -1, '1', null, 1.5]) {
      await using it = await served(200, OURS, pid)
      await assert.rejects(connect(it.dataDir, undefined, 'only', yes), { code: HostErrors.SERVER_SILENT.code })
    }
  })

  it('takes the next one when the process that has server.json is gone, or does not answer', async () => {
    await using it = await served(200, OURS, 1)
    await using other = await served(200, OURS, 2)
    const further = { url: other.url, pid: 2, instanceId: 'y' }
    writeFileSync(join(it.dataDir, 'server.0e3c5f0e-0000-4000-8000-000000000000.json'), JSON.stringify(further))
    const find = (alive: (pid: number) => boolean) => connect(it.dataDir, undefined, 'only', alive)
    assert.equal((await find(yes)).url, it.url)
    assert.equal((await find(pid => pid === 2)).url, other.url)
    await assert.rejects(find(no), { code: HostErrors.SERVER_SILENT.code })
    await using foreign = await served(404, 'not here')
    writeFileSync(join(it.dataDir, 'server.json'), JSON.stringify({ url: foreign.url, pid: 1, instanceId: 'x' }))
    assert.equal((await find(yes)).url, other.url)
    await assert.rejects(find(pid => pid === 1), { code: HostErrors.SERVER_FOREIGN.code })
  })

  it('says that none is known without a server.json, or with half of one', async () => {
    await using it = await served(200, OURS)
    for (const text of ['{"url"', 'null', '{}']) {
      writeFileSync(join(it.dataDir, 'server.json'), text)
      await assert.rejects(connect(it.dataDir, undefined, 'only', yes), { code: HostErrors.SERVER_UNKNOWN.code })
    }
    await assert.rejects(connect('nowhere', undefined, 'only', yes), { code: HostErrors.SERVER_UNKNOWN.code })
  })
})
