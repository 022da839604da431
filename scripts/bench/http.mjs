import { fork } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import { join } from 'node:path'
import { HERE, interleave, median, ratio, table, times } from './lib.mjs'

const NAMES = ['backplane', 'koa', 'fastify']
const REQUEST = 'GET /api/v1/items/item-42 HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n\r\n'
const GATE = 0.8

async function begin(name) {
  const child = fork(join(HERE, 'http-child.mjs'), [name], { execArgv: ['--no-warnings', ...(process.env.BENCH_NODE_ARGS?.split(' ') ?? [])] })
  const ended = once(child, 'exit').then(([code]) => { throw new Error(`the ${name} server ended with ${code}`) })
  const [{ port }] = await Promise.race([once(child, 'message'), ended])
  ended.catch(() => {})
  return { port, child, async cpu() { child.send('cpu'); return (await once(child, 'message'))[0].cpu } }
}

/** The whole of one answer, so that the others are known by their length. */
async function lengthOf(port) {
  const socket = connect(port, '127.0.0.1')
  socket.end(REQUEST)
  let text = ''
  for await (const chunk of socket) text += chunk.toString('latin1')
  const [, length] = /^HTTP\/1\.1 200 [^]*content-length: (\d+)/i.exec(text) ?? []
  if (!length || !text.includes('"item-42"')) throw new Error(`not the answer that was asked for:\n${text}`)
  // This one connection was closed; the others say so less often.
  return Number(length)
}

/** Asks over kept connections, one request after another on each, for `ms`; the rate, and what the server's CPU took for each. */
async function load({ port, cpu, body }, ms, connections) {
  let answers = 0
  let until = Infinity
  const ask = async () => {
    const socket = connect(port, '127.0.0.1').setNoDelay()
    await once(socket, 'connect')
    return new Promise((resolve, reject) => {
      let [expected, got] = [0, 0]
      socket.on('data', chunk => {
        if (got === 0) {
          if (!chunk.subarray(0, 12).equals(OK)) return reject(new Error(chunk.toString('latin1')))
          expected ||= chunk.indexOf('\r\n\r\n') + 4 + body
        }
        got += chunk.length
        if (got < expected) return
        got = 0
        answers++
        if (performance.now() < until) socket.write(REQUEST)
        else socket.end(resolve)
      })
      socket.once('error', reject)
      socket.write(REQUEST)
    })
  }
  const before = await cpu()
  const from = performance.now()
  until = from + ms
  await Promise.all(Array.from({ length: connections }, ask))
  const seconds = (performance.now() - from) / 1_000
  return { perSecond: answers / seconds, cpuMicros: (await cpu() - before) / answers }
}
const OK = Buffer.from('HTTP/1.1 200')

/** A JSON route through everything against the same route of bare koa + @koa/router and of fastify, each in a process of its own. */
export async function http({ rounds = 9, ms = 1_000, connections = 32 } = {}) {
  const servers = Object.fromEntries(await Promise.all(NAMES.map(async name => [name, await begin(name)])))
  try {
    for (const server of Object.values(servers)) {
      server.body = await lengthOf(server.port)
      await load(server, 2 * ms, connections)
    }
    const results = await interleave(NAMES, rounds, name => load(servers[name], ms, connections))
    const of = (name, field) => results.get(name).map(each => each[field])
    const fields = name => ({ perSecond: median(of(name, 'perSecond')), cpuMicros: median(of(name, 'cpuMicros')) })
    const timesAsFast = Object.fromEntries(['koa', 'fastify'].map(name => [name, ratio(of('backplane', 'perSecond'), of(name, 'perSecond'))]))
    const byCpu = Object.fromEntries(['koa', 'fastify'].map(name => [name, ratio(of(name, 'cpuMicros'), of('backplane', 'cpuMicros'))]))
    return { name: 'http', rounds, connections, servers: Object.fromEntries(NAMES.map(name => [name, fields(name)])), timesAsFast, byCpu,
      gate: GATE, passed: timesAsFast.koa >= GATE }
  } finally {
    await Promise.all(Object.values(servers).map(({ child }) => { const gone = once(child, 'exit'); child.disconnect(); return gone }))
  }
}

const TITLES = { backplane: 'backplane, through everything', koa: 'bare koa + @koa/router', fastify: 'bare fastify' }

export const httpText = ({ servers, connections, timesAsFast, byCpu, gate, passed }) => [
  `A JSON answer of a route with a parameter, ${connections} kept connections, one request at a time on each:`,
  table(['', 'requests/s', 'µs of CPU each', 'ours is as fast', 'by CPU'], NAMES.map(name => [TITLES[name], servers[name].perSecond.toFixed(0),
    servers[name].cpuMicros.toFixed(1), times(timesAsFast[name] ?? 1), times(byCpu[name] ?? 1)])),
  `Gate: at least ${gate} of bare koa + @koa/router: ${passed ? 'met' : 'MISSED'}.`,
].join('\n\n')
