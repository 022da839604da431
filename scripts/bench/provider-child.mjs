// A provider of language models on this machine: OpenAI's chat completions, streamed, as fast as it can be read. Tells its port; a request with
// tools is first answered by a call of the first of them.
import { createServer } from 'node:http'

const WORDS = Array.from({ length: 200 }, (_, at) => `word${at} `)
const chunk = (delta, more = {}) => `data: ${JSON.stringify({
  id: 'chatcmpl-1', object: 'chat.completion.chunk', created: 1_700_000_000, model: 'bench', choices: [{ index: 0, delta, finish_reason: null, ...more }],
})}\n\n`
const usage = `data: ${JSON.stringify({
  id: 'chatcmpl-1', object: 'chat.completion.chunk', created: 1_700_000_000, model: 'bench', choices: [],
  usage: { prompt_tokens: 20, completion_tokens: WORDS.length, total_tokens: 20 + WORDS.length },
})}\n\ndata: [DONE]\n\n`
const ANSWER = [chunk({ role: 'assistant', content: '' }), ...WORDS.map(content => chunk({ content })), chunk({}, { finish_reason: 'stop' }) + usage]
const callOf = name => [
  chunk({ role: 'assistant', content: null, tool_calls: [{ index: 0, id: 'call_1', type: 'function', function: { name, arguments: '' } }] }),
  chunk({ tool_calls: [{ index: 0, function: { arguments: '{"a":2,"b":40}' } }] }), chunk({}, { finish_reason: 'tool_calls' }) + usage,
]

const server = createServer(async (request, response) => {
  let body = ''
  for await (const data of request) body += data
  const { tools, messages } = JSON.parse(body)
  const parts = tools?.length && messages.at(-1).role === 'user' ? callOf(tools[0].function.name) : ANSWER
  response.writeHead(200, { 'content-type': 'text/event-stream' })
  // Each in a write of its own, as a model speaks; nobody waits in between.
  for (const part of parts) response.write(part)
  response.end()
})
server.listen(0, '127.0.0.1', () => process.send({ port: server.address().port }))
process.on('disconnect', () => process.exit())
