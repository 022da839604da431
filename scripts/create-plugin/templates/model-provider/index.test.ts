import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Secret } from 'backplane'
import { createTestRuntime } from 'backplane/testing'
import { ModelProvider, type LanguageModelV3CallOptions } from 'backplane/contracts/models'
import plugin from './index.ts'

const options: LanguageModelV3CallOptions = { prompt: [{ role: 'user', content: [{ type: 'text', text: 'How are you?' }] }] }

/** A server that answers every request so, and keeps what it was asked. */
async function chatServer(status: number, body: unknown) {
  const asked: { authorization: string | undefined; body: any }[] = []
  const server = createServer(async (request, response) => {
    let text = ''
    for await (const chunk of request) text += String(chunk)
    asked.push({ authorization: request.headers.authorization, body: JSON.parse(text) })
    response.writeHead(status, { 'content-type': 'application/json', connection: 'close' }).end(JSON.stringify(body))
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`
  return { url, asked, [Symbol.asyncDispose]: () => new Promise<void>(resolve => server.close(() => resolve())) }
}
const reply = { id: 'c1', choices: [{ message: { content: 'Fine.' }, finish_reason: 'stop' }], usage: { prompt_tokens: 4, completion_tokens: 2 } }

describe('{{name}}', () => {
  it('sends the prompt and the key, and brings the answer with its usage', async () => {
    await using server = await chatServer(200, reply)
    await using t = await createTestRuntime({ plugins: [{ plugin, config: { url: server.url, key: Secret.of('key', 'k-123') } }] })
    const model = await t.runtime.collect(ModelProvider)[0]!.create('small')
    const result = await model.doGenerate(options)
    assert.deepEqual(result.content, [{ type: 'text', text: 'Fine.' }])
    assert.equal(result.usage.inputTokens.total, 4)
    assert.equal(server.asked[0]!.authorization, 'Bearer k-123')
    assert.deepEqual(server.asked[0]!.body, { model: 'small', messages: [{ role: 'user', content: 'How are you?' }] })
  })

  it('streams', async () => {
    await using server = await chatServer(200, reply)
    await using t = await createTestRuntime({ plugins: [{ plugin, config: { url: server.url } }] })
    const model = await t.runtime.collect(ModelProvider)[0]!.create('small')
    const types: string[] = []
    for await (const part of (await model.doStream(options)).stream) types.push(part.type)
    assert.deepEqual(types, ['stream-start', 'text-start', 'text-delta', 'text-end', 'finish'])
  })

  it('fails with what the server said', async () => {
    await using server = await chatServer(429, { error: 'slow down' })
    await using t = await createTestRuntime({ plugins: [{ plugin, config: { url: server.url } }] })
    const model = await t.runtime.collect(ModelProvider)[0]!.create('small')
    await assert.rejects(async () => model.doGenerate(options), /429.*slow down/)
  })
})
