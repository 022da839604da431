import { BackplaneError, type Command } from '#core'
import type { Problem } from '#contracts/http'
import { Models, type ModelInfo } from '#contracts/models'

function line({ id, alias_of, missing, fallbacks, circuit }: ModelInfo, width: number): string {
  const notes = [
    alias_of === undefined ? '' : `→ ${alias_of}`, fallbacks ? `else ${fallbacks.join(', ')}` : '', missing.length ? `lacks ${missing.join(', ')}` : '',
    circuit === 'closed' ? '' : `circuit ${circuit}`,
  ]
  return `${id.padEnd(width)}  ${notes.filter(Boolean).join('; ')}`.trimEnd()
}

const list: Command = {
  name: 'models list',
  summary: 'Models and aliases, and what each lacks to be used',
  needs: 'runtime',
  serverFirst: true,
  everyPlugin: true,
  examples: ['backplane models list'],
  async run(io) {
    let items: readonly ModelInfo[]
    if (io.server) {
      const answer = await io.server.fetch('/api/v1/models', { signal: io.signal })
      const body = await answer.json() as { readonly items: readonly ModelInfo[] } & Partial<Problem>
      if (!answer.ok) {
        const message = body.detail ?? `the server answered ${answer.status}`
        throw new BackplaneError(body.code ?? 'HTTP_FAILED', { message, fix: body.fix ?? 'See the server\'s log.', status: answer.status })
      }
      items = body.items
    } else items = await io.get(Models).list()
    const width = Math.max(0, ...items.map(({ id }) => id.length))
    io.out(io.json ? JSON.stringify({ items }, null, 2) : items.map(each => line(each, width)).join('\n'))
  },
}

export default [list]
