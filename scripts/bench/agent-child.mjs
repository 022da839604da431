// One contender that runs an agent: in this process (`run`), or as a server that others ask (`serve`).
// Arguments: contender, task, the provider's port, runs.
import { createServer } from 'node:http'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const [mode, contender, task, provider, runs] = process.argv.slice(2)
const baseURL = `http://127.0.0.1:${provider}/v1`
const QUESTION = 'Say two hundred words.'
const KEY = 'no-key-is-needed'
const json = { 'content-type': 'application/json' }

/** `run(onText)` lets the model answer once. The task `tool` has it call a tool that adds first. */
const contenders = {
  /** The limit: the wire format by hand. It knows no tools. */
  async fetch() {
    const decoder = new TextDecoder()
    return async onText => {
      const body = JSON.stringify({ model: 'bench', stream: true, stream_options: { include_usage: true }, messages: [{ role: 'user', content: QUESTION }] })
      const answer = await fetch(`${baseURL}/chat/completions`, { method: 'POST', headers: json, body })
      let text = ''
      for await (const chunk of answer.body) {
        text += decoder.decode(chunk, { stream: true })
        for (let end; (end = text.indexOf('\n\n')) >= 0; text = text.slice(end + 2)) {
          const data = text.slice(6, end)
          if (data !== '[DONE]') onText(JSON.parse(data).choices[0]?.delta.content ?? '')
        }
      }
    }
  },
  async openai() {
    const { default: OpenAI } = await import('openai')
    const client = new OpenAI({ baseURL, apiKey: KEY })
    const tools = [{ type: 'function', function: { name: 'add', parameters: { type: 'object', properties: { a: { type: 'number' }, b: { type: 'number' } } } } }]
    return async onText => {
      const messages = [{ role: 'user', content: QUESTION }]
      for (;;) {
        const calls = []
        const more = task === 'tool' ? { tools } : {}
        const request = { model: 'bench', stream: true, stream_options: { include_usage: true }, messages, ...more }
        for await (const { choices: [choice] } of await client.chat.completions.create(request)) {
          if (choice?.delta.content) onText(choice.delta.content)
          for (const { index, id, function: { name, arguments: text } } of choice?.delta.tool_calls ?? []) {
            calls[index] ??= { id, type: 'function', function: { name, arguments: '' } }
            calls[index].function.arguments += text
          }
        }
        if (!calls.length) return
        messages.push({ role: 'assistant', content: null, tool_calls: calls })
        for (const { id, function: call } of calls) {
          const { a, b } = JSON.parse(call.arguments)
          messages.push({ role: 'tool', tool_call_id: id, content: String(a + b) })
        }
      }
    }
  },
  async streamText() {
    const [{ streamText, stepCountIs, tool }, { createOpenAICompatible }, { z }] = await Promise.all([import('ai'), import('@ai-sdk/openai-compatible'), import('zod')])
    const model = createOpenAICompatible({ name: 'bench', baseURL, apiKey: KEY, includeUsage: true })('bench')
    const add = tool({ description: 'Adds', inputSchema: z.object({ a: z.number(), b: z.number() }), execute: async ({ a, b }) => a + b })
    const more = task === 'tool' ? { tools: { add }, stopWhen: stepCountIs(5) } : {}
    return async onText => {
      const result = streamText({ model, prompt: QUESTION, ...more })
      for await (const text of result.textStream) onText(text)
      await result.usage
    }
  },
  /** The product: a durable job with its events, the agent's loop, the provider behind an alias, hooks, metrics and log. */
  async backplane() {
    const { runtime, caller } = await product()
    const { Jobs } = await import('../../dist/plugins/jobs/contract.js')
    const jobs = runtime.get(Jobs)
    return async onText => {
      const job = await jobs.run(caller, { type: 'agent', agent: 'bench', input: { agent: 'bench', input: QUESTION } },
        { onProgress: each => { if (each.type === 'token') onText(each.content) } })
      if (job.status !== 'completed') throw new Error(JSON.stringify(job.error))
    }
  },
}

