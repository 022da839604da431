import { z } from 'zod'

const agent = z.strictObject({
  summary: z.string().min(1).max(200).describe('One line for people, in lists'),
  model: z.string().min(1).default('default').describe('`provider/model`, or an alias of plugins.models.config.aliases'),
  instructions: z.string().max(65_536).default('').describe('What the model is told before every request'),
  tools: z.array(z.string()).default([]).describe('Names of the tools that it may call'),
  max_steps: z.int().min(1).max(100).default(10).describe('Model calls in one run'),
  timeout_ms: z.int().min(100).max(86_400_000).default(300_000).describe('Milliseconds of one run'),
})

export const config = z.strictObject({
  agents: z.record(z.string().regex(/^[a-z][a-z0-9-]{0,63}$/, 'an agent is named in kebab case, at most 64 characters'), agent).default({}).describe('Agents by name'),
})
export type Config = z.output<typeof config>
