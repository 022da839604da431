import { resolve } from 'node:path'
import { Secret } from '#core'
import { DatabaseErrors } from '#contracts/database'
import type { DatabaseConfig } from './config.ts'

/** Where the SQLite file is; rejects with DATABASE_DIALECT for any other kind of database. */
export async function fileOf({ file, url }: DatabaseConfig, dataDir: string): Promise<string> {
  const address = (url instanceof Secret ? await url.read() : url ?? '').trim()
  const path = address === '' ? file : address.startsWith('sqlite:') ? address.slice('sqlite:'.length).replace(/^\/\/(?=\/)/, '') : undefined
  // An address may hold a password: only its scheme is told.
  const shown = /^[a-z][a-z0-9+]*(?=:)/i.exec(address)?.[0] ?? '(no scheme)'
  if (path === undefined && /^postgres(ql)?$/.test(shown)) throw DatabaseErrors.DIALECT({ url: `${shown}://…`, reason: 'PostgreSQL comes with the next release' })
  if (path === undefined) throw DatabaseErrors.DIALECT({ url: `${shown}:…`, reason: 'it is not of the form sqlite:<path>' })
  if (path === '' || path.includes(':memory:')) throw DatabaseErrors.DIALECT({ url: `sqlite:${path}`, reason: 'a file is needed: what is kept in memory would not survive a restart' })
  return resolve(dataDir, path)
}
