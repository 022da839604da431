import { setImmediate } from 'node:timers/promises'
import MiniSearch, { type SearchResult } from 'minisearch'
import type { Clock, Logger } from '#core'
import type { DocumentFile, DocumentFiles } from './document-files.ts'
import { passagesOf, type Passage } from './passages.ts'
import { TermLists } from './term-lists.ts'

export interface Found extends Passage { readonly file: string }
interface Entry extends Found { readonly id: number }

/** A start may wait this long. */
const WAIT_MS = 500
const LOOK_MS = 5_000
/** Of the time is for looking: one part in so many. */
const SHARE = 20
const TELL_MS = 2_000
/** Milliseconds that indexing may hold the event loop. */
const SLICE_MS = 10
const MAX_TERM = 40
/** Words of a question that may be the beginning of others. */
const MAX_BEGINNINGS = 8
/** Places where words of a question stand that are scored, which takes microseconds each. The rarest words say the most. */
const MAX_SCORED = 5_000
/** Of the best passage's score: what is below is beside the question. */
const RELEVANT = 0.3

const STOP = new Set(('a about all also am an and any are as at be been but by can could did do does for from had has have how i if in into is it its let me my no not of '
  + 'on or our out please s should show so some t tell than that the their them then there these they this to up us use was we were what when where which who whom whose why '
  + 'will with would you your explain find give know mean means much many compute calculate solve').split(' '))

/** One form for the words of one stem, as far as endings tell in English. */
function stem(word: string): string {
  const cut = (ending: string, left: number) =>
    (word.endsWith(ending) && word.length - ending.length >= left ? word.slice(0, -ending.length) : undefined)
  const base = cut('ies', 3) ?? cut('ied', 3)
  if (base) return `${base}y`
  const plural = /(?:[sxz]|ch|sh)es$/.test(word) ? cut('es', 3) : /[^su]s$/.test(word) ? cut('s', 3) : undefined
  const plain = cut('ing', 4) ?? cut('ed', 4) ?? plural ?? word
  return plain.length > 4 && plain.endsWith('e') ? plain.slice(0, -1) : plain.replace(/([bdgmnprt])\1$/, '$1')
}

function term(word: string): string | null {
  const lower = word.normalize('NFKD').replace(/\p{M}/gu, '').toLowerCase()
  return lower.length < 2 || lower.length > MAX_TERM || STOP.has(lower) ? null : stem(lower)
}

/** Of times and dates ask questions that no document answers. */
const TIMES = new Set('day date time today now tomorrow yesterday week month year hour minute second monday tuesday wednesday thursday friday saturday sunday'.split(' ').map(stem))
const tokenize = MiniSearch.getDefault('tokenize') as (text: string) => string[]
/** The words of a question that say what it is about; numbers and times alone are for other tools. */
const topics = (text: string): Set<string> => {
  const words = tokenize(text).flatMap(word => (/\p{L}{3}/u.test(word) ? term(word) ?? [] : []))
  return new Set(words.filter(word => !TIMES.has(word)))
}

/** Finds passages of documents by their words (BM25), and follows what happens to the files. */
export class DocumentIndex implements AsyncDisposable {
  readonly #index = new MiniSearch<Entry>({ fields: ['heading', 'file', 'text'], processTerm: (word, field) => this.#term(word, field) })
  readonly #lists = new TermLists()
  #held = new Set<string>()
  readonly #entries = new Map<number, Entry>()
  readonly #files = new Map<string, { readonly stamp: string; readonly ids: readonly number[] }>()
  readonly #closed = new AbortController()
  #next = 0
  #ready = false
  #running: Promise<void> | undefined
  #following: Promise<void> | undefined
  #cancel = () => {}
  constructor(readonly files: DocumentFiles, readonly clock: Clock, readonly log: Logger) {}

