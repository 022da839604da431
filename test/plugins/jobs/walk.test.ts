import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { FakeClock, type TestRuntime } from '#core/testing'
import { Database } from '#contracts/database'
import type { Job, JobStatus } from '#contracts/jobs'
import type { JobRow } from '../../../plugins/jobs/tables/record.ts'
import { migrations } from '../../../plugins/schedules/migrations.ts'
import type { ScheduleRow } from '../../../plugins/schedules/store.ts'
import { postgresOrSkip, redisOrSkip, RedisServer } from '../../support/services.ts'
import { operator, runtime } from './kit.ts'
import { fly, idle, Killed, Process, VETO, type Attempt, type World } from './walk-kit.ts'
import { Engine } from './walk-queues.ts'
import { RedisLane, RedisPlace } from './walk-redis.ts'

const RUNS = process.env['BACKPLANE_CHAOS'] ? Number(process.env['WALKS'] ?? 10_000) : { sqlite: 60, postgres: 10 }
const LONGEST_MS = process.env['BACKPLANE_CHAOS'] ? 7_200_000 : 120_000
const KINDS = [
  'submit', 'submit', 'run', 'burst', 'delayed', 'batch', 'claim', 'claim', 'claim', 'claim', 'complete', 'complete', 'fail', 'fail', 'refuse', 'refuse', 'step', 'step', 'emit', 'cancel', 'retry',
  'retry', 'replay', 'replayAll', 'discard', 'wait', 'wait', 'sweep', 'sweep', 'ask', 'ask', 'askSoon', 'answer', 'answer', 'answer', 'children', 'children',
  'keyed', 'replaced', 'replaced', 'pause', 'resume', 'stop', 'kill', 'killSoon', 'killSoon', 'failSoon', 'veto', 'wipe', 'leave', 'leave',
] as const
/** What an engine does that is not in the database. */
const OUTSIDE = ['carry', 'carry', 'deliver', 'deliver', 'deliver', 'spurious', 'spurious', 'stall', 'stall', 'catchUp', 'catchUp', 'away', 'back', 'back'] as const
/** What may happen to a Redis, and what meets it most often while ids are on their way. */
const OF_REDIS = ['carry', 'carry', 'carry', 'fail', 'retry', 'retry', 'cutSoon', 'cutSoon', 'killRedis', 'remember', 'goBack'] as const
const LIMITS = {
  per_project: { concurrency: 3 }, projects: { p1: { concurrency: 2, per_minute: 6 } },
  per_agent: { concurrency: 2 }, agents: { a0: { concurrency: 1 }, a1: { per_minute: 3 } },
}
type Limits = Record<string, { concurrency?: number; per_minute?: number }>
const limitOf = (name: string): { readonly concurrency: number; readonly per_minute: number } => {
  const [kind, id] = name.split(':') as ['project' | 'agent', string]
  const [all, own]: [object, Limits] = kind === 'project' ? [LIMITS.per_project, LIMITS.projects] : [LIMITS.per_agent, LIMITS.agents]
  return { concurrency: Infinity, per_minute: Infinity, ...all, ...own[id] }
}
const scopesOf = ({ project_id, agent }: Pick<JobRow, 'project_id' | 'agent'>) => [`project:${project_id}`, ...(agent === null ? [] : [`agent:${agent}`])]
const SCHEDULED = ['lead', 'lead', 'wait', 'wait', 'wait'] as const
const EVERY_MS = 10_000
type Kind = (typeof KINDS | typeof OUTSIDE | typeof OF_REDIS | typeof SCHEDULED)[number]
interface Running { readonly process: Process; readonly attempt: Attempt }
interface Command { readonly kind: Kind; readonly a: number; readonly b: number }
const commandsOf = (kinds: readonly Kind[]) => fc.array(fc.record({ kind: fc.constantFrom(...kinds), a: fc.nat(30), b: fc.nat(30) }), { minLength: 15, maxLength: 40, size: 'max' })

