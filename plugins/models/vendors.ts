import { Secret } from '#core'
import { ModelErrors, type LanguageModelV3, type ModelProvider } from '#contracts/models'
import { quickChat } from './chat-stream.ts'
import { VENDORS, vendorOf, type ProviderConfig, type VendorName } from './config.ts'

interface Settings { readonly name: string; readonly baseURL: string; readonly fetch: typeof fetch; readonly apiKey: string }
interface Vendor {
  readonly base_url?: string
  readonly variable?: string
  /** How its key is sent. */
  readonly key: { readonly header: string; readonly prefix: string }
  /** Imported here and nowhere else: the packages together take a quarter of a second to load. */
  load(settings: Settings, api: ProviderConfig['api']): Promise<(model: string) => LanguageModelV3>
}

const bearer = { header: 'authorization', prefix: 'Bearer ' }
const vendors: Readonly<Record<VendorName, Vendor>> = {
  openai: {
    base_url: 'https://api.openai.com/v1', variable: 'OPENAI_API_KEY', key: bearer,
    async load(settings, api) {
      const { createOpenAI } = await import('@ai-sdk/openai')
      if (api === 'responses') return createOpenAI({ ...settings, name: 'openai' }).responses
      return quick(settings, each => createOpenAI({ ...each, name: 'openai' }).chat)
    },
  },
  anthropic: {
    base_url: 'https://api.anthropic.com/v1', variable: 'ANTHROPIC_API_KEY', key: { header: 'x-api-key', prefix: '' },
    async load({ name: _, ...settings }) { return (await import('@ai-sdk/anthropic')).createAnthropic(settings) },
  },
  google: {
    base_url: 'https://generativelanguage.googleapis.com/v1beta', variable: 'GOOGLE_API_KEY', key: { header: 'x-goog-api-key', prefix: '' },
    async load({ name: _, ...settings }) { return (await import('@ai-sdk/google')).createGoogleGenerativeAI(settings) },
  },
  groq: {
    base_url: 'https://api.groq.com/openai/v1', variable: 'GROQ_API_KEY', key: bearer,
    async load(settings) { return quick(settings, (await import('@ai-sdk/groq')).createGroq) },
  },
  xai: {
    base_url: 'https://api.x.ai/v1', variable: 'XAI_API_KEY', key: bearer,
    // Not read beside it: it drops a piece that repeats the last message of the assistant, and the first piece is waited for.
    async load(settings) { return (await import('@ai-sdk/xai')).createXai(settings).chat },
  },
  'openai-compatible': {
    key: bearer,
    // Without includeUsage such servers stream no usage at all.
    async load({ apiKey: _, ...settings }) {
      const { createOpenAICompatible } = await import('@ai-sdk/openai-compatible')
      return quick(settings, each => createOpenAICompatible({ ...each, includeUsage: true }).chatModel)
    },
  },
}

type Create = (model: string) => LanguageModelV3
/** For those that speak chat completions. */
function quick<S extends { readonly fetch: typeof fetch }>(settings: S, create: (settings: S) => Create): Create {
  const { fetch, wrap } = quickChat(settings.fetch)
  const made = create({ ...settings, fetch })
  return model => wrap(made(model))
}

const UNNAMED = { headers: {}, timeouts: {}, limits: {} } satisfies ProviderConfig
type Providers = Readonly<Record<string, ProviderConfig>>

/** One for each provider of the config, and for each vendor that it does not name, which then says what it lacks. */
export function vendorProviders(configured: () => Providers): ModelProvider[] {
  const rest = VENDORS.filter(name => vendors[name].base_url && !Object.hasOwn(configured(), name))
  return [...Object.keys(configured()), ...rest].map(name => vendorProvider(name, () => configured()[name] ?? UNNAMED))
}

/** Must the providers be made anew? Keys, headers and bounds are looked up at each call. */
export function sameProviders(before: Providers, after: Providers): boolean {
  const made = ([name, { type, base_url, models, api, api_key }]: [string, ProviderConfig]) =>
    JSON.stringify([name, type, base_url, models, api, api_key === undefined])
  const all = (providers: Providers) => Object.entries(providers).map(made).toSorted().join()
  return all(before) === all(after)
}

function vendorProvider(name: string, settings: () => ProviderConfig): ModelProvider {
  const { api_key, base_url, models, api, type } = settings()
  const vendorName = vendorOf(name, { type })!
  const vendor = vendors[vendorName]
  const base = (base_url ?? vendor.base_url!).replace(/\/+$/, '')
  const lacking = `${vendorName === name && vendor.variable ? `${vendor.variable}, or ` : ''}plugins.models.config.providers.${name}.api_key`
  let loading: Promise<(model: string) => LanguageModelV3> | undefined
  return {
    name,
    // Behind an address of one's own there may be a server that wants none.
    missing: api_key || base_url ? [] : [lacking],
    ...(models && { models }),
    async create(model) {
      // The packages look for a key in the environment if they are given none; ours is set where the call is sent.
      loading ??= vendor.load({ name, baseURL: base, apiKey: 'set when sent', fetch: keyedFetch(name, base, vendor.key, settings) }, api)
      try { return (await loading)(model) } catch (error) { loading = undefined; throw error }
    },
  }
}

/** Sends the key as it is now, to the address that the config names and to no other: not along a redirect either. */
function keyedFetch(name: string, base: string, key: Vendor['key'], settings: () => ProviderConfig): typeof fetch {
  const { origin } = new URL(base)
  return async (input, init) => {
    const { href, origin: target } = new URL(input instanceof Request ? input.url : input)
    if (target !== origin) throw ModelErrors.BAD_REQUEST({ model: `${name}/*`, reason: `it would go to ${target}, which is not the address in the config` })
    const { api_key, headers } = settings()
    const sent = new Headers(init?.headers)
    sent.delete(key.header)
    if (api_key) sent.set(key.header, `${key.prefix}${await api_key.read()}`)
    for (const [header, value] of Object.entries(headers)) sent.set(header, value instanceof Secret ? await value.read() : value)
    return fetch(href, { ...init, headers: sent, redirect: 'manual' })
  }
}
