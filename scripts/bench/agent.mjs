import { fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { HERE, interleave, median, ratio, runChild, table, times } from './lib.mjs'

const NAMES = ['backplane', 'fetch', 'openai', 'streamText']
const GATE = 1 / 3

async function begin(file, ...args) {
  const child = fork(join(HERE, file), args.map(String), { execArgv: ['--no-warnings'] })
  const ended = once(child, 'exit').then(([code]) => { throw new Error(`${file} ${args.join(' ')} ended with ${code}`) })
  const [message] = await Promise.race([once(child, 'message'), ended])
  ended.catch(() => {})
  return { ...message, end() { const gone = once(child, 'exit'); child.disconnect(); return gone } }
}

/** One streamed answer over HTTP; `frames` says how many bytes of it have come. */
async function ask(url) {
  const from = performance.now()
  const answer = await fetch(url, {
    method: 'POST', headers: { 'content-type': 'application/json', accept: 'text/event-stream' }, body: JSON.stringify({ input: 'Say two hundred words.' }),
  })
  if (!answer.ok) throw new Error(`${url} answered ${answer.status}: ${await answer.text()}`)
  let [first, text] = [0, '']
  const decoder = new TextDecoder()
  for await (const chunk of answer.body) {
    text += decoder.decode(chunk, { stream: true })
    if (!first && text.includes('word')) first = performance.now() - from
  }
  if (!text.includes('word199')) throw new Error(`the answer of ${url} is not whole:\n${text.slice(-500)}`)
  return { first, ms: performance.now() - from }
}

async function load(url, runs) {
  const single = []
  for (let at = 0; at < runs; at++) single.push(await ask(url))
  const from = performance.now()
  let left = runs
  await Promise.all(Array.from({ length: 10 }, async () => { while (left-- > 0) await ask(url) }))
  const perSecond = runs / (performance.now() - from) * 1_000
  return { ms: median(single.map(each => each.ms)), first: median(single.map(each => each.first)), perSecond }
}

/** A streamed answer of 200 tokens: in process and over HTTP, with and without a tool, beside what a user would write instead. */
export async function agent({ rounds = 3, runs = 200 } = {}) {
  const provider = await begin('provider-child.mjs')
  const servers = []
  try {
    const here = async (names, task) => {
      return summary(names, await interleave(names, rounds, async name => {
        const { each: ms, first, cpu, perSecond } = await runChild('agent-child.mjs', ['run', name, task, provider.port, runs])
        return { ms, first, cpu, perSecond }
      }))
    }
    const text = await here(NAMES, 'text')
    const tool = await here(['backplane', 'openai', 'streamText'], 'tool')
    const urls = {}
    for (const name of NAMES) {
      const server = await begin('agent-child.mjs', 'serve', name, 'text', provider.port)
      servers.push(server)
      urls[name] = server.url
      for (let at = 0; at < 50; at++) await ask(server.url)
    }
    const http = summary(NAMES, await interleave(NAMES, rounds, name => load(urls[name], runs)))
    return { name: 'agent', rounds, runs, text, tool, http, gate: GATE, passed: text.streamText.share <= GATE }
  } finally { await Promise.all([...servers, provider].map(each => each.end())) }
}

function summary(names, results) {
  const of = (name, field) => results.get(name).map(each => each[field])
  return Object.fromEntries(names.map(name => [name, {
    ms: median(of(name, 'ms')), first: median(of(name, 'first')), ...(of(name, 'cpu')[0] !== undefined && { cpu: median(of(name, 'cpu')) }), perSecond: median(of(name, 'perSecond')),
    /** What our time is of theirs. */
    share: ratio(of('backplane', 'ms'), of(name, 'ms')), rate: ratio(of('backplane', 'perSecond'), of(name, 'perSecond')),
  }]))
}

const TITLES = { backplane: 'backplane: a durable job', fetch: 'fetch, by hand', openai: 'package openai', streamText: 'AI SDK streamText' }
const rows = part => Object.entries(part).map(([name, { ms, first, cpu, perSecond, share, rate }]) =>
  [TITLES[name], ms.toFixed(2), first.toFixed(2), cpu?.toFixed(2) ?? '–', perSecond.toFixed(0), share.toFixed(2), times(rate)])
const HEAD = ['', 'ms', 'ms to the first token', 'ms of CPU', 'runs/s, 10 at once', 'our time : theirs', 'our runs/s']

export const agentText = ({ text, tool, http, gate, passed }) => [
  'A streamed answer of 200 tokens, in process:', table(HEAD, rows(text)),
  'The same after one call of a tool (two calls of the model):', table(HEAD, rows(tool)),
  'The answer over HTTP, as server-sent events, from another process:', table(HEAD, rows(http)),
  `Gate: in process at most ${gate.toFixed(2)} of streamText's time: ${passed ? 'met' : 'MISSED'}.`,
].join('\n\n')
