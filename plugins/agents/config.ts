import { z } from 'zod'

const settings = z.strictObject({
  temperature: z.number().min(0).max(2).optional().describe('0 for the likeliest words, more for other ones'),
  max_output_tokens: z.int().min(1).max(1_000_000).optional().describe('Tokens of one model call'),
  top_p: z.number().min(0).max(1).optional().describe('Chooses among the likeliest words that have this share together'),
  stop: z.array(z.string().min(1).max(200)).max(16).optional().describe('The model stops before any of these'),
})

const limits = z.strictObject({
  max_tool_calls: z.int().min(0).max(10_000).default(50).describe('Tool calls in one run'),
  max_output_tokens: z.int().min(1).max(100_000_000).optional().describe('Tokens that the model may write in one run; no end if not given'),
})

const agent = z.strictObject({
  summary: z.string().min(1).max(200).describe('One line for people, in lists'),
  version: z.string().min(1).max(64).optional().describe('Shown in lists'),
  model: z.string().min(1).default('default').describe('`provider/model`, or an alias of plugins.models.config.aliases'),
  instructions: z.string().max(65_536).default('').describe('What the model is told before every request'),
  tools: z.array(z.string()).default([]).describe('Names of the tools that it may call'),
  settings: settings.default({}).describe('How the model speaks; what is not given is the provider\'s own'),
  limits: limits.default({ max_tool_calls: 50 }).describe('Bounds of one run'),
  max_steps: z.int().min(1).max(100).default(10).describe('Model calls in one run'),
  timeout_ms: z.int().min(100).max(86_400_000).default(300_000).describe('Milliseconds of one run'),
})

const NAMING = 'an agent is named with at most 64 lower-case letters, digits and dashes, a letter first, such as "summarize-text"'

export const config = z.strictObject({
  agents: z.record(z.string().regex(/^[a-z][a-z0-9-]{0,63}$/, NAMING), agent).default({}).describe('Agents by name'),
  recheck_ms: z.int().min(100).max(3_600_000).default(30_000).describe('How often it is asked again whether who streams a run still may have it run'),
})
export type Config = z.output<typeof config>
