import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Server } from './command.ts'
import { followEvents, readEvents } from './events.ts'
import { HostErrors, type World } from '../host/world.ts'

const PROBE_MS = { first: 300, only: 3_000 }

/** The server at `url`, or one that wrote down where it is, and still lives and answers. Throws HOST_SERVER_UNKNOWN, HOST_SERVER_SILENT or HOST_SERVER_FOREIGN. */
export async function connect(dataDir: string, given: string | undefined, mode: keyof typeof PROBE_MS, alive: World['alive']): Promise<Server> {
  if (given !== undefined) return reach(given, mode)
  let failure: unknown
  for (const url of await recorded(dataDir, alive)) try { return await reach(url, mode) } catch (error) { failure ??= error }
  throw failure
}

async function reach(given: string, mode: keyof typeof PROBE_MS): Promise<Server> {
  const url = given.replace(/\/+$/, '')
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) throw HostErrors.URL({ url })
  if (!await isOurs(url, AbortSignal.timeout(PROBE_MS[mode]))) throw HostErrors.SERVER_FOREIGN({ url })
  return serverAt(url)
}

export function serverAt(url: string): Server {
  const ask: Server['fetch'] = async (path, init) => {
    try { return await fetch(url + path, init) } catch (cause) {
      if (init?.signal?.aborted) throw cause
      throw HostErrors.SERVER_SILENT({ url }, { cause })
    }
  }
  return { url, fetch: ask, events: (from, options) => (typeof from === 'string' ? followEvents(ask, from, options) : readEvents(from)) }
}

/** Does a Backplane answer? After a crash, server.json may name a port that is somebody else's by now. */
async function isOurs(url: string, signal: AbortSignal): Promise<boolean> {
  let [ok, text] = [false, '']
  try {
    const answer = await fetch(`${url}/health/live`, { signal })
    ok = answer.ok
    text = await answer.text()
  } catch (cause) { throw HostErrors.SERVER_SILENT({ url }, { cause }) }
  try {
    const { status, uptime_s: uptime, type } = JSON.parse(text) as { status?: unknown; uptime_s?: unknown; type?: unknown }
    // Without the plugin `health`, or while it is restarted, the answer is a problem, of our kind.
    return (ok && typeof status === 'string' && typeof uptime === 'number') || (typeof type === 'string' && type.startsWith('urn:backplane:error:'))
  } catch { return false }
}

/** Where those that live are: several processes may share a data folder, each with a file of its own. */
async function recorded(dataDir: string, alive: World['alive']): Promise<readonly string[]> {
  const names = (await readdir(dataDir).catch(() => [])).filter(name => /^server(\.[\da-f-]{36})?\.json$/.test(name)).sort().reverse()
  const found: { readonly url: string; readonly pid: unknown }[] = []
  for (const name of names) {
    // Not there any more, or half written, is unknown.
    const { url, pid } = await readFile(join(dataDir, name), 'utf8').then(text => (JSON.parse(text) ?? {}) as { url?: unknown; pid?: unknown }).catch(() => ({ url: undefined, pid: undefined }))
    if (typeof url === 'string') found.push({ url, pid })
  }
  if (!found.length) throw HostErrors.SERVER_UNKNOWN({ file: join(dataDir, 'server.json') })
  const living = found.filter(({ pid }) => Number.isSafeInteger(pid) && (pid as number) > 0 && alive(pid as number))
  if (!living.length) throw HostErrors.SERVER_SILENT({ url: found[0]!.url })
  return living.map(({ url }) => url)
}

/** The state of each plugin in the server that runs here; `undefined` if none answers, or it does not say. */
export async function pluginStates(dataDir: string, { signal, alive }: Pick<World, 'signal' | 'alive'>): Promise<ReadonlyMap<string, string> | undefined> {
  try {
    const server = await connect(dataDir, undefined, 'first', alive)
    const answer = await server.fetch('/api/v1/plugins', { signal })
    if (!answer.ok) { await answer.body?.cancel(); return undefined }
    const { items } = await answer.json() as { items: { name: string; state: string }[] }
    return new Map(items.map(({ name, state }) => [name, state]))
  } catch { return undefined }
}
