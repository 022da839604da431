// One server, named by the first argument, with one JSON route that takes a parameter. Tells its port; answers "cpu" with the microseconds it used.
import { rmSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const item = id => ({ id, name: 'A thing to sell', tags: ['new', 'blue'], price: { amount: 1995, currency: 'EUR' }, stock: 12 })

const servers = {
  /** The product: identity, permission, schemas, limits, deadline, request id, headers, metrics, scope and log. */
  async backplane() {
    const [{ createRuntime, definePlugin }, { HttpRoute, HttpServer, defineRoute }, http, access, { z }] = await Promise.all([
      import('../../dist/core/index.js'), import('../../dist/plugins/http/contract.js'), import('../../dist/plugins/http/index.js'),
      import('../../dist/plugins/access-open/index.js'), import('zod'),
    ])
    const log = { debug() {}, info() {}, warn() {}, error(message, fields) { console.error(message, fields) }, child: () => log }
    const dataDir = mkdtempSync(join(tmpdir(), 'backplane-bench-'))
    const items = definePlugin({ name: 'items', contributes: [HttpRoute], setup(ctx) {
      ctx.contribute(HttpRoute, defineRoute({
        method: 'GET', path: '/api/v1/items/:id', summary: 'One item', permission: 'items:read', params: z.strictObject({ id: z.string().max(64) }),
        handler: async ({ params }) => ({ body: item(params.id) }),
      }))
    } })
    const plugins = [{ plugin: http.default, config: { port: 0 } }, { plugin: access.default }, { plugin: items }]
    const runtime = await createRuntime({ log, plugins, host: { dataDir } }).start()
    process.once('exit', () => rmSync(dataDir, { recursive: true, force: true }))
    return Number(new URL(runtime.get(HttpServer).url).port)
  },
  async koa() {
    const [{ default: Koa }, { default: Router }] = await Promise.all([import('koa'), import('@koa/router')])
    const router = new Router()
    router.get('/api/v1/items/:id', async ctx => { ctx.body = item(ctx.params.id) })
    return await listening(new Koa().use(router.routes()).listen(0, '127.0.0.1'))
  },
  async fastify() {
    const { default: fastify } = await import('fastify')
    const app = fastify()
    app.get('/api/v1/items/:id', async ({ params }) => item(params.id))
    await app.listen({ port: 0, host: '127.0.0.1' })
    return app.server.address().port
  },
}

const listening = server => new Promise(resolve => { server.once('listening', () => resolve(server.address().port)) })

process.on('message', () => { const { user, system } = process.cpuUsage(); process.send({ cpu: user + system }) })
process.on('disconnect', () => process.exit())
process.send({ port: await servers[process.argv[2]]() })
