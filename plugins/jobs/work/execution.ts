import { maskSecrets, reasonOf, type Logger } from '#core'
import type { Caller } from '#contracts/access'
import type { Tx } from '#contracts/database'
import { JobErrors, type ChildRequest, type Job, type JobContext, type JobProgress, type JobType, type StepOptions } from '#contracts/jobs'
import type { Ask } from '#contracts/questions'
import type { Family } from '../intake/family.ts'
import { jsonOf } from '../tables/json.ts'
import { isFinal } from '../tables/machine.ts'
import { ProgressLog, type ProgressDeps } from '../watch/progress.ts'
import { newQuestion, type Reply } from '../tables/questions.ts'
import { toJob, type JobRow } from '../tables/record.ts'
import type { Claim, JobStore } from '../tables/store.ts'
import type { Waits } from './waiting.ts'

export interface ExecutionDeps {
  readonly store: JobStore
  readonly log: Logger
  readonly family: () => Pick<Family, 'submit' | 'read'>
  readonly maxResultBytes: number
  readonly progress: Omit<ProgressDeps, 'log'>
}

type Kept = Map<string, string | null>
interface Step { readonly key: string; readonly text: string | null; readonly from: number }

/** One attempt while it runs here. */
export class Execution implements Claim {
  readonly id: string
  readonly token: number
  readonly owner: string
  readonly #controller = new AbortController()
  readonly #aborted: Promise<never>
  readonly #uses = new Map<string, number>()
  /** The step after which nothing was to come but the end. */
  #last: Step | undefined
  readonly #working = new Set<Promise<unknown>>()
  readonly #waits: Waits[] = []
  #parking: Promise<void> | undefined
  #progress: ProgressLog | undefined
  #over = false
  /** What is called with each sign of progress. */
  onProgress: ((progress: JobProgress) => void) | undefined
  /** Settles when the attempt is over and written down. */
  done: Promise<Job> = Promise.resolve(undefined as never)
  /** Of the type that it began with. */
  type: JobType | undefined
  /** Others were to begin in the transaction of its end. */
  accompanied = false

  constructor(readonly row: JobRow, readonly deps: ExecutionDeps) {
    this.id = row.id
    this.token = row.token
    this.owner = row.lease_owner!
    const { signal } = this.#controller
    this.#aborted = new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }))
    this.#aborted.catch(() => {})
  }

