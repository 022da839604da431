import { watch, type FSWatcher } from 'node:fs'
import { stat } from 'node:fs/promises'
import { basename, dirname } from 'node:path'

export interface WatchOptions {
  /** Milliseconds without a further event before the files are looked at. */
  readonly settleMs?: number
  /** Milliseconds between looks at files whose folder tells nothing, as on network drives. */
  readonly pollMs?: number
}

/**
 * Calls `changed` after one of these files was written, replaced, removed, or came into being; never twice at a time.
 * Folders are watched, since an editor that saves by renaming takes a watched file away. Keeps no process alive.
 */
export class FileWatch implements AsyncDisposable {
  #files: readonly string[] = []
  #folders = new Map<string, FSWatcher>()
  #seen = new Map<string, string>()
  #settling: NodeJS.Timeout | undefined
  #work: Promise<void> = Promise.resolve()
  #closed = false
  readonly #poll: NodeJS.Timeout
  readonly #settleMs: number

  constructor(readonly changed: () => Promise<void>, { settleMs = 100, pollMs = 2_000 }: WatchOptions = {}) {
    this.#settleMs = settleMs
    this.#poll = setInterval(() => this.#look(), pollMs).unref()
  }

  /** Watches these from now on; what is in them already is not told. */
  async watch(files: readonly string[]): Promise<void> {
    for (const file of files) if (!this.#seen.has(file)) this.#seen.set(file, await signature(file))
    if (this.#closed) return
    this.#files = files
    const wanted = new Set(files.map(dirname))
    for (const [folder, watcher] of this.#folders) if (!wanted.has(folder)) this.#drop(folder, watcher)
    for (const folder of wanted) this.#add(folder)
  }

  #add(folder: string): void {
    if (this.#folders.has(folder)) return
    try {
      const watcher = watch(folder, { persistent: false }, (_event, name) => {
        if (name === null || this.#files.some(file => basename(file) === name)) this.#soon()
      })
      watcher.on('error', () => this.#drop(folder, watcher))
      this.#folders.set(folder, watcher)
    } catch { /* A folder that is not there yet is found by polling. */ }
  }

  #drop(folder: string, watcher: FSWatcher): void {
    watcher.close()
    this.#folders.delete(folder)
  }

  #soon(): void {
    clearTimeout(this.#settling)
    this.#settling = setTimeout(() => this.#look(), this.#settleMs).unref()
  }

  #look(): void {
    this.#work = this.#work.then(async () => {
      let different = false
      for (const file of this.#files) {
        const now = await signature(file)
        if (now !== this.#seen.get(file)) different = true
        this.#seen.set(file, now)
        if (now) this.#add(dirname(file))
      }
      if (different && !this.#closed) await this.changed()
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    clearInterval(this.#poll)
    clearTimeout(this.#settling)
    for (const [folder, watcher] of this.#folders) this.#drop(folder, watcher)
    await this.#work
  }
}

/** Differs whenever the file does; empty for one that is not there. */
async function signature(file: string): Promise<string> {
  try {
    const { ino, size, mtimeMs, ctimeMs } = await stat(file)
    return `${ino} ${size} ${mtimeMs} ${ctimeMs}`
  } catch { return '' }
}