/** By hand, so that it is no copy of the machine: what each event may follow, and where it leads. */
const LEGAL: Record<string, { readonly from: readonly (JobStatus | 'none')[]; readonly to: readonly JobStatus[]; readonly attempt: (before: number) => number }> = {
  // A run that begins at once is made by its first attempt.
  'job.created': { from: ['none'], to: ['queued', 'delayed', 'running'], attempt: before => before },
  'job.started': { from: ['queued'], to: ['running'], attempt: before => before + 1 },
  'job.completed': { from: ['running'], to: ['completed'], attempt: before => before },
  'job.failed': { from: ['running'], to: ['failed'], attempt: before => before },
  'job.dead': { from: ['running'], to: ['dead'], attempt: before => before },
  'job.interrupted': { from: ['running'], to: ['queued'], attempt: before => before },
  'job.handed_back': { from: ['running'], to: ['queued'], attempt: before => before - 1 },
  'job.queued': { from: ['failed', 'delayed'], to: ['queued'], attempt: before => before },
  'job.replaced': { from: ['queued', 'delayed'], to: ['queued', 'delayed'], attempt: () => 0 },
  'job.waiting': { from: ['running'], to: ['waiting'], attempt: before => before - 1 },
  'job.resumed': { from: ['waiting'], to: ['queued'], attempt: before => before },
  'job.cancelled': { from: ['queued', 'delayed', 'running', 'waiting', 'failed'], to: ['cancelled'], attempt: before => before },
  'job.progress': { from: ['running'], to: ['running'], attempt: before => before },
}
const FINAL: readonly JobStatus[] = ['completed', 'dead', 'cancelled']
/** What a request may be told; anything else is a bug. */
const ANSWERS = new Set(['JOBS_FINAL', 'JOBS_NOT_RETRYABLE', 'JOBS_NOT_DEAD', 'JOBS_NOT_FOUND', 'QUESTIONS_NOT_FOUND', 'QUESTIONS_CLOSED', 'QUESTIONS_WHICH', 'DATABASE_UNAVAILABLE', 'JOBS_TYPE_UNKNOWN'])

class Walk {
  readonly processes: Process[] = []
  readonly known: string[] = []
  readonly acknowledged = new Set<string>()
  readonly steps = new Map<string, string | null>()
  #made = 0
  #wiped = false
  #began = 0
  #leases = 0
  /** What each time of the schedule brought. */
  readonly #fired = new Map<string, string>()

  constructor(readonly world: World & { readonly crowded: readonly string[] }) {}

  get clock(): FakeClock { return this.world.clock }

  async start(): Promise<Process> {
    const process = new Process(`p${++this.#made}`, this.world)
    this.processes.push(process)
    await process.lane.ready
    await process.worker.start()
    return process
  }

