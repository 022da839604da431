// One process, one contender, one chain of plugins: each uses the service of the one before and provides its own. Arguments: contender count
const began = performance.now()
const [contender, count] = [process.argv[2], Number(process.argv[3])]

const boots = {
  bare() {},

  async backplane() {
    const { createRuntime, definePlugin, defineService } = await import('../../dist/core/index.js')
    const log = { debug() {}, info() {}, warn() {}, error(message) { throw new Error(message) }, child() { return log } }
    const refs = Array.from({ length: count }, (_, at) => defineService(`bench.s${at}`))
    const plugins = refs.map((ref, at) => ({
      plugin: definePlugin({
        name: `p${at}`, uses: at ? { before: refs[at - 1] } : {}, provides: [ref],
        setup(ctx, { before }) { ctx.provide(ref, { value: at ? before.value + 1 : 1 }) },
      }),
    }))
    const runtime = await createRuntime({ plugins, log }).start()
    return runtime.get(refs.at(-1)).value
  },

  async avvio() {
    const { default: avvio } = await import('avvio')
    const app = avvio()
    for (let at = 0; at < count; at++) app.use(async function plugin(server) { server[`s${at}`] = { value: at ? server[`s${at - 1}`].value + 1 : 1 } })
    await app.ready()
    return app[`s${count - 1}`].value
  },

  async fastify() {
    const { default: fastify } = await import('fastify')
    const app = fastify()
    for (let at = 0; at < count; at++) {
      const plugin = async server => { server.decorate(`s${at}`, { value: at ? server[`s${at - 1}`].value + 1 : 1 }) }
      // What fastify-plugin does: no encapsulation, and the plugins it stands on are checked.
      plugin[Symbol.for('skip-override')] = true
      plugin[Symbol.for('fastify.display-name')] = `p${at}`
      plugin[Symbol.for('plugin-meta')] = { name: `p${at}`, dependencies: at ? [`p${at - 1}`] : [] }
      app.register(plugin)
    }
    await app.ready()
    return app[`s${count - 1}`].value
  },

  async cordis() {
    const { Context } = await import('cordis')
    const app = new Context()
    for (let at = 0; at < count; at++) app.plugin({
      name: `p${at}`, inject: at ? [`s${at - 1}`] : [],
      apply(ctx) { ctx.set(`s${at}`, { value: at ? ctx.get(`s${at - 1}`).value + 1 : 1 }) },
    })
    await app.start()
    return app.get(`s${count - 1}`).value
  },
}

const value = await boots[contender]()
const ready = performance.now()
if (contender !== 'bare' && value !== count) throw new Error(`${contender}: the end of the chain has ${value}, not ${count}`)
// `ready` counts from the start of the process, `inside` from the first line of this file.
process.stdout.write(`${JSON.stringify({ ready, inside: ready - began, rssMb: process.memoryUsage.rss() / 1e6 })}\n`, () => process.exit(0))
