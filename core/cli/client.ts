import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Server } from './command.ts'
import { followEvents, readEvents } from './events.ts'
import { HostErrors, type World } from '../host/world.ts'

const PROBE_MS = { first: 300, only: 3_000 }

/** The server at `url`, or the one that wrote server.json and still lives. Throws HOST_SERVER_UNKNOWN, HOST_SERVER_SILENT or HOST_SERVER_FOREIGN. */
export async function connect(dataDir: string, given: string | undefined, mode: keyof typeof PROBE_MS, alive: World['alive']): Promise<Server> {
  const url = (given ?? await recorded(dataDir, alive)).replace(/\/+$/, '')
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

async function recorded(dataDir: string, alive: World['alive']): Promise<string> {
  const file = join(dataDir, 'server.json')
  // Not there, or half written, is unknown.
  const found = await readFile(file, 'utf8').then(text => JSON.parse(text) as { readonly url?: unknown; readonly pid?: unknown } | null).catch(() => null)
  const [url, pid] = [found?.url, found?.pid]
  if (typeof url !== 'string') throw HostErrors.SERVER_UNKNOWN({ file })
  if (!Number.isSafeInteger(pid) || (pid as number) <= 0 || !alive(pid as number)) throw HostErrors.SERVER_SILENT({ url })
  return url
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