  async do({ kind, a, b }: Command): Promise<void> {
    const attempts = this.processes.flatMap(process => process.attempts.map(attempt => ({ process, attempt })))
    const running = attempts[b % Math.max(1, attempts.length)]
    const process = this.processes[a % this.processes.length]!
    const { service, worker } = process
    const id = this.known[b % Math.max(1, this.known.length)]
    const whose = this.world.limits && { project_id: `p${a % 3}`, ...(b % 4 && { agent: `a${b % 4}` }) }
    const request = (more: object = {}) => ({ type: 'work', input: b, max_attempts: 1 + (b % 3), ...whose, ...more })
    const { outside } = this.world
    const place = outside instanceof RedisPlace ? outside : undefined
    switch (kind) {
      case 'submit': await this.#made_(process, service.submit(operator, request(b > 20 ? { idempotency_key: `k${b}` } : {})).then(job => [job])); break
      case 'run': await this.#made_(process, this.#run(process, request())); break
      case 'burst':
        await Promise.all([1, 2, 3].map(priority => this.#made_(process, service.submit(operator, request({ priority })).then(job => [job]))))
        break
      case 'keyed': await this.#made_(process, service.submit(operator, request({ dedupe: { key: `d${b % 3}` } })).then(job => [job])); break
      case 'replaced':
        await this.#made_(process, service.submit(operator, request({ dedupe: { key: `d${b % 3}`, mode: 'replace' }, ...(b % 2 ? { delay_ms: 1 + b * 100 } : {}) })).then(job => [job]))
        break
      case 'ask': if (running) await this.#park(running, running.attempt.ctx.ask({ question: 'go?' })); break
      case 'askSoon': if (running) await this.#park(running, running.attempt.ctx.ask({ question: 'go?', timeout_ms: 1 + b * 400 })); break
      case 'children': if (running) await this.#park(running, running.attempt.ctx.children([{ type: 'work', input: b, max_attempts: 1 + (b % 2) }, { type: 'work', input: b }])); break
      case 'answer': if (id !== undefined) await this.#answer(process, id, b % 2); break
      case 'delayed': await this.#made_(process, service.submit(operator, request({ delay_ms: 1 + b * 700, backoff: { base_ms: 1 + b * 100 } })).then(job => [job])); break
      case 'batch': await this.#made_(process, service.submitMany(operator, [request(), request({ priority: 9 })])); break
      case 'claim': await this.#asked(process, process.lane.claim(1 + (b % 3))); await this.idle(); break
      case 'complete': await this.#end(running, each => each.resolve({ token: each.token })); break
      case 'fail': await this.#end(running, each => each.reject(new Error('a passing one'))); break
      case 'refuse': await this.#end(running, each => each.reject(Object.assign(new Error('for good'), { retryable: false }))); break
      case 'step': if (running) await this.#step(running, `s${b % 2}`); break
      case 'emit': running?.attempt.ctx.emit({ type: 'progress', percent: b }); break
      case 'cancel': if (id !== undefined) await this.#told(process, service.cancel(operator, id), 'cancelled'); break
      case 'retry': if (id !== undefined) await this.#told(process, service.retry(operator, id), 'queued'); break
      case 'replay': if (id !== undefined) await this.#asked(process, service.replay(operator, { id })); break
      case 'replayAll': await this.#asked(process, service.replay(operator, {})); break
      case 'discard': if (id !== undefined) await this.#asked(process, service.discard(operator, id)); break
      case 'wait': await this.clock.advance(b * 500); break
      case 'sweep': await this.#asked(process, worker.sweeper.sweep(b % 5 === 0)); break
      case 'pause': process.pause(); break
      case 'resume': process.resume(); break
      case 'stop': await this.#finish(process, worker.stop()); process.kill(); break
      case 'kill': process.kill(); break
      case 'killSoon': process.fault = { after: b % 20, kind: 'kill' }; break
      case 'failSoon': process.fault = { after: b % 20, kind: 'fail' }; break
      case 'veto': process.vetoes = 1 + (b % 2); break
      case 'wipe':
        await this.world.database.knex()('queue_entries').delete()
        await outside?.lose()
        this.#wiped = true
        break
      case 'lead': process.lead(++this.#leases); break
      case 'leave': process.without = !process.without; break
      case 'carry': await this.#asked(process, process.lane.carry(1 + (b % 3), a % 2 === 0)); break
      case 'deliver': await this.#asked(process, process.lane.deliverCarried()); break
      case 'spurious': if (id !== undefined) await this.#asked(process, process.lane.deliver([id])); break
      case 'stall': await outside!.stall(); break
      case 'catchUp': outside!.catchUp(); break
      case 'away': outside!.leave(); break
      case 'back': await outside!.comeBack(); break
      case 'cutSoon': if (process.lane instanceof RedisLane) process.lane.cutAfter = b % 12; break
      case 'killRedis': await place!.kill(); break
      case 'remember': await place!.remember(); break
      case 'goBack': await place!.goBack(); break
    }
    await this.idle()
    await this.#bury()
  }

  /** However it went: everybody who lives works on until nothing is left to do. */
  async finish(): Promise<void> {
    const { outside } = this.world
    for (const process of this.processes) process.leadNoMore()
    for (const process of this.processes) { process.fault = undefined; process.vetoes = 0; process.without = false; process.resume() }
    for (const { lane } of this.processes) if (lane instanceof RedisLane) lane.cutAfter = Infinity
    await outside?.comeBack()
    outside?.catchUp()
    for (const process of this.processes) await this.#asked(process, process.lane.deliverCarried())
    await outside?.stall()
    for (let [rounds, seen, all] = [0, -1, 0]; rounds < 30 && all < 500; rounds++, all++) {
      const now = await this.rows()
      if (!now.some(row => !FINAL.includes(row.status))) return
      // As long as anything goes on.
      const changes = now.reduce((sum, row) => sum + row.seq, 0)
      if (changes !== seen) [rounds, seen] = [0, changes]
      const process = this.processes[0]!
      for (let ended = 1; ended;) {
        await process.lane.claim(50)
        await this.idle()
        const attempts = this.processes.flatMap(each => each.attempts.splice(0))
        for (const attempt of attempts) attempt.resolve({ token: attempt.token })
        await this.idle()
        ended = attempts.length
      }
      // Before a sweep, which would wake it: the end of the last child has.
      const rows = await this.rows()
      for (const row of rows) if (row.status === 'waiting' && row.for_children) assert.ok(rows.some(each => each.parent_id === row.id && !FINAL.includes(each.status)), `${row.id} was forgotten`)
      await this.clock.advance(10_000)
      await this.idle()
      await process.worker.sweeper.sweep()
      await this.idle()
      if (this.world.limits) await this.#checkRoom()
      for (const { id } of (await this.rows()).filter(row => row.status === 'waiting')) await this.#answer(process, id, 0)
    }
    assert.fail(`these never came to an end: ${JSON.stringify((await this.rows()).filter(row => !FINAL.includes(row.status)))}`)
  }

  /** Nothing stays in Redis of what has ended. */
  async checkEmpty(place: RedisPlace): Promise<void> {
    for (let tries = 0; (await place.ids()).size > 0 && tries < 20; tries++) {
      await this.processes[0]!.lane.claim(50)
      await this.clock.advance(1_000)
      await this.idle()
      await place.stall()
    }
    assert.deepEqual(await place.left(), [])
  }

  async end(): Promise<void> {
    for (const process of this.processes) process.kill()
    for (const process of this.processes) for (const attempt of process.attempts) attempt.resolve(null)
    await this.idle()
    for (const process of this.processes) await process.lane[Symbol.asyncDispose]()
  }

  rows(): Promise<JobRow[]> { return this.world.database.knex()('jobs').orderBy('id') }

  /** After a sweep nobody is kept back while there is room for him. */
  async #checkRoom(): Promise<void> {
    const rows = await this.rows()
    const minute = Math.floor(this.clock.now() / 60_000)
    const started = new Map((await this.world.database.knex()('job_limits')).map(each => [each.scope as string, Number(each.minute) === minute ? Number(each.started) : 0]))
    const full = (name: string) => {
      const mine = rows.filter(row => scopesOf(row).includes(name))
      const let_go = mine.filter(row => row.status === 'queued' && row.held === 0)
      const { concurrency, per_minute } = limitOf(name)
      return mine.filter(row => row.status === 'running').length + let_go.length >= concurrency || (started.get(name) ?? 0) + let_go.length >= per_minute
    }
    for (const row of rows) if (row.status === 'queued' && row.held) assert.ok(scopesOf(row).some(full), `${row.id} is kept back, though there is room`)
  }

  /** Each time has one job, and no time is left out. */
  async #checkTimes(): Promise<void> {
    const knex = this.world.database.knex()
    const schedule: { created_at: number; last_at: number | null } | undefined = await knex('schedules').first()
    if (!schedule) return
    for (const { id, idempotency_key } of await knex('jobs').where('idempotency_key', 'like', 'schedule:%').select('id', 'idempotency_key')) {
      const at = String(Date.parse(String(idempotency_key).split(':').slice(2).join(':')))
      assert.equal(this.#fired.get(at) ?? id, id, `${at} was fired twice`)
      this.#fired.set(at, id)
      if (!this.known.includes(id)) this.known.push(id)
    }
    const times: string[] = []
    for (let at = Number(schedule.created_at) + EVERY_MS; at <= Number(schedule.last_at ?? 0); at += EVERY_MS) times.push(String(at))
    assert.deepEqual([...this.#fired.keys()].sort(), times)
  }

  /** The invariants. */
  async check(): Promise<void> {
    assert.deepEqual(this.world.crowded, [])
    const knex = this.world.database.knex()
    await this.#checkTimes()
    const rows = new Map((await this.rows()).map(row => [row.id, row]))
    const events: { job_id: string; seq: number; type: string; data: string }[] = await knex('walk_events').orderBy(['job_id', 'seq'])
    const attempts: { job_id: string; token: number; finished_at: number | null }[] = await knex('job_attempts')
    const steps: { job_id: string; name: string; result: string | null }[] = await knex('job_steps')
    const questions: { job_id: string; name: string; state: string; answer: string | null; expires_at: number | null }[] = await knex('job_questions')
    for (const { job_id, name, state, answer } of questions) {
      const step = steps.find(each => each.job_id === job_id && each.name === name)
      assert.equal(step?.result, state === 'open' ? undefined : state === 'expired' ? '{}' : `{"answer":${answer}}`, `${name} of ${job_id} is ${state}`)
    }
    const { outside } = this.world
    const inQueue = outside ? await outside.ids() : new Set<string>(await knex('queue_entries').pluck('id'))
    const of = <T extends { job_id: string }>(list: readonly T[], id: string) => list.filter(each => each.job_id === id)
    const histories = new Map([...new Set([...rows.keys(), ...events.map(each => each.job_id)])].map(id => [id, of(events, id)]))

    for (const [id, history] of histories) this.#checkHistory(id, history, rows.get(id))
    for (const id of this.acknowledged) assert.ok(rows.has(id) || histories.get(id)?.at(-1)?.type === 'job.discarded', `${id} was acknowledged and is gone`)
    for (const row of rows.values()) {
      const { id, status, token } = row
      assert.ok(row.attempt >= 0 && row.attempt <= row.max_attempts, `${id} is at attempt ${row.attempt} of ${row.max_attempts}`)
      assert.equal(row.lease_owner !== null && row.lease_until !== null, status === 'running', `${id} is ${status} and held by ${row.lease_owner}`)
      assert.equal(row.finished_at !== null, FINAL.includes(status), `${id} is ${status} and ended at ${row.finished_at}`)
      // Set aside, as one that may have killed its process is beside another one, or handed back while its type is away, it is the sweep's to hand over.
      if (status === 'queued' && (outside || !this.#wiped)) assert.ok(row.held || inQueue.has(id) || outside?.lost.has(id) || Number(row.handed_at) <= 0, `${id} is queued, and not in the queue`)
      assert.equal(row.result !== null, status === 'completed')
      const open = [...rows.values()].filter(each => each.parent_id === id && !FINAL.includes(each.status))
      if (status === 'waiting') {
        const asks = questions.filter(each => each.job_id === id && each.state === 'open')
        assert.ok(row.for_children ? open.length > 0 : asks.length > 0, `${id} waits for nothing`)
        assert.ok(row.wake_at == null || asks.some(each => Number(each.expires_at) === Number(row.wake_at)), `${id} waits until a time that none of its questions has`)
      }
      assert.equal(row.dedupe_key !== null && FINAL.includes(status), false, `${id} has ended and keeps its key`)
      if (status === 'completed') assert.equal(JSON.parse(row.result!).token, token, `${id} has the result of another attempt`)
      const mine = of(attempts, id)
      assert.deepEqual(mine.map(each => each.token).sort((one, two) => one - two), Array.from({ length: token }, (_, at) => at + 1), `${id} has other attempts than tokens`)
      assert.deepEqual(mine.filter(each => each.finished_at === null).map(each => each.token), status === 'running' ? [token] : [], `attempts of ${id} that are open`)
    }
    for (const [key, result] of this.steps) {
      const [id, name] = key.split(' ') as [string, string]
      if (rows.has(id)) assert.equal(steps.find(each => each.job_id === id && each.name === name)?.result, result, `step ${name} of ${id} is gone or another`)
    }
    for (const { job_id, name, result } of steps) {
      const row = rows.get(job_id)!
      if (!this.steps.has(`${job_id} ${name}`) && !/^(ask|children)#/.test(name)) assert.deepEqual([row.status, row.token], ['running', JSON.parse(result!).token], `step ${name} of ${job_id} is of an attempt that had lost it`)
      this.steps.set(`${job_id} ${name}`, result)
    }
    for (const each of [...attempts, ...steps]) assert.ok(rows.has(each.job_id))
  }

  #checkHistory(id: string, history: readonly { seq: number; type: string; data: string }[], row: JobRow | undefined): void {
    const told = `${id}: ${history.map(each => each.type).join(' ')}`
    assert.deepEqual(history.map(each => each.seq), history.map((_, at) => at + 1), `${told}: not dense`)
    assert.equal(history.at(-1)?.type === 'job.discarded', row === undefined, told)
    if (row) assert.equal(row.seq, history.length, told)
    let [status, attempt]: [JobStatus | 'none', number] = ['none', 0]
    for (const { type, data } of history) {
      const now = JSON.parse(data) as { status: JobStatus; attempt: number }
      if (type === 'job.discarded') assert.equal(status, 'dead', told)
      else if (type === 'job.retried') {
        assert.ok(['failed', 'delayed', 'dead', 'cancelled'].includes(status), told)
        assert.deepEqual([now.status, now.attempt], ['queued', FINAL.includes(status as JobStatus) ? 0 : attempt], told)
      } else {
        const legal = LEGAL[type]
        assert.ok(legal?.from.includes(status) && legal.to.includes(now.status), `${told}: ${type} from ${status} to ${now.status}`)
        assert.equal(now.attempt, type === 'job.created' ? Number(now.status === 'running') : legal!.attempt(attempt), `${told}: the attempt at ${type}`)
      }
      ;[status, attempt] = [now.status, now.attempt]
    }
    if (!row) return
    assert.deepEqual([row.status, row.attempt], [status, attempt], told)
    if (history.at(-1)!.type === 'job.retried' && attempt === 0) assert.deepEqual([row.error, row.started_at], [null, null], told)
  }

  idle(): Promise<void> { return idle(this.world.flying) }

  /** What was asked for may be refused, or not be answered any more; it may not go wrong in another way. */
  async #asked<T>(process: Process, answer: Promise<T>): Promise<T | undefined> {
    try { return await this.#finish(process, answer) } catch (error) {
      const { code } = error as { code?: string }
      if (error instanceof Killed || (error as Error).message === VETO || ANSWERS.has(code ?? '')) return undefined
      throw error
    }
  }

  async #made_(process: Process, answer: Promise<readonly Job[]>): Promise<void> {
    const jobs = await this.#asked(process, answer)
    for (const { id } of jobs ?? []) { this.acknowledged.add(id); if (!this.known.includes(id)) this.known.push(id) }
  }

  /** What comes after it belongs to another attempt: this one ends, and what it asked for comes when the job is run again. */
  async #park(running: Running, wait: Promise<unknown>): Promise<void> {
    const { process, attempt } = running
    const ended = attempt.done.then(() => undefined, () => undefined)
    const came = await this.#finish(process, Promise.race([wait.then(value => ({ value }), error => ({ error: error as { code?: string } })), ended]))
    if (process.dead || !came) { process.attempts.splice(process.attempts.indexOf(attempt), 1); return }
    if ('error' in came) {
      if (came.error.code === 'JOBS_LEASE_LOST') {
        // It was cancelled or taken by another process, whose word had not come yet.
        const [row] = await this.world.database.knex()('jobs').where({ id: attempt.id })
        assert.ok(row?.status !== 'running' || row.token !== attempt.token, `${attempt.id} is told that it lost its claim, which it holds`)
      } else assert.ok(came.error instanceof Killed || attempt.ctx.signal.aborted || ['JOBS_ASK_TIMEOUT', 'JOBS_NOT_FOUND', 'JOBS_PARENT', 'JOBS_TYPE_UNKNOWN', 'DATABASE_UNAVAILABLE'].includes(came.error.code ?? ''), `waiting failed: ${String(came.error)}`)
    } else if (Array.isArray(came.value)) assert.ok(came.value.every((job: Job) => FINAL.includes(job.status)), 'its children go on')
  }

  /** Kept for good: the same one again, and no other. */
  async #answer(process: Process, id: string, answer: number): Promise<void> {
    const open = (await this.world.database.knex()('job_questions').where({ job_id: id, state: 'open' }).orderBy('name'))[0]
    const closed = await this.#asked(process, process.questions.answer(operator, id, { answer, ...(open && { question: open.name }) }))
    if (closed) assert.deepEqual([closed.state, closed.answer], ['answered', answer])
  }

  /** Resolves when it has begun: how it ends, the walk says. */
  #run(process: Process, request: { readonly type: string; readonly input: unknown }): Promise<readonly Job[]> {
    return new Promise((resolve, reject) => { process.service.run(operator, request, { onBegin: job => resolve([job]) }).catch(reject) })
  }

  async #told(process: Process, answer: Promise<Job>, status: JobStatus): Promise<void> {
    const job = await this.#asked(process, answer)
    if (!job) return
    assert.equal(job.status, status)
    assert.equal((await this.rows()).find(row => row.id === job.id)?.status, status, 'it was told otherwise')
  }

