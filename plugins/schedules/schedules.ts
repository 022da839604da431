import { randomUUID } from 'node:crypto'
import { fieldProblems, problemsInWords, type Clock, type FieldProblems, type Live } from '#core'
import { AccessErrors, type Access, type Caller, type Permission } from '#contracts/access'
import type { Database, Tx } from '#contracts/database'
import { JobErrors, type Job, type Jobs } from '#contracts/jobs'
import { ScheduleErrors, type Schedule, type ScheduledRequest, type ScheduleRef, type ScheduleRequest, type Schedules } from '#contracts/schedules'
import { fields, NAME, scheduleName, type DeclaredSchedule, type ScheduleBody } from './config.ts'
import { nextAfter } from './cron.ts'
import { jobRequestOf } from './leader.ts'
import { toSchedule, type ScheduleRow, type ScheduleStore } from './store.ts'

export interface SchedulesDeps {
  readonly store: ScheduleStore
  readonly database: Database
  readonly jobs: Jobs
  readonly access: Live<Access>
  readonly clock: Clock
  readonly maxSchedules: number
  /** Tells whoever leads. */
  changed(): void
}

/** What people decide about a schedule. */
type Decided = 'name' | 'project_id' | 'principal_id' | 'declared' | 'cron' | 'time_zone' | 'request' | 'missed' | 'overlap' | 'starts_at' | 'ends_at'
type Definition = Pick<ScheduleRow, Decided> & { readonly enabled: boolean | undefined }

const outline = fields
  .pick({ cron: true, time_zone: true, missed: true, overlap: true, enabled: true, starts_at: true, ends_at: true }).extend({ name: scheduleName })

/** What is asked for in the form of the API and of the config, as the service takes it. */
export function scheduleOf(name: string, body: ScheduleBody, project_id?: string): ScheduleRequest {
  const { cron, time_zone, missed, overlap, enabled, starts_at, ends_at, agent, type, input, ...rest } = body
  const work = agent === undefined ? { type: type!, input } : { type: 'agent', agent, input: { agent, input } }
  const request = { ...rest, ...work } as ScheduledRequest
  return { name, cron, time_zone, missed, overlap, enabled, starts_at, ends_at, request, project_id } as ScheduleRequest
}

/** `Schedules` for callers: who may do what, what is taken in, what is shown. */
export class ScheduleService implements Schedules {
  constructor(readonly deps: SchedulesDeps) {}

