import { resolve } from 'node:path'
import { Secret } from '#core'
import { DatabaseErrors } from '#contracts/database'
import type { DatabaseConfig } from './config.ts'

export type Address = { readonly dialect: 'sqlite'; readonly file: string } | { readonly dialect: 'postgres'; read(): Promise<string> }

/** Which database the config means. Rejects with DATABASE_DIALECT. */
export async function addressOf({ file, url }: Pick<DatabaseConfig, 'file' | 'url'>, dataDir: string): Promise<Address> {
  const read = async () => (url instanceof Secret ? await url.read() : url ?? '').trim()
  const address = await read()
  // An address may hold a password: only its scheme is told.
  const shown = /^[a-z][a-z0-9+]*(?=:)/i.exec(address)?.[0] ?? '(no scheme)'
  if (/^postgres(ql)?$/i.test(shown)) return { dialect: 'postgres', read }
  const path = address === '' ? file : address.startsWith('sqlite:') ? address.slice('sqlite:'.length).replace(/^\/\/(?=\/)/, '') : undefined
  if (path === undefined) throw DatabaseErrors.DIALECT({ url: `${shown}:…`, reason: 'it is neither sqlite:<path> nor postgres://user:password@host:port/database' })
  if (path === '' || path.includes(':memory:')) throw DatabaseErrors.DIALECT({ url: `sqlite:${path}`, reason: 'a file is needed: what is kept in memory would not survive a restart' })
  return { dialect: 'sqlite', file: resolve(dataDir, path) }
}
