import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { RuntimeErrors } from '../errors.ts'
import type { HookInput } from '../hooks.ts'
import { definePlugin, type Fields, type Level, type Logger, type Plugin } from '../plugin.ts'
import type { AnyHook, HookRef, PointOf, PointRef, ServiceRef } from '../refs.ts'
import type { PluginEntry } from '../plan.ts'
import { openTimers } from './timers.ts'
import { createRuntime, type Host, type Runtime, type RuntimeOptions } from '../runtime.ts'

/** A service of which only these parts are there; touching another one fails with how to give it. */
export const fake = <T>(ref: ServiceRef<T>, parts: Partial<T>): readonly [ServiceRef<T>, T] => [
  ref,
  new Proxy(parts as object, {
    get(target, key) {
      if (key in target || typeof key === 'symbol' || key === 'then') return Reflect.get(target, key)
      throw new Error(`the fake of "${ref.id}" has no "${String(key)}"; give it one: fake(ref, { ${String(key)}: … })`)
    },
  }) as T,
]

export interface Line { readonly level: Level; readonly message: string; readonly fields: Fields }

/** A logger that keeps what it is told. */
export function recordLog(lines: Line[] = [], fields: Fields = {}): Logger & { readonly lines: Line[] } {
  const at = (level: Level) => (message: string, more?: Fields) => void lines.push({ level, message, fields: { ...fields, ...more } })
  return { lines, debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error'), child: more => recordLog(lines, { ...fields, ...more }) }
}

/** A plugin that keeps every input of a `notify` hook: `const seen = recordHook(JobSettled)`, then `plugins: [seen.plugin]`. */
export function recordHook<H extends HookRef<'notify', any, any>>(ref: H): { readonly plugin: Plugin; readonly calls: HookInput<H>[] } {
  const calls: HookInput<H>[] = []
  return { calls, plugin: definePlugin({ name: `record-${ref.id.replaceAll('.', '-')}`, setup(ctx) { ctx.hook(ref as HookRef<'notify', any, any>, input => void calls.push(input)) } }) }
}

/** A plugin that contributes these values. */
export const contribute = <R extends PointRef<any>>(point: R, ...values: PointOf<R>[]): Plugin =>
  definePlugin({ name: `contribute-${point.id.replaceAll('.', '-')}-${next++}`, contributes: [point as PointRef<any>], setup(ctx) { for (const value of values) ctx.contribute(point as PointRef<any>, value) } })
let next = 1

export type TestPlugin = Plugin | (Omit<PluginEntry, 'plugin'> & { readonly plugin: Plugin })
export interface TestRuntimeOptions extends Partial<Omit<RuntimeOptions, 'plugins' | 'host'>> {
  readonly plugins: readonly TestPlugin[]
  readonly host?: Partial<Omit<Host, 'inspect'>>
  /** Do not start: `t.runtime.start()` is the test's. */
  readonly manual?: boolean
  readonly setupOnly?: boolean
}

export interface TestRuntime extends AsyncDisposable {
  [Symbol.asyncDispose](): Promise<void>
  readonly runtime: Runtime
  /** All that was logged. */
  readonly lines: Line[]
  /** A temporary folder, removed at the end. */
  readonly dataDir: string
  get<T>(ref: ServiceRef<T>): T
  call<H extends AnyHook>(ref: H, input: HookInput<H>): ReturnType<Runtime['call']>
}

/** ioredis gives up a Sentinel with a timer of 2 s that nobody can clear: what is as short is waited for. */
const SHORT_MS = 2_000

/** What keeps a process alive, counted by kind: timers, sockets, servers, watchers. */
const openResources = () => {
  const counts = new Map<string, number>()
  for (const kind of process.getActiveResourcesInfo()) counts.set(kind, (counts.get(kind) ?? 0) + 1)
  return counts
}

/**
 * A running runtime, as the host makes it. `await using t = await createTestRuntime({ plugins: [alerts], services: [fake(Jobs, {…})] })`:
 * on the way out it stops, and fails the test if a service, contribution, handler, timer, socket or server is left.
 */
export async function createTestRuntime({ plugins, host, manual, setupOnly, ...options }: TestRuntimeOptions): Promise<TestRuntime> {
  const log = recordLog()
  // mocha sets its own timer only after the test function has returned its promise.
  await new Promise(resolve => setImmediate(resolve))
  const before = openResources()
  const dataDir = host?.dataDir ?? mkdtempSync(join(tmpdir(), 'backplane-test-'))
  const removeDir = () => { if (!host?.dataDir) rmSync(dataDir, { recursive: true, force: true }) }
  const entries = plugins.map(each => ('plugin' in each ? each : { plugin: each }))
  const runtime = createRuntime({
    log, graceMs: 10_000, ...options, plugins: entries, host: { version: '0.0.0-test', ...host, dataDir }, timeouts: { setup: 5_000, start: 5_000, hook: 1_000, ...options.timeouts },
  })
  try { if (!manual) await runtime.start({ setupOnly: setupOnly === true }) } catch (error) { removeDir(); throw error }
  return {
    runtime, dataDir, lines: log.lines, get: ref => runtime.get(ref), call: (ref, input) => runtime.call(ref, input),
    async [Symbol.asyncDispose]() {
      await runtime.stop()
      removeDir()
      const left = leftBehind(runtime)
      for (let tries = 0; ; tries++) {
        // A timer that woke us counts as open until its turn is over.
        await new Promise(resolve => setImmediate(resolve))
        const open = grown(before)
        if (open.length === 0) break
        // Handles close a moment after what owned them said so.
        if (tries >= 40) {
          const timers = openTimers()
          const short = timers.filter(each => Number(/^after (\d+)/.exec(each)?.[1] ?? Infinity) <= SHORT_MS).length
          if (tries >= 140 || open.some(each => !each.endsWith(' Timeout') || Number.parseInt(each) > short)) {
            left.push(...open.map(each => (each.endsWith(' Timeout') ? [`${each}; all that are open:`, ...timers].join('\n      ') : each)))
            break
          }
        }
        if (tries > 5) await new Promise(resolve => setTimeout(resolve, 25))
      }
      if (left.length) throw RuntimeErrors.LEAK({ count: left.length, list: left.map(each => `    ${each}`).join('\n') })
    },
  }
}

const grown = (before: ReadonlyMap<string, number>): string[] =>
  [...openResources()].flatMap(([kind, count]) => (count > (before.get(kind) ?? 0) && kind !== 'TTYWrap' && kind !== 'PipeWrap' ? [`${count - (before.get(kind) ?? 0)} open ${kind}`] : []))

/** What a stopped runtime still holds, in words. */
export function leftBehind(runtime: Runtime): string[] {
  const { services, points, hooks, plugins } = runtime.inspect()
  return [
    ...services.map(each => `service ${each.service} by ${each.plugin}`), ...points.map(each => `point ${each.point} by ${each.plugin}`),
    ...hooks.map(each => `hook ${each.hook} by ${each.plugin}`), ...plugins.flatMap(each => each.held.map(label => `${label} by ${each.name}`)),
  ]
}
