import type { Command, CommandIo } from '#core'
import { DatabaseAdmin, type CopyOptions } from '#contracts/database'

const SECOND = 1_000
const sized = (bytes: number) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`)
const FORCE = { flags: '--force', summary: 'go on although something is in the way' }

/** What a copy is told by the command line; on a terminal it says once a second how far it is. */
function copyOptions({ options, tty, json, signal, err }: CommandIo): CopyOptions {
  let last = performance.now()
  const progress = (done: number) => {
    if (!tty || json || done >= 1 || performance.now() - last < SECOND) return
    last = performance.now()
    err(`${Math.floor(done * 100)} %`)
  }
  return { force: options['force'] === true, signal, progress }
}

export const backup: Command = {
  name: 'database backup',
  summary: 'Copies the whole database into one file, while others write',
  needs: 'runtime',
  arguments: [{ name: '<file>', summary: 'where to; must not exist' }],
  options: [{ ...FORCE, summary: 'overwrite a file that is there' }],
  examples: ['backplane database backup backup.db', 'backplane database backup /mnt/backups/today.db --force'],
  async run(io) {
    const [file] = io.args as [string]
    const { bytes } = await io.get(DatabaseAdmin).backup(file, copyOptions(io))
    io.out(io.json ? JSON.stringify({ file, bytes }) : `${file}: ${sized(bytes)}, checked`)
  },
}

export const restore: Command = {
  name: 'database restore',
  summary: 'Puts a backup in the place of the database; refuses while a server uses it',
  needs: 'runtime',
  arguments: [{ name: '<file>', summary: 'what `backplane database backup` made' }],
  options: [{ ...FORCE, summary: 'PostgreSQL: do not look for servers that use it' }],
  examples: ['backplane database restore backup.db'],
  async run(io) {
    const [file] = io.args as [string]
    const { kept } = await io.get(DatabaseAdmin).restore(file, copyOptions(io))
    io.out(io.json ? JSON.stringify({ file, kept: kept ?? null }) : `restored from ${file}${kept === undefined ? '' : `; what was there is in ${kept}`}`)
  },
}

export const migrate: Command = {
  name: 'migrate',
  summary: 'Brings the tables of every plugin up to date, then leaves',
  needs: 'runtime',
  everyPlugin: true,
  examples: ['backplane migrate'],
  async run(io) {
    const ran = io.get(DatabaseAdmin).migrated()
    if (io.json) io.out(JSON.stringify({ migrations: ran }))
    else io.out(ran.length ? ran.map(each => `${each.owner}: ${each.name}`).join('\n') : 'nothing to do: all tables are up to date')
  },
}

export default [backup, restore, migrate]
