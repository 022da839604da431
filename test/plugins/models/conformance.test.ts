import { z } from 'zod'
import { modelConformance, type ModelSubject } from '#conformance/models'
import { conform, eventually, recordLog } from '#core/testing'
import { defineTool } from '#contracts/agents'
import type { LanguageModelV3CallOptions, ModelProvider } from '#contracts/models'
import { offlineProvider } from '../../../plugins/models/offline.ts'
import { vendorProviders } from '../../../plugins/models/vendors.ts'
import type { ProviderConfig } from '../../../plugins/models/config.ts'
import { startModelServer } from '../../support/model-server.ts'
import type { Format } from '../../support/model-wire.ts'

const ask = (text: string): LanguageModelV3CallOptions => ({ prompt: [{ role: 'user', content: [{ type: 'text', text }] }] })
const args = { a: 1, b: 2 }
const add = defineTool({
  name: 'add', description: 'Adds two numbers.', input: z.strictObject({ a: z.number(), b: z.number() }),
  recognize: text => (text.includes('1 + 2') ? args : undefined), run: async ({ a, b }) => a + b,
})
const text = ask('Say hello.')
const tool: LanguageModelV3CallOptions = {
  ...ask('What is 1 + 2?'), tools: [{ type: 'function', name: 'add', description: add.description, inputSchema: z.toJSONSchema(add.input as z.ZodType) as never }],
}
const made = async (provider: ModelProvider, model: string): Promise<ModelSubject> => ({ model: await provider.create(model), text, tool, args })

/** A vendor's model, whose vendor is a server of ours. */
async function served(name: string, format: Format, more: Partial<ProviderConfig> = {}) {
  const server = await startModelServer(({ body }) => {
    if (body.tools && !JSON.stringify(body).includes('The result is 3.')) return { tools: [{ name: 'add', arguments: args }] }
    return { text: ['Hel', 'lo ', 'there.'], between: 30 }
  })
  const settings = { headers: {}, timeouts: {}, limits: {}, base_url: server.base(format), ...more }
  const provider = vendorProviders(() => ({ [name]: settings })).find(each => each.name === name)!
  return {
    subject: { ...await made(provider, 'm-1'), left: () => eventually('the connection to be closed', () => server.aborted.length === 1, 1_000) },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  }
}

describe('models: the offline model is a model', () => {
  conform(it, modelConformance, async () => {
    const contributions = { all: [], away: [], watch() {}, *[Symbol.iterator]() { yield add } }
    return { subject: await made(offlineProvider(contributions, recordLog()), 'deterministic') }
  })
})
describe('models: OpenAI over chat completions is a model', () => conform(it, modelConformance, () => served('openai', 'openai')))
describe('models: OpenAI over the Responses API is a model', () => conform(it, modelConformance, () => served('openai', 'responses', { api: 'responses' })))
describe('models: Anthropic is a model', () => conform(it, modelConformance, () => served('anthropic', 'anthropic')))
describe('models: Google is a model', () => conform(it, modelConformance, () => served('google', 'google')))
describe('models: an OpenAI-compatible server is a model', () => conform(it, modelConformance, () => served('ollama', 'openai', { type: 'openai-compatible' })))
describe('models: Groq is a model', () => conform(it, modelConformance, () => served('groq', 'groq')))
describe('models: xAI is a model', () => conform(it, modelConformance, () => served('xai', 'xai')))
