/** Runs cases in a process with the host's own handling of strays, and prints one line of JSON for each. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createRuntime, defineHook, defineService, scope, type BackplaneError, type BootError, type HookReport } from '#core'
import { eventually, recordLog } from '#core/testing'
import { loadDeployment } from '../../../core/host/loader.ts'
import { COUNT, nameOf, writeCase, type Fault } from './plugins.ts'

export interface Case { readonly id: number; readonly guilty: readonly [readonly [number, Fault], ...(readonly [number, Fault])[]]; readonly optional: boolean }
export interface Outcome {
  readonly id: number
  readonly refused?: { readonly code: string; readonly plugin: unknown; readonly phase: unknown }[]
  readonly leftOut?: Record<string, { phase: string | undefined; code: string | undefined }>
  /** Names of plugins whose answer, handler or timer was not as it should be. */
  readonly wrong?: string[]
  readonly faults?: Record<string, number>
  readonly reported?: string[]
  readonly unattributed: string[]
  readonly stopMs?: number
}

let fault: (plugin: string, error: unknown, where: string) => void = () => {}
let unattributed: string[] = []
const stray = (where: string) => (error: unknown) => {
  const plugin = scope.current?.plugin
  if (plugin) fault(plugin, error, where)
  else unattributed.push(`${where}: ${String(error)}`)
}
process.on('unhandledRejection', stray('unhandled rejection'))
process.on('uncaughtException', stray('uncaught exception'))

const Told = defineHook.notify<{ heard: string[] }>('matrix.told')
interface Answers { answer(): Promise<number>; ticks(): Promise<number> }
const serviceOf = (i: number) => defineService<Answers>(`matrix.${nameOf(i)}`)

async function run({ id, guilty, optional }: Case): Promise<Outcome> {
  unattributed = []
  const folder = mkdtempSync(join(tmpdir(), 'matrix-'))
  try {
    const deployment = await loadDeployment({ cwd: writeCase(folder, new Map(guilty), optional), env: { NODE_ENV: 'test' } })
    const { settings: { graceMs, timeouts }, entries } = deployment
    const log = recordLog()
    const runtime = createRuntime({ log, plugins: entries, graceMs, timeouts, host: { dataDir: folder } })
    fault = (plugin, error, where) => runtime.fault(plugin, error, where)
    try { await runtime.start() } catch (error) {
      const errors = (error as BootError).errors ?? [error as BackplaneError]
      return { id, refused: errors.map(each => ({ code: each.code, plugin: each.details['plugin'], phase: each.details['phase'] })), unattributed }
    }
    const rows = new Map(runtime.inspect().plugins.map(row => [row.name, row]))
    const running = Array.from({ length: COUNT }, (_, i) => i).filter(i => rows.get(nameOf(i))!.state === 'running')
    const wrong: string[] = []
    const suspects = new Set(guilty.map(([i]) => i))
    const innocent = running.filter(i => !suspects.has(i))
    let reported: string[] = []
    for (let round = 0; round < 3; round++) {
      const input = { heard: [] as string[] }
      const report = await runtime.call(Told, input) as HookReport
      reported = report.failures.map(each => `${each.code} ${String(each.details['plugin'])}`)
      for (const i of innocent) {
        if (!input.heard.includes(nameOf(i))) wrong.push(`${nameOf(i)} was not called`)
        const expected = i
        const answer = await runtime.get(serviceOf(i)).answer()
        if (answer !== expected) wrong.push(`${nameOf(i)} answered ${answer}`)
      }
    }
    for (const i of innocent) await eventually(`timer of ${nameOf(i)}`, async () => (await runtime.get(serviceOf(i)).ticks()) > 1).catch(error => wrong.push(String(error)))
    const late = guilty.some(([, each]) => !each.boot && each.phase !== 'stop' && each.phase !== 'hook')
    if (late) await eventually('the stray', () => guilty.every(([i]) => runtime.inspect().plugins.find(row => row.name === nameOf(i))!.faults > 0)).catch(error => wrong.push(String(error)))
    const from = performance.now()
    await runtime.stop()
    const stopMs = Math.round(performance.now() - from)
    await new Promise(resolve => setTimeout(resolve, 15))
    const plugins = runtime.inspect().plugins
    return {
      id, wrong, reported, unattributed, stopMs,
      leftOut: Object.fromEntries([...rows.values()].filter(row => row.state === 'failed').map(row => [row.name, { phase: row.problem?.phase, code: row.problem?.code }])),
      faults: Object.fromEntries(plugins.filter(row => row.faults > 0).map(row => [row.name, row.faults])),
    }
  } finally { rmSync(folder, { recursive: true, force: true }) }
}

for (const each of JSON.parse(process.argv[2]!) as Case[]) process.stdout.write(`${JSON.stringify(await run(each))}\n`)
