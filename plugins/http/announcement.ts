import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { link, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { pid } from 'node:process'
import { reasonOf, type Host, type Logger } from '#core'

const NAME = 'server.json'
const FURTHER = /^server\.[\da-f-]{36}\.json$/
const PATIENCE_MS = 500

/**
 * Where the command line finds this server: `server.json` in the data folder, or, while another process of the same folder has that,
 * `server.<instance>.json`. Readable by its owner only, and never half written.
 */
export class Announcement {
  #file: string | undefined
  constructor(readonly host: Pick<Host, 'dataDir' | 'instanceId'>, readonly log: Logger) {}

  async make(url: string, startedAt: number): Promise<void> {
    const { dataDir, instanceId } = this.host
    await mkdir(dataDir, { recursive: true })
    const left = (await readdir(dataDir)).filter(name => name === NAME || FURTHER.test(name)).map(name => join(dataDir, name))
    await Promise.all(left.map(async file => { if (await isOver(file, url)) await rm(file, { force: true }) }))
    const draft = join(dataDir, `${NAME}.${randomUUID()}`)
    const found = { url, pid, instanceId, startedAt: new Date(startedAt).toISOString() }
    await writeFile(draft, `${JSON.stringify(found, null, 2)}\n`, { mode: 0o600, flag: 'wx' })
    // Of two that start at once only one can make this link. Without links, as on some file systems, each has its own name.
    const first = await link(draft, join(dataDir, NAME)).then(() => true, () => false)
    this.#file = join(dataDir, first ? NAME : `server.${instanceId}.json`)
    if (first) await rm(draft)
    else await rename(draft, this.#file)
  }

  async withdraw(): Promise<void> {
    if (!this.#file) return
    try {
      if ((await read(this.#file))?.instanceId === this.host.instanceId) await rm(this.#file, { force: true })
    } catch (error) { this.log.warn(`${this.#file} could not be removed: ${reasonOf(error)}`) }
    this.#file = undefined
  }
}

const read = (file: string): Promise<{ readonly url?: string; readonly instanceId?: string } | null> =>
  readFile(file, 'utf8').then(text => JSON.parse(text) as object).catch(() => null)

/** Nobody listens there any more, or it is where this process does now: its owner was killed. */
async function isOver(file: string, mine: string): Promise<boolean> {
  const url = (await read(file))?.url
  if (url === undefined || !URL.canParse(url) || url === mine) return true
  const { hostname, port } = new URL(url)
  const socket = connect({ host: hostname.replace(/^\[|\]$/g, ''), port: Number(port) })
  try {
    await once(socket, 'connect', { signal: AbortSignal.timeout(PATIENCE_MS) })
    return false
  } catch (error) { return (error as NodeJS.ErrnoException).code === 'ECONNREFUSED' } finally { socket.destroy() }
}
