import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

export const COUNT = 20
export const nameOf = (i: number) => `m${String(i).padStart(2, '0')}`

/** What may go wrong, where. `phase` is what an operator is told; `boot` ones keep the plugin from starting. */
export interface Fault { readonly phase: 'load' | 'config' | 'graph' | 'setup' | 'start' | 'hook' | 'timer' | 'listener' | 'stop'; readonly kind: string; readonly boot: boolean }
const boot = (phase: Fault['phase'], ...kinds: string[]): Fault[] => kinds.map(kind => ({ phase, kind, boot: true }))
const later = (phase: Fault['phase'], ...kinds: string[]): Fault[] => kinds.map(kind => ({ phase, kind, boot: false }))
export const FAULTS: readonly Fault[] = [
  ...boot('load', 'throws', 'rejects', 'syntax', 'no-default', 'missing-import'), ...boot('config', 'bad-config'), ...boot('graph', 'lacks-dependency'),
  ...boot('setup', 'throws', 'rejects', 'hangs'), ...boot('start', 'throws', 'rejects', 'hangs'),
  ...later('setup', 'rejects-later', 'throws-later'), ...later('start', 'rejects-later', 'throws-later'),
  ...later('hook', 'throws', 'rejects', 'hangs', 'rejects-later', 'throws-later'), ...later('timer', 'throws', 'rejects'), ...later('listener', 'throws', 'rejects'), ...later('stop', 'throws', 'rejects', 'hangs', 'rejects-later'),
]

const FIRST_LINE: Record<string, string> = {
  'load/throws': `throw new Error('boom in load')`,
  'load/rejects': `await Promise.reject(new Error('boom in load'))`,
  'load/syntax': `const = 1`,
  'load/missing-import': `import './not-there.mjs'`,
}
const DO: Record<string, string> = {
  throws: `throw new Error('boom')`,
  rejects: `return Promise.reject(new Error('boom'))`,
  hangs: `return new Promise(() => {})`,
  'rejects-later': `setTimeout(() => { void Promise.reject(new Error('boom later')) }, 5)`,
  'throws-later': `setTimeout(() => { throw new Error('boom later') }, 5)`,
}

/** A plugin as a third party writes it: one of twenty, each with a service, a handler and a timer; every fourth stands on the one before. */
export function pluginSource(i: number, fault?: Fault): string {
  const at = (phase: string) => (fault?.phase === phase ? `${DO[fault.kind] ?? ''};` : '')
  const stands = i % 4 === 3
  return `
${fault?.phase === 'load' ? FIRST_LINE[`load/${fault.kind}`] ?? '' : ''}
import { definePlugin, defineHook, defineService, live } from 'backplane'
const Mine = defineService('matrix.${nameOf(i)}')
const Before = defineService('matrix.${nameOf(i - 1)}')
const Nowhere = defineService('matrix.nowhere')
const Told = defineHook.notify('matrix.told')
const strict = { '~standard': { version: 1, vendor: 'matrix', validate: value => (value.size === undefined || Number.isInteger(value.size) ? { value } : { issues: [{ message: 'expected a whole number', path: ['size'] }] }) } }
${fault?.kind === 'no-default' ? 'export const plugin =' : 'export default'} definePlugin({
  name: '${nameOf(i)}', config: strict, provides: [Mine],
  uses: { ${stands ? 'before: Before,' : ''} self: live(Mine), ${fault?.kind === 'lacks-dependency' ? 'nowhere: Nowhere,' : ''} },
  setup(ctx, deps) {
    ${at('setup')}
    let ticks = 0
    ctx.provide(Mine, { answer: async () => ${stands ? `(await deps.before.answer()) + 1` : i}, ticks: async () => ticks })
    ctx.hook(Told, input => { input.heard.push('${nameOf(i)}'); ${at('hook')} })
    ctx.clock.every(5, () => { ticks++; ${at('timer')} })
    deps.self.watch(() => { ${at('listener')} })
    return { start() { ${at('start')} }, stop() { ${at('stop')} } }
  },
})
`
}

/** Writes the deployment of one case and returns its folder. */
export function writeCase(folder: string, guilty: ReadonlyMap<number, Fault>, optional: boolean): string {
  mkdirSync(join(folder, 'config'), { recursive: true })
  const rows: string[] = ['runtime: { graceMs: 1500, dataDir: data, timeouts: { setup: 150, start: 150, hook: 100 } }', 'plugins:']
  for (let i = 0; i < COUNT; i++) {
    const fault = guilty.get(i)
    writeFileSync(join(folder, `${nameOf(i)}.mjs`), pluginSource(i, fault))
    const config = fault?.kind === 'bad-config' ? ', config: { size: large }' : ''
    rows.push(`  ${nameOf(i)}: { use: ../${nameOf(i)}.mjs, optional: ${optional && fault !== undefined}${config} }`)
  }
  writeFileSync(join(folder, 'config', 'default.yaml'), `${rows.join('\n')}\n`)
  return folder
}
