import { meant, scope } from '#core'
import { AccessErrors, type Access, type Caller } from '#contracts/access'
import { JobErrors, type Dedupe, type JobRequest, type JobType } from '#contracts/jobs'
import { newId } from '../tables/id.ts'
import { allOf } from './all.ts'
import { checkInput } from './input.ts'
import { jsonOf } from '../tables/json.ts'
import { parentOf } from './parent.ts'
import { checkRun, checkSubmit } from './permission.ts'
import type { JobRow } from '../tables/record.ts'
import { LONGEST_DELAY_MS, scheduleOf } from './schedule.ts'
import { substanceOf } from './substance.ts'
import type { Worker, WorkerDeps } from '../work/worker.ts'

export function accessOf({ access: { current } }: Pick<WorkerDeps, 'access'>): Access {
  if (!current) throw AccessErrors.UNAVAILABLE()
  return current
}

/** The agent that a permission is asked for: it must be the one that runs. */
function agentOf({ type, agent }: JobRequest, input: unknown): string | null {
  const named = typeof input === 'object' && input !== null ? (input as { agent?: unknown }).agent : undefined
  if (agent !== undefined && named !== undefined && named !== agent) {
    const [path, message] = ['input.agent', `it is not "${agent}", the agent of the request`]
    throw JobErrors.INPUT_INVALID({ type, reason: `${path}: ${message}`, errors: [{ path, message }] })
  }
  return agent ?? (type === 'agent' && typeof named === 'string' ? named : null)
}

function checkDedupe(type: string, { key, mode = 'keep', ttl_ms }: Dedupe): void {
  const refuse = (path: string, message: string) => JobErrors.INPUT_INVALID({ type, reason: `${path}: ${message}`, errors: [{ path, message }] })
  if (typeof key !== 'string' || key === '' || key.length > 200) throw refuse('dedupe.key', 'not a text of 1 to 200 characters')
  if (mode !== 'keep' && mode !== 'replace') throw refuse('dedupe.mode', 'neither keep nor replace')
  if (ttl_ms === undefined) return
  if (mode === 'replace') throw refuse('dedupe.ttl_ms', 'goes with the mode keep only; with replace, give delay_ms')
  if (!Number.isInteger(ttl_ms) || ttl_ms < 1 || ttl_ms > LONGEST_DELAY_MS) throw refuse('dedupe.ttl_ms', `not a whole number from 1 to ${LONGEST_DELAY_MS}`)
}

/** Lets requests in: everything that can be refused is refused here, before anything is written. */
export class Admission {
  constructor(readonly worker: Worker) {}

  /** All of them, or an error that names those which can't be. */
  async admitMany(caller: Caller, requests: readonly JobRequest[], parent?: JobRow): Promise<JobRow[]> {
    const { max_batch } = this.worker.deps.config
    if (requests.length > max_batch) throw JobErrors.BATCH_TOO_LARGE({ count: requests.length, limit: max_batch })
    return allOf(requests, request => this.admit(caller, request, parent))
  }

  /** `parent`: that of a child which a run asks for; else it is looked up. */
  async admit(caller: Caller, request: JobRequest, parent?: JobRow): Promise<JobRow> {
    const { config, store, queue } = this.worker.deps
    const access = accessOf(this.worker.deps)
    const family = parent ?? await parentOf(request, caller, access, this.worker.deps)
    const project_id = request.project_id ?? family?.project_id ?? caller.project_id
    await checkSubmit(access, caller, project_id)
    const type = this.#type(request.type)
    const text = jsonOf('input', request.input, config.max_input_bytes)
    // What is stored and run, not what was handed in: that may have a getter, or change while this waits.
    const input: unknown = JSON.parse(text)
    const agent = agentOf(request, input)
    if (type.permission !== 'jobs:submit') await checkRun(access, caller, type, { agent, project_id })
    const metadata = jsonOf('metadata', request.metadata ?? {}, config.max_input_bytes)
    await checkInput(type.type, type.input, input)
    await type.admit?.(caller, { ...request, input })
    const dedupe = request.dedupe && await this.#dedupeOf(caller, project_id, request.type, request.dedupe)
    const { now } = store
    const schedule = scheduleOf(request, now)
    const substance = request.idempotency_key === undefined ? null : substanceOf(request, agent, input, JSON.parse(metadata))
    return {
      id: newId(now), type: type.type, agent, project_id, parent_id: family?.id ?? null, depth: family ? family.depth + 1 : 0,
      created_by: caller.id, principal_id: caller.id,
      traceparent: scope.current?.traceparent ?? null, input: text, result: null, error: null,
      priority: request.priority ?? 5, attempt: 0, max_attempts: request.max_attempts ?? config.max_attempts,
      timeout_ms: request.timeout_ms ?? config.timeout_ms, ...schedule,
      seq: 1, idempotency_key: request.idempotency_key ?? null, dedupe_key: null, ...dedupe, substance, metadata,
      lease_owner: null, lease_until: null, token: 0,
      created_at: now, started_at: null, finished_at: null, handed_at: queue.can.transactional && schedule.status === 'queued' ? now : 0,
    }
  }

  /** Another's job is only replaced by who may cancel it. */
  async #dedupeOf(caller: Caller, project_id: string, type: string, dedupe: Dedupe): Promise<Pick<JobRow, 'dedupe_key' | 'dedupe_until' | 'replaces'>> {
    checkDedupe(type, dedupe)
    const { store } = this.worker.deps
    const { key, mode, ttl_ms } = dedupe
    if (mode !== 'replace') return { dedupe_key: key, ...(ttl_ms !== undefined && { dedupe_until: store.now + ttl_ms }) }
    const found = await store.keys.holder(project_id, key)
    if (!found || found.created_by === caller.id) return { dedupe_key: key, replaces: null }
    await accessOf(this.worker.deps).check(caller, 'jobs:cancel', { kind: 'job', id: found.id, project_id })
    return { dedupe_key: key, replaces: found.id }
  }

  #type(name: string): JobType {
    const type = this.worker.typeOf(name)
    if (type) return type
    const { types } = this.worker.deps
    if (types.away.some(each => each.value.type === name)) throw JobErrors.TYPE_AWAY({ type: name })
    const known = [...types].map(each => each.type)
    throw JobErrors.TYPE_UNKNOWN({ type: name, meant: meant(name, known), known: known.join(', ') || 'none' })
  }
}
