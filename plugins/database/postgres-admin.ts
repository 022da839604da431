import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { BackplaneError, reasonOf } from '#core'
import { DatabaseErrors, type CopyOptions, type DatabaseAdmin } from '#contracts/database'
import type { PostgresDatabase } from './postgres.ts'

const DEBIAN = '/usr/lib/postgresql'
type Tool = 'pg_dump' | 'pg_restore'

/** The program by its name on PATH, then Debian's own, newest first. */
function candidates(tool: Tool): string[] {
  const versions = existsSync(DEBIAN) ? readdirSync(DEBIAN).sort((a, b) => Number(b) - Number(a)) : []
  return [tool, ...versions.map(version => join(DEBIAN, version, 'bin', tool))]
}

/** Resolves to what it printed; rejects with the last line of what it complained of. */
function runOne(program: string, args: readonly string[], signal: AbortSignal | undefined): Promise<string> {
  return new Promise((done, failed) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], signal })
    let out = ''
    let complaint = ''
    child.stdout.on('data', chunk => { out += chunk })
    child.stderr.on('data', chunk => { complaint = (complaint + chunk).slice(-4_000) })
    child.once('error', failed)
    child.once('close', code => (code === 0 ? done(out) : failed(new Error(complaint.trim().split('\n').find(line => /error/i.test(line)) ?? `it ended with ${code}`))))
  })
}

async function run(tool: Tool, args: readonly string[], signal?: AbortSignal): Promise<string> {
  for (const program of candidates(tool)) {
    try { return await runOne(program, args, signal) } catch (error) {
      if ((error as { code?: unknown }).code !== 'ENOENT') throw error
    }
  }
  throw DatabaseErrors.TOOL_MISSING({ tool })
}

/** libpq's password file: the password must not stand in a command line, which everybody on the machine may read. */
async function withAddress<T>(address: string, work: (url: string) => Promise<T>): Promise<T> {
  const url = new URL(address)
  const folder = mkdtempSync(join(tmpdir(), 'backplane-pgpass-'))
  try {
    const file = join(folder, 'pgpass')
    const password = decodeURIComponent(url.password || url.searchParams.get('password') || '')
    writeFileSync(file, `*:*:*:*:${password.replace(/[\\:]/g, '\\$&')}\n`, { mode: 0o600 })
    url.password = ''
    url.searchParams.delete('password')
    if (password) url.searchParams.set('passfile', file)
    // The driver's own names for what libpq calls otherwise.
    if (url.searchParams.get('sslmode') === 'no-verify') url.searchParams.set('sslmode', 'require')
    return await work(url.href)
  } finally { rmSync(folder, { recursive: true, force: true }) }
}

/** By PostgreSQL's own programs. */
export class PostgresAdmin implements DatabaseAdmin {
  constructor(readonly database: PostgresDatabase, readonly address: () => Promise<string>) {}

  migrated() { return this.database.migrated }

  async backup(file: string, { force, signal, progress }: CopyOptions = {}): Promise<{ bytes: number }> {
    const to = resolve(file)
    if (!force && existsSync(to)) throw DatabaseErrors.BACKUP_FAILED({ reason: `${to} exists; --force overwrites it` })
    const partial = `${to}.partial`
    try {
      await withAddress(await this.address(), url => run('pg_dump', ['--format=custom', '--no-owner', '--no-privileges', `--file=${partial}`, `--dbname=${url}`], signal))
      await run('pg_restore', ['--list', partial], signal)
      renameSync(partial, to)
    } catch (cause) {
      throw cause instanceof BackplaneError ? cause : DatabaseErrors.BACKUP_FAILED({ reason: reasonOf(cause) }, { cause })
    } finally { rmSync(partial, { force: true }) }
    progress?.(1)
    return { bytes: statSync(to).size }
  }

  async restore(file: string, { force, signal, progress }: CopyOptions = {}): Promise<{}> {
    const from = resolve(file)
    try { await run('pg_restore', ['--list', from], signal) } catch (cause) {
      throw cause instanceof BackplaneError ? cause : DatabaseErrors.BACKUP_INVALID({ file: from, reason: reasonOf(cause) }, { cause })
    }
    // Our own connections are in the way of each other too: only what is left after them is somebody else's.
    const others = await this.database.others()
    if (others && !force) throw DatabaseErrors.IN_USE({ reason: `${others} connection(s) of other Backplane processes are open` })
    await this.database.close()
    try {
      const how = ['--clean', '--if-exists', '--no-owner', '--no-privileges', '--single-transaction', '--exit-on-error']
      await withAddress(await this.address(), url => run('pg_restore', [...how, `--dbname=${url}`, from], signal))
    } catch (cause) {
      throw cause instanceof BackplaneError ? cause : DatabaseErrors.RESTORE_FAILED({ reason: reasonOf(cause) }, { cause })
    }
    progress?.(1)
    return {}
  }
}
