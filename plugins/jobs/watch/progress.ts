import { AsyncResource } from 'node:async_hooks'
import { maskSecrets, reasonOf, rootOf, type Clock, type Logger } from '#core'
import type { Database, Statement, Tx } from '#contracts/database'
import type { EventLog, NewEvent } from '#contracts/events'
import type { JobError, JobProgress } from '#contracts/jobs'
import type { JobRow } from '../tables/record.ts'

const FLUSH = { ms: 50, characters: 2_048 }
const AGAIN_MS = 1_000
/** Characters of one token event: it holds 64 KiB, and a character may be six bytes of JSON. */
const PIECE = 8_192
/** Bytes of what goes into a tool, or comes out; of more only the beginning is told. */
const PAYLOAD = 40_960
const BEGINNING = 4_000
/** Items that wait for a database that is slow or away. */
const MOST = 1_000

export interface TokenItem { readonly type: 'token'; readonly offset: number; content: string }
export type ProgressItem = TokenItem | { readonly type: Exclude<JobProgress['type'], 'token'>; readonly data: Readonly<Record<string, unknown>> }

/** Writes what happens inside runs to the event log. */
export class ProgressStore {
  readonly #count: Statement<{ seq: number }>

  constructor(readonly database: Database, readonly events: () => EventLog | undefined) {
    this.#count = database.prepare(
      `UPDATE jobs SET seq = seq + ? WHERE id = ? AND token = ? AND lease_owner = ? AND status = 'running' RETURNING seq`)
  }

  /** Resolves to the seq of the last one; to nothing if there is no log, or the claim is gone. */
  async write(row: JobRow, items: readonly ProgressItem[], tx: Tx): Promise<number | undefined> {
    const { id, token, lease_owner, project_id, created_by, attempt } = row
    const log = this.events()
    const seq = log && (await this.#count.get([items.length, id, token, lease_owner], tx))?.seq
    if (!log || seq === undefined) return undefined
    await log.append(tx, items.map((item, at): NewEvent => ({
      type: `job.${item.type}`, project_id, created_by, job_id: id, seq: seq - items.length + 1 + at,
      topics: item.type === 'progress' ? [`job:${id}`, `project:${project_id}`] : [`job:${id}`],
      data: { ...(item.type === 'token' ? { offset: item.offset, content: item.content } : item.data), attempt, status: 'running' },
    })))
    return seq
  }
}

export interface ProgressDeps {
  readonly store: Pick<ProgressStore, 'write'> & { readonly database: Pick<Database, 'transaction'> }
  readonly clock: Clock
  readonly log: Logger
}

// A run may have a transaction open when it tells of its progress; the log has its own.
const outside = new AsyncResource('BackplaneProgress', { requireManualDestroy: true })

/** What one attempt says and does, on its way to the event log: text is gathered, all else goes at once. */
export class ProgressLog {
  /** The last event of the job that is known to be logged, and the characters of text that are. */
  seq: number
  logged = 0
  #characters = 0
  #pending: ProgressItem[] = []
  #flying: readonly ProgressItem[] = []
  #flush: Promise<void> | undefined
  #cancel: (() => void) | undefined
  #closed = false
  #failed = false
  #overflown = false
  readonly #listeners = new Set<() => void>()

  constructor(readonly row: JobRow, readonly deps: ProgressDeps) { this.seq = row.seq }