  async #end(running: Running | undefined, end: (attempt: Attempt) => void): Promise<void> {
    if (!running) return
    const { process, attempt } = running
    process.attempts.splice(process.attempts.indexOf(attempt), 1)
    end(attempt)
    // An end that can't be written is logged, and the lease runs out.
    await this.#finish(process, attempt.done.catch(() => undefined))
  }

  async #step({ process, attempt: { ctx, id, token } }: Running, name: string): Promise<void> {
    try {
      const value = await this.#finish(process, ctx.step(name, async () => ({ token, at: ++this.#began })))
      if (value) assert.deepEqual(JSON.parse((await this.world.database.knex()('job_steps').where({ job_id: id }).pluck('result')).find(text => JSON.parse(text).at === value.at)), value)
    } catch (error) {
      const { code } = error as { code?: string }
      assert.ok(error instanceof Killed || ctx.signal.aborted || code === 'DATABASE_UNAVAILABLE', `a step failed: ${String(error)}`)
    }
  }

  /** Its outcome, in a time that goes on where that is needed; nothing if the process dies of it, or stands still. */
  async #finish<T>(process: Process, work: Promise<T>): Promise<T | undefined> {
    let over = false
    const ended = work.finally(() => { over = true })
    ended.catch(() => {})
    for (let tries = 0; !over && !process.dead; tries++) {
      await this.idle()
      // One that stands still goes on when it is woken.
      if (over || process.dead || process.paused) break
      assert.ok(tries < 300, 'it hangs')
      await this.clock.advance(50)
    }
    return over ? ended : undefined
  }

  /** A new process for each that died. */
  async #bury(): Promise<void> {
    for (const process of this.processes.filter(each => each.dead)) {
      this.processes.splice(this.processes.indexOf(process), 1)
      for (const attempt of process.attempts.splice(0)) attempt.resolve(null)
      await process.lane[Symbol.asyncDispose]()
      await this.start()
      await this.idle()
    }
  }
}