  get signal(): AbortSignal { return this.#controller.signal }
  abort(reason: Error): void { this.#controller.abort(reason) }

  /** What the run waits for, once it was aborted for that. */
  get waits(): Waits { return { questions: this.#waits.flatMap(each => each.questions), children: this.#waits.some(each => each.children) } }

  /** What it tells while it runs; made when somebody tells or asks. */
  get progress(): ProgressLog { return (this.#progress ??= new ProgressLog(this.row, { ...this.deps.progress, log: this.deps.log })) }
  /** Before the transaction that ends the attempt: no flush may change the row while that is under way. */
  async closeProgress(): Promise<void> {
    this.#over = true
    await this.#progress?.close()
  }
  /** In that transaction, before the row is read. */
  async writeRest(tx: Tx): Promise<void> {
    if (this.#last) await this.#save(this.#last, tx).catch(error => { if (!JobErrors.LEASE_LOST.is(error)) throw error })
    await this.#progress?.writeRest(tx)
  }

  /** The result, or the reason of the abort as soon as there is one: what ignores its signal holds nobody up. */
  async race<T>(work: () => Promise<T>): Promise<T> {
    this.signal.throwIfAborted()
    return Promise.race([work(), this.#aborted])
  }

  /** Lets the type do its work. */
  async run(type: JobType, caller: Caller, input: unknown): Promise<unknown> {
    const { row, deps: { store, log } } = this
    // Nothing is kept of a job that nobody ever claimed before.
    const kept = row.token > 1 ? await store.steps(row.id) : new Map<string, string | null>() as Kept
    const ctx: JobContext = {
      job: toJob(row), caller, input, signal: this.signal, log: log.child({ job_id: row.id }),
      step: (name, work, options) => this.#step(kept, name, work, options),
      ask: ask => this.#ask(kept, ask),
      children: requests => this.#children(kept, caller, requests),
      emit: progress => {
        if (this.signal.aborted || this.#over) return
        this.progress.add(progress)
        try { this.onProgress?.(progress) } catch (error) {
          log.warn('a listener to progress failed', { job_id: row.id, reason: maskSecrets(reasonOf(error)) })
        }
      },
    }
    return type.run(ctx)
  }

  /** The nth use of a name. */
  #keyOf(name: string): string {
    if (typeof name !== 'string' || name === '' || name.length > 200) throw new TypeError('the name of a step has 1 to 200 characters')
    const use = (this.#uses.get(name) ?? 0) + 1
    this.#uses.set(name, use)
    this.signal.throwIfAborted()
    return `${name}#${use}`
  }

  async #step<T>(kept: Kept, name: string, work: () => Promise<T>, { last }: StepOptions<T> = {}): Promise<T> {
    const key = this.#keyOf(name)
    const { store, maxResultBytes } = this.deps
    if (!kept.has(key)) {
      // Another attempt does it: this one is being put aside.
      if (this.#parking) return new Promise(() => {})
      await this.#work(async () => {
        // It was not the last after all.
        const [before, from] = [this.#last, store.now]
        this.#last = undefined
        if (before) await this.#save(before)
        const value = await work()
        const text = value === undefined ? null : jsonOf(`result of step "${key}"`, value, maxResultBytes)
        const step = { key, text, from }
        if (last?.(value)) this.#last = step
        else await this.#save(step)
        kept.set(key, text)
      })
    }
    // Read back even the first time, so that both ways give the same.
    const text = kept.get(key)!
    return (text === null ? undefined : JSON.parse(text)) as T
  }

  /** The answer is the result of a step that whoever answers writes. */
  async #ask(kept: Kept, ask: Ask): Promise<any> {
    const key = this.#keyOf('ask')
    const question = newQuestion(key, ask)
    if (!kept.has(key)) return this.#wait({ questions: [question], children: false })
    const reply = JSON.parse(kept.get(key) ?? '{}') as Reply
    if (!('answer' in reply)) throw JobErrors.ASK_TIMEOUT({ question: question.question.slice(0, 200) })
    return reply.answer
  }

  async #children(kept: Kept, caller: Caller, requests: readonly ChildRequest[]): Promise<readonly Job[]> {
    const key = this.#keyOf('children')
    const { store, family } = this.deps
    if (!kept.has(key)) {
      const from = store.now
      await this.#work(() => family().submit(this.row, caller, requests, async (ids, tx) => {
        const text = JSON.stringify(ids)
        await this.#save({ key, text, from }, tx)
        tx.afterCommit(() => void kept.set(key, text))
      }))
    }
    const jobs = await family().read(JSON.parse(kept.get(key) ?? '[]') as string[])
    if (!jobs.every(job => isFinal(job.status))) return this.#wait({ questions: [], children: true })
    const whole: Job[] = []
    for (const job of jobs) whole.push(await store.results.whole(job))
    return whole
  }

  /** What must be finished before the attempt can be put aside, so that it need not be done again. */
  async #work(work: () => Promise<unknown>): Promise<void> {
    const working = work()
    this.#working.add(working)
    try { await working } finally { this.#working.delete(working) }
  }

  /** Never settles: what comes after it belongs to another attempt. */
  #wait(waits: Waits): Promise<never> {
    this.#waits.push(waits)
    this.#parking ??= this.#park()
    return new Promise(() => {})
  }

  async #park(): Promise<void> {
    do {
      await Promise.allSettled([...this.#working])
      // What goes on beside it may be about to fail, or to ask for something else.
      await new Promise(resolve => setImmediate(resolve))
    } while (this.#working.size)
    if (!this.#over) this.abort(JobErrors.WAITING())
  }

  async #save({ key, text, from }: Step, tx?: Tx): Promise<void> {
    try { await this.deps.store.saveStep(this, key, text, from, tx) } catch (error) {
      if (!tx && JobErrors.LEASE_LOST.is(error)) this.abort(error)
      throw error
    }
  }
}
