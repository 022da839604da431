// One process: one kind of handler, one number of them, all contenders in turn. Arguments: scoped|bare sync|async handlers rounds batchMs
import { AsyncSeriesHook, SyncHook } from 'tapable'
import { createHooks } from 'hookable'
import Emittery from 'emittery'
import { interleave } from './lib.mjs'

const [state, kind, count, rounds, batchMs] = process.argv.slice(2).map((arg, at) => (at < 2 ? arg : Number(arg)))
const AsyncFunction = (async () => {}).constructor

// Each handler is code of its own, as the handlers of different plugins are; a shared one would be inlined where no real one is.
const handlersFor = tally => Array.from({ length: count }, (_, at) =>
  new Function('tally', `return ${kind === 'async' ? 'async ' : ''}input => { tally.seen += input /* ${at} */ }`)(tally))

const contenders = {
  loop(handlers) {
    return kind === 'async'
      ? async input => { for (const handler of handlers) await handler(input) }
      : input => { for (const handler of handlers) handler(input) }
  },
  hookable(handlers) {
    const hooks = createHooks()
    for (const handler of handlers) hooks.hook('event', handler)
    return input => hooks.callHook('event', input)
  },
  tapable(handlers) {
    const hook = new AsyncSeriesHook(['input'])
    for (const [at, handler] of handlers.entries()) hook[kind === 'async' ? 'tapPromise' : 'tap'](`plugin-${at}`, handler)
    return input => hook.promise(input)
  },
  emittery(handlers) {
    const emitter = new Emittery()
    for (const handler of handlers) emitter.on('event', handler)
    return input => emitter.emitSerial('event', input)
  },
}
if (kind === 'sync') contenders['tapable SyncHook'] = handlers => {
  const hook = new SyncHook(['input'])
  for (const [at, handler] of handlers.entries()) hook.tap(`plugin-${at}`, handler)
  return input => hook.call(input)
}

let stop = async () => {}
if (state === 'scoped') {
  // The runtime of the user: a plugin for each handler, the call made through another plugin's context.
  const { createRuntime, defineHook, definePlugin } = await import('../../dist/core/index.js')
  const log = { debug() {}, info() {}, warn() {}, error(message) { throw new Error(message) }, child() { return log } }
  const runtimes = []
  const through = mode => async handlers => {
    const ref = defineHook[mode](`bench.${mode}`)
    let call
    const plugins = handlers.map((handler, at) => definePlugin({
      name: `handler-${at}`, guards: mode === 'notify' ? [] : [ref], setup(ctx) { ctx.hook(ref, handler) },
    }))
    const caller = definePlugin({ name: 'caller', setup(ctx) { call = input => ctx.call(ref, input) } })
    runtimes.push(await createRuntime({ log, plugins: [...plugins, caller].map(plugin => ({ plugin })) }).start())
    return call
  }
  contenders['backplane series'] = through('series')
  contenders['backplane notify'] = through('notify')
  stop = () => Promise.all(runtimes.map(runtime => runtime.stop()))
}

/** A driver of its own for each contender, so that none is slowed by what the JIT saw of another. An answer is awaited if it is a promise. */
const driver = () => new AsyncFunction('call', 'times', `
  for (let i = 0; i < times; i++) {
    const answer = call(1)
    if (answer !== undefined && typeof answer.then === 'function') await answer
  }`)

const ready = {}
for (const [name, make] of Object.entries(contenders)) {
  const tally = { seen: 0 }
  ready[name] = { tally, call: await make(handlersFor(tally)), drive: driver(), times: 64 }
}

async function batch({ tally, call, drive, times }) {
  const seen = tally.seen
  const from = process.hrtime.bigint()
  await drive(call, times)
  const ns = Number(process.hrtime.bigint() - from)
  if (tally.seen - seen !== times * count) throw new Error(`a handler was missed: ${tally.seen - seen} of ${times * count} runs`)
  return ns
}

async function main() {
  for (const contender of Object.values(ready)) {
    // Warm up, and find how many calls fill a batch.
    for (let ns = 0; ns < batchMs * 1e6; ) {
      ns = await batch(contender)
      if (ns < batchMs * 1e6) contender.times = Math.ceil(contender.times * Math.min(4, (batchMs * 1.2e6) / ns))
    }
    for (let i = 0; i < 2; i++) await batch(contender)
  }
  const names = Object.keys(ready)
  return interleave(names, rounds, async name => (await batch(ready[name])) / ready[name].times)
}

let results
if (state === 'scoped') {
  const { scope } = await import('../../dist/core/index.js')
  results = await scope.run({ request_id: 'bench' }, main)
} else results = await main()
await stop()
console.log(JSON.stringify({ nsPerCall: Object.fromEntries(results) }))
