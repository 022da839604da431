import { definePlugin } from 'backplane'
import { Agent, defineAgent } from 'backplane/contracts/agents'
import { z } from 'zod'

const config = z.strictObject({
  model: z.string().min(1).default('default').describe('Which model answers: provider/model, or an alias.'),
  sentences: z.int().min(1).max(20).default(3).describe('How long a summary may be.'),
})

/** `run` is optional: without it the agent answers with its instructions and tools alone. */
export const createAgent = ({ model, sentences }: z.output<typeof config>) => defineAgent({
  name: '{{name}}',
  summary: 'Summarizes a text',
  model,
  instructions: `You summarize the text that you are given, in at most ${sentences} sentences and in its own language. Add nothing that is not in it.`,
  async run(ctx, input) {
    ctx.emit({ type: 'progress', message: `${input.length} characters to read` })
    return ctx.answer({ input: `The text to summarize:\n\n${input}` })
  },
})

export default definePlugin({
  name: '{{name}}',
  summary: 'An agent that summarizes',
  config,
  contributes: [Agent],
  setup(ctx) {
    ctx.contribute(Agent, createAgent(ctx.config))
  },
})