interface Way { readonly outside?: 'model' | 'redis'; readonly limited?: boolean; readonly scheduled?: boolean }
/** How many run of each scope now, and began in each minute: those that are too many. */
async function crowdsIn(database: Database): Promise<string[]> {
  const knex = database.knex()
  const rows: (Pick<JobRow, 'project_id' | 'agent'> & { readonly minute?: number })[] = [
    ...await knex('jobs').where({ status: 'running' }).select('project_id', 'agent'),
    ...await knex('job_attempts').join('jobs', 'jobs.id', 'job_attempts.job_id').select('project_id', 'agent', knex.raw('job_attempts.started_at / 60000 AS minute')),
  ]
  const counts = new Map<string, number>()
  for (const row of rows) for (const name of scopesOf(row)) counts.set(`${name} ${row.minute ?? 'now'}`, (counts.get(`${name} ${row.minute ?? 'now'}`) ?? 0) + 1)
  return [...counts].filter(([key, count]) => {
    const [name, when] = key.split(' ') as [string, string]
    const { concurrency, per_minute } = limitOf(name)
    return count > (when === 'now' ? concurrency : per_minute)
  }).map(([key, count]) => `${key}: ${count}`)
}

const scheduleAt = (now: number): ScheduleRow => ({
  id: 's', name: 's', project_id: 'default', created_by: 'op', principal_id: 'op', declared: 0, cron: '*/10 * * * * *', time_zone: 'UTC',
  request: JSON.stringify({ type: 'work', input: 1 }), missed: 'all', overlap: 'allow', enabled: 1, starts_at: null, ends_at: null,
  next_at: now + EVERY_MS, look_at: now + EVERY_MS, last_at: null, last_job_id: null, last_error: null, token: 0, version: 1, created_at: now, updated_at: now,
})