async function product() {
  const [{ createRuntime, definePlugin }, { Access }, { Tool }, { z }] = await Promise.all([
    import('../../dist/core/index.js'), import('../../dist/plugins/access/contract.js'), import('../../dist/plugins/agents/contract.js'), import('zod'),
  ])
  const plugins = await Promise.all([
    ['http', { port: 0 }], ['access-open'], ['database'], ['cluster'], ['events'], ['jobs', { concurrency: 50 }], ['queue-embedded'],
    ['models', { providers: { bench: { type: 'openai-compatible', base_url: baseURL } }, aliases: { default: 'bench/bench' } }],
    ['agents', { agents: { bench: { summary: 'Speaks', tools: task === 'tool' ? ['add'] : [] } } }],
  ].map(async ([name, config]) => ({ plugin: (await import(`../../dist/plugins/${name}/index.js`)).default, ...(config && { config }) })))
  const add = definePlugin({ name: 'add', contributes: [Tool], setup(ctx) {
    ctx.contribute(Tool, { name: 'add', description: 'Adds', input: z.strictObject({ a: z.number(), b: z.number() }), run: async ({ a, b }) => a + b })
  } })
  const log = { debug() {}, info() {}, warn() {}, error(message, fields) { console.error(message, fields) }, child: () => log }
  const dataDir = mkdtempSync(join(tmpdir(), 'backplane-bench-'))
  process.once('exit', () => rmSync(dataDir, { recursive: true, force: true }))
  const runtime = await createRuntime({ log, plugins: [...plugins, { plugin: add }], host: { dataDir } }).start()
  return { runtime, caller: await runtime.get(Access).restore('operator', 'default') }
}

/** The same as a server: one event for each piece of text. */
const servers = {
  async backplane() {
    const { runtime } = await product()
    const { HttpServer } = await import('../../dist/plugins/http/contract.js')
    return `${runtime.get(HttpServer).url}/api/v1/agents/bench/run`
  },
  /** The limit: what the provider sends goes on as it is. */
  async fetch() {
    return serve(async response => {
      const body = JSON.stringify({ model: 'bench', stream: true, messages: [{ role: 'user', content: QUESTION }] })
      for await (const chunk of (await fetch(`${baseURL}/chat/completions`, { method: 'POST', headers: json, body })).body) response.write(chunk)
    })
  },
  async openai() { return framed(await contenders.openai()) },
  async streamText() { return framed(await contenders.streamText()) },
}
const framed = run => serve(response => run(content => response.write(`data: ${JSON.stringify({ type: 'token', content })}\n\n`)))
function serve(answer) {
  const server = createServer(async (request, response) => {
    for await (const _ of request) { /* to its end */ }
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    await answer(response)
    response.end()
  })
  return new Promise(resolve => { server.listen(0, '127.0.0.1', () => resolve(`http://127.0.0.1:${server.address().port}/`)) })
}

if (mode === 'serve') {
  process.on('disconnect', () => process.exit())
  process.send({ url: await servers[contender]() })
} else {
  const run = await contenders[contender]()
  const once = async () => {
    const from = performance.now()
    let [first, words] = [0, 0]
    await run(text => { if (text) { first ||= performance.now() - from; words++ } })
    if (words < 200) throw new Error(`${contender}: ${words} words of 200`)
    return { first, ms: performance.now() - from }
  }
  for (let at = 0; at < 100; at++) await once()
  const results = []
  const before = process.cpuUsage()
  for (let at = 0; at < Number(runs); at++) results.push(await once())
  const { user, system } = process.cpuUsage(before)
  const middle = field => results.map(each => each[field]).sort((a, b) => a - b)[results.length >> 1]
  const from = performance.now()
  let left = Number(runs)
  await Promise.all(Array.from({ length: 10 }, async () => { while (left-- > 0) await once() }))
  const perSecond = Number(runs) / (performance.now() - from) * 1_000
  console.log(JSON.stringify({ each: middle('ms'), first: middle('first'), cpu: (user + system) / 1_000 / Number(runs), perSecond }))
  process.exit()
}
