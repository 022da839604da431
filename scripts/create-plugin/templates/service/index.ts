import { definePlugin, defineService } from 'backplane'
import { z } from 'zod'

/** Other plugins import this ref, and nothing else, from here. */
export interface {{Name}} {
  /** Counts one more under this name; resolves to how many there are now. */
  count(name: string): Promise<number>
}
export const {{Name}} = defineService<{{Name}}>('{{name}}.counter')

const config = z.strictObject({
  start: z.int().default(0).describe('What each count begins with.'),
})

export class Counter implements {{Name}} {
  #counts = new Map<string, number>()
  constructor(readonly deps: { readonly config: z.output<typeof config> }) {}

  async count(name: string): Promise<number> {
    const now = (this.#counts.get(name) ?? this.deps.config.start) + 1
    this.#counts.set(name, now)
    return now
  }
}

export default definePlugin({
  name: '{{name}}',
  summary: 'Counts things by name',
  config,
  provides: [{{Name}}],
  setup(ctx) {
    ctx.provide({{Name}}, ctx.make(Counter))
  },
})