/** One walk after the other, each on empty tables. */
async function walks(t: TestRuntime, runs: number, { outside, limited, scheduled }: Way, place?: RedisPlace): Promise<void> {
  const database = t.get(Database)
  const knex = () => database.knex()
  await knex().schema.createTable('walk_events', table => {
    table.text('job_id').notNullable()
    table.integer('seq').notNullable()
    table.text('type').notNullable()
    table.text('data').notNullable()
    table.primary(['job_id', 'seq'])
  })
  const flying = new Set<Promise<unknown>>()
  // What a builder asks, too: the walk must know when the database is still.
  const { execute } = database as unknown as { execute(...args: unknown[]): Promise<unknown> }
  Object.assign(database, { execute: (...args: unknown[]) => fly(flying, execute.apply(database, args)) })
  await database.migrate('schedules', migrations)
  // A time is passed over if nothing runs its job.
  const kinds = [...(scheduled ? [...KINDS.filter(kind => kind !== 'leave'), ...SCHEDULED] : KINDS), ...(outside ? OUTSIDE : []), ...(place ? OF_REDIS : [])]
  await fc.assert(fc.asyncProperty(commandsOf(kinds), async list => {
    for (const table of ['jobs', 'queue_entries', 'walk_events', 'job_limits', 'schedules']) await knex()(table).delete()
    const crowded: string[] = []
    const committed = limited ? async () => { crowded.push(...await crowdsIn(database)) } : undefined
    await place?.renew()
    const walk = new Walk({
      database, clock: new FakeClock(), flying, outside: place ?? (outside && new Engine()), limits: limited ? LIMITS : undefined, committed, crowded,
    })
    if (scheduled) await knex()('schedules').insert(scheduleAt(walk.clock.now()))
    try {
      for (let at = 0; at < 2; at++) await walk.start()
      for (const command of list) {
        await walk.do(command)
        await walk.check()
      }
      await walk.finish()
      await walk.check()
      if (place) await walk.checkEmpty(place)
    } finally { await walk.end() }
  }), { numRuns: runs, ...(process.env['WALK_SEED'] ? { seed: Number(process.env['WALK_SEED']) } : {}) })
}

