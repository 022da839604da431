import { definePlugin } from 'backplane'
import { Tool, defineTool } from 'backplane/contracts/agents'
import { z } from 'zod'

/** A model reads name, description and the descriptions in `input`: say what it does and when to use it. */
export const countText = defineTool({
  name: '{{name}}',
  description: 'Counts the words, lines and characters of a text. Use it when asked how long a text is.',
  input: z.strictObject({ text: z.string().max(100_000).describe('The text itself.') }),
  /** For a model that cannot reason: what this request asks the tool for, if anything. */
  recognize(request) {
    const found = /how (?:long|many words)\b[^"]*"([^"]*)"/i.exec(request)
    return found ? { text: found[1]! } : undefined
  },
  async run({ text }) {
    return { words: text.split(/\s+/u).filter(Boolean).length, lines: text === '' ? 0 : text.split('\n').length, characters: Array.from(text).length }
  },
})

export default definePlugin({
  name: '{{name}}',
  summary: 'A tool that counts words, lines and characters',
  contributes: [Tool],
  setup(ctx) {
    ctx.contribute(Tool, countText)
  },
})