  async put(caller: Caller, given: ScheduleRequest): Promise<Schedule> {
    const { jobs, store } = this.deps
    const { project_id } = given
    const where = { name: given.name, project_id: project_id ?? caller.project_id }
    const definition = definitionOf({ ...given, ...where }, caller.id, 0)
    await this.#check(caller, 'schedules:write', where)
    const project = { kind: 'project', id: where.project_id, project_id: where.project_id }
    // Else each firing but the first would be refused.
    if (definition.overlap === 'skip') await this.#access.check(caller, 'jobs:read', project)
    // A full queue is no reason to refuse what is to run later.
    await jobs.admit(caller, { ...given.request, project_id: where.project_id })
      .catch((error: unknown) => { if (!JobErrors.QUEUE_FULL.is(error)) throw error })
    return this.#change(async tx => {
      const before = await store.find(where.project_id, where.name, tx)
      if (before?.declared) throw ScheduleErrors.DECLARED({ name: where.name })
      return this.#write(definition, before, tx)
    })
  }

  async get(caller: Caller, which: ScheduleRef): Promise<Schedule> { return toSchedule(await this.#find(caller, 'schedules:read', which)) }

  async list(caller: Caller, { project_id, limit = 50, cursor }: Parameters<Schedules['list']>[1] = {}) {
    const projects = await this.#access.projects(caller, 'schedules:read')
    const most = Math.min(Math.max(1, Math.trunc(limit)), 100)
    const after = cursor === undefined ? undefined : placeOf(cursor)
    const rows = await this.deps.store.list({ projects, limit: most + 1, ...(project_id !== undefined && { project_id }), ...(after && { after }) })
    const items = rows.slice(0, most).map(toSchedule)
    const last = items.at(-1)
    return { items, next: rows.length > most && last ? Buffer.from(JSON.stringify([last.project_id, last.name])).toString('base64url') : null }
  }

  async remove(caller: Caller, which: ScheduleRef): Promise<void> {
    const { declared, id, name } = await this.#find(caller, 'schedules:write', which)
    if (declared) throw ScheduleErrors.DECLARED({ name })
    await this.deps.store.remove(id)
    this.deps.changed()
  }

  pause(caller: Caller, which: ScheduleRef): Promise<Schedule> { return this.#enable(caller, which, false) }
  resume(caller: Caller, which: ScheduleRef): Promise<Schedule> { return this.#enable(caller, which, true) }

  async runNow(caller: Caller, which: ScheduleRef): Promise<Job> {
    const { jobs, database, store, clock } = this.deps
    const row = await this.#find(caller, 'schedules:write', which)
    const { idempotency_key: _, ...request } = jobRequestOf(row, clock.now())
    const admitted = await jobs.admit(caller, request)
    return database.transaction(async tx => {
      const job = await jobs.enter(admitted, tx)
      await store.began(row.id, job.id, tx)
      return job
    })
  }

  /** Brings the table to what the config says. */
  async declare(declared: Readonly<Record<string, DeclaredSchedule>>): Promise<void> {
    const { store } = this.deps
    const definitions = Object.entries(declared).map(([name, { project_id, principal, ...rest }]) =>
      definitionOf({ ...scheduleOf(name, rest), project_id }, principal, 1))
    for (const each of definitions) await this.#change(async tx => this.#write(each, await store.find(each.project_id, each.name, tx), tx))
    const kept = (row: ScheduleRow) => definitions.some(each => each.name === row.name && each.project_id === row.project_id)
    for (const row of await store.declared()) if (!kept(row)) await store.remove(row.id)
  }

  #enable(caller: Caller, which: ScheduleRef, enabled: boolean): Promise<Schedule> {
    const where = whereOf(caller, which)
    return this.#check(caller, 'schedules:write', where).then(() => this.#change(async tx => {
      const before = await this.deps.store.find(where.project_id, where.name, tx)
      if (!before) throw ScheduleErrors.NOT_FOUND({ name: where.name, project: where.project_id })
      return this.#write({ ...before, enabled }, before, tx)
    }))
  }

  async #write(definition: Definition, before: ScheduleRow | undefined, tx: Tx): Promise<ScheduleRow> {
    const { store, clock, maxSchedules } = this.deps
    const { name, project_id, principal_id, declared, cron, time_zone, request, missed, overlap, starts_at, ends_at } = definition
    const decided = { name, project_id, principal_id, declared, cron, time_zone, request, missed, overlap, starts_at, ends_at }
    const enabled = definition.enabled ?? (before === undefined || before.enabled === 1) ? 1 : 0
    const same = (keys: readonly Decided[]) => before !== undefined && before.enabled === enabled && keys.every(key => before[key] === decided[key])
    if (before && same(Object.keys(decided) as Decided[])) return before
    if (!before && await store.count(project_id, tx) >= maxSchedules) throw ScheduleErrors.TOO_MANY({ project: project_id, limit: maxSchedules })
    const now = clock.now()
    // Not that time again, whatever the clock was set to since.
    const next = () => nextAfter(decided, Math.max(now, before?.last_at ?? 0))
    const next_at = !enabled ? null : same(['cron', 'time_zone', 'starts_at', 'ends_at']) ? before!.next_at : next()
    const row: ScheduleRow = {
      id: before?.id ?? randomUUID(), ...decided, enabled, next_at, look_at: next_at,
      created_by: before?.created_by ?? principal_id, created_at: before?.created_at ?? now, updated_at: now,
      version: (before?.version ?? 0) + 1, token: before?.token ?? 0,
      last_at: before?.last_at ?? null, last_job_id: before?.last_job_id ?? null, last_error: null,
    }
    await store.save(row, tx)
    return row
  }

  async #change(work: (tx: Tx) => Promise<ScheduleRow>): Promise<Schedule> {
    const row = await this.deps.database.transaction(work)
    this.deps.changed()
    return toSchedule(row)
  }

  async #find(caller: Caller, permission: Permission, which: ScheduleRef): Promise<ScheduleRow> {
    const { name, project_id } = whereOf(caller, which)
    await this.#check(caller, permission, { name, project_id })
    const row = await this.deps.store.find(project_id, name)
    if (!row) throw ScheduleErrors.NOT_FOUND({ name, project: project_id })
    return row
  }

  get #access(): Access {
    const { current } = this.deps.access
    if (!current) throw AccessErrors.UNAVAILABLE()
    return current
  }

  #check(caller: Caller, permission: Permission, { name, project_id }: { readonly name: string; readonly project_id: string }): Promise<void> {
    return this.#access.check(caller, permission, { kind: 'schedule', id: name, project_id })
  }
}

/** Nothing is looked up or shown that is no name. */
function whereOf(caller: Caller, { name, project_id = caller.project_id }: ScheduleRef) {
  if (!NAME.test(name)) throw ScheduleErrors.NOT_FOUND({ name: name.slice(0, 40), project: project_id.slice(0, 200) })
  return { name, project_id }
}

function placeOf(cursor: string): readonly [string, string] {
  try {
    const [project, name] = JSON.parse(Buffer.from(cursor, 'base64url').toString()) as unknown[]
    if (typeof project === 'string' && typeof name === 'string') return [project, name]
  } catch { /* it is none */ }
  throw invalid('cursor', 'not a cursor of this list')
}

const refusal = (problems: FieldProblems) => ScheduleErrors.INVALID({ reason: problemsInWords(problems), errors: problems.fields })
const invalid = (path: string, message: string) => refusal({ fields: [{ path, message }], more: 0 })

const momentOf = (time: string | undefined): number | null => (time === undefined ? null : Date.parse(time))

type Placed = ScheduleRequest & { readonly project_id: string }
function definitionOf({ request, project_id, ...given }: Placed, principal_id: string, declared: number): Definition {
  const checked = outline.safeParse(given)
  if (!checked.success) throw refusal(fieldProblems(outline, checked.error.issues, given))
  const { name, cron, time_zone = 'UTC', missed = 'once', overlap = 'allow', enabled } = checked.data
  const [starts_at, ends_at] = [momentOf(checked.data.starts_at), momentOf(checked.data.ends_at)]
  if (starts_at !== null && ends_at !== null && ends_at < starts_at) throw invalid('ends_at', 'before starts_at')
  for (const key of ['idempotency_key', 'project_id', 'delay_ms', 'run_at']) {
    if (key in request) throw invalid(`request.${key}`, 'the schedule gives it')
  }
  return { name, project_id, principal_id, declared, cron, time_zone, missed, overlap, enabled, starts_at, ends_at, request: JSON.stringify(request) }
}