describe('random walks of whole processes', () => {
  const runsOn = (dialect: 'sqlite' | 'postgres', share: number) => (typeof RUNS === 'number' ? RUNS : Math.round(RUNS[dialect] * share))
  // The plugin itself is only there for its tables: it takes nothing from the queue, and its time stands still.
  const still = () => ({ config: { concurrency: 0 }, clock: new FakeClock() })

  const WAYS: readonly (readonly [name: string, way: Way, share: number])[] = [
    ['', {}, 1],
    [', through an engine outside the database', { outside: 'model' }, 0.2],
    [', with limits', { limited: true }, 0.2],
    [', with limits, through an engine outside the database', { outside: 'model', limited: true }, 0.2],
    [', with a schedule that several fire', { scheduled: true }, 0.2],
    [', through BullMQ', { outside: 'redis' }, 0.2],
    [', with limits, through BullMQ', { outside: 'redis', limited: true }, 0.1],
  ]
  for (const [name, way, share] of WAYS) {
    const on = async (t: TestRuntime, dialect: 'sqlite' | 'postgres', context: Mocha.Context) => {
      if (way.outside !== 'redis') return walks(t, runsOn(dialect, share), way)
      // Of its own, since it is killed.
      const server = await redisOrSkip(context, () => RedisServer.start())
      context.timeout(LONGEST_MS)
      try {
        await using place = new RedisPlace(server)
        await walks(t, runsOn(dialect, share), way, place)
      } finally { await server.stop() }
    }

    it(`keep every invariant, with kills between any two writes, on SQLite${name}`, async function () {
      const dataDir = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'backplane-walk-'))
      try {
        await using t = await runtime({ ...still(), host: { dataDir } })
        await on(t, 'sqlite', this)
      } finally { rmSync(dataDir, { recursive: true, force: true }) }
    }).timeout(LONGEST_MS)

    it(`keep every invariant, with kills between any two writes, on PostgreSQL${name}`, async function () {
      const server = await postgresOrSkip(this)
      this.timeout(LONGEST_MS)
      await using place = await server.newDatabase()
      await using t = await runtime({ ...still(), url: place.url })
      await on(t, 'postgres', this)
    })
  }
})
