import { z } from 'zod'
import { Secret } from '#core'

export const VENDORS = ['openai', 'anthropic', 'google', 'groq', 'xai', 'openai-compatible'] as const
export type VendorName = (typeof VENDORS)[number]
const isVendor = (name: string): name is VendorName => (VENDORS as readonly string[]).includes(name)

const name = z.string().regex(/^[^/\s]+\/\S+$|^[^/\s]+$/, 'is neither `provider/model` nor an alias')
const aliasName = z.string().regex(/^[^/\s]+$/, 'an alias holds neither a slash nor blanks')

/** Follows aliases to `provider/model`; undefined where they end in nothing or go round in a circle. */
export function resolveAlias(aliases: Readonly<Record<string, string>>, model: string): string | undefined {
  const seen = new Set<string>()
  let at: string | undefined = model
  while (at !== undefined && !at.includes('/')) {
    if (seen.has(at)) return undefined
    seen.add(at)
    at = Object.hasOwn(aliases, at) ? aliases[at] : undefined
  }
  return at
}

/** An agent that names no model uses `default`, which is there even when config says nothing of it. */
export const withDefault = (aliases: Readonly<Record<string, string>>): Record<string, string> => ({ default: 'offline/deterministic', ...aliases })

// undici itself gives up after five minutes without a byte.
const silence = z.number().int().min(1).max(300_000)
const timeouts = {
  first_token_ms: silence.describe('Time until the first token.'),
  idle_ms: silence.describe('Time between two parts of an answer.'),
  total_ms: z.number().int().min(1).max(86_400_000).describe('Time for the whole answer.'),
}
const limits = {
  concurrency: z.number().int().min(1).max(100_000).describe('Calls of one provider that are under way at once.'),
  queue: z.number().int().min(0).max(1_000_000).describe('Calls that may wait for their turn; more are refused with MODELS_BUSY.'),
  tokens_per_minute: z.number().int().min(1).optional().describe('Tokens of one provider, in and out, counted when a call is over. Without it there is no limit.'),
}

function isBaseUrl(text: string): boolean {
  if (!URL.canParse(text)) return false
  const { protocol, username, password, search, hash } = new URL(text)
  return /^https?:$/.test(protocol) && !username && !password && !search && !hash
}

const provider = z.strictObject({
  type: z.enum(VENDORS).optional().describe('Whose wire format it speaks; not needed if the provider\'s name says so. `openai-compatible` is for Ollama, vLLM, llama.cpp and the like.'),
  api_key: z.instanceof(Secret).meta({ type: 'string' }).optional()
    .describe('The key, as a reference: `${secret:openai-key}`. It is read at each call, so a rotated one is used at once. A local server needs none.'),
  base_url: z.string().refine(isBaseUrl, 'must be an http(s) address without user, query or fragment').optional()
    .describe('Where its API is, such as http://127.0.0.1:11434/v1; the vendor\'s own if not set. The key is sent nowhere else.'),
  headers: z.record(z.string().regex(/^[\w-]+$/, 'is not the name of a header'), z.union([z.string(), z.instanceof(Secret).meta({ type: 'string' })])).default({})
    .describe('Sent with each call.'),
  models: z.array(z.string().min(1)).optional().describe('Models to list. Others can be called too.'),
  api: z.enum(['chat', 'responses']).optional().describe('Of openai: chat completions, which is used if nothing is said, or the Responses API.'),
  timeouts: z.strictObject(timeouts).partial().default({}).describe('Those of this provider, where they differ.'),
  limits: z.strictObject(limits).partial().default({}).describe('Those of this provider, where they differ.'),
})
export type ProviderConfig = z.output<typeof provider>

export const vendorOf = (name: string, { type }: Pick<ProviderConfig, 'type'>): VendorName | undefined => type ?? (isVendor(name) ? name : undefined)

const providers = z.record(z.string().regex(/^[a-z0-9][a-z0-9-]*$/, 'the name of a provider is made of a-z, 0-9 and -'), provider).default({})
  .superRefine((all, check) => {
    for (const [name, each] of Object.entries(all)) {
      const wrong = (message: string, ...path: string[]) => check.addIssue({ code: 'custom', path: [name, ...path], message })
      const vendor = vendorOf(name, each)
      if (name === 'offline') wrong('is the name of the model that is built in')
      if (!vendor) wrong(`say what it speaks: type: ${VENDORS.join(', ')}`)
      if (vendor === 'openai-compatible' && !each.base_url) wrong('needs a base_url', 'base_url')
      if (each.api && vendor !== 'openai') wrong('only openai has a choice', 'api')
    }
  })

export const config = z.strictObject({
  aliases: z.record(aliasName, name).default({})
    .superRefine((aliases, check) => {
      for (const [alias, target] of Object.entries(aliases)) {
        if (resolveAlias(withDefault(aliases), alias) === undefined) check.addIssue({ code: 'custom', path: [alias], message: `"${target}" leads to no \`provider/model\`` })
      }
    })
    .describe('Names for models, such as `fast: openai/gpt-5-mini`. `default` is what an agent uses that names none; it is offline/deterministic if not set'),
  fallbacks: z.record(name, z.array(name).min(1).max(10)).default({})
    .describe('By alias or model: what is asked in its place, in this order, when it fails before it has said anything. A request that is refused as wrong has none.'),
  providers: providers.describe('By name; `openai/gpt-5` is then the model `gpt-5` of the provider `openai`. Those of OPENAI_API_KEY and its like need no entry.'),
  retries: z.strictObject({
    attempts: z.number().int().min(0).max(10).default(2).describe('How often a call is made again that failed before it said anything.'),
    max_wait_ms: z.number().int().min(0).max(600_000).default(10_000)
      .describe('The longest pause before that. If the provider asks for more, the call fails at once, and its job waits instead.'),
  }).prefault({}).describe('Calls made again on errors that may pass, with a growing pause, or the one that the provider asks for.'),
  timeouts: z.strictObject({
    first_token_ms: timeouts.first_token_ms.default(30_000), idle_ms: timeouts.idle_ms.default(60_000), total_ms: timeouts.total_ms.default(600_000),
  }).prefault({}).describe('How long a call may be silent, and last.'),
  limits: z.strictObject({
    concurrency: limits.concurrency.default(100), queue: limits.queue.default(1_000), tokens_per_minute: limits.tokens_per_minute,
  }).prefault({}).describe('For each provider by itself.'),
  circuit: z.strictObject({
    failures: z.number().int().min(1).max(1_000).default(5).describe('Failures in a row after which a provider is left alone.'),
    open_ms: z.number().int().min(1).max(3_600_000).default(30_000).describe('For how long. Then one call is let through, to see.'),
  }).prefault({}).describe('The circuit breaker of each provider.'),
})
export type Config = z.output<typeof config>
