import { closeSync, constants, copyFileSync, existsSync, fsyncSync, linkSync, openSync, renameSync, rmSync, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import Sqlite from 'better-sqlite3'
import { BackplaneError, reasonOf } from '#core'
import { DatabaseErrors, type CopyOptions, type DatabaseAdmin } from '#contracts/database'
import type { SqliteDatabase } from './sqlite.ts'

const PAGES = 1_000

function sync(path: string): void {
  const handle = openSync(path, 'r')
  try { fsyncSync(handle) } finally { closeSync(handle) }
}

/** Throws with what is wrong with a file that should be a whole SQLite database. */
function check(file: string): void {
  const db = new Sqlite(file, { readonly: true, fileMustExist: true })
  try {
    const found = String(db.pragma('integrity_check', { simple: true }))
    if (found !== 'ok') throw new Error(found)
  } finally { db.close() }
}

/** A copy of all that is committed now, whole and on disk under its name, or nothing. */
async function copy(from: string, to: string, { progress, signal }: CopyOptions): Promise<void> {
  const partial = `${to}.partial`
  const remove = () => { for (const end of ['', '-wal', '-shm', '-journal']) rmSync(`${partial}${end}`, { force: true }) }
  remove()
  const source = new Sqlite(from, { readonly: true, fileMustExist: true })
  try {
    // An open snapshot: without it the copy would begin again at each commit of another process, and never end.
    source.exec('BEGIN; SELECT count(*) FROM sqlite_master')
    await source.backup(partial, {
      progress({ totalPages, remainingPages }) {
        signal?.throwIfAborted()
        if (totalPages) progress?.(1 - remainingPages / totalPages)
        return PAGES
      },
    })
    // One file that stands alone: a copy that is in WAL mode makes two more whenever it is read.
    const copied = new Sqlite(partial)
    try { copied.pragma('journal_mode = DELETE') } finally { copied.close() }
    check(partial)
    sync(partial)
    renameSync(partial, to)
    sync(dirname(to))
  } finally {
    source.close()
    remove()
  }
}

export class SqliteAdmin implements DatabaseAdmin {
  constructor(readonly database: SqliteDatabase) {}

  migrated() { return this.database.migrated }

  async backup(file: string, options: CopyOptions = {}): Promise<{ bytes: number }> {
    const to = resolve(file)
    if (to === this.database.file) throw DatabaseErrors.BACKUP_FAILED({ reason: `${to} is the database itself` })
    if (!options.force && existsSync(to)) throw DatabaseErrors.BACKUP_FAILED({ reason: `${to} exists; --force overwrites it` })
    try { await copy(this.database.file, to, options) } catch (cause) { throw DatabaseErrors.BACKUP_FAILED({ reason: reasonOf(cause) }, { cause }) }
    options.progress?.(1)
    return { bytes: statSync(to).size }
  }

  async restore(file: string, options: CopyOptions = {}): Promise<{ kept: string }> {
    const from = resolve(file)
    const { file: target } = this.database
    if (from === target) throw DatabaseErrors.BACKUP_INVALID({ file: from, reason: 'it is the database itself' })
    try { check(from) } catch (cause) { throw DatabaseErrors.BACKUP_INVALID({ file: from, reason: reasonOf(cause) }, { cause }) }
    await this.database.close()
    try {
      this.#alone(target)
      // As beside the target as can be, so that the exchange is one rename: whoever is killed here finds the old one or the new one.
      const fresh = `${target}.restored`
      await copy(from, fresh, options)
      const kept = `${target}.before-restore-${new Date().toISOString().replace(/[:.]/g, '-')}`
      try { linkSync(target, kept) } catch { copyFileSync(target, kept, constants.COPYFILE_EXCL) }
      renameSync(fresh, target)
      sync(dirname(target))
      options.progress?.(1)
      return { kept }
    } catch (cause) {
      rmSync(`${target}.restored`, { force: true })
      throw cause instanceof BackplaneError ? cause : DatabaseErrors.RESTORE_FAILED({ reason: reasonOf(cause) }, { cause })
    }
  }

  /** Only the last connection can leave the write-ahead log, which also puts all that is in it into the file. */
  #alone(file: string): void {
    const db = new Sqlite(file, { timeout: 200 })
    try { db.pragma('journal_mode = DELETE') } catch (cause) {
      throw DatabaseErrors.IN_USE({ reason: `another process has ${file} open` }, { cause })
    } finally { db.close() }
  }
}
