import { constants, type Dirent } from 'node:fs'
import { lstat, open, readdir, realpath } from 'node:fs/promises'
import { basename, extname, isAbsolute, join, resolve, sep } from 'node:path'
import { reasonOf, type Logger } from '#core'

export interface DocumentOptions {
  /** Files and folders; relative ones stand in the folder where Backplane was started. */
  readonly paths: readonly string[]
  /** Of the files that are taken from folders. */
  readonly extensions: readonly string[]
  readonly max_files: number
  readonly max_file_bytes: number
  /** Of all files together. */
  readonly max_bytes: number
}

export interface DocumentFile {
  /** Where it really is, after all links. */
  readonly path: string
  /** How it is shown. */
  readonly name: string
  readonly bytes: number
  /** Changes when the file does. */
  readonly stamp: string
}

type Kind = 'named' | 'folder' | 'file' | 'link'
const kindOf = (entry: Dirent): Kind => (entry.isDirectory() ? 'folder' : entry.isSymbolicLink() ? 'link' : 'file')

const MAX_WARNED = 1_000
const SKIPPED = new Set(['node_modules'])

/** The files that the settings name. A link that leads out of them is refused, however deep it stands. */
export class DocumentFiles {
  readonly #warned = new Set<string>()
  constructor(readonly options: DocumentOptions, readonly log: Logger) {}

  async list(signal: AbortSignal): Promise<DocumentFile[]> {
    const found = new Map<string, DocumentFile>()
    const roots: { path: string; name: string }[] = []
    for (const path of this.options.paths) {
      try { roots.push({ path: await realpath(resolve(path)), name: isAbsolute(path) ? basename(path) : path }) }
      catch (error) { this.#warn(path, reasonOf(error)) }
    }
    const inside = (path: string) => roots.some(root => path === root.path || path.startsWith(root.path.endsWith(sep) ? root.path : root.path + sep))
    const wanted = (path: string) => this.options.extensions.includes(extname(path).toLowerCase())
    const folders = new Set<string>()
    let left = 20 * this.options.max_files + 1_000
    let bytes = 0
    /** `path` has no links in it, unless it is one itself. */
    const visit = async (path: string, name: string, kind: Kind): Promise<void> => {
      signal.throwIfAborted()
      if (left-- <= 0) return this.#warn(name, 'there is too much beside it; it and what follows were left out')
      try {
        const real = kind === 'link' ? await realpath(path) : path
        if (!inside(real)) return this.#warn(name, 'it leads out of the folders that the settings name')
        if (kind === 'file' && !wanted(real)) return
        const state = await lstat(real, { bigint: true })
        if (state.isDirectory()) {
          if (folders.has(real)) return
          folders.add(real)
          for (const entry of (await readdir(real, { withFileTypes: true })).sort((a, b) => (a.name < b.name ? -1 : 1))) {
            if (!entry.name.startsWith('.') && !SKIPPED.has(entry.name)) await visit(join(real, entry.name), join(name, entry.name), kindOf(entry))
          }
          return
        }
        if (!state.isFile() || (kind === 'link' && !wanted(real)) || found.has(real)) return
        const size = Number(state.size)
        if (size > this.options.max_file_bytes) return this.#warn(name, `it has more than ${this.options.max_file_bytes} bytes`)
        if (found.size >= this.options.max_files) return this.#warn('documents', `there are more than ${this.options.max_files} files; the rest was left out`)
        if (bytes + size > this.options.max_bytes) return this.#warn('documents', `they have more than ${this.options.max_bytes} bytes; the rest was left out`)
        bytes += size
        found.set(real, { path: real, name, bytes: size, stamp: [state.dev, state.ino, state.size, state.mtimeNs, state.ctimeNs].join(':') })
      } catch (error) {
        signal.throwIfAborted()
        this.#warn(name, reasonOf(error))
      }
    }
    for (const { path, name } of roots) await visit(path, name, 'named')
    return [...found.values()]
  }

  /** Its text; nothing if it can't be read, is no text, or is no longer the file that was listed. */
  async read(file: DocumentFile): Promise<string | undefined> {
    try {
      // Opened without following a link and without waiting for a writer: what was a file may be something else by now.
      await using handle = await open(file.path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
      const state = await handle.stat({ bigint: true })
      const same = state.isFile() && file.stamp.startsWith(`${state.dev}:${state.ino}:`)
      if (!same || await realpath(file.path) !== file.path) return undefined
      const buffer = Buffer.alloc(file.bytes + 1)
      let length = 0
      for (let read = 1; read > 0 && length < buffer.length; length += read) {
        ({ bytesRead: read } = await handle.read(buffer, length, buffer.length - length))
      }
      const content = buffer.subarray(0, Math.min(length, file.bytes))
      if (content.includes(0)) return this.#warn(file.name, 'it is no text')
      return new TextDecoder('utf-8', { fatal: true }).decode(content, { stream: length > file.bytes })
    } catch (error) { return this.#warn(file.name, error instanceof TypeError ? 'it is no text in UTF-8' : reasonOf(error)) }
  }

  /** Once: the files are looked at again and again. */
  #warn(name: string, reason: string): undefined {
    const key = `${name} ${reason}`
    if (this.#warned.has(key) || this.#warned.size >= MAX_WARNED) return undefined
    this.#warned.add(key)
    this.log.warn('a document was left out', { file: name, reason })
  }
}
