import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { CommandIo } from './command.ts'
import { HostErrors } from '../host/world.ts'

type Server = NonNullable<CommandIo['server']>
const PROBE_MS = { first: 300, only: 3_000 }

/** The server at `url`, or the one that wrote server.json. Throws HOST_SERVER_UNKNOWN or HOST_SERVER_SILENT. */
export async function connect(dataDir: string, given: string | undefined, mode: keyof typeof PROBE_MS): Promise<Server> {
  const url = (given ?? await recorded(dataDir)).replace(/\/+$/, '')
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) throw HostErrors.URL({ url })
  try {
    const answer = await fetch(`${url}/health/live`, { signal: AbortSignal.timeout(PROBE_MS[mode]) })
    await answer.body?.cancel()
  } catch (cause) { throw HostErrors.SERVER_SILENT({ url }, { cause }) }
  return { url, async fetch(path, init) {
    try { return await fetch(url + path, init) } catch (cause) {
      if (init?.signal?.aborted) throw cause
      throw HostErrors.SERVER_SILENT({ url }, { cause })
    }
  } }
}

async function recorded(dataDir: string): Promise<string> {
  const file = join(dataDir, 'server.json')
  try {
    const { url } = JSON.parse(await readFile(file, 'utf8')) as { url?: unknown }
    if (typeof url === 'string') return url
  } catch { /* Not there, or half written. */ }
  throw HostErrors.SERVER_UNKNOWN({ file })
}

/** The state of each plugin in the server that runs here; `undefined` if none answers, or it does not say. */
export async function pluginStates(dataDir: string, signal: AbortSignal): Promise<ReadonlyMap<string, string> | undefined> {
  try {
    const server = await connect(dataDir, undefined, 'first')
    const answer = await server.fetch('/api/v1/plugins', { signal })
    if (!answer.ok) { await answer.body?.cancel(); return undefined }
    const { items } = await answer.json() as { items: { name: string; state: string }[] }
    return new Map(items.map(({ name, state }) => [name, state]))
  } catch { return undefined }
}