  get configured(): boolean { return this.files.options.paths.length > 0 }
  get size(): { readonly files: number; readonly passages: number } { return { files: this.#files.size, passages: this.#entries.size } }

  /** Begins to read the files, in the background; of few files it waits until they are known. */
  async start(): Promise<void> {
    if (!this.configured) return
    const looked = this.#look()
    let cancel = () => {}
    await Promise.race([looked, new Promise<void>(resolve => { cancel = this.clock.after(WAIT_MS, resolve) })])
    cancel()
  }

  /** Looks at the files again and again, the more rarely the longer it takes. */
  async #look(): Promise<void> {
    const began = performance.now()
    try { await this.refresh() } catch (error) { if (!this.#closed.signal.aborted) this.log.warn('the documents could not be indexed', { err: error }) }
    if (!this.#closed.signal.aborted) this.#cancel = this.clock.after(Math.max(LOOK_MS, SHARE * (performance.now() - began)), () => void this.#look())
  }

  /** Resolves when the index has what the files hold now. What asks during a look at them shares the next one. */
  refresh(): Promise<void> {
    if (!this.#running) return this.#running = this.#refresh().finally(() => { this.#running = undefined })
    return this.#following ??= this.#running.catch(() => {}).then(() => { this.#following = undefined; return this.refresh() })
  }

  /** Does a question seem to be about the documents? As long as they are not read yet, any with words may be. */
  recognizes(question: string): boolean {
    const wanted = topics(question)
    if (!wanted.size) return false
    if (!this.#ready) return true
    return this.#lists.holdsMost(wanted)
  }

  async search(question: string, most: number): Promise<readonly Found[]> {
    await this.refresh()
    const results = this.#search(question)
    return results.filter(({ score }) => score >= RELEVANT * results[0]!.score).slice(0, most).map(({ id }) => this.#entries.get(id as number)!)
  }

  #term(word: string, field: string | undefined): string | null {
    const found = term(word)
    if (found !== null && (field === 'heading' || field === 'text')) this.#held.add(found)
    return found
  }

  /** The words of a question that are scored. */
  #rarest(question: string): Set<string> {
    const terms = [...new Set(tokenize(question).flatMap(word => term(word) ?? []))]
    let left = MAX_SCORED
    const counted = terms.map(each => ({ each, count: this.#lists.count(each) })).toSorted((a, b) => a.count - b.count)
    return new Set(counted.filter(({ count }, at) => (left -= count) >= 0 || at === 0).map(({ each }) => each))
  }

  /** Words that no passage holds may be the beginning of ones that some do. */
  #search(question: string): SearchResult[] {
    const rarest = this.#rarest(question)
    const scored = (found: string | null) => (found !== null && rarest.has(found) ? found : null)
    const options = { boost: { heading: 2 }, processTerm: (word: string) => scored(term(word)) }
    const exact = this.#index.search(question, options)
    const held = new Set(exact.flatMap(({ queryTerms }) => queryTerms))
    const missing = new Set([...topics(question)].filter(each => rarest.has(each) && !held.has(each)).slice(0, MAX_BEGINNINGS))
    if (!missing.size) return exact
    return this.#index.search(question, { ...options, prefix: each => each.length >= 4 && missing.has(each) })
  }

  async #refresh(): Promise<void> {
    const { signal } = this.#closed
    const began = performance.now()
    const listed = await this.files.list(signal)
    const changed = listed.filter(({ path, stamp }) => this.#files.get(path)?.stamp !== stamp)
    const paths = new Set(listed.map(({ path }) => path))
    const gone = [...this.#files.keys()].filter(path => !paths.has(path))
    for (const path of gone) this.#remove(path)
    let [told, slice] = [performance.now(), performance.now()]
    for (const [done, file] of changed.entries()) {
      const text = await this.files.read(file)
      signal.throwIfAborted()
      this.#remove(file.path)
      const ids: number[] = []
      for (const passage of text === undefined ? [] : passagesOf(text, isMarkdown(file))) {
        const entry = { ...passage, file: file.name, id: this.#next++ }
        this.#entries.set(entry.id, entry)
        this.#held = new Set()
        this.#index.add(entry)
        this.#lists.add(entry.id, this.#held)
        ids.push(entry.id)
        if (performance.now() - slice < SLICE_MS) continue
        await setImmediate()
        signal.throwIfAborted()
        slice = performance.now()
      }
      this.#files.set(file.path, { stamp: file.stamp, ids })
      if (performance.now() - told < TELL_MS) continue
      this.log.info('indexing documents', { done: done + 1, files: changed.length })
      told = performance.now()
    }
    this.#ready = true
    if (!changed.length && !gone.length) return
    this.log.info('documents indexed', { ...this.size, changed: changed.length, gone: gone.length, ms: Math.round(performance.now() - began) })
  }

  #remove(path: string): void {
    for (const id of this.#files.get(path)?.ids ?? []) {
      this.#index.discard(id)
      this.#lists.remove(id)
      this.#entries.delete(id)
    }
    this.#files.delete(path)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#cancel()
    this.#closed.abort()
    await Promise.allSettled([this.#running, this.#following])
  }
}

const isMarkdown = ({ path }: DocumentFile): boolean => /\.(?:md|markdown|mdx)$/i.test(path)