  add(progress: JobProgress): void {
    if (this.#closed) return
    if (progress.type === 'token') this.#say(String(progress.content))
    else this.#push({ type: progress.type, data: dataOf(progress) })
    this.#schedule()
    this.#ring()
  }

  /** Hears of everything new. Returns how to listen no more. */
  listen(heard: () => void): () => void {
    this.#listeners.add(heard)
    return () => void this.#listeners.delete(heard)
  }

  /** Text that is not logged, from this character on; nothing while something else must be told before it. */
  after(characters: number): TokenItem | undefined {
    let found: TokenItem | undefined
    for (const item of [...this.#flying, ...this.#pending]) {
      if (item.type !== 'token') return undefined
      const skip = Math.max(0, characters - item.offset)
      if (skip >= item.content.length) continue
      if (!found) found = { type: 'token', offset: item.offset + skip, content: item.content.slice(skip) }
      else if (found.offset + found.content.length === item.offset) found.content += item.content
    }
    return found
  }

  /** Takes nothing more; resolves when nothing is on its way. What is left then belongs into the transaction that ends the attempt. */
  async close(): Promise<void> {
    this.#closed = true
    this.#cancel?.()
    await this.#flush
  }

  /** After close(). */
  async writeRest(tx: Tx): Promise<void> {
    const items = this.#pending
    if (!items.length) return
    const seq = await this.deps.store.write(this.row, items, tx)
    tx.afterCommit(() => { if (this.#pending === items) { this.#pending = []; this.#landed(items, seq) } })
  }

  #say(content: string): void {
    for (let at = 0; at < content.length;) {
      const last = this.#pending.at(-1)
      // One more, or the two halves of a character would not fit.
      const fits = last?.type === 'token' && last.content.length + 1 < PIECE && last.offset + last.content.length === this.#characters
      let end = Math.min(content.length, at + PIECE - (fits ? last.content.length : 0))
      if (end < content.length && /[\uD800-\uDBFF]/.test(content[end - 1]!)) end--
      const piece = content.slice(at, end)
      if (fits) last.content += piece
      else this.#push({ type: 'token', offset: this.#characters, content: piece })
      this.#characters += piece.length
      at = end
    }
  }

  #push(item: ProgressItem): void {
    if (this.#pending.length < MOST) { this.#pending.push(item); return }
    if (!this.#overflown) this.deps.log.warn('the log takes the progress of a job too slowly, so part of it is lost', { job_id: this.row.id })
    this.#overflown = true
  }

  #schedule(): void {
    const [first, second] = this.#pending
    if (this.#flush || this.#closed || this.#failed || !first) return
    if (second || first.type !== 'token' || first.content.length >= FLUSH.characters) this.#now()
    else this.#cancel ??= this.deps.clock.after(FLUSH.ms, () => this.#now())
  }

  #now(): void {
    this.#cancel?.()
    this.#cancel = undefined
    this.#failed = false
    this.#flush ??= outside.runInAsyncScope(() => this.#write()).finally(() => { this.#flush = undefined; this.#schedule() })
  }

  async #write(): Promise<void> {
    const items = this.#flying = this.#pending
    this.#pending = []
    const { store, clock, log } = this.deps
    try {
      const seq = await store.database.transaction(tx => store.write(this.row, items, tx))
      this.#landed(items, seq)
    } catch (error) {
      const again = (rootOf(error) as { retryable?: boolean } | undefined)?.retryable === true
      log.warn('progress of a job could not be logged', { job_id: this.row.id, again, reason: reasonOf(error) })
      if (again) {
        this.#pending = [...items, ...this.#pending]
        this.#failed = true
        if (!this.#closed) this.#cancel = clock.after(AGAIN_MS, () => this.#now())
      }
    }
    this.#flying = []
    this.#ring()
  }

  #landed(items: readonly ProgressItem[], seq: number | undefined): void {
    if (seq !== undefined) this.seq = seq
    const text = items.findLast(item => item.type === 'token')
    if (text) this.logged = text.offset + text.content.length
  }

  #ring(): void { for (const heard of this.#listeners) heard() }
}

function dataOf(progress: Exclude<JobProgress, { type: 'token' }>): Record<string, unknown> {
  if (progress.type === 'progress') {
    const { percent, message } = progress
    return {
      ...(percent !== undefined && { percent: Math.min(100, Math.max(0, Number(percent) || 0)) }),
      ...(message !== undefined && { message: textOf(message) }),
    }
  }
  const { tool, call_id } = progress
  const named = { tool: String(tool).slice(0, 200), call_id: String(call_id).slice(0, 200) }
  if (progress.type === 'tool_start') return { ...named, ...payload('input', progress.input) }
  const { error } = progress
  return { ...named, ...payload('output', progress.output), ...(error && { error: { ...error, message: textOf(error.message) } satisfies JobError }) }
}

const textOf = (text: string): string => maskSecrets(String(text)).slice(0, 2_000)

/** As it is now: what was handed in may change later, and may be anything. */
function payload(name: string, value: unknown): Record<string, unknown> {
  let text: string
  try { text = maskSecrets(JSON.stringify(value) ?? 'null') } catch (error) { return { [name]: `not shown: ${reasonOf(error)}`.slice(0, 200) } }
  const bytes = Buffer.byteLength(text)
  if (bytes > PAYLOAD) return { [name]: text.slice(0, BEGINNING), [`${name}_bytes`]: bytes }
  try { return { [name]: JSON.parse(text) } } catch { return { [name]: text } }
}
