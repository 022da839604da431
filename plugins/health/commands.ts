import type { Command, CommandIo } from '#core'
import type { HealthReport } from '#contracts/health'

type Checks = Readonly<Record<string, Pick<HealthReport['checks'][string], 'status' | 'response_time_ms' | 'message'>>>
interface Answer { readonly status: string; readonly checks: Checks }

const isAnswer = (body: unknown): body is Answer => typeof (body as Answer)?.status === 'string' && typeof (body as Answer).checks === 'object'

/** With messages if the caller may see them, else what everybody sees. An unhealthy server answers 503 with a report all the same. */
async function ask(server: NonNullable<CommandIo['server']>, signal: AbortSignal): Promise<Answer> {
  for (const path of ['/health/detailed', '/health']) {
    const response = await server.fetch(path, { signal })
    const body: unknown = await response.json().catch(() => undefined)
    if (isAnswer(body)) return body
  }
  throw new Error(`${server.url} gives no health report; is its health plugin loaded?`)
}

export const health: Command = {
  name: 'health',
  summary: 'Shows how the running server and what it stands on are',
  needs: 'server',
  arguments: [{ name: '[name]', summary: 'one check only' }],
  examples: ['backplane health', 'backplane health database --json'],
  async run(io) {
    const answer = await ask(io.server!, io.signal)
    const [name] = io.args
    const one = name === undefined ? undefined : answer.checks[name]
    if (name !== undefined && !one) {
      io.err(`there is no health check "${name}"; there are: ${Object.keys(answer.checks).join(', ')}`)
      return 1
    }
    const shown = one ? { [name!]: one } : answer.checks
    const status = one?.status ?? answer.status
    if (io.json) io.out(JSON.stringify(one ? { name, ...one } : answer, null, 2))
    else {
      if (!one) io.out(status)
      const width = Math.max(0, ...Object.keys(shown).map(each => each.length))
      for (const [each, { status: is, response_time_ms, message = '' }] of Object.entries(shown)) {
        io.out(`  ${each.padEnd(width)}  ${is.padEnd(12)}  ${`${response_time_ms} ms`.padStart(9)}  ${message}`.trimEnd())
      }
    }
    return status === 'unhealthy' ? 1 : 0
  },
}

export default [health]
